"""Trainers of every log format, validated from the command line: what goes wrong with them is red."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from log_writers import FORMATS

TRAINER = Path(__file__).parent / "fakes/trainer.py"
Train = Callable[..., Any]
every_format = pytest.mark.parametrize("name", sorted(FORMATS))


@pytest.fixture
def train(fgvalidate: Callable[..., Any], specs: Any) -> Train:
    """Validates a trainer: `train("csv", "what goes wrong", key=value)`; the keys are those of `backend.log`."""

    def run(name: str, faults: str = "", *overrides: str, **log: Any) -> Any:
        chosen = FORMATS[name]
        backend = {
            "root": str(specs.root),
            "program": None,
            "python": sys.executable,
            "arguments": [str(TRAINER), "--format", name, "--output-dir", "{output_dir}"],
            "cpu_arguments": [],
            "cpu_ok": True,
            "env": {"FAKE_TRAINER": faults},
            "log": {"reader": name, "path": None, "finished": chosen.proof, **chosen.settings, **log},
        }
        specs.write("mine", backend=backend, expected_files=[], loss={"final_max": 6.5, "drop_min": 0.05})
        return fgvalidate("--config-dir", str(specs.folder), "+spec=mine", *overrides)

    return run


@every_format
def test_a_good_run_passes(train: Train, name: str) -> None:
    run = train(name)

    assert (run.code, run.red, run.warned) == (0, set(), set())
    assert run.check("all_steps")["actual"] == 20
    assert run.check("steps_logged")["actual"] == 20
    assert run.facts["values"]["loss.curve"][-1] == [20, run.facts["values"]["loss.final"]]
    assert run.facts["values"]["grad_norm.max"] == 2.0


@every_format
def test_a_run_that_stops_early_is_red(train: Train, name: str) -> None:
    run = train(name, "stop_after=15")

    assert (run.code, run.red) == (1, {"finished", "all_steps"})


@every_format
def test_nan_is_red(train: Train, name: str) -> None:
    run = train(name, "nan_at=12")

    assert (run.code, run.red) == (1, {"finite_loss"})
    assert run.facts["values"]["loss.nonfinite_steps"] == [12]


@pytest.mark.parametrize("name", ["csv", "forgather", "jsonl", "tensorboard", "trainer_state"])
def test_a_log_that_is_cut_is_red(train: Train, name: str) -> None:
    run = train(name, "stop_after=20;cut=5")

    assert run.code == 1
    assert run.check("log_complete")["actual"] == "truncated"


@every_format
def test_a_run_without_a_log_is_red(train: Train, name: str) -> None:
    run = train(name, "no_log")

    assert run.code == 1
    assert run.check("log_complete")["actual"] == ("empty" if name == "stdout" else "missing")
    assert {"log_complete", "finished", "steps_logged", "final_loss_max"} <= run.red


def test_a_loss_that_was_nan_is_red_though_its_step_was_done_again(train: Train) -> None:
    run = train("jsonl", "back_at=12;nan_at=12")

    values = run.facts["values"]
    assert (run.code, run.red) == (1, {"finite_loss"})
    assert (values["train.num_steps_logged"], values["training_log.num_superseded"]) == (20, 12)


def test_without_a_proof_nothing_is_finished_and_the_verdict_says_what_to_declare(train: Train) -> None:
    run = train("jsonl", finished={})

    assert (run.code, run.red) == (1, {"finished"})
    assert run.check("finished")["status"] == "error"
    assert "backend.log.finished.steps=true, or .key, .file or .line" in run.check("finished")["message"]


def test_a_loss_of_another_name_is_asked_for(train: Train) -> None:
    run = train("csv", keys={"trainloss": "loss"})

    assert run.code == 1
    assert run.check("final_loss_max")["status"] == "error"
    assert "its records have" in run.check("final_loss_max")["message"]
    assert "train_loss" in run.check("final_loss_max")["message"]


def test_files_are_expected_in_the_output_directory_when_the_log_is_stdout(train: Train) -> None:
    run = train("stdout", "", "expected_files=[../train.stdout]")

    assert (run.code, run.red) == (0, set())
    assert run.facts["values"]["files.run_directory"] == str(run.run_dir / "train")


def test_checks_read_the_log_s_own_values(train: Train) -> None:
    slow = "+checks.slow='\\${check.le:\\${fact:throughput.steps_per_second},0}'".replace("\\", "")
    other = "+checks.other='${check.ge:${fact:log.train_loss},100}'"

    run = train("csv", "", slow, other)

    assert (run.code, run.red) == (1, {"slow", "other"})
