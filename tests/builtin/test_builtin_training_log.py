"""The log file's form, to the letter, and the step table's."""

import json
import math
import re
from pathlib import Path

import pytest

from fgvalidate.builtin.training_log import TABLE_HEADER, StepWindow, TrainingLog


def test_a_log_closed_before_its_first_record_is_an_empty_array(tmp_path: Path) -> None:
    with TrainingLog(tmp_path / "log.json"):
        pass

    assert (tmp_path / "log.json").read_text(encoding="utf-8") == "[\n\n]"


def test_each_record_is_on_disk_at_once(tmp_path: Path) -> None:
    with TrainingLog(tmp_path / "log.json") as log:
        log.write({"loss": 1.0})
        log.write({"loss": 2.0})
        text = (tmp_path / "log.json").read_text(encoding="utf-8")

    assert re.fullmatch(r'\[\n\{"timestamp": [\d.]+, "loss": 1\.0\},\n\{"timestamp": [\d.]+, "loss": 2\.0\}', text)


def test_an_error_leaves_valid_json(tmp_path: Path) -> None:
    def fail() -> None:
        with TrainingLog(tmp_path / "log.json") as log:
            log.write({"loss": math.nan})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    text = (tmp_path / "log.json").read_text(encoding="utf-8")
    assert text.endswith('"loss": NaN}\n]')
    assert len(json.loads(text)) == 1


def test_a_window_averages_its_steps_and_prints_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    window = StepWindow(tokens_per_step=600)
    window.add(3.0, 0.5)
    window.add(2.0, 1.5)

    record = window.close(global_step=20, epoch=0.25, total_flos=7.0, learning_rate=4e-6)

    assert record == {
        "global_step": 20,
        "epoch": 0.25,
        "loss": 2.5,
        "grad_norm": 1.0,
        "max_grad_norm": 1.5,
        "tokens": 1200,
        "total_tokens": 12000,
        "total_flos": 7.0,
        "learning_rate": 4e-6,
    }
    row = capsys.readouterr().out
    assert re.fullmatch(
        r"[\d-]{10} [\d:]{8}         20    0\.2500   2\.50000    1\.0000    1\.5000    4\.00e-06       1,200"
        r"      12,000 +[\d,]+\n",
        row,
    )
    assert len(TABLE_HEADER) == 98


@pytest.mark.parametrize("step", [0, 1])
def test_nan_in_any_step_shows_in_the_record(step: int) -> None:
    window = StepWindow(tokens_per_step=1)
    for index in range(2):
        value = math.nan if index == step else 1.0
        window.add(value, value)

    record = window.close(global_step=2, epoch=0.0, total_flos=0.0, learning_rate=0.0)

    assert math.isnan(record["loss"])
    assert math.isnan(record["grad_norm"])
    assert math.isnan(record["max_grad_norm"])
