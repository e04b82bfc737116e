"""All reports of a multirun: written together, each for itself, and again from what a killed one left."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from finished_suites import make_facts, make_hostile_suite, make_job, make_mixed_suite, make_report, make_suite

from fgvalidate.suite import ENDING_NAME, Suite, read_suite
from fgvalidate.suite_reports import write_reports

NAMES = ("report.json", "junit.xml", "summary.md", "report.html")


@pytest.fixture(autouse=True)
def _outside_of_any_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def read_strict_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)


def read_reports(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in NAMES if (root / name).exists()}


def rebuild(*arguments: str | Path, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "fgvalidate.suite_reports", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **env},
    )


def test_all_reports_are_written_and_nothing_else(tmp_path: Path) -> None:
    suite = make_mixed_suite(tmp_path / "suite")
    before = {path.name for path in suite.root.iterdir()}

    problems = write_reports(suite)

    assert problems == []
    assert {path.name for path in suite.root.iterdir()} - before == set(NAMES)


def test_document_says_all_for_machines(tmp_path: Path) -> None:
    suite = make_mixed_suite(tmp_path / "suite")

    write_reports(suite)

    document = read_strict_json(suite.root / "report.json")
    specs = document.pop("specs")
    assert document == {
        "schema": 1,
        "counts": {"failed": 1, "error": 2, "skipped": 1, "passed": 1},
        "exit_code": 1,
        "ending": "completed",
        "command": "python -m fgvalidate -m '+spec=glob(*)'",
        "selection": "smoke and not slow",
        "deselected": 3,
        "started_at": 1795360007.0,
        "duration_s": 171.5,
        "mutations": {},
    }
    assert [spec["name"] for spec in specs] == ["good", "bad", "large", "wrong", "lost"]
    assert specs[1] == {
        "num": 1,
        "name": "bad",
        "overrides": ["+spec=bad", "max_steps=40"],
        "markers": ["integration", "smoke"],
        "report": suite.results[1].report.to_document(),
    }


def test_hostile_texts_break_no_writer(tmp_path: Path) -> None:
    suite = make_hostile_suite(tmp_path / "suite")

    assert write_reports(suite) == []
    assert set(read_reports(suite.root)) == set(NAMES)
    read_strict_json(suite.root / "report.json")


@pytest.mark.parametrize("name", NAMES)
def test_one_that_cannot_be_written_costs_no_other(tmp_path: Path, name: str) -> None:
    suite = make_mixed_suite(tmp_path / "suite")
    (suite.root / name / "in the way").mkdir(parents=True)

    (problem,) = write_reports(suite)

    assert problem.startswith(f"{name} cannot be written: IsADirectoryError: ")
    assert {other for other in NAMES if (suite.root / other).is_file()} == set(NAMES) - {name}
    assert list(suite.root.glob("*.part")) == []


def test_fault_of_a_writer_costs_no_other_and_leaves_the_last_report(tmp_path: Path) -> None:
    good = make_mixed_suite(tmp_path / "suite")
    write_reports(good)
    before = read_reports(good.root)
    facts = make_facts(**{"train.duration_s": "soon"})
    bad = make_suite(tmp_path / "other", (make_report("passed"), facts), ending="completed")

    (problem,) = write_reports(
        Suite(root=good.root, plan=bad.plan, ending="completed", duration_s=1.0, results=bad.results)
    )

    after = read_reports(good.root)
    assert problem.startswith("report.html cannot be written: TypeError: ")
    assert after["report.html"] == before["report.html"]
    assert all(after[name] != before[name] for name in NAMES if name != "report.html")
    assert list(good.root.glob("*.part")) == []


@pytest.mark.parametrize(
    ("library", "name"), [("jinja2", "report.html"), ("pygal", "report.html"), ("junitparser", "junit.xml")]
)
def test_library_that_cannot_be_loaded_costs_its_report_alone(tmp_path: Path, library: str, name: str) -> None:
    suite = make_mixed_suite(tmp_path / "suite")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / f"{library}.py").write_text("raise ImportError('broken')\n", encoding="utf-8")

    answer = rebuild(suite.root, PYTHONPATH=str(tmp_path / "broken"))

    assert answer.returncode == 1
    assert answer.stderr == f"fgvalidate: {name} cannot be written: ImportError: broken\n"
    assert set(read_reports(suite.root)) == set(NAMES) - {name}


def test_summary_is_appended_to_the_step_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    suite = make_mixed_suite(tmp_path / "suite")

    assert write_reports(suite) == []

    summary = (suite.root / "summary.md").read_text(encoding="utf-8")
    assert (tmp_path / "step.md").read_text(encoding="utf-8") == f"\n{summary}"


def test_step_summary_that_cannot_be_written_costs_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    suite = make_mixed_suite(tmp_path / "suite")

    (problem,) = write_reports(suite)

    assert problem.startswith("the summary of the GitHub step cannot be written: IsADirectoryError: ")
    assert set(read_reports(suite.root)) == set(NAMES)


def test_reports_of_an_orderly_suite_are_rebuilt_as_they_were(tmp_path: Path) -> None:
    suite = make_mixed_suite(tmp_path / "suite")
    write_reports(suite)
    before = read_reports(suite.root)
    for name in NAMES:
        (suite.root / name).unlink()

    answer = rebuild(suite.root)

    assert read_reports(suite.root) == before
    assert (answer.returncode, answer.stderr) == (1, "")
    assert answer.stdout.splitlines() == [
        f"Reports {suite.root}/report.html",
        "5 specs: 1 failed, 2 error, 1 skipped, 1 passed (completed)",
    ]


def test_reports_of_a_killed_suite_are_built_from_what_was_written_down(tmp_path: Path) -> None:
    jobs = (make_job(0, "done"), make_job(1, "undone"))
    suite = make_suite(tmp_path / "suite", (make_report("passed"), make_facts()), jobs=jobs, ending="completed")
    (suite.root / ENDING_NAME).unlink()

    answer = rebuild(suite.root)

    document = read_strict_json(suite.root / "report.json")
    assert (answer.returncode, answer.stderr) == (2, "")
    assert answer.stdout.endswith("2 specs: 1 error, 1 passed (killed; this is what was written down until then)\n")
    assert (document["ending"], document["duration_s"]) == ("killed", round(read_suite(suite.root).duration_s, 3))
    assert document["specs"][1]["report"]["reason"] == "infrastructure: lost: the multirun was killed"


def test_exit_code_is_the_suites(tmp_path: Path) -> None:
    suite = make_suite(tmp_path / "suite", (make_report("passed"), None), ending="interrupted")

    assert rebuild(suite.root).returncode == 130


def test_folder_without_a_plan_is_refused_in_one_line(tmp_path: Path) -> None:
    answer = rebuild(tmp_path)

    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(f"fgvalidate: {tmp_path}/suite.json: not a multirun that can be read (")
    assert answer.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_folder_must_be_named() -> None:
    answer = rebuild()

    assert answer.returncode == 2
    assert "the following arguments are required: folder" in answer.stderr
