"""The report: what a reader sees, what a machine reads, and one exit code."""

import dataclasses
import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from fgvalidate.checks import Verdict
from fgvalidate.report import (
    Mutation,
    Outcome,
    Report,
    choose_exit_code,
    escape_controls,
    print_report,
    show_duration,
    show_fate,
    show_value,
)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (["passed"], 0),
        (["failed"], 1),
        (["error"], 2),
        (["skipped"], 3),
        ([], 3),
        (["passed", "skipped"], 0),
        (["passed", "error"], 2),
        (["error", "failed", "passed"], 1),
        (["skipped", "error"], 2),
    ],
)
def test_exit_code(outcomes: list[Outcome], code: int) -> None:
    assert choose_exit_code(outcomes) == code


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (math.nan, "nan"),
        (2.123456789, "2.1235"),
        (200, "200"),
        (None, "-"),
        ([], "none"),
        (["a", "b", "c", "d"], "a, b, c, ..."),
        ("text", "text"),
    ],
)
def test_value_is_shown_for_a_reader(value: object, shown: str) -> None:
    assert show_value(value) == shown


@pytest.mark.parametrize(
    ("fate", "shown"),
    [
        (None, "-"),
        (Mutation(name="x", status="not_applicable", reason="why"), "-"),
        (Mutation(name="x", status="noticed", noticed_by=("a", "b")), "a"),
        (Mutation(name="x", status="noticed", reason="the inference stage was not run"), "noticed"),
        (Mutation(name="x", status="survived", noticed_by=("a",)), "survived"),
        (Mutation(name="x", status="waived"), "waived"),
    ],
)
def test_fate_of_a_fault_is_shown_in_a_word(fate: Mutation | None, shown: str) -> None:
    assert show_fate(fate) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0.0 s"),
        (26.25, "26.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (185.4, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7_620, "2 h 07 min"),
    ],
)
def test_duration_is_shown_for_a_reader(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown


def make_report(tmp_path: Path, message: str = "", tail: tuple[str, ...] = ()) -> Report:
    verdicts = (
        Verdict(name="good", status="passed", actual=1.0, expected="<= 2", message=""),
        Verdict(name="bad", status="failed", actual=math.inf, expected="<= 2", message=message),
        Verdict(name="off", status="skipped", actual=1.0, expected="<= null", message="no bound is set"),
    )
    return Report(
        test_id="x",
        outcome="failed",
        reason="bad",
        command="python -m fgvalidate +spec=x",
        verdicts=verdicts,
        stderr_tail=tail,
        run_dir=tmp_path,
        duration_s=1.5,
    )


def render(report: Report, *, terminal: bool = False) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=140, force_terminal=terminal, highlight=False))
    return out.getvalue()


def test_report_shows_each_check_the_verdict_and_how_to_repeat_it(tmp_path: Path) -> None:
    lines = [" ".join(line.split()) for line in render(make_report(tmp_path, "why so", ("last words",))).splitlines()]

    assert lines == [
        "check status actual expected why",
        "good passed 1 <= 2",
        "bad failed inf <= 2 why so",
        "skipped, no bound is set: off",
        "The last lines of stderr:",
        "last words",
        f"Files {tmp_path}",
        "Repeat python -m fgvalidate +spec=x",
        "FAILED x in 1.5 s: bad",
    ]


def test_what_a_trainer_prints_cannot_move_the_cursor_or_style_the_report(tmp_path: Path) -> None:
    hostile = "\x1b[2J[bold red]x[/] \r\x07 \u202e"

    printed = render(make_report(tmp_path, hostile, (hostile,)), terminal=True)

    assert printed.count("\\x1b[2J[bold red]x[/] \\r\\x07 \\u202e") == 2
    assert "\x1b[2J" not in printed
    assert "\x07" not in printed


def test_stacks_of_a_stalled_run_are_shown(tmp_path: Path) -> None:
    report = dataclasses.replace(make_report(tmp_path), stacks=("7 python", "  Thread 7 (idle)", "\x1b[2J"))

    lines = render(report).splitlines()

    at = lines.index("Where the stalled processes stood:")
    assert lines[at + 1 : at + 4] == ["  7 python", "    Thread 7 (idle)", "  \\x1b[2J"]


def test_report_without_stacks_is_read(tmp_path: Path) -> None:
    document = make_report(tmp_path).to_document()
    del document["stacks"]

    assert Report.from_document(document).stacks == ()


def test_controls_are_made_visible() -> None:
    assert escape_controls("a\tb\x00é\u2028") == "a\\tb\\x00é\\u2028"


def test_long_message_is_cut_in_the_table_and_whole_in_the_file(tmp_path: Path) -> None:
    report = make_report(tmp_path, "x" * 5000)

    report.write(tmp_path / "report.json")

    assert render(report).count("x") < 500
    assert (tmp_path / "report.json").read_text(encoding="utf-8").count("x") >= 5000


def test_report_file_is_strict_json(tmp_path: Path) -> None:
    make_report(tmp_path).write(tmp_path / "report.json")

    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)

    assert [check["actual"] for check in document["checks"]] == [1.0, {"float": "inf"}, 1.0]
    assert (document["outcome"], document["command"]) == ("failed", "python -m fgvalidate +spec=x")
