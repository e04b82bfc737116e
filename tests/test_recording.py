"""Recorded runs are found by what a user typed, wherever their folders have gone since."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from finished_suites import make_facts, make_job, make_mixed_suite, make_report, make_suite

from fgvalidate.errors import SpecError
from fgvalidate.facts import Facts
from fgvalidate.recording import is_multirun, read_recording
from fgvalidate.report import Judged
from fgvalidate.suite import RESULTS_NAME, Ending, read_result


def leave_run(folder: Path, **changes: Any) -> Path:
    """Leaves the folder of a run, as it was when its report was written."""
    folder.mkdir(parents=True)
    make_facts().write(folder / "facts.json")
    make_report("passed", run_dir=folder, **changes).write(folder / "report.json")
    return folder


def test_run_is_found_by_its_folder_and_by_its_facts(tmp_path: Path) -> None:
    folder = leave_run(tmp_path / "run")

    found = [read_recording(path, test_id="tiny") for path in (folder, folder / "facts.json")]

    assert [one.run_dir.root for one in found] == [folder, folder]
    assert all(one.report is not None and one.facts is not None for one in found)


def test_paths_of_a_moved_run_are_found_where_it_is_now(tmp_path: Path) -> None:
    was = leave_run(tmp_path / "was/run")
    now = Path(shutil.move(was, tmp_path / "was.2"))

    found = read_recording(now, test_id="tiny")

    assert found.locate(str(was / "train/runs/log")) == now / "train/runs/log"
    assert found.locate("/elsewhere/log") == Path("/elsewhere/log")


def test_run_that_was_moved_into_a_folder_named_as_one_above_it_is_found(tmp_path: Path) -> None:
    was = leave_run(tmp_path / "outputs/run")
    now = Path(shutil.move(was, tmp_path / "new/outputs"))

    assert read_recording(now, test_id="tiny").run_dir.root == now


def test_copy_of_the_facts_under_another_name_has_no_report(tmp_path: Path) -> None:
    folder = leave_run(tmp_path / "run")
    copy = shutil.copy(folder / "facts.json", folder / "mine.json")

    assert read_recording(Path(copy), test_id="tiny").report is None


def test_run_of_another_spec_is_refused(tmp_path: Path) -> None:
    folder = leave_run(tmp_path / "run")

    with pytest.raises(SpecError, match="a run of tiny, and the spec is large; choose \\+spec to match"):
        read_recording(folder, test_id="large")


def test_judgement_leads_to_the_run_that_it_judged(tmp_path: Path) -> None:
    run = leave_run(tmp_path / "run")
    judged = Judged(run_dir=run, recorded_at=1.0, took_s=2.0)
    again = leave_run(tmp_path / "again", judged=judged)

    found = read_recording(again, test_id="tiny")

    assert found.run_dir.root == run
    shutil.rmtree(run)
    with pytest.raises(SpecError, match=r"again: judged again from .*run, which is gone"):
        read_recording(again, test_id="tiny")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train.started_at": "now"}, "train.started_at is 'now'"),
        ({"train.started_at": float("nan")}, "train.started_at is nan"),
        ({"train.started_at": 1e300}, "train.started_at is 1e+300"),
        ({"train.duration_s": None}, "train.duration_s is None"),
        ({"train.duration_s": True}, "train.duration_s is True"),
        ({"files.run_directory": 3}, "files.run_directory is 3"),
        ({"loss.final": [1]}, r"loss.final is \[1\]"),
    ],
)
def test_facts_of_no_run_are_refused(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    folder = leave_run(tmp_path / "run")
    known = {**make_facts().values, **values}
    Facts(values={name: value for name, value in known.items() if value is not None}).write(folder / "facts.json")

    with pytest.raises(SpecError, match=f"facts.json: not the facts of a run: {words}".replace("+", r"\+")):
        read_recording(folder, test_id="tiny")


def test_job_of_a_multirun_is_found_by_its_name_its_test_id_and_its_folder(tmp_path: Path) -> None:
    jobs = (make_job(0, "a", name="a[x=1]"), make_job(1, "a", name="a[x=2]", run_dir="1-a"), make_job(2, "b"))
    rows = [(make_report("passed", test_id=job.test_id), make_facts(**{"loss.final": job.num})) for job in jobs]
    root = make_suite(tmp_path / "suite", *rows, jobs=jobs, ending="completed").root

    def read_loss(path: Path, test_id: str, name: str | None = None) -> Any:
        facts = read_recording(path, test_id=test_id, name=name).facts
        return facts and facts.values["loss.final"]

    assert is_multirun(root)
    assert read_loss(root, "a", "a[x=2]") == 1
    assert read_loss(root, "b", "b[loss.final_max=1]") == 2
    assert read_loss(root / "1-a", "a") == 1
    with pytest.raises(
        SpecError, match=r"several runs of a are recorded there \(a\[x=1\], a\[x=2\]\); give the folder"
    ):
        read_loss(root, "a")
    with pytest.raises(SpecError, match=r"no run of c is recorded there; it holds a\[x=1\], a\[x=2\], b"):
        read_loss(root, "c")
    with pytest.raises(SpecError, match="a run of a, and the spec is b"):
        read_loss(root / "1-a", "b")


def test_repeated_run_of_a_moved_multirun_is_found_below_its_jobs_folder(tmp_path: Path) -> None:
    was = Path("/gone/outputs/multirun/m/0-spec_0/again-1")
    root = make_suite(
        tmp_path / "suite", (make_report("passed", test_id="spec_0", run_dir=was), make_facts()), ending="completed"
    ).root
    (root / "0-spec_0/again-1").mkdir(parents=True)

    found = read_recording(root, test_id="spec_0")

    assert found.run_dir.root == root / "0-spec_0/again-1"
    assert found.locate(f"{was}/train") == root / "0-spec_0/again-1/train"


@pytest.mark.parametrize(
    ("ending", "reason"),
    [("interrupted", "not run: the multirun was interrupted"), ("killed", "lost: the multirun was killed")],
)
def test_job_without_a_result_is_nothing_to_judge(tmp_path: Path, ending: Ending, reason: str) -> None:
    jobs = (make_job(0, "a"), make_job(1, "b"))
    root = make_suite(
        tmp_path / "suite", (make_report("passed", test_id="a"), make_facts()), jobs=jobs, ending=ending
    ).root

    with pytest.raises(SpecError, match=f"there is nothing to judge of b: (infrastructure: )?{reason}"):
        read_recording(root, test_id="b")
    assert read_recording(root, test_id="a").facts is not None


def test_skipped_job_has_no_facts_and_one_in_error_is_nothing_to_judge(tmp_path: Path) -> None:
    root = make_mixed_suite(tmp_path / "suite").root

    skipped = read_recording(root, test_id="large")

    assert (skipped.facts, skipped.report and skipped.report.outcome) == (None, "skipped")
    with pytest.raises(SpecError, match="there is nothing to judge of wrong: spec: config: must not be empty"):
        read_recording(root, test_id="wrong")


def test_result_of_one_job_is_the_first_whole_line_of_its_number(tmp_path: Path) -> None:
    rows = [(make_report("passed", reason=str(num)), None) for num in range(12)]
    root = make_suite(tmp_path / "suite", *rows, ending="completed").root
    path = root / RESULTS_NAME
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([lines[1][:40], *lines, lines[1].replace('"1"', '"9"')]) + "\n", encoding="utf-8")

    row, other = read_result(root, 1), read_result(root, 11)

    assert (row and row.report.reason, other and other.report.reason) == ("1", "11")
    assert read_result(root, 12) is None
    assert read_result(tmp_path, 0) is None


def test_report_knows_what_it_judged_again(tmp_path: Path) -> None:
    judged = Judged(run_dir=tmp_path, recorded_at=1795360007.5, took_s=185.4, changed=("loss.final_max 2.0 -> 0.9",))
    report = replace(make_report("passed"), judged=judged)

    report.write(tmp_path / "report.json")

    assert type(report).read(tmp_path / "report.json") == report
    assert judged.describe() == f"{tmp_path}, recorded 2026-11-22 15:06:47 UTC (took 3 min 05 s)"


BAD_RECORDINGS = {
    "nowhere": ("x", {}, "x: no such file or folder; give the folder of a run"),
    "no_facts": ("x", {"y": ""}, "x/facts.json: no such file; give the folder of a run"),
    "half": ("x", {"facts.json": '{"schema": 1, "val'}, "x/facts.json: not a facts.json that can be read"),
    "schema": ("x", {"facts.json": '{"schema": 9}'}, "x/facts.json: schema 9, this version reads schema 1"),
    "list": ("x", {"facts.json": "[]"}, "x/facts.json: not a facts.json that can be read"),
    "no_mappings": (
        "x",
        {"facts.json": '{"schema": 1, "values": [], "notes": {}, "not_applicable": {}}'},
        "values: not a mapping",
    ),
    "foreign": (
        "x",
        {"facts.json": '{"schema": 1, "values": {"a": 1}, "notes": {}, "not_applicable": {}}'},
        "x/facts.json: not the facts of a run: train.started_at is None",
    ),
    "other_file": ("x/notes.txt", {"notes.txt": "hello"}, "x/notes.txt: not a facts.json that can be read"),
    "notes": (
        "x",
        {"facts.json": '{"schema": 1, "values": {}, "notes": {"a": 3}, "not_applicable": {}}'},
        "3 where a text belongs",
    ),
    "half_plan": ("x", {"suite.json": '{"jobs": ['}, "x/suite.json: not a multirun that can be read"),
}


@pytest.mark.parametrize("case", BAD_RECORDINGS.values(), ids=BAD_RECORDINGS)
def test_what_is_no_recording_is_refused_in_one_line(tmp_path: Path, case: tuple[str, Any, str]) -> None:
    path, files, words = case
    for name, text in files.items():
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / name).write_text(text, encoding="utf-8")

    with pytest.raises(SpecError) as caught:
        read_recording(tmp_path / path, test_id="tiny")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['{"schema"', "[]", '{"spec": 3}'])
def test_report_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    folder = leave_run(tmp_path / "run")
    (folder / "report.json").write_text(text, encoding="utf-8")

    with pytest.raises(SpecError, match=r"report\.json: not a report that can be read"):
        read_recording(folder, test_id="tiny")


@pytest.mark.parametrize(("key", "value"), [("spec", []), ("versions", []), ("duration_s", {"float": "inf"})])
def test_report_of_no_run_is_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = leave_run(tmp_path / "run")
    document = json.loads((folder / "report.json").read_text(encoding="utf-8")) | {key: value}
    (folder / "report.json").write_text(json.dumps(document), encoding="utf-8")

    with pytest.raises(SpecError, match=r"report\.json: not the report of a run"):
        read_recording(folder, test_id="tiny")
