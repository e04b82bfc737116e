"""A multirun's folder: whatever happens, it can be read back."""

import json
from pathlib import Path

import pytest
from finished_suites import STARTED_AT, make_facts, make_job, make_mixed_suite, make_report, make_suite

from fgvalidate.errors import RunDirError, SpecError
from fgvalidate.suite import (
    ENDING_NAME,
    PLAN_NAME,
    RESULTS_NAME,
    Ending,
    Plan,
    append_result,
    read_plan,
    read_suite,
    record_ending,
    start_suite,
)


def change_json(path: Path, **changes: object) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | changes), encoding="utf-8")


def test_suite_is_read_back_as_it_was(tmp_path: Path) -> None:
    report, facts = make_report("passed"), make_facts(**{"loss.curve": [[10, 7.0], [20, 6.0]]})

    suite = make_suite(tmp_path / "suite", (report, facts), ending="stopped")

    assert (suite.ending, suite.duration_s) == ("stopped", 171.5)
    assert suite.plan == read_plan(tmp_path / "suite")
    assert [(result.report, result.facts) for result in suite.results] == [(report, facts)]


def test_counts_headline_and_ranking_name_the_worst_first(tmp_path: Path) -> None:
    suite = make_mixed_suite(tmp_path / "suite")

    assert suite.counts == {"failed": 1, "error": 2, "skipped": 1, "passed": 1}
    assert suite.headline == "5 specs: 1 failed, 2 error, 1 skipped, 1 passed"
    assert [result.job.name for result in suite.ranked_results] == ["bad", "wrong", "lost", "large", "good"]
    assert suite.exit_code == 1


@pytest.mark.parametrize(
    ("ending", "reason", "code"),
    [
        ("completed", "infrastructure: lost: its process ended without a word", 2),
        ("stopped", "not run: fail_fast stopped the multirun after the first red spec", 0),
        ("interrupted", "not run: the multirun was interrupted", 130),
        ("terminated", "not run: the multirun was terminated", 143),
        ("killed", "infrastructure: lost: the multirun was killed", 2),
    ],
)
def test_job_without_a_result_says_why(tmp_path: Path, ending: Ending, reason: str, code: int) -> None:
    jobs = (make_job(0, "done"), make_job(1, "undone"))

    suite = make_suite(tmp_path / "suite", (make_report("passed"), None), jobs=jobs, ending=ending)

    assert [result.report.reason for result in suite.results] == ["", reason]
    assert suite.exit_code == code


def test_suite_that_recorded_no_ending_was_killed_and_lasted_until_its_last_result(tmp_path: Path) -> None:
    root = tmp_path / "suite"
    make_suite(root, (make_report("passed"), None), (make_report("passed"), None), ending="completed")
    (root / ENDING_NAME).unlink()
    rows = [json.loads(line) for line in (root / RESULTS_NAME).read_text(encoding="utf-8").splitlines()]
    rows[0]["finished_at"], rows[1]["finished_at"] = STARTED_AT + 60, STARTED_AT + 40
    (root / RESULTS_NAME).write_text("\n".join(map(json.dumps, rows)) + '\n{"num": 2, "repo', encoding="utf-8")

    suite = read_suite(root)

    assert (suite.ending, suite.duration_s, suite.exit_code) == ("killed", 60.0, 0)


def test_suite_that_was_killed_before_any_result_lasted_no_time(tmp_path: Path) -> None:
    plan = Plan(command="x", started_at=STARTED_AT, jobs=(make_job(0, "undone"),))
    start_suite(tmp_path / "suite", plan)

    suite = read_suite(tmp_path / "suite")

    assert (suite.ending, suite.duration_s, suite.headline) == ("killed", 0.0, "1 spec: 1 error")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ending": "sideways", "duration_s": 1}', '{"ending": "completed"}'])
def test_ending_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    make_suite(tmp_path / "suite", (make_report("passed"), None), ending="completed")
    (tmp_path / "suite" / ENDING_NAME).write_text(text, encoding="utf-8")

    assert read_suite(tmp_path / "suite").ending == "killed"


def test_ending_is_recorded_anew(tmp_path: Path) -> None:
    make_suite(tmp_path / "suite", (make_report("passed"), None), ending="completed")

    record_ending(tmp_path / "suite", "interrupted", 3.0)

    suite = read_suite(tmp_path / "suite")
    assert (suite.ending, suite.duration_s) == ("interrupted", 3.0)


def test_fields_of_a_later_version_are_left_out(tmp_path: Path) -> None:
    suite = make_suite(tmp_path / "suite", (make_report("passed"), None), ending="completed")
    path = tmp_path / "suite" / PLAN_NAME
    jobs = [job | {"altitude": 3} for job in json.loads(path.read_text(encoding="utf-8"))["jobs"]]

    change_json(path, weather="fine", jobs=jobs)

    assert read_plan(tmp_path / "suite") == suite.plan


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "jobs": [3]}', '{"schema": 1}'])
def test_foreign_plan_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / PLAN_NAME).write_text(text, encoding="utf-8")

    with pytest.raises(SpecError, match=r"suite\.json: ") as error:
        read_suite(tmp_path)

    assert "\n" not in str(error.value)


def test_folder_of_another_multirun_is_refused(tmp_path: Path) -> None:
    suite = make_suite(tmp_path / "suite", (make_report("passed"), None), ending="completed")

    with pytest.raises(RunDirError, match="holds a multirun already"):
        start_suite(tmp_path / "suite", suite.plan)


def test_first_result_of_a_job_counts_and_half_a_line_does_not(tmp_path: Path) -> None:
    root = tmp_path / "suite"
    jobs = (make_job(0, "a"), make_job(1, "b"))
    make_suite(root, (make_report("passed"), None), jobs=jobs, ending="completed")
    append_result(root, 0, make_report("failed", "later"), None)
    with (root / RESULTS_NAME).open("a", encoding="utf-8") as file:
        file.write('{"num": 1, "report": {"test_id": "b"')
    append_result(root, 1, make_report("skipped", "no GPU"), None)

    outcomes = [result.report.outcome for result in read_suite(root).results]

    assert outcomes == ["passed", "skipped"]
