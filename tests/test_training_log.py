"""The training log: every shape that a trainer leaves is told apart."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest

from fgvalidate.json_records import CHUNK_CHARACTERS
from fgvalidate.training_log import FORGATHER, TrainingLog, find_training_log, read_training_log


def training(step: int, loss: Any, **more: Any) -> dict[str, Any]:
    return {"timestamp": 1795360007.452731, "global_step": step, "epoch": step / 100, "loss": loss, **more}


def final(step: int) -> dict[str, Any]:
    return {
        "timestamp": 1795360387.808142,
        "global_step": step,
        "epoch": step / 100,
        "train_runtime": 4.5,
        "step": step - 1,
    }


def write_log(path: Path, records: list[dict[str, Any]], end: str = "\n]") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(map(json.dumps, records)) + end, encoding="utf-8")
    return path


def read(tmp_path: Path, text: str) -> TrainingLog:
    path = tmp_path / "trainer_logs.json"
    path.write_text(text, encoding="utf-8")
    return read_training_log(path)


def test_record_kinds_are_told_apart(tmp_path: Path) -> None:
    evaluation = {"timestamp": 1795360387.3, "global_step": 20, "epoch": 0.2, "eval_loss": 0.6}
    path = write_log(tmp_path / "x.json", [training(10, 3.0), training(20, 2.0), evaluation, final(20)])

    log = read_training_log(path)

    assert (log.state, log.num_records, list(log.steps), list(log.losses)) == ("complete", 4, [10, 20], [3.0, 2.0])
    assert (log.last_eval_loss, log.global_step, log.epoch) == (0.6, 20, 0.2)
    assert log.final == final(20)


@pytest.mark.parametrize(
    ("text", "state", "num_records", "finished"),
    [
        ("", "empty", 0, False),
        ("  \n", "empty", 0, False),
        ("[\n\n]", "complete", 0, False),
        ("[]", "complete", 0, False),
        ("[\n", "truncated", 0, False),
        ('[\n{"global_step": 1, "loss": 2.0}', "truncated", 1, False),
        ('[\n{"global_step": 1, "loss": 2.0},', "truncated", 1, False),
        ('[\n{"global_step": 1, "loss": 2.0},\n{"global_st', "truncated", 1, False),
        ('[\n{"global_step": 1, "loss": 2.0},\n{"global_step": 2, "loss": N', "truncated", 1, False),
        ('[\n{"global_step": 1, "loss": 2.0},\n{"global_step": 2, "loss": 2.', "truncated", 1, False),
        ('[\n{"global_step": 1, "train_runtime": 2.0}', "truncated", 1, True),
        ('[\n{"global_step": 1, "loss": 2.0},\n@@@,\n{"global_step": 2, "train_runtime": 2.0}\n]', "corrupt", 1, False),
        ('[\n{"global_step": 1, "loss": 2.0}\n{"global_step": 2, "loss": 2.0}\n]', "corrupt", 1, False),
        ('[\n{"global_step": 1, "loss": 2.0}\n]\n[', "corrupt", 1, False),
        ("[1, 2]", "corrupt", 0, False),
        ("step 10 loss 3", "corrupt", 0, False),
        ('{"global_step": 1}', "corrupt", 0, False),
    ],
)
def test_state(tmp_path: Path, text: str, state: str, num_records: int, finished: bool) -> None:
    log = read(tmp_path, text)

    assert (log.state, log.num_records, log.final is not None) == (state, num_records, finished)
    assert (log.reason == "") == (state == "complete")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("NaN", math.nan), ("Infinity", math.inf), ("-Infinity", -math.inf), ("null", math.nan), ('"x"', math.nan)],
)
def test_bare_nan_and_infinity_are_read(tmp_path: Path, text: str, expected: float) -> None:
    (loss,) = read(tmp_path, f'[\n{{"global_step": 1, "loss": {text}}}\n]').losses

    assert loss == expected or (math.isnan(loss) and math.isnan(expected))


def test_final_record_does_not_count_when_training_records_follow(tmp_path: Path) -> None:
    path = write_log(tmp_path / "x.json", [training(10, 3.0), final(10), training(20, 2.0)])

    assert read_training_log(path).final is None


def test_bytes_that_are_no_text_are_survived(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'[\n{"global_step": 1, "loss": 2.0},\n\xff\xfe\x00}')

    assert read_training_log(path).state == "corrupt"


def test_records_across_chunks_are_whole(tmp_path: Path) -> None:
    note = "x" * (CHUNK_CHARACTERS // 3)
    path = write_log(tmp_path / "x.json", [training(step, float(step), note=note) for step in range(1, 9)])

    assert list(read_training_log(path).losses) == [float(step) for step in range(1, 9)]


def test_last_values_are_kept_by_key(tmp_path: Path) -> None:
    path = write_log(
        tmp_path / "x.json", [training(10, 3.0, grad_norm=1.0), training(20, 2.0, grad_norm=0.5), final(20)]
    )

    values = read_training_log(path).last_values

    assert (values["grad_norm"], values["train_runtime"], values["loss"]) == (0.5, 4.5, 2.0)


def find(tmp_path: Path, *, written_after: float = 0.0, started_at: float = 0.0) -> TrainingLog:
    return find_training_log(
        tmp_path,
        FORGATHER,
        stdout=tmp_path / "stdout",
        written_after=written_after,
        started_at=started_at,
        requested_steps=None,
    )


def test_newest_log_is_found(tmp_path: Path) -> None:
    older = write_log(tmp_path / "runs/b/trainer_logs.json", [training(10, 3.0)])
    newer = write_log(tmp_path / "runs/a/trainer_logs.json", [training(10, 2.0)])
    os.utime(older, (1000, 1000))

    assert find(tmp_path).path == newer


def test_deeper_log_is_found_when_none_is_where_it_should_be(tmp_path: Path) -> None:
    path = write_log(tmp_path / "model/x/runs/a/trainer_logs.json", [training(10, 3.0)])

    assert find(tmp_path).path == path


def test_missing_log_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()

    log = find(tmp_path)

    assert (log.path, log.state) == (None, "missing")
    assert log.reason.endswith("it holds config.json")


def test_older_file_is_an_earlier_runs(tmp_path: Path) -> None:
    path = write_log(tmp_path / "runs/a/trainer_logs.json", [training(10, 3.0), final(10)])
    os.utime(path, (1000, 1000))

    log = find(tmp_path, written_after=time.time() - 60)

    assert (log.state, log.num_records, log.final) == ("stale", 0, None)


def test_fresh_copy_of_an_earlier_runs_log_is_told_by_its_timestamps(tmp_path: Path) -> None:
    write_log(tmp_path / "runs/a/trainer_logs.json", [training(10, 3.0), final(10)])

    assert find(tmp_path, started_at=1795360390.0).state == "stale"


def test_timestamps_that_count_from_the_start_are_no_sign_of_an_earlier_run(tmp_path: Path) -> None:
    record = {"timestamp": 12.5, "global_step": 10, "loss": 3.0}
    write_log(tmp_path / "runs/a/trainer_logs.json", [record])

    assert find(tmp_path, started_at=1795360390.0).state == "complete"


def test_earlier_runs_log_does_not_hide_this_runs(tmp_path: Path) -> None:
    stale = write_log(tmp_path / "runs/a/trainer_logs.json", [training(10, 3.0)])
    os.utime(stale, (1000, 1000))
    fresh = write_log(tmp_path / "deeper/runs/a/trainer_logs.json", [training(10, 2.0)])

    assert find(tmp_path, written_after=time.time() - 60).path == fresh


def test_directory_of_that_name_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "runs/a/trainer_logs.json").mkdir(parents=True)

    assert find(tmp_path).state == "missing"
