"""The page: what it says, in what order, and that nothing of it runs. (How a browser shows it: test_browser.py.)"""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from finished_suites import (
    HOSTILE,
    make_attempt,
    make_facts,
    make_hostile_suite,
    make_job,
    make_mixed_suite,
    make_mutated_suite,
    make_report,
    make_suite,
    make_verdict,
)

from fgvalidate.page import write_page, write_run_page
from fgvalidate.report import escape_controls

VOID = {"meta", "br", "img", "input", "link", "hr", "base"}
KNOWN_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "details", "summary"),
    *("h1", "h2", "h3", "p", "pre", "span", "div", "a", "dl", "dt", "dd", "figure", "figcaption", "blockquote"),
    *("table", "thead", "tbody", "tr", "th", "td", "svg", "g", "rect", "path", "text", "circle"),
}


class Outline(HTMLParser):
    """Every element and attribute of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.words = ""
        self.feed(page)
        self.close()
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        self._separate(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._separate(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data
            self.words += data

    def _separate(self, tag: str) -> None:
        if tag not in {"span", "a"}:
            self.words += " "


def read_page(path: Path) -> Outline:
    return Outline(path.read_text(encoding="utf-8"))


@pytest.fixture
def mixed(tmp_path: Path) -> Outline:
    suite = make_mixed_suite(tmp_path / "suite")
    for name in ("report.json", "train.stderr", "secret"):
        path = suite.root / suite.results[1].job.run_dir / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    write_page(tmp_path / "report.html", suite)
    return read_page(tmp_path / "report.html")


def test_page_begins_with_the_verdict(mixed: Outline) -> None:
    assert mixed.words.startswith(
        "Failed: 5 specs: 1 failed, 2 error, 1 skipped, 1 passed "
        "Failed 5 specs: 1 failed, 2 error, 1 skipped, 1 passed "
        "exit code 1 ended completed started 2026-11-22 15:06:47 UTC took 2 min 52 s "
        "selected smoke and not slow (3 left out) python -m fgvalidate -m '+spec=glob(*)' "
        "outcome spec loss perplexity time "
        "failed bad convergence: final_loss_max is 3, expected <= 2.0 3 34.25 26.2 s "
        "error wrong spec: config: must not be empty "
        "error lost infrastructure: lost: its process ended without a word "
        "skipped large it needs 8 GPU(s), 4 are available "
        "passed good 3 34.25 26.2 s"
    )


def test_section_says_all_of_a_spec(mixed: Outline) -> None:
    section = mixed.words.split(" failed bad ", 2)[2].split(" error wrong ")[0]

    for said in (
        "returncode 0 == 0",
        "failed final_loss_max 3 <= 2.0 too few steps",
        "Skipped, no bound is set: warn_stderr",
        "loss.final_max 2",
        "not finite: 1 of 4 recorded losses; the first is nan at step 20",
        "Once upon a time, there was a fox. It ran. perplexity 34.25 under builtin",
        "Once upon a time. not scored",
        "The last lines of stderr the last line",
        "Repeat python -m fgvalidate +spec=tiny max_steps=40",
        "whole run 26.2 s training 24.0 s peak memory 1.50 GiB GPUs 1 of 4 host node-3, 64 cores steps 40 of 40",
        "commit 0123abcd-dirty overrides +spec=bad max_steps=40 markers integration, smoke",
        "training command trainer --max-steps 40 versions python 3.11.7, fgvalidate 0.1.0",
    ):
        assert said in section


def test_rows_lead_to_sections_and_red_ones_are_open(mixed: Outline) -> None:
    fragments = [attributes["href"] for tag, attributes in mixed.elements if tag == "a" and "href" in attributes]
    anchors = [f"#{attributes['id']}" for tag, attributes in mixed.elements if tag == "section"]
    are_open = ["open" in attributes for tag, attributes in mixed.elements if tag == "details"]

    assert anchors == ["#spec-1", "#spec-3", "#spec-4", "#spec-2", "#spec-0"]
    assert [fragment for fragment in fragments if fragment in anchors] == anchors
    assert are_open == [True, True, True, False, False]


def test_files_that_are_there_are_linked(mixed: Outline) -> None:
    addresses = [str(attributes["href"]) for tag, attributes in mixed.elements if tag == "a"]

    assert [address for address in addresses if address[0] != "#"] == ["./1-bad/report.json", "./1-bad/train.stderr"]


def test_page_of_one_run_says_the_same_of_it(tmp_path: Path) -> None:
    (tmp_path / "facts.json").touch()

    write_run_page(tmp_path / "report.html", make_report("failed", "final_loss_max is 3"), make_facts())

    page = read_page(tmp_path / "report.html")
    assert page.words.startswith(
        "Failed: tiny Failed tiny started 2026-11-22 15:06:50 UTC took 26.2 s final_loss_max is 3 Checks"
    )
    assert "Once upon a time, there was a fox. It ran. perplexity 34.25 under builtin" in page.words
    assert [attributes["href"] for tag, attributes in page.elements if tag == "a"] == ["./facts.json"]
    assert sum(tag == "svg" for tag, _ in page.elements) == 1


def test_attempts_are_listed(tmp_path: Path) -> None:
    attempts = (make_attempt("failed", "infrastructure: full"), make_attempt("passed", gpus=("GPU-2",)))

    write_run_page(tmp_path / "report.html", make_report("passed", "passed on attempt 2", attempts=attempts), None)

    words = read_page(tmp_path / "report.html").words
    assert (
        "Attempts outcome why time GPUs folder failed infrastructure: full 3.2 s GPU-1 /runs/tiny passed 3.2 s GPU-2 "
        "/runs/tiny Checks" in words
    )


def test_checks_that_were_expected_to_fail_are_told_apart(tmp_path: Path) -> None:
    verdicts = (
        make_verdict("a", "xfailed", 3, "<= 2", "as expected: x"),
        make_verdict("b", "xpassed", 1, "<= 2", "passed"),
    )

    write_run_page(tmp_path / "report.html", make_report("failed", verdicts=verdicts), None)

    assert "xfailed a 3 <= 2 as expected: x xpassed b 1 <= 2 passed" in read_page(tmp_path / "report.html").words


def test_page_of_a_run_without_facts_is_whole(tmp_path: Path) -> None:
    write_run_page(tmp_path / "report.html", make_report("skipped", "no GPU", verdicts=(), spec={}), None)

    page = read_page(tmp_path / "report.html")
    assert page.open == []
    assert page.words.startswith("Skipped: tiny Skipped tiny took 26.2 s no GPU Repeat")


def test_mutation_tests_have_a_table_of_faults_and_specs(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", make_mutated_suite(tmp_path / "suite", "one", "two"))

    page = read_page(tmp_path / "report.html")
    assert "fault one two exit_code survived survived timeout one two empty_text - - " in page.words
    section = page.words.split("failed one ", 2)[2]
    assert "Faults status fault noticed by why survived exit_code one noticed timeout one, b " in section
    assert "Not applicable, one: empty_text Checks without a fault" in section


def test_table_of_faults_shows_hostile_text_as_it_is(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", make_mutated_suite(tmp_path / "suite", *HOSTILE))

    page = read_page(tmp_path / "report.html")
    assert {tag for tag, _ in page.elements} <= KNOWN_TAGS
    assert page.open == []
    assert page.text.count("Faults") == len(HOSTILE)
    assert all(page.text.count(escape_controls(text)) >= 5 for text in HOSTILE)


def test_curve_that_was_not_observed_says_why(tmp_path: Path) -> None:
    facts = make_facts()
    values = {name: value for name, value in facts.values.items() if name != "loss.curve"}

    write_run_page(
        tmp_path / "report.html",
        make_report("failed", "x"),
        type(facts)(values=values, notes={"loss.curve": "no trainer_logs.json in there"}),
    )

    page = read_page(tmp_path / "report.html")
    assert "Loss no trainer_logs.json in there" in page.words
    assert "svg" not in [tag for tag, _ in page.elements]


def test_run_of_losses_none_of_which_is_finite_is_told_without_a_chart(tmp_path: Path) -> None:
    facts = make_facts(**{"loss.curve": [[10, float("nan")]], "train.num_steps_logged": 1})

    write_run_page(tmp_path / "report.html", make_report("failed", "x"), facts)

    page = read_page(tmp_path / "report.html")
    assert "Loss not finite: 1 of 1 recorded losses" in page.words
    assert "svg" not in [tag for tag, _ in page.elements]


def test_suite_of_nothing_has_a_page(tmp_path: Path) -> None:
    suite = make_suite(tmp_path / "suite", jobs=(), ending="completed")

    write_page(tmp_path / "report.html", suite)

    page = read_page(tmp_path / "report.html")
    assert page.words.startswith("Nothing was validated: 0 specs: none was run")
    assert page.open == []


@pytest.mark.parametrize(
    ("ending", "word"), [("interrupted", "Interrupted"), ("terminated", "Terminated"), ("killed", "Passed")]
)
def test_page_says_how_it_ended(tmp_path: Path, ending: str, word: str) -> None:
    suite = make_suite(tmp_path / "suite", (make_report("passed"), None), ending=ending)  # type: ignore[arg-type]

    write_page(tmp_path / "report.html", suite)

    assert read_page(tmp_path / "report.html").words.startswith(f"{word}: 1 spec: 1 passed {word}")


def test_hostile_text_adds_no_element_and_no_attribute(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", make_hostile_suite(tmp_path / "suite"))

    page = read_page(tmp_path / "report.html")
    names = {name for _, attributes in page.elements for name in attributes}
    addresses = [
        str(attributes[name]) for _, attributes in page.elements for name in ("href", "src") if name in attributes
    ]
    assert page.open == []
    assert {tag for tag, _ in page.elements} <= KNOWN_TAGS
    assert [name for name in names if name.startswith("on") or name in {"style", "src", "xlink:href"}] == []
    assert all(address.startswith(("#spec-", "./")) for address in addresses)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_shown_as_it_is_with_its_controls_made_visible(tmp_path: Path, text: str) -> None:
    report = make_report("failed", text, stderr_tail=(text,), stacks=(text,), command=text)

    write_run_page(tmp_path / "report.html", report, make_facts(**{"inference.texts": [text]}))

    shown = read_page(tmp_path / "report.html").text
    assert shown.count(escape_controls(text)) >= 4
    assert [character for character in shown if not character.isprintable() and character != "\n"] == []
    assert "\n".join(map(escape_controls, text.split("\n"))) in shown


def test_page_forbids_script_and_network_and_allows_its_own_style_alone(mixed: Outline) -> None:
    (policy,) = (
        attributes["content"]
        for tag, attributes in mixed.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )

    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/]{43}='; base-uri 'none'; form-action 'none'", str(policy)
    )


def test_same_suite_makes_the_same_page(tmp_path: Path) -> None:
    suite = make_mixed_suite(tmp_path / "suite")

    for name in ("a", "b"):
        write_page(tmp_path / name, suite)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("curve", "is_imported"), [("[[1, 2.0], [2, 1.0]]", True), ("[]", False)])
def test_chart_library_is_imported_for_a_curve_alone(tmp_path: Path, curve: str, is_imported: bool) -> None:
    code = f"""
import sys
from pathlib import Path
from fgvalidate.facts import Facts
from fgvalidate.page import write_run_page
from fgvalidate.report import Report
report = Report(test_id="x", outcome="passed", reason="", command="x")
facts = Facts(values={{"train.started_at": 1e9, "train.argv": ["x"], "loss.curve": {curve}}})
write_run_page(Path({str(tmp_path / "x.html")!r}), report, facts)
print("pygal" in sys.modules)
"""

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == str(is_imported)


def test_job_of_any_name_has_an_anchor(tmp_path: Path) -> None:
    job = make_job(7, "a b", name='a b[x="y"]')

    suite = make_suite(tmp_path / "suite", jobs=(job,), ending="completed")
    write_page(tmp_path / "report.html", suite)

    assert ("section", {"id": "spec-7"}) in read_page(tmp_path / "report.html").elements
