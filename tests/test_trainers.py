"""Trainers of others, by YAML alone: unmodified scripts pass, and their faults are red for the right reason.

The scripts in `trainers/` know nothing of this program; the specs beside them say how they are run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TRAINERS = Path(__file__).parent / "trainers"
SPECS = TRAINERS / "specs"

Validate = Callable[..., Any]


@pytest.fixture
def validate_trainer(fgvalidate: Validate, workplace: Any) -> Validate:
    """Validates one of the trainers: `validate_trainer("plain", *overrides)`."""
    # More threads than cores make a small model many times slower.
    workplace.env["OMP_NUM_THREADS"] = "1"

    def run(spec: str, *overrides: str) -> Any:
        return fgvalidate("--config-dir", str(SPECS), f"+spec={spec}", f"backend.root={TRAINERS}", *overrides)

    return run


@pytest.mark.parametrize("spec", ["plain", "accelerate", "lightning"])
def test_unmodified_trainer_passes(validate_trainer: Validate, workplace: Any, spec: str) -> None:
    run = validate_trainer(spec)

    assert (run.code, run.report["outcome"], run.red, run.warned) == (0, "passed", set(), set()), run.stdout
    assert run.facts["values"]["train.global_step"] == run.facts["values"]["train.max_steps"]
    assert not list((run.run_dir / "train").rglob("*.ckpt"))
    assert workplace.find_processes() == []


def test_trainer_of_transformers_is_trained_saved_served_and_heard(validate_trainer: Validate) -> None:
    run = validate_trainer("hf_clm", "scorer=builtin")

    assert (run.code, run.red, run.warned) == (0, set(), set()), run.stdout
    # The root's model was written when training had ended.
    assert run.facts["values"]["inference.model_dir"] == str(run.run_dir / "train")
    assert run.check("perplexity_max")["status"] == "passed"
    assert not (run.run_dir / "train/model.safetensors").exists()
    assert not list((run.run_dir / "train").glob("checkpoint-*"))


def test_declared_model_is_served(validate_trainer: Validate) -> None:
    run = validate_trainer("hf_clm", "scorer=builtin", "backend.model_dir='${output_dir}/checkpoint-*'", "keep=all")

    assert (run.code, run.red) == (0, set()), run.stdout
    assert run.facts["values"]["inference.model_dir"] == str(run.run_dir / "train/checkpoint-60")


def test_lightning_is_read_from_tensorboard_too(validate_trainer: Validate) -> None:
    pytest.importorskip("tensorboard")

    log = ["backend.log.reader=tensorboard", "backend.log.path='**/events.out.tfevents.*'"]

    run = validate_trainer("lightning", *log, "expected_files=[]")

    assert (run.code, run.red) == (0, set()), run.stdout
    assert run.check("steps_logged")["actual"] == 8


FAULTS = [
    (["plain", "+backend.env.TROUBLE=crash:30"], {"forbidden_stderr", "returncode", "finished"}, "returncode is 1"),
    (["plain", "+backend.env.TROUBLE=kill:30"], {"returncode", "finished"}, "killed by signal 9"),
    (["plain", "+backend.env.TROUBLE=hang:30", "timeout=4"], {"in_time", "finished"}, "still running after 4 s"),
    (["plain", "+backend.env.TROUBLE=quit:30"], {"finished"}, "no line of stdout matches 'training done'"),
    (["plain", "+dynamic_args.lr=1e30"], {"finite_loss"}, "nan at step"),
    (["plain", "+dynamic_args.lr=0"], {"loss_drop"}, "loss_drop is 0,"),
    (["plain", "+dynamic_args.quiet=true"], {"log_complete", "steps_logged"}, "no line of stdout matches"),
    (["accelerate", "+backend.env.TROUBLE=crash:20"], {"returncode", "finished"}, "returncode is 1"),
    (["accelerate", "+backend.env.TROUBLE=kill:20"], {"returncode", "finished"}, "returncode is"),
    (["accelerate", "+backend.env.TROUBLE=hang:20", "timeout=12"], {"in_time", "finished"}, "still running after 12 s"),
    (["accelerate", "+dynamic_args.lr=0"], {"loss_drop"}, "loss_drop is"),
    (["accelerate", "+dynamic_args.lr=1e30"], {"finite_loss"}, "at step"),
    (["accelerate", "backend.log.path=metrics.json"], {"log_complete", "finished"}, "no metrics.json in"),
    (["accelerate", "backend.log.finished.key=saved"], {"finished"}, "saved"),
    (["lightning", "+dynamic_args.trouble=crash:20"], {"returncode", "finished"}, "returncode is 1"),
    (["lightning", "+dynamic_args.trouble=kill:20"], {"returncode", "finished"}, "killed by signal 9"),
    (["lightning", "+dynamic_args.trouble=hang:20", "timeout=9"], {"in_time", "finished"}, "still running after 9 s"),
    (["lightning", "+dynamic_args.trouble=quit:20"], {"finished"}, ""),
    (["lightning", "+dynamic_args.lr=1e30"], {"finite_loss"}, "at step"),
    (["lightning", "+dynamic_args.lr=0"], {"loss_drop"}, "loss_drop is"),
    (["lightning", "+dynamic_args.log_every_n_steps=100"], {"log_complete", "steps_logged"}, "metrics.csv"),
    (["hf_clm", "+dynamic_args.trouble=crash"], {"returncode", "finished"}, "returncode is 1"),
    (["hf_clm", "+dynamic_args.trouble=kill"], {"returncode", "finished"}, "killed by signal 9"),
    (["hf_clm", "+dynamic_args.trouble=hang", "timeout=12"], {"in_time", "finished"}, "still running after 12 s"),
    (["hf_clm", "+dynamic_args.trouble=quit", "+dynamic_args.trouble_step=40"], {"finished"}, ""),
    (["hf_clm", "dynamic_args.learning_rate=1e9"], {"finite_loss", "final_loss_max"}, "at step"),
    (["hf_clm", "dynamic_args.learning_rate=0"], {"final_loss_max", "loss_drop"}, "final_loss_max is"),
    (["hf_clm", "+dynamic_args.logging_strategy=no"], {"steps_logged", "finite_loss"}, ""),
]


@pytest.mark.parametrize(
    ("words", "red", "reason"), FAULTS, ids=[f"{words[0]}-{words[1].rpartition('.')[2]}" for words, *_ in FAULTS]
)
def test_trainer_with_a_fault_is_red_for_the_right_reason(
    validate_trainer: Validate, workplace: Any, words: list[str], red: set[str], reason: str
) -> None:
    extra = ["inference=none"] if words[0] == "hf_clm" else []

    run = validate_trainer(*words, *extra)

    assert (run.code, run.report["outcome"]) == (1, "failed"), run.stdout
    assert red <= run.red
    assert reason in run.report["reason"]
    workplace.wait_until_empty()
