"""JUnit XML: every spec is a testcase, and every reader can parse it."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
import xmlschema
from finished_suites import (
    HOSTILE,
    make_attempt,
    make_facts,
    make_hostile_suite,
    make_mixed_suite,
    make_report,
    make_suite,
)

from fgvalidate.junit import write_junit
from fgvalidate.report import escape_controls

SCHEMA = xmlschema.XMLSchema(str(Path(__file__).with_name("junit.xsd")))


def read(path: Path) -> ElementTree.Element:
    """Parses the file, which must be valid."""
    SCHEMA.validate(str(path))
    return ElementTree.parse(path).getroot()


@pytest.fixture
def mixed(tmp_path: Path) -> ElementTree.Element:
    write_junit(tmp_path / "junit.xml", make_mixed_suite(tmp_path / "suite"))
    return read(tmp_path / "junit.xml")


def test_suite_counts_its_cases(mixed: ElementTree.Element) -> None:
    assert mixed.attrib == {"name": "fgvalidate", "tests": "5", "failures": "1", "errors": "2", "time": "171.5"}


def test_each_spec_is_a_case_that_ended_as_it_did(mixed: ElementTree.Element) -> None:
    cases = [(case.attrib, [(child.tag, child.get("message")) for child in case]) for case in mixed.iter("testcase")]

    def attributes(name: str, time: str) -> dict[str, str]:
        return {"name": name, "classname": "fgvalidate", "time": time}

    assert cases == [
        (attributes("good", "26.25"), [("system-out", None)]),
        (
            attributes("bad", "26.25"),
            [
                ("failure", "convergence: final_loss_max is 3, expected <= 2.0"),
                ("system-out", None),
                ("system-err", None),
            ],
        ),
        (attributes("large", "0.0"), [("skipped", "it needs 8 GPU(s), 4 are available"), ("system-out", None)]),
        (attributes("wrong", "0.0"), [("error", "spec: config: must not be empty"), ("system-out", None)]),
        (
            attributes("lost", "0.0"),
            [("error", "infrastructure: lost: its process ended without a word"), ("system-out", None)],
        ),
    ]


def test_failure_lists_the_checks_and_the_output_is_captured(mixed: ElementTree.Element) -> None:
    case = mixed.find("testsuite[2]/testcase")
    assert case is not None

    assert case.findtext("failure") == (
        "passed  returncode: 0, expected == 0\n"
        "failed  final_loss_max: 3, expected <= 2.0 (too few steps)\n"
        "skipped warn_stderr: - (no bound is set)"
    )
    assert case.findtext("system-out") == (
        f"{case.findtext('failure')}\nRepeat: python -m fgvalidate +spec=tiny max_steps=40"
    )
    assert case.findtext("system-err") == "the last line"


def test_properties_say_what_was_run_and_observed(mixed: ElementTree.Element) -> None:
    properties = {item.get("name"): item.get("value") for item in mixed.findall("testsuite[1]/properties/property")}

    assert properties == {
        "outcome": "passed",
        "markers": "integration,smoke",
        "overrides": "+spec=good max_steps=40",
        "command": "python -m fgvalidate +spec=tiny max_steps=40",
        "run_dir": "",
        "train.global_step": "40",
        "train.peak_memory_bytes": "1610612736",
        "loss.final": "3.0",
        "loss.num_nonfinite": "1",
        "inference.perplexity": "34.25",
        "inference.scorer": "builtin",
        "repo.commit": "0123abcd-dirty",
        "gpu.num_used": "1",
        "host.name": "node-3",
        "versions.python": "3.11.7",
        "versions.fgvalidate": "0.1.0",
    }


def test_class_of_a_failure_is_its_type_and_attempts_are_properties(tmp_path: Path) -> None:
    attempts = (make_attempt("failed", "infrastructure: full"), make_attempt("passed"))
    reason = "passed on attempt 2; attempt 1: infrastructure: full"
    suite = make_suite(
        tmp_path / "suite",
        (make_report("failed", "numerics: nan", failure="numerics"), make_facts()),
        (make_report("error", "launch: no program", failure="launch"), None),
        (make_report("error", "ended: the multirun was interrupted"), None),
        (make_report("passed", reason, attempts=attempts), make_facts()),
        ending="completed",
    )

    write_junit(tmp_path / "junit.xml", suite)

    root = read(tmp_path / "junit.xml")
    types = [child.get("type") for case in root.iter("testcase") for child in case if child.tag in {"failure", "error"}]
    assert types == ["numerics", "launch", "error"]
    properties = {item.get("name"): item.get("value") for item in root.findall("testsuite[4]/properties/property")}
    assert properties["passed"] == reason
    assert (properties["attempts.1"], properties["attempts.2"]) == ("infrastructure: full", "passed")
    assert root.find("testsuite[1]/properties/property[@name='failure']").get("value") == "numerics"  # type: ignore[union-attr]


def test_server_log_is_captured(tmp_path: Path) -> None:
    report = make_report("failed", "server_healthy is false", server_log_tail=("cannot bind",))

    write_junit(tmp_path / "junit.xml", make_suite(tmp_path / "suite", (report, make_facts()), ending="completed"))

    output = read(tmp_path / "junit.xml").findtext("testsuite/testcase/system-out")
    assert "The last lines of the server's log:\ncannot bind\n" in str(output)


def test_stacks_are_captured(tmp_path: Path) -> None:
    report = make_report("failed", "not_stalled is true", stacks=("7 python", "  Thread \x1b[2J"))

    write_junit(tmp_path / "junit.xml", make_suite(tmp_path / "suite", (report, make_facts()), ending="completed"))

    output = read(tmp_path / "junit.xml").findtext("testsuite/testcase/system-out")
    assert "Where the stalled processes stood:\n7 python\n  Thread \\x1b[2J\n" in str(output)


def test_hostile_text_is_valid_and_shown_as_it_is(tmp_path: Path) -> None:
    write_junit(tmp_path / "junit.xml", make_hostile_suite(tmp_path / "suite"))

    root = read(tmp_path / "junit.xml")
    shown = [escape_controls(text) for text in HOSTILE]
    assert [case.get("name") for case in root.iter("testcase")] == shown
    assert [case.get("message") for case in root.iter("failure")] == shown
    assert [str(case.text).splitlines()[0] for case in root.iter("system-err")] == shown
    assert {element.tag for element in root.iter()} == {
        *("testsuites", "testsuite", "properties", "property", "testcase", "failure", "system-out", "system-err"),
    }


def test_suite_of_nothing_is_valid(tmp_path: Path) -> None:
    write_junit(tmp_path / "junit.xml", make_suite(tmp_path / "suite", jobs=(), ending="completed"))

    assert list(read(tmp_path / "junit.xml")) == []


def test_schema_refuses_what_strict_readers_refuse(tmp_path: Path) -> None:
    write_junit(tmp_path / "junit.xml", make_mixed_suite(tmp_path / "suite"))
    document = (tmp_path / "junit.xml").read_text(encoding="utf-8")

    assert SCHEMA.is_valid(document)
    assert not SCHEMA.is_valid(document.replace('tests="5"', 'tests="5" skipped="1"'))
    assert not SCHEMA.is_valid(document.replace('time="26.25"', 'time="2.6e1"'))
