"""The summary: GitHub shows it as it is meant, whatever the texts of the subject hold."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from finished_suites import (
    HOSTILE,
    make_facts,
    make_hostile_suite,
    make_job,
    make_mixed_suite,
    make_mutated_suite,
    make_report,
    make_suite,
)
from markdown_it import MarkdownIt

from fgvalidate.report import escape_controls
from fgvalidate.summary import LARGEST_BYTES, append_step_summary, build_summary, write_summary


class Rendered(HTMLParser):
    """The elements of rendered Markdown, the texts of its table's cells, and of its code."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.code: list[str] = []
        self.open = ""
        self.feed(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(markdown))
        self.close()

    def handle_starttag(self, tag: str, _attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open = tag
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
        elif tag == "code":
            self.code.append("")

    def handle_endtag(self, _tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open in {"td", "th"}:
            self.rows[-1][-1] += data
        elif self.open == "code":
            self.code[-1] += data


def test_summary_has_the_verdict_a_row_a_spec_and_what_repeats_the_red_ones(tmp_path: Path) -> None:
    write_summary(tmp_path / "summary.md", make_mixed_suite(tmp_path / "suite"))

    assert (
        (tmp_path / "summary.md").read_text(encoding="utf-8")
        == """\
### 5 specs: 1 failed, 2 error, 1 skipped, 1 passed

Exit code 1; completed after 2 min 52 s, selected by smoke and not slow (3 left out).

```sh
python -m fgvalidate -m '+spec=glob(*)'
```

| | spec | loss | perplexity | time | first cause |
|---|---|---:|---:|---:|---|
| :x: failed | bad | 3 | 34.25 | 26.2 s | convergence: final\\_loss\\_max is 3, expected &lt;= 2.0 |
| :warning: error | wrong |  |  |  | spec: config: must not be empty |
| :warning: error | lost |  |  |  | infrastructure: lost: its process ended without a word |
| :fast_forward: skipped | large |  |  |  | it needs 8 GPU(s), 4 are available |
| :white_check_mark: passed | good | 3 | 34.25 | 26.2 s |  |

Repeat bad:

```sh
python -m fgvalidate +spec=tiny max_steps=40
```

Repeat wrong:

```sh
python -m fgvalidate +spec=tiny max_steps=40
```

Repeat lost:

```sh
python -m fgvalidate +spec=lost max_steps=40
```
"""
    )


def test_hostile_text_is_shown_as_it_is(tmp_path: Path) -> None:
    rendered = Rendered(build_summary(make_hostile_suite(tmp_path / "suite"), LARGEST_BYTES))

    shown = [escape_controls(text) for text in HOSTILE]
    assert [row[1] for row in rendered.rows[1:]] == shown
    assert [row[5] for row in rendered.rows[1:]] == shown
    assert [code.rstrip("\n") for code in rendered.code[1:]] == shown
    assert set(rendered.tags) == {"h3", "p", "pre", "code", "table", "thead", "tbody", "tr", "th", "td"}


def test_mutation_tests_have_a_table_of_faults_and_specs(tmp_path: Path) -> None:
    text = build_summary(make_mutated_suite(tmp_path / "suite", "one", "two"), LARGEST_BYTES)

    assert (
        """
| fault | one | two |
| --- | --- | --- |
| exit\\_code | **survived** | **survived** |
| timeout | one | two |
| empty\\_text | - | - |

Repeat one:
"""
        in text
    )


def test_table_of_faults_shows_hostile_text_as_it_is(tmp_path: Path) -> None:
    rendered = Rendered(build_summary(make_mutated_suite(tmp_path / "suite", *HOSTILE), LARGEST_BYTES))

    shown = [escape_controls(text) for text in HOSTILE]
    assert rendered.rows[-4] == ["fault", *shown]
    assert rendered.rows[-2] == ["timeout", *shown]


def test_table_of_faults_without_room_is_said_to_be_left_out(tmp_path: Path) -> None:
    suite = make_mutated_suite(tmp_path / "suite", *(f"spec_{num:03}" for num in range(200)))

    text = build_summary(suite, 20_000)

    assert len(text.encode()) <= 20_000
    assert "| fault |" not in text
    assert "\nLeft out for want of room: the table of faults.\n" in text


def test_command_with_a_fence_of_its_own_stays_inside(tmp_path: Path) -> None:
    command = "echo ```` <b>"
    report = make_report("failed", "x", command=command)

    text = build_summary(make_suite(tmp_path / "suite", (report, None), ending="completed"), LARGEST_BYTES)

    assert Rendered(text).code[-1] == f"{command}\n"


@pytest.mark.parametrize("max_bytes", [2_000, 20_000])
def test_summary_too_large_says_what_was_left_out(tmp_path: Path, max_bytes: int) -> None:
    rows = [(make_report("failed" if num % 2 else "passed", "|" * 300), make_facts()) for num in range(100)]

    text = build_summary(make_suite(tmp_path / "suite", *rows, ending="completed"), max_bytes)

    num_rows = text.count("| :")
    num_repeats = text.count("\nRepeat ")
    assert len(text.encode()) <= max_bytes
    assert 0 < num_rows < 100
    assert text.endswith(f"\nLeft out for want of room: {100 - num_rows} rows, {50 - num_repeats} commands.\n")


def test_summary_without_any_room_is_empty(tmp_path: Path) -> None:
    assert build_summary(make_mixed_suite(tmp_path / "suite"), 100) == ""


def test_thousand_specs_with_long_causes_stay_below_the_limit(tmp_path: Path) -> None:
    rows = [(make_report("failed", "<&|" * 5000, command="x" * 3000), None) for _ in range(1000)]
    jobs = tuple(make_job(num, "x" * 200) for num in range(1000))

    write_summary(tmp_path / "summary.md", make_suite(tmp_path / "suite", *rows, jobs=jobs, ending="completed"))

    assert LARGEST_BYTES // 2 < (tmp_path / "summary.md").stat().st_size <= LARGEST_BYTES < 2**20


def test_summary_is_appended_to_the_step_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = make_mixed_suite(tmp_path / "suite")
    (tmp_path / "step.md").write_text("another step", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))

    append_step_summary(suite)

    expected = f"another step\n{build_summary(suite, LARGEST_BYTES)}"
    assert (tmp_path / "step.md").read_text(encoding="utf-8") == expected


def test_full_step_summary_is_not_made_larger_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "step.md").write_text("x" * LARGEST_BYTES, encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))

    append_step_summary(make_mixed_suite(tmp_path / "suite"))

    assert (tmp_path / "step.md").stat().st_size <= LARGEST_BYTES + 1


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_step_summary_nothing_is_appended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    if value is not None:
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", value)
    suite = make_mixed_suite(tmp_path / "suite")
    before = set(tmp_path.rglob("*"))

    append_step_summary(suite)

    assert set(tmp_path.rglob("*")) == before
