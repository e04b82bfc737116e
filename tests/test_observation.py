"""From observations to facts: nothing is invented, and what is missing says why."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from fgvalidate.facts import CATALOGUE, LOG_PREFIX, Facts
from fgvalidate.observation import Observation, collect_facts, look_for_files
from fgvalidate.process import ProcessResult
from fgvalidate.signatures import Sign
from fgvalidate.spec import Log
from fgvalidate.steps import Step
from fgvalidate.text_search import Finding
from fgvalidate.training_log import TrainingLog, find_training_log, read_training_log
from fgvalidate.watch import Alarm, Watched

PROCESS = ProcessResult(
    argv=("trainer", "--max-steps", "20"),
    returncode=0,
    timed_out=False,
    started_at=1000.0,
    duration_s=2.0,
    cleanup_s=0.1,
    peak_memory_bytes=5,
    orphans=(),
    survivors=(),
)
MISSING = TrainingLog(
    path=None, state="missing", reason="no log there", finished_reason="the log has no final record: no log there"
)


SEEN = Watched(num_steps=2, last_step=20, longest_gap_s=1.5, max_loss=4.0)
NAN_SEEN = Watched(
    alarms=(Alarm(kind="nonfinite", text="loss is nan at step 15", elapsed_s=2.5),),
    stopped_after_s=2.5,
    num_steps=3,
    last_step=19,
    num_nonfinite=2,
    nonfinite=(Step(15, math.nan), Step(19, math.nan)),
)


def make_log(tmp_path: Path, *records: dict[str, Any], end: str = "\n]") -> TrainingLog:
    path = tmp_path / "trainer_logs.json"
    path.write_text("[\n" + ",\n".join(map(json.dumps, records)) + end, encoding="utf-8")
    return read_training_log(path)


def find_log(tmp_path: Path, *records: dict[str, Any]) -> TrainingLog:
    """Returns the log as a run finds it, with what its end is proven by."""
    make_log(tmp_path, *records)
    settings = Log(reader="forgather", path="trainer_logs.json")
    return find_training_log(
        tmp_path, settings, stdout=tmp_path / "stdout", written_after=0, started_at=0, requested_steps=20
    )


def observe(log: TrainingLog, **changes: Any) -> Facts:
    process = dataclasses.replace(PROCESS, **changes.pop("process", {}))
    seen = Observation(
        process=process,
        timeout=300,
        log=log,
        requested_steps=20,
        findings={"Traceback": Finding(2, "Traceback (most"), "quiet": None},
        stderr_bytes=9,
        files={"a": True},
        created_files=frozenset({"b", "a"}),
        commit="1f2e-dirty",
        num_gpus_available=2,
        gpu_names=("NVIDIA H100",),
        foreign_memory_share=0.25,
        host="here",
        num_cores=2,
        inference="there is no inference stage",
    )
    return collect_facts(dataclasses.replace(seen, **changes))


TEN = {"global_step": 10, "epoch": 0.5, "loss": 4.0, "grad_norm": 1.5}
TWENTY = {"global_step": 20, "epoch": 1.0, "loss": 3.0, "grad_norm": 0.5}
FINAL = {"global_step": 20, "epoch": 1.0, "train_runtime": 1.5, "step": 19}


def test_good_run_has_every_fact(tmp_path: Path) -> None:
    evaluation = {"global_step": 20, "epoch": 1.0, "eval_loss": 2.5}
    ten = {**TEN, "timestamp": 1000.0, "total_tokens": 300, "peak_mem_allocated": 7e9}
    twenty = {**TWENTY, "timestamp": 1004.0, "total_tokens": 900, "peak_mem_allocated": 6e9}

    facts = observe(find_log(tmp_path, ten, twenty, evaluation, FINAL), watched=SEEN)

    fixed = {name: value for name, value in facts.values.items() if not name.startswith(LOG_PREFIX)}
    left_out = ("inference.", "infrastructure.", "stderr.exception", "watch.stopped_")
    assert set(fixed) == {name for name in CATALOGUE if not name.startswith(left_out)}
    assert (fixed["watch.num_steps"], fixed["watch.longest_gap_s"]) == (2, 1.5)
    assert fixed["loss.drop"] == 0.25
    assert (fixed["train.finished"], fixed["train.global_step"], fixed["train.epoch_ended"]) == (True, 20, True)
    assert fixed["stderr.findings"] == {"Traceback": {"line_number": 2, "line": "Traceback (most"}, "quiet": None}
    assert (facts.values["log.grad_norm"], facts.values["log.train_runtime"]) == (0.5, 1.5)
    assert fixed["loss.curve"] == [[10, 4.0], [20, 3.0]]
    assert (fixed["throughput.steps_per_second"], fixed["throughput.tokens_per_second"]) == (2.5, 150)
    assert (fixed["memory.peak_bytes"], fixed["grad_norm.max"]) == (7e9, 1.5)
    assert (fixed["training_log.num_logs"], fixed["training_log.num_superseded"]) == (1, 0)
    assert (fixed["repo.commit"], fixed["host.name"], fixed["host.num_cores"]) == ("1f2e-dirty", "here", 2)


def test_no_fact_is_outside_the_catalogue(tmp_path: Path) -> None:
    for log in (MISSING, make_log(tmp_path, TEN), make_log(tmp_path)):
        facts = observe(log, process={"returncode": None, "timed_out": True}, created_files=None)

        names = {*facts.values, *facts.notes, *facts.not_applicable}
        assert {name for name in names if not name.startswith(LOG_PREFIX)} <= set(CATALOGUE)
        assert None not in facts.values.values()


SIGN = Sign(signature="disk_full", hint="a disk is full", file="train.stderr", line_number=3, line="no space")


def test_trouble_of_a_run_that_broke_off_is_quoted() -> None:
    found = observe(MISSING, signs=(SIGN,), exception=Finding(4, "OSError: no space"))
    nothing = observe(MISSING, signs=())
    well = observe(MISSING)

    assert found.values["infrastructure.findings"] == [dataclasses.asdict(SIGN)]
    assert found.values["stderr.exception"] == {"line_number": 4, "line": "OSError: no space"}
    assert nothing.values["infrastructure.findings"] == []
    assert nothing.notes["stderr.exception"] == "no uncaught Python exception stands in stderr"
    for name in ("infrastructure.findings", "stderr.exception"):
        assert well.not_applicable[name] == "the run ended well, and nothing was looked for"


def test_memory_of_others_is_a_share_unknown_or_of_no_gpu() -> None:
    name = "gpu.foreign_memory_share"

    assert observe(MISSING).values[name] == 0.25
    assert name in observe(MISSING, foreign_memory_share=None).notes
    assert name in observe(MISSING, foreign_memory_share=None, gpu_names=()).not_applicable


def test_missing_log_is_a_reason_not_a_value() -> None:
    facts = observe(MISSING)

    assert (facts.values["train.finished"], facts.values["train.num_steps_logged"]) == (False, 0)
    assert facts.notes["train.finished"] == "the log has no final record: no log there"
    assert {facts.notes[name] for name in ("loss.final", "loss.drop", "loss.num_nonfinite", "loss.curve")} == {
        "no log there"
    }
    assert not any(name.startswith("loss.") for name in facts.values)


@pytest.mark.parametrize(
    ("changes", "name", "note"),
    [
        ({"returncode": -9}, "train.returncode", "killed by signal 9"),
        ({"returncode": None}, "train.returncode", "the process that watched it was killed, and it was ended unseen"),
        ({"timed_out": True, "returncode": -15}, "train.timed_out", "still running after 300 s, and ended"),
        (
            {"orphans": ("7 worker",)},
            "train.orphans",
            "they outlived the command and had to be ended",
        ),
    ],
)
def test_end_of_the_process_is_explained(changes: dict[str, Any], name: str, note: str) -> None:
    assert observe(MISSING, process=changes).notes[name] == note


def test_lost_process_has_no_returncode() -> None:
    assert "train.returncode" not in observe(MISSING, process={"returncode": None}).values


def test_unfinished_log_says_where_it_ends(tmp_path: Path) -> None:
    facts = observe(find_log(tmp_path, TEN))

    assert (facts.values["train.finished"], facts.values["train.global_step"]) == (False, 10)
    assert "train.epoch_ended" not in facts.values
    assert facts.notes["train.finished"].endswith("it ends with record 1, and training was not completed")


def test_steps_below_logging_steps_are_explained(tmp_path: Path) -> None:
    facts = observe(make_log(tmp_path, FINAL))

    assert "its logging_steps is above 20 steps" in facts.notes["train.num_steps_logged"]
    assert facts.values["train.num_steps_logged"] == 0


def test_nonfinite_losses_are_counted_and_placed(tmp_path: Path) -> None:
    bad = {"global_step": 15, "epoch": 0.7, "loss": math.nan}

    facts = observe(make_log(tmp_path, TEN, bad, TWENTY, FINAL))

    assert (facts.values["loss.num_nonfinite"], facts.values["loss.nonfinite_steps"]) == (1, [15])
    assert (facts.values["loss.min"], facts.values["loss.max"]) == (3.0, 4.0)
    assert facts.notes["loss.num_nonfinite"] == "the first is nan at step 15"


def test_highest_loss_takes_infinity_in_and_leaves_nan_out(tmp_path: Path) -> None:
    losses = [math.nan, math.inf, -math.inf, 3.0]

    facts = observe(make_log(tmp_path, *({**TEN, "loss": loss} for loss in losses)))
    nothing = observe(make_log(tmp_path, {**TEN, "loss": math.nan}))

    assert facts.values["loss.max"] == math.inf
    assert nothing.notes["loss.max"] == "no training record has a loss that is a number"


def test_run_that_was_ended_early_says_why_and_where() -> None:
    process = {"stopped": True, "returncode": -15}

    facts = observe(MISSING, process=process, watched=NAN_SEEN)

    assert facts.notes["watch.stopped"] == (
        "loss is nan at step 15; stopped at step 19 of 20 after 2.5 s, which saves the rest"
    )
    assert facts.notes["train.returncode"] == "ended by fgvalidate: loss is nan at step 15"
    assert facts.values["watch.alarms"] == ["loss is nan at step 15"]
    assert facts.values["watch.stopped_after_s"] == 2.5


def test_run_that_was_ended_before_its_first_step_says_so() -> None:
    alarm = Alarm(kind="stall", text="no step and no output for 9 s from its start", elapsed_s=9.0)
    watched = Watched(alarms=(alarm,), stopped_after_s=9.0, is_stalled=True)

    facts = observe(MISSING, process={"stopped": True}, watched=watched, requested_steps=None)

    assert (
        facts.notes["watch.stopped"] == f"{alarm.text}; stopped before the first step after 9.0 s, which saves the rest"
    )
    assert facts.notes["watch.stalled"] == alarm.text


def test_run_that_ended_by_itself_meanwhile_was_not_ended_early() -> None:
    facts = observe(MISSING, watched=NAN_SEEN)

    assert facts.values["watch.stopped"] is False
    assert facts.not_applicable["watch.stopped_after_s"] == "the run was not ended early"
    assert "train.returncode" not in facts.notes


def test_what_was_seen_counts_against_a_run_without_a_log() -> None:
    facts = observe(MISSING, watched=dataclasses.replace(NAN_SEEN, highest=Step(12, 99.5)))

    assert (facts.values["loss.num_nonfinite"], facts.values["loss.nonfinite_steps"]) == (2, [15, 19])
    assert facts.notes["loss.num_nonfinite"] == "the first is nan at step 15, as seen while it ran"
    assert (facts.values["loss.max"], facts.notes["loss.max"]) == (99.5, "99.5 at step 12, as seen while it ran")
    assert not {"loss.first", "loss.final", "loss.min", "loss.drop", "loss.curve"} & set(facts.values)


def test_what_was_seen_and_is_in_the_log_counts_once(tmp_path: Path) -> None:
    bad = [{"global_step": step, "epoch": 0.7, "loss": loss} for step, loss in [(15, math.nan), (19, math.nan)]]

    facts = observe(make_log(tmp_path, TEN, *bad, FINAL), watched=NAN_SEEN)
    short = observe(make_log(tmp_path, TEN, bad[0]), watched=NAN_SEEN)

    assert (facts.values["loss.num_nonfinite"], facts.notes["loss.num_nonfinite"]) == (2, "the first is nan at step 15")
    assert (short.values["loss.num_nonfinite"], short.values["loss.nonfinite_steps"]) == (2, [15, 19])


@pytest.mark.parametrize(("printed", "highest"), [(3.5, 4.0), (4.5, 4.5)])
def test_higher_of_what_was_seen_and_what_was_logged_is_the_highest(
    tmp_path: Path, printed: float, highest: float
) -> None:
    facts = observe(make_log(tmp_path, TEN, TWENTY, FINAL), watched=Watched(highest=Step(10, printed)))

    assert facts.values["loss.max"] == highest


def test_what_was_seen_never_counts_for_a_run() -> None:
    facts = observe(MISSING, watched=SEEN)

    assert not any(name.startswith("loss.") for name in facts.values)


def test_one_record_has_no_drop(tmp_path: Path) -> None:
    facts = observe(make_log(tmp_path, TWENTY, FINAL))

    assert "loss.drop" not in facts.values
    assert facts.notes["loss.drop"].startswith("only one training record")


@pytest.mark.parametrize(
    ("step", "epoch", "ended"),
    [
        (625, 1.0, True),
        (624, 0.9984, False),
        (625, 0.9999, True),
        (1250, 2.0, True),
        (500, 0.8, False),
        (20, 0.032, False),
        (20, math.nan, False),
        (0, 1.0, False),
    ],
)
def test_end_of_an_epoch_is_told_to_the_step(tmp_path: Path, step: int, epoch: float, ended: bool) -> None:
    final = {**FINAL, "global_step": step, "epoch": epoch}

    assert observe(make_log(tmp_path, {**TEN, "epoch": epoch}, final)).values["train.epoch_ended"] is ended


def test_project_outside_a_checkout_does_not_apply() -> None:
    facts = observe(MISSING, created_files=None, commit=None)

    assert facts.not_applicable["repo.created_files"] == "the project is in no git checkout"
    assert facts.not_applicable["repo.commit"] == "the project is in no git checkout"


def test_checkout_without_a_commit_says_so() -> None:
    facts = observe(MISSING, commit=None)

    assert "repo.commit" not in facts.values
    assert facts.notes["repo.commit"] == "git names no commit of the project's checkout"


def test_records_without_a_step_make_no_curve(tmp_path: Path) -> None:
    facts = observe(make_log(tmp_path, {"loss": 4.0}, {"loss": 3.0}))

    assert "loss.curve" not in facts.values
    assert facts.notes["loss.curve"] == "no training record says its step"


def test_expected_files_may_be_patterns_and_lie_deeper(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/events.out.1").touch()
    (tmp_path / "log.json").touch()

    found = look_for_files(tmp_path, ["log.json", "sub/events.*", "*.csv", "sub", "absent"])

    assert found == {"log.json": True, "sub/events.*": True, "*.csv": False, "sub": True, "absent": False}


def test_no_file_is_found_without_a_run_directory() -> None:
    assert look_for_files(None, ["trainer_logs.json"]) == {"trainer_logs.json": False}


def test_losses_of_steps_that_were_done_again_count_against_the_run(tmp_path: Path) -> None:
    records = [
        {"global_step": step, "loss": loss}
        for step, loss in [(10, 4.0), (20, math.nan), (30, 9.0), (20, 3.0), (30, 2.0)]
    ]

    facts = observe(make_log(tmp_path, *records))

    assert (facts.values["train.num_steps_logged"], facts.values["training_log.num_superseded"]) == (3, 2)
    assert (facts.values["loss.num_nonfinite"], facts.values["loss.nonfinite_steps"]) == (1, [20])
    assert (facts.values["loss.max"], facts.values["loss.final"]) == (9.0, 2.0)
    assert facts.values["loss.curve"] == [[10, 4.0], [20, 3.0], [30, 2.0]]
    assert facts.notes["training_log.num_superseded"] == "training went back to step 20, and did steps again"


def test_what_nothing_proves_is_not_observed() -> None:
    facts = observe(dataclasses.replace(MISSING, finished=None, finished_reason="nothing proves it"))

    assert "train.finished" not in facts.values
    assert facts.notes["train.finished"] == "nothing proves it"


def test_records_without_a_loss_say_what_they_have(tmp_path: Path) -> None:
    facts = observe(make_log(tmp_path, {"global_step": 10, "lm_loss": 4.0}))

    expected = "one with a loss; its records have global_step, lm_loss (see backend.log.keys)"
    for name in ("loss.final", "train.num_steps_logged"):
        assert facts.notes[name].endswith(expected)


def test_several_logs_are_said(tmp_path: Path) -> None:
    log = dataclasses.replace(make_log(tmp_path, TEN), num_logs=2)

    assert observe(log).notes["training_log.num_logs"] == f"the newest was read, {log.path}"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("grad_norm.max", "no record has a grad_norm"),
        ("memory.peak_bytes", "no record has a peak_mem_allocated"),
        ("throughput.steps_per_second", "fewer than two training records have a step and a timestamp"),
        (
            "throughput.tokens_per_second",
            "fewer than two records have tokens and a timestamp, none a tokens_per_second",
        ),
    ],
)
def test_measurements_that_the_log_does_not_have_are_not_observed(tmp_path: Path, name: str, reason: str) -> None:
    facts = observe(make_log(tmp_path, {"global_step": 10, "loss": 4.0}))

    assert (name in facts.values, facts.notes[name]) == (False, reason)
    assert observe(MISSING).notes[name] == "no log there"


def test_the_logs_own_throughput_is_taken_where_it_has_no_clock(tmp_path: Path) -> None:
    facts = observe(make_log(tmp_path, TEN, {**FINAL, "tokens_per_second": 80.5}))

    assert facts.values["throughput.tokens_per_second"] == 80.5
    assert facts.notes["throughput.tokens_per_second"] == "the log's own figure, over the whole run"


def test_a_gradient_norm_of_nan_is_the_highest(tmp_path: Path) -> None:
    facts = observe(make_log(tmp_path, TEN, {**TWENTY, "grad_norm": math.nan}))

    assert math.isnan(facts.values["grad_norm.max"])
