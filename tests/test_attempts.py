"""Retries: what the machine was to blame for is run again, nothing else is, and every attempt stays to be seen."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finished_suites import make_job, make_report

from fgvalidate.attempts import Attempts, explain_stop, repeat_run
from fgvalidate.errors import RunDirError
from fgvalidate.facts import Facts
from fgvalidate.planning import OVERHEAD_S
from fgvalidate.report import Report
from fgvalidate.run_dir import RunDir
from fgvalidate.suite import Plan, append_result, read_plan, start_suite

FULL = "[Errno 28] No space left on device"
RETRY = {"retries": {"infrastructure": 1}}
BLAMED = "infrastructure: a disk is full (disk_full, line "


def repeat(
    tmp_path: Path, *failures: str, num_retries: int, stop: str = ""
) -> tuple[Report, list[tuple[str, ...]], list[str]]:
    """Repeats runs that end with these classes of failure, the GPUs of the first being g1."""
    run_dir = RunDir(tmp_path / "run")
    avoided: list[tuple[str, ...]] = []
    said: list[str] = []

    def run_once(avoid: tuple[str, ...]) -> tuple[Report, Facts, tuple[str, ...]]:
        failure = failures[len(avoided)]
        avoided.append(avoid)
        run_dir.create()
        number = len(avoided)
        outcome = "failed" if failure else "passed"
        reason = f"{failure}: try {number}" if failure else ""
        report = make_report(outcome, reason, failure=failure, run_dir=run_dir.root, duration_s=float(number))
        return report, Facts(values={"host.num_cores": number}), (f"g{number}",)

    report, facts = repeat_run(
        run_once, Attempts(run_dir), num_retries=num_retries, explain_stop=lambda: stop, say=said.append
    )
    assert facts.values["host.num_cores"] == len(avoided)
    return report, avoided, said


@pytest.mark.parametrize(
    ("failures", "num_retries", "reason", "num_attempts"),
    [
        (["infrastructure"], 0, "infrastructure: try 1", 0),
        (["crash"], 2, "crash: try 1", 0),
        ([""], 2, "", 0),
        (["infrastructure", ""], 1, "passed on attempt 2; attempt 1: infrastructure: try 1", 2),
        (["infrastructure", "crash"], 2, "crash: try 2; attempt 2 of 2", 2),
        (["infrastructure", "infrastructure"], 1, "infrastructure: try 2; attempt 2 of 2", 2),
        (["infrastructure"] * 2 + [""], 2, "passed on attempt 3; attempt 2: infrastructure: try 2", 3),
    ],
)
def test_only_infrastructure_is_tried_again(
    tmp_path: Path, failures: list[str], num_retries: int, reason: str, num_attempts: int
) -> None:
    report, avoided, said = repeat(tmp_path, *failures, num_retries=num_retries)

    assert (report.reason, len(report.attempts), len(avoided)) == (reason, num_attempts, len(failures))
    assert len(said) == max(0, num_attempts - 1)
    assert report.run_dir == tmp_path / "run"


def test_attempts_say_what_they_ended_with_and_where_they_lie(tmp_path: Path) -> None:
    report, avoided, _ = repeat(tmp_path, "infrastructure", "infrastructure", "", num_retries=2)

    assert avoided == [(), ("g1",), ("g1", "g2")]
    assert [attempt.outcome for attempt in report.attempts] == ["failed", "failed", "passed"]
    assert [attempt.failure for attempt in report.attempts] == ["infrastructure", "infrastructure", ""]
    assert [attempt.gpus for attempt in report.attempts] == [("g1",), ("g2",), ("g3",)]
    assert [attempt.duration_s for attempt in report.attempts] == [1.0, 2.0, 3.0]
    root = tmp_path / "run"
    assert [attempt.run_dir for attempt in report.attempts] == [root / "attempt-1", root / "attempt-2", root]
    assert sorted(path.name for path in root.iterdir()) == ["attempt-1", "attempt-2", "train"]
    assert Report.from_document(json.loads(json.dumps(report.to_document()))) == report


def test_retries_that_are_stopped_say_why(tmp_path: Path) -> None:
    report, avoided, said = repeat(tmp_path, "infrastructure", num_retries=1, stop="all is red")

    assert (report.reason, len(avoided), said) == ("infrastructure: try 1; not tried again: all is red", 1, [])


def test_run_never_starts_beside_other_files_than_attempts(tmp_path: Path) -> None:
    (tmp_path / "attempt-1").mkdir()
    RunDir(tmp_path).create()

    with pytest.raises(RunDirError, match="not empty"):
        RunDir(tmp_path).create()
    with pytest.raises(RunDirError, match="cannot be moved there"):
        RunDir(tmp_path).put_aside(1)


@pytest.mark.parametrize(("num_red", "stops"), [(0, False), (3, False), (4, True)])
def test_retries_stop_when_more_than_three_tenths_of_a_multirun_are_red(
    tmp_path: Path, num_red: int, stops: bool
) -> None:
    jobs = tuple(make_job(num, f"spec_{num}") for num in range(10))
    start_suite(tmp_path / "suite", Plan(command="x", started_at=0.0, jobs=jobs))
    for num in range(1, 6):
        outcome = "passed" if num > num_red else ("failed", "error")[num % 2]
        append_result(tmp_path / "suite", num, make_report(outcome), None)
    append_result(tmp_path / "suite", 0, make_report("failed"), None)

    why = explain_stop(tmp_path / "suite", 0)

    assert why == ("4 of 10 specs are red, more than 30%" if stops else "")


def test_multirun_of_another_sweeper_stops_nothing(tmp_path: Path) -> None:
    assert explain_stop(tmp_path, 0) == ""


def test_second_attempt_runs_on_another_gpu_and_passes_with_a_word(
    simulated_gpus: Any, specs: Any, fgvalidate: Any, tmp_path: Path
) -> None:
    gpus = simulated_gpus(2)
    specs.write("flaky", f"raise=10:{FULL};once={tmp_path / 'once'}", gpu_requirement=1, **RETRY)

    run = fgvalidate("--config-dir", str(specs.folder), "+spec=flaky")

    assert (run.code, run.report["outcome"], run.report["failure"], run.red) == (0, "passed", "", set()), run.stdout
    first, second = run.report["attempts"]
    assert (first["outcome"], first["failure"], second["outcome"]) == ("failed", "infrastructure", "passed")
    assert (first["gpus"], second["gpus"]) == (gpus.uuids[:1], gpus.uuids[1:])
    assert first["reason"].startswith(BLAMED)
    said = f"passed on attempt 2; attempt 1: {BLAMED}"
    assert run.report["reason"].startswith(said)
    assert run.stdout.splitlines()[-1].startswith("PASSED flaky in ")
    assert said in run.stdout.splitlines()[-1]
    assert "Attempt 1 of 2: infrastructure: " in run.stdout
    assert FULL in (run.run_dir / "attempt-1/train.stderr").read_text(encoding="utf-8")
    assert FULL not in (run.run_dir / "train.stderr").read_text(encoding="utf-8")
    assert run.report["run_dir"] == str(run.run_dir)
    assert run.facts["values"]["train.finished"] is True
    assert "Attempts" in (run.run_dir / "report.html").read_text(encoding="utf-8")


def test_only_gpu_is_taken_again(simulated_gpus: Any, specs: Any, fgvalidate: Any, tmp_path: Path) -> None:
    gpus = simulated_gpus(1)
    specs.write("flaky", f"raise=10:{FULL};once={tmp_path / 'once'}", gpu_requirement=1, **RETRY)

    run = fgvalidate("--config-dir", str(specs.folder), "+spec=flaky")

    assert (run.code, [attempt["gpus"] for attempt in run.report["attempts"]]) == (0, [gpus.uuids, gpus.uuids])


def test_bug_of_the_subject_is_not_tried_again(validate: Any) -> None:
    run = validate("fail_at=75", "retries.infrastructure=3")

    assert (run.code, run.report["failure"], run.report["attempts"]) == (1, "crash", [])
    assert not (run.run_dir / "attempt-1").exists()


def test_machine_is_blamed_and_red_without_retries(validate: Any) -> None:
    run = validate(f"die=75:{FULL}")

    assert (run.code, run.report["failure"], run.report["attempts"]) == (1, "infrastructure", [])
    assert run.facts["values"]["infrastructure.findings"][0]["signature"] == "disk_full"
    assert run.stdout.splitlines()[-1].startswith("FAILED tiny_llama in ")
    assert BLAMED in run.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("faults", "failure"), [("", ""), ("loss_from=9.0;loss_to=6.5", "convergence")], ids=["green", "loss_too_high"]
)
def test_words_of_a_run_that_ended_well_excuse_nothing(validate: Any, faults: str, failure: str) -> None:
    run = validate(f"{faults};stderr={FULL}", "retries.infrastructure=1")

    assert (run.code, run.report["failure"]) == (1 if failure else 0, failure)
    assert "infrastructure.findings" in run.facts["not_applicable"]


def test_memory_that_others_had_is_measured_and_excuses_what_it_kept_from_the_run(
    simulated_gpus: Any, specs: Any, fgvalidate: Any
) -> None:
    gpus = simulated_gpus(1)
    gpus.change(0, used=60 << 30, processes=[[1, 60 << 30]])
    fields = {"gpu_requirement": 1, "gpu_memory": 10}
    specs.write("large", "raise=10:CUDA out of memory. Tried to allocate 2.00 GiB.", **fields)

    crowded = fgvalidate("--config-dir", str(specs.folder), "+spec=large")
    gpus.change(0, used=1 << 30, processes=[[1, 1 << 30]])
    alone = fgvalidate("--config-dir", str(specs.folder), "+spec=large")

    assert crowded.facts["values"]["gpu.foreign_memory_share"] == 0.75
    assert (crowded.code, crowded.report["failure"]) == (1, "infrastructure")
    assert alone.facts["values"]["gpu.foreign_memory_share"] == 0.0125
    assert (alone.code, alone.report["failure"]) == (1, "crash")
    assert " of train.stderr: OSError: CUDA out of memory. " in alone.report["reason"]


def test_signature_of_ones_own_and_one_switched_off(validate: Any) -> None:
    mine = validate("die=75:the moon is full", "+signatures.moon.pattern='moon is full'")
    off = validate(f"die=75:{FULL}", "signatures.disk_full=null")

    assert mine.report["reason"].startswith("infrastructure: (moon, line 3 of train.stderr: the moon is full)")
    assert (off.code, off.report["failure"]) == (1, "evidence")


def test_multirun_that_is_mostly_red_tries_nothing_again(specs: Any, fgvalidate: Any) -> None:
    specs.write("a", "fail_at=5")
    specs.write("b", "fail_at=5")
    specs.write("c", f"raise=10:{FULL}", **RETRY)

    run = fgvalidate(*specs.multirun("a", "b", "c"), "hydra.launcher.max_parallel=1")

    report = run.report["specs"][2]["report"]
    assert (run.code, report["failure"], report["attempts"]) == (1, "infrastructure", [])
    assert report["reason"].endswith("; not tried again: 2 of 3 specs are red, more than 30%")
    assert 'type="infrastructure"' in (run.run_dir / "junit.xml").read_text(encoding="utf-8")


def test_attempts_of_a_multirun_are_in_its_reports(specs: Any, fgvalidate: Any, tmp_path: Path) -> None:
    specs.write("flaky", f"raise=10:{FULL};once={tmp_path / 'once'}", **RETRY)

    run = fgvalidate(*specs.multirun("flaky"))

    (job,) = read_plan(run.run_dir).jobs
    assert (run.code, job.time_limit, job.expected_s) == (0, 2 * (job.timeout + OVERHEAD_S), job.timeout + OVERHEAD_S)
    assert "passed on attempt 2; attempt 1: infrastructure: " in run.stdout
    for name in ("report.html", "summary.md", "junit.xml", "report.json"):
        assert "passed on attempt 2" in (run.run_dir / name).read_text(encoding="utf-8")
    assert json.loads((run.run_dir / "0-flaky/report.json").read_text("utf-8"))["attempts"][0]["failure"]


def test_interrupt_during_the_second_attempt_leaves_nothing_running(
    specs: Any, workplace: Any, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    specs.write("flaky", f"raise=5:{FULL};once={tmp_path / 'once'};hang_at=15", **RETRY)
    argv = workplace.argv("--config-dir", str(specs.folder), "+spec=flaky")
    app = subprocess.Popen(argv, cwd=workplace.folder, env=workplace.env, stdout=subprocess.DEVNULL)
    wait_until(lambda: list(workplace.folder.glob("outputs/*/*/attempt-1")))
    wait_until(lambda: list(workplace.folder.glob("outputs/*/*/train/runs/*")))

    app.send_signal(signal.SIGINT)

    assert app.wait(timeout=60) == 130
    workplace.wait_until_empty()
    assert not list(workplace.folder.glob("outputs/*/*/report.json"))
