"""Every reader of training logs against the same runs, written in its format."""

import dataclasses
import gc
import itertools
import json
import math
import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from log_writers import FORMATS, make_losses, write_records
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.summary.writer.record_writer import RecordWriter

from fgvalidate.errors import LaunchError
from fgvalidate.log_reader import open_reader
from fgvalidate.log_records import to_float
from fgvalidate.spec import LOG_READERS, Finished, Log
from fgvalidate.steps import StepSource
from fgvalidate.training_log import TrainingLog, find_training_log, read_training_log

ROOT = Path(__file__).parent.parent
RUN: list[dict[str, Any]] = [
    {"step": 10, "timestamp": 1795543000.0, "loss": 4.0, "grad_norm": 1.5},
    {"step": 20, "timestamp": 1795543004.0, "loss": 3.0, "grad_norm": 0.5},
    {"step": 20, "eval_loss": 2.5},
    {"step": 30, "timestamp": 1795543012.0, "loss": 2.0, "grad_norm": 1.0},
]
every_reader = pytest.mark.parametrize("name", LOG_READERS)
readers_of_lines = pytest.mark.parametrize("name", ["csv", "jsonl"])
readers_of_files = pytest.mark.parametrize("name", [name for name in LOG_READERS if name != "stdout"])
live_readers = pytest.mark.parametrize("name", ["csv", "jsonl", "stdout"])


def configure(name: str, **changes: Any) -> Log:
    chosen = FORMATS[name]
    return Log(**({"reader": name, "finished": Finished(**chosen.proof), **chosen.settings} | changes))


def find(name: str, output_dir: Path, settings: Log | None = None, **changes: Any) -> TrainingLog:
    limits: dict[str, Any] = {"written_after": 0.0, "started_at": 0.0, "requested_steps": 30} | changes
    return find_training_log(output_dir, settings or configure(name), stdout=output_dir / "stdout", **limits)


def cut(path: Path, num_bytes: int) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - num_bytes)


def test_each_reader_is_in_the_catalogue_and_in_these_tests() -> None:
    modules = {path.stem.removeprefix("log_") for path in (ROOT / "fgvalidate").glob("log_*.py")}

    assert modules - {"reader", "records"} == set(LOG_READERS) == set(FORMATS)


@every_reader
def test_a_run_is_read(name: str, tmp_path: Path) -> None:
    write_records(name, tmp_path, RUN)

    log = find(name, tmp_path)

    assert (log.state, log.reason, log.num_logs) == ("complete", "", 1)
    assert (list(log.steps), list(log.losses), log.last_eval_loss) == ([10, 20, 30], [4.0, 3.0, 2.0], 2.5)
    assert (log.global_step, log.finished, log.finished_reason) == (30, True, "")
    assert log.max_grad_norm == 1.5


@every_reader
def test_steps_a_second_are_told_where_the_log_has_a_clock(name: str, tmp_path: Path) -> None:
    write_records(name, tmp_path, RUN)

    assert find(name, tmp_path).steps_per_second == pytest.approx(20 / 12)


@every_reader
def test_a_run_that_ended_early_is_not_finished(name: str, tmp_path: Path) -> None:
    write_records(name, tmp_path, RUN, finishes=False)

    log = find(name, tmp_path)

    assert (log.state, log.finished, log.global_step) == ("complete", False, 30)
    assert log.finished_reason != ""


@every_reader
def test_a_log_that_breaks_off_keeps_what_came_before(name: str, tmp_path: Path) -> None:
    path = write_records(name, tmp_path, RUN, finishes=False)
    cut(path, {"forgather": 6, "trainer_state": 260}.get(name, 4))

    log = find(name, tmp_path)

    assert (log.state, list(log.steps[:2]), list(log.losses[:2])) == ("truncated", [10, 20], [4.0, 3.0])
    assert (log.finished, log.reason != "") == (False, True)


@every_reader
def test_a_log_may_break_off_anywhere(name: str, tmp_path: Path) -> None:
    path = write_records(name, tmp_path, RUN, finishes=False)
    whole = path.read_bytes()

    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        log = find(name, tmp_path)
        assert log.state in {"truncated", "empty", "complete"}, (size, log.reason)
        assert list(log.losses) == [4.0, 3.0, 2.0][: len(log.losses)], size
        assert not log.finished


@every_reader
def test_an_empty_log_is_told_from_one_with_records(name: str, tmp_path: Path) -> None:
    path = write_records(name, tmp_path, [], finishes=False)
    path.write_bytes(b"")

    log = find(name, tmp_path)

    assert (log.state, log.num_records, log.finished) == ("empty", 0, False)


@every_reader
def test_a_log_of_no_record_is_no_evidence(name: str, tmp_path: Path) -> None:
    write_records(name, tmp_path, [], finishes=False)

    log = find(name, tmp_path)

    # Of an array without records, Forgather's own closing bracket says that it is whole.
    assert (log.state, log.num_records) == ("complete" if name == "forgather" else "empty", 0)
    assert not log.finished


@every_reader
def test_of_a_step_that_was_done_again_the_last_record_counts(name: str, tmp_path: Path) -> None:
    losses = [(10, 5.0), (20, 4.5), (30, 4.0), (20, 3.5), (30, 3.0), (40, 2.5)]
    write_records(name, tmp_path, [{"step": step, "loss": loss} for step, loss in losses])

    log = find(name, tmp_path)

    assert (list(log.steps), list(log.losses)) == ([10, 20, 30, 40], [5.0, 3.5, 3.0, 2.5])
    assert (list(log.superseded_steps), list(log.superseded_losses)) == ([20, 30], [4.5, 4.0])


@every_reader
def test_losses_that_are_not_finite_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    losses = [math.nan, math.inf, -math.inf, 2.0]
    write_records(name, tmp_path, [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)])

    log = find(name, tmp_path)

    assert list(map(str, log.losses)) == ["nan", "inf", "-inf", "2.0"]


@every_reader
def test_a_gradient_norm_of_nan_is_the_highest(name: str, tmp_path: Path) -> None:
    norms = [1.0, math.nan, 9.0]
    records = [{"step": step, "loss": 1.0, "grad_norm": norm} for step, norm in enumerate(norms, 1)]
    write_records(name, tmp_path, records)

    assert math.isnan(find(name, tmp_path).max_grad_norm or 0.0)


@readers_of_files
def test_a_log_that_was_not_written_is_missing(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()

    log = find(name, tmp_path)

    assert (log.path, log.state, log.finished, log.folder) == (None, "missing", False, None)
    assert log.reason.endswith("it holds config.json")


def test_stdout_that_says_nothing_names_the_pattern(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_text("Hello\nstep ten\n", encoding="utf-8")

    log = find("stdout", tmp_path)

    assert (log.state, log.num_records) == ("empty", 0)
    assert "no line of stdout matches backend.log.pattern" in log.reason


@readers_of_files
def test_an_older_file_is_an_earlier_runs(name: str, tmp_path: Path) -> None:
    path = write_records(name, tmp_path, RUN)
    os.utime(path, (1000, 1000))

    log = find(name, tmp_path, written_after=time.time() - 60)

    assert (log.state, log.num_records, log.finished, log.folder) == ("stale", 0, False, None)


@pytest.mark.parametrize("name", ["csv", "forgather", "jsonl", "tensorboard"])
def test_a_copy_of_an_earlier_runs_log_is_told_by_its_timestamps(name: str, tmp_path: Path) -> None:
    write_records(name, tmp_path, RUN[:2], finishes=False)

    assert find(name, tmp_path, started_at=1795543010.0).state == "stale"


@pytest.mark.parametrize("name", ["csv", "forgather"])
def test_of_two_logs_of_a_run_the_newest_is_read(name: str, tmp_path: Path) -> None:
    older = write_records(name, tmp_path, RUN[:1], folder="version_0")
    newer = write_records(name, tmp_path, RUN, folder="version_1")
    os.utime(older, (1000, 1000))

    log = find(name, tmp_path)

    assert (log.path, log.num_logs, list(log.steps)) == (newer, 2, [10, 20, 30])


def test_the_newest_trainer_state_holds_what_the_others_do(tmp_path: Path) -> None:
    checkpoint = write_records("trainer_state", tmp_path, RUN[:1], finishes=False, folder="checkpoint-10")
    newest = write_records("trainer_state", tmp_path, RUN, finishes=False, folder="checkpoint-30")
    os.utime(checkpoint, (1000, 1000))

    log = find("trainer_state", tmp_path)

    assert (log.path, log.num_logs, list(log.steps)) == (newest, 1, [10, 20, 30])


def test_the_event_files_of_a_folder_are_one_log(tmp_path: Path) -> None:
    first = write_records("tensorboard", tmp_path, RUN[:2], finishes=False)
    cut(first, 3)  # the first try was killed
    write_records("tensorboard", tmp_path, RUN[1:])

    log = find("tensorboard", tmp_path)

    assert (log.state, list(log.steps), log.num_logs, log.finished) == ("complete", [10, 20, 30], 1, True)


def test_event_files_about_something_else_are_passed_over(tmp_path: Path) -> None:
    training = write_records("tensorboard", tmp_path, RUN, folder="a")
    other = write_records("tensorboard", tmp_path, [{"step": 0, "hparam": 1.0}], finishes=False, folder="a_hparams")
    os.utime(training, (1000, 1000))

    assert find("tensorboard", tmp_path).path == training
    training.unlink()
    assert find("tensorboard", tmp_path).path == other


@every_reader
def test_bytes_that_are_no_log_are_survived(name: str, tmp_path: Path) -> None:
    path = write_records(name, tmp_path, RUN)
    path.write_bytes(b"\x93NUMPY\x01\x00\xff\xfe{[\n\x00,\x1b[31m\n" * 20)

    log = find(name, tmp_path)

    assert (log.state, log.num_records) == ("empty" if name == "stdout" else "corrupt", 0)
    assert not log.finished


@pytest.mark.parametrize("name", ["csv", "forgather", "jsonl", "tensorboard", "trainer_state"])
def test_a_fault_in_the_middle_is_no_end(name: str, tmp_path: Path) -> None:
    path = write_records(name, tmp_path, RUN)
    text = path.read_bytes()
    at = text.index(b"\n", len(text) // 2) + 1 if name != "tensorboard" else len(text) // 2
    path.write_bytes(text[:at] + b"@@@\n" + text[at:])

    log = find(name, tmp_path)

    assert (log.state, log.losses[0]) == ("corrupt", 4.0)


@readers_of_lines
def test_lines_after_a_broken_one_are_read(name: str, tmp_path: Path) -> None:
    path = write_records(name, tmp_path, RUN[:2])
    cut(path, 8)
    with path.open("ab") as file:
        file.write(b'{"step": 30, "loss": 2.0}\n' * 2 if name == "jsonl" else b"1,2,3,4,5,6,7\r\n,,30,,2.0\r\n")

    log = find(name, tmp_path)

    assert (log.state, list(log.steps)) == ("corrupt", [10, 20, 30])


@pytest.mark.parametrize("name", ["csv", "jsonl", "stdout", "tensorboard"])
def test_without_a_declared_proof_nothing_counts_as_finished(name: str, tmp_path: Path) -> None:
    write_records(name, tmp_path, RUN)

    log = find(name, tmp_path, configure(name, finished=Finished()))

    assert log.finished is None
    assert log.finished_reason.endswith("say what does: backend.log.finished.steps=true, or .key, .file or .line")


@every_reader
@pytest.mark.parametrize(("requested", "finished"), [(30, True), (31, False), (None, None)])
def test_steps_that_were_asked_for_and_done_prove_the_end(
    name: str, tmp_path: Path, requested: int | None, finished: bool | None
) -> None:
    write_records(name, tmp_path, RUN, finishes=False)

    log = find(name, tmp_path, configure(name, finished=Finished(steps=True)), requested_steps=requested)

    assert (log.finished, log.finished_reason == "") == (finished, finished is True)


@pytest.mark.parametrize(("age_s", "finished"), [(None, False), (86400, False), (0, True)])
def test_a_file_proves_the_end_when_this_run_wrote_it(tmp_path: Path, age_s: float | None, finished: bool) -> None:
    write_records("jsonl", tmp_path, RUN)
    if age_s is not None:
        written_at = time.time() - age_s
        (tmp_path / "model").mkdir()
        (tmp_path / "model/weights.bin").touch()
        os.utime(tmp_path / "model/weights.bin", (written_at, written_at))
    settings = configure("jsonl", finished=Finished(file="**/weights.bin"))

    log = find("jsonl", tmp_path, settings, written_after=time.time() - 60)

    assert (log.finished, log.finished_reason == "") == (finished, finished)


@pytest.mark.parametrize(("text", "finished"), [("", False), ("not Done.\n", False), ("5%\rDone.", True)])
def test_a_line_of_stdout_proves_the_end(tmp_path: Path, text: str, finished: bool) -> None:
    write_records("jsonl", tmp_path, RUN)
    (tmp_path / "stdout").write_text(text, encoding="utf-8")

    log = find("jsonl", tmp_path, configure("jsonl", finished=Finished(line="^Done")))

    assert (log.finished, log.finished_reason == "") == (finished, finished)


@pytest.mark.parametrize(
    ("last", "finished"),
    [
        ({"step": 30, "done": True}, True),
        ({"step": 30, "done": 0.0}, True),
        ({"step": 30, "done": False}, False),
        ({"step": 30, "done": None}, False),
        ({"step": 30, "done": True, "loss": 2.0}, False),
        ({"step": 30, "finished": True}, False),
    ],
)
def test_a_key_proves_the_end_in_a_record_that_is_not_of_a_step(
    tmp_path: Path, last: dict[str, Any], finished: bool
) -> None:
    write_records("jsonl", tmp_path, [*RUN, last], finishes=False)

    assert find("jsonl", tmp_path).finished is finished


def test_a_trainer_state_whose_steps_are_done_is_finished_without_a_final_record(tmp_path: Path) -> None:
    path = write_records("trainer_state", tmp_path, RUN, finishes=False)
    text = path.read_text(encoding="utf-8")

    path.write_text(text.replace('"max_steps": 0', '"max_steps": 30'), encoding="utf-8")
    assert find("trainer_state", tmp_path).finished is True
    path.write_text(text.replace('"max_steps": 0', '"max_steps": 31'), encoding="utf-8")
    assert find("trainer_state", tmp_path).finished is False


def test_train_runtime_proves_nothing_of_a_trainer_state(tmp_path: Path) -> None:
    """The Trainer logs it with every loss when it counts tokens."""
    records = [{"step": 10, "loss": 3.0, "train_runtime": 1.0}, {"step": 10, "eval_loss": 3.0, "train_runtime": 1.0}]
    write_records("trainer_state", tmp_path, records, finishes=False)

    assert find("trainer_state", tmp_path).finished is False


def test_a_trainer_state_counts_the_steps_that_were_not_logged(tmp_path: Path) -> None:
    path = write_records("trainer_state", tmp_path, RUN, finishes=False)
    path.write_text(
        path.read_text(encoding="utf-8").replace('"global_step": 30', '"global_step": 34'), encoding="utf-8"
    )

    log = find("trainer_state", tmp_path)

    assert (log.global_step, list(log.steps)) == (34, [10, 20, 30])


@every_reader
def test_steps_may_be_numbered_from_zero(name: str, tmp_path: Path) -> None:
    write_records(name, tmp_path, [{"step": 9, "loss": 3.0}, {"step": 29, "loss": 2.0}], finishes=False)
    settings = configure(name, first_step=0, finished=Finished(steps=True))

    log = find(name, tmp_path, settings)

    # What a trainer state says of itself is a number of steps.
    assert (list(log.steps), log.global_step) == ([10, 30], 29 if name == "trainer_state" else 30)


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_epochs_that_are_only_numbered_are_no_passes_over_the_data(name: str, tmp_path: Path) -> None:
    def find_epoch(folder: Path, first: float, last: float) -> float | None:
        write_records(
            name, folder, [{"step": 10, "epoch": first, "loss": 3.0}, {"step": 20, "epoch": last, "loss": 2.0}]
        )
        return find(name, folder).epoch

    assert find_epoch(tmp_path / "numbered", 1, 2) is None
    assert find_epoch(tmp_path / "numbered_as_fractions", 1.0, 2.0) is None
    assert find_epoch(tmp_path / "passes", 0.5, 1.0) == 1.0


def test_a_declared_name_wins_over_one_that_is_ours(tmp_path: Path) -> None:
    write_records("jsonl", tmp_path, [{"step": 1, "loss": 9.0, "lm_loss": 2.0}])

    log = find("jsonl", tmp_path, configure("jsonl", keys={"lm_loss": "loss"}))

    assert (list(log.losses), log.last_values["lm_loss"]) == ([2.0], 2.0)


def test_a_name_that_the_trainer_does_not_use_leaves_no_training_record(tmp_path: Path) -> None:
    write_records("jsonl", tmp_path, [{"step": 1, "lm_loss": 2.0}])

    log = find("jsonl", tmp_path, configure("jsonl", keys={"train_loss": "loss"}))

    assert (log.state, log.num_records, list(log.losses)) == ("complete", 2, [])


def test_another_header_in_the_middle_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "lightning_logs/version_0/metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text("step,train_loss\n1,3.0\nstep,train_loss\n2,2.5\nlr,step,train_loss\n0.1,3,2.0\n", encoding="utf-8")

    log = find("csv", tmp_path)

    assert (log.state, list(log.steps), list(log.losses)) == ("complete", [1, 2, 3], [3.0, 2.5, 2.0])


@pytest.mark.parametrize(
    ("text", "state", "losses"),
    [
        ("step,train_loss\n1,3.0\n2,2.5", "truncated", [3.0]),
        ("step,train_loss\n1,3.0\n2,\n", "complete", [3.0]),
        ("step,train_loss\n1,nan\n2,-Infinity\n", "complete", ["nan", "-inf"]),
        ("step,train_loss\n1,tensor(3.0)\n", "complete", ["nan"]),
        ("step,train_loss,note\n1,3.0,train_loss\n", "complete", [3.0]),
        ('step,train_loss,note\n1,3.0,"two\nlines, and a comma"\n', "complete", [3.0]),
        ("step,train_loss\n", "empty", []),
        ("step,train_loss\n1,3.0,9\n2,2.5\n", "corrupt", [2.5]),
        ("step,train_loss\n1,1_0\n", "complete", ["nan"]),
    ],
)
def test_cells(tmp_path: Path, text: str, state: str, losses: list[Any]) -> None:
    path = tmp_path / "lightning_logs/version_0/metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")

    log = find("csv", tmp_path)

    assert (log.state, list(map(str, log.losses))) == (state, list(map(str, losses)))


@pytest.mark.parametrize(
    ("text", "state", "steps", "losses"),
    [
        ("INFO step=1,000 loss=2.5\n", "complete", [1000], [2.5]),
        ("  5%|#\rINFO step=1 loss=2.5\r", "complete", [1], [2.5]),
        ("INFO step=1 loss=2.5\nINFO step=2 loss=2.", "truncated", [1], [2.5]),
        ("INFO step=1 loss=2.5\nbye", "complete", [1], [2.5]),
        ("INFO step=1 loss=n/a\n", "complete", [1], [math.nan]),
        ("\x1b[32mINFO step=1 loss=1e-3 grad_norm=2\n", "complete", [1], [0.001]),
    ],
)
def test_lines(tmp_path: Path, text: str, state: str, steps: list[int], losses: list[float]) -> None:
    (tmp_path / "stdout").write_text(text, encoding="utf-8", newline="")

    log = find("stdout", tmp_path)

    assert (log.state, list(log.steps), list(map(str, log.losses))) == (state, steps, list(map(str, losses)))


@pytest.mark.parametrize("text", ["null", '"NaN"', '"2.5"', "[2.5]", "true"])
def test_a_json_loss_that_is_no_number_is_nan(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "loss": {text}}}\n', encoding="utf-8")

    assert list(map(str, find("jsonl", tmp_path).losses)) == ["nan"]


@every_reader
def test_memory_does_not_grow_with_the_log(name: str, tmp_path: Path) -> None:
    num_records = 3_000 if name == "tensorboard" else 20_000
    if name == "trainer_state":  # the writer writes all of it with each record
        head, tail = '{"log_history": [', '{"step": 20001, "train_loss": 2.0}]}'
        body = "".join(f'{{"step": {step}, "loss": 2.5, "note": "{"x" * 60}"}},\n' for step in range(1, 20001))
        (tmp_path / "trainer_state.json").write_text(head + body + tail, encoding="utf-8")
    else:
        write_records(name, tmp_path, make_losses(num_records))
    find(name, tmp_path)
    gc.collect()
    tracemalloc.start()
    log = find(name, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (len(log.losses), log.finished) == (num_records, True)
    # tensorboard reads 16 MiB at a time.
    assert peak < (24 if name == "tensorboard" else 8) << 20


@pytest.mark.parametrize(
    ("line", "loss"),
    [
        ("step 10 | loss nan", math.nan),
        ("step 10 | loss -inf", -math.inf),
        ("step 10 | loss 1.2e+05", 1.2e5),
        ("step 10 | loss 0.69, lr 0.1", 0.69),
        ("step 10 | loss \x1b[31m0.7\x1b[0m", 0.7),
        ("step 10 | loss 3.25(mean)", 3.25),
    ],
)
def test_an_expression_for_plain_numbers_hides_no_other_loss(tmp_path: Path, line: str, loss: float) -> None:
    path = tmp_path / "stdout"
    path.write_text(f"{line}\n", encoding="utf-8")
    settings = Log(
        reader="stdout", pattern=r"step (?P<step>\d+) \| loss (?P<loss>[\d.]+)", finished=Finished(steps=True)
    )

    log = read_training_log(path, settings)

    assert list(log.steps) == [10]
    assert log.losses[0] == pytest.approx(loss, nan_ok=True)


def test_a_table_with_two_columns_of_a_name_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss,loss\n1,nan,2.0\n", encoding="utf-8")

    log = read_training_log(path, configure("csv"))

    assert (log.state, len(log.losses)) == ("corrupt", 0)
    assert "two columns 'loss'" in log.reason


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n1,2.0\n", encoding="utf-8-sig")

    assert list(read_training_log(path, configure("csv")).steps) == [1]


@pytest.mark.parametrize(("zone", "state"), [("", "complete"), ("+00:00", "stale")])
def test_a_time_without_a_zone_proves_no_copy(tmp_path: Path, zone: str, state: str) -> None:
    record = {"step": 10, "loss": 1.0, "timestamp": f"2020-01-01T00:00:00{zone}"}
    (tmp_path / "log.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")

    assert find("jsonl", tmp_path, configure("jsonl", path="log.jsonl"), started_at=time.time()).state == state


def open_source(name: str) -> StepSource:
    """Returns what reads the format as it grows, wherever it does."""
    reader = open_reader(configure(name))
    source = reader.make_log_source() or reader.make_stdout_source()
    assert source is not None
    return source


def feed(name: str, pieces: Iterator[bytes]) -> list[tuple[int, float]]:
    source = open_source(name)
    rows = [row for piece in pieces for row in source.read(piece)]
    return [(int(step), float(loss)) for step, loss in [*rows, *source.finish()]]


@live_readers
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_growing_log_gives_its_steps_however_it_is_cut(name: str, size: int, tmp_path: Path) -> None:
    content = write_records(name, tmp_path, make_losses(30, every=10)).read_bytes()

    seen = feed(name, (content[at : at + size] for at in range(0, len(content), size)))

    assert seen == [(record["step"], record["loss"]) for record in make_losses(30, every=10)]


@live_readers
def test_of_a_line_without_end_nothing_is_said_and_little_kept(name: str) -> None:
    source = open_source(name)
    tracemalloc.start()
    for piece in itertools.repeat(b"x" * 65536, 100):
        assert source.read(piece) == []
    current, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert current < 1 << 20


def test_a_missing_library_is_one_line_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(LaunchError, match=r"tensorboard is not installed .*; pip install 'fgvalidate\[tensorboard\]'"):
        open_reader(configure("tensorboard"))


def test_numbers_beyond_any_float_are_infinite() -> None:
    assert (to_float(10**400), to_float(-(10**400))) == (math.inf, -math.inf)
    assert dataclasses.is_dataclass(TrainingLog)


LIGHTNING_CSV = """\
epoch,lr-SGD,step,train_loss_epoch,train_loss_step,val_loss
,0.01,0,,,
0,,1,,0.08942727744579315,
,0.01,3,,,
0,,3,,nan,
0,,3,,,0.25
0,,3,nan,,
,0.01,4,,,
"""


def test_a_table_of_lightning_is_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(LIGHTNING_CSV.replace("\n", "\r\n"), encoding="utf-8", newline="")
    keys = {"train_loss_step": "loss", "val_loss": "eval_loss"}
    settings = Log(reader="csv", path="metrics.csv", keys=keys, first_step=0, finished=Finished(steps=True))

    log = find("csv", tmp_path, settings, requested_steps=5)

    assert (log.state, log.num_records, list(log.steps)) == ("complete", 7, [2, 4])
    assert (log.losses[0], math.isnan(log.losses[1]), log.last_eval_loss) == (0.08942727744579315, True, 0.25)
    assert (log.global_step, log.epoch, log.finished) == (5, None, True)


@pytest.mark.parametrize("new_style", [False, True])
def test_what_torch_writes_for_tensorboard_is_read(tmp_path: Path, new_style: bool) -> None:
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - slow to import

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("config", "lr: 0.1")
        writer.add_histogram("weights", np.array([1.0, 2.0]), 1)
        for step, loss in enumerate([3.0, math.nan, 2.0], 1):
            writer.add_scalar("train/loss", loss, step, new_style=new_style)
    settings = configure("tensorboard", path="events.out.tfevents.*")

    log = find("tensorboard", tmp_path, settings)

    assert (log.state, log.num_records, list(log.steps)) == ("complete", 3, [1, 2, 3])
    assert list(map(str, log.losses)) == ["3.0", "nan", "2.0"]


def test_a_tensor_that_is_no_number_is_passed_over(tmp_path: Path) -> None:

    huge = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1 << 40)])
    tensors = [
        TensorProto(dtype=1, tensor_shape=huge, float_val=[1.0]),
        TensorProto(dtype=7, string_val=[b"x"]),
        TensorProto(dtype=99, float_val=[1.0]),
        TensorProto(dtype=1, float_val=[2.5]),
    ]
    with (tmp_path / "events.out.tfevents.1").open("wb") as file:
        for step, tensor in enumerate(tensors):
            summary = Summary(value=[Summary.Value(tag="train/loss", tensor=tensor)])
            RecordWriter(file).write(Event(step=step, summary=summary).SerializeToString())

    log = find("tensorboard", tmp_path, configure("tensorboard", path="events.out.tfevents.*"))

    assert (log.state, list(log.steps), list(log.losses)) == ("complete", [3], [2.5])
