"""The shipped specs on the built-in trainer, judged in earnest: real training, and training that learns nothing."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
UNBOUNDED = ("loss.final_max=null", "loss.drop_min=null")


@pytest.fixture(autouse=True)
def _cache(workplace: Any) -> None:
    """Lets the runs share the tokenizer's cache, as a user's do."""
    workplace.env["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))


def test_good_training_passes_and_its_checkpoints_are_removed(fgvalidate: Call) -> None:
    run = fgvalidate("+spec=tiny_experiment", "dynamic_args.save_strategy=steps")

    assert (run.code, run.red, run.report["outcome"]) == (0, set(), "passed")
    assert "PASSED tiny_experiment_smoke" in run.stdout
    assert not (run.run_dir / "train/checkpoints").exists()
    assert list((run.run_dir / "train/runs").glob("*/trainer_logs.json"))


@pytest.mark.parametrize(
    ("fault", "may_be_red"),
    [
        ("+dynamic_args.learning_rate=0", set()),
        ("+dynamic_args.learning_rate=4", {"finite_loss"}),
        ("+dynamic_args.shuffle_labels=true", set()),
    ],
    ids=["learning rate 0", "learning rate x1000", "shuffled labels"],
)
def test_llama_that_learns_nothing_fails_and_the_report_says_what_noticed(
    fgvalidate: Call, fault: str, may_be_red: set[str]
) -> None:
    # To the end, since a loss that is no number any more would end it.
    run = fgvalidate("+spec=tiny_llama", fault, "watch.fail_fast=false")

    assert (run.code, run.red - may_be_red) == (1, {"final_loss_max", "loss_drop"})
    verdict = f"FAILED tiny_llama in {run.report['duration_s']:.1f} s: {run.report['reason']}"
    assert run.stdout.splitlines()[-1] == verdict
    first = "numerics: loss is " if "finite_loss" in run.red else "convergence: final_loss_max is "
    assert run.report["reason"].startswith(first)


def test_loss_that_is_no_number_any_more_ends_the_training_at_once(fgvalidate: Call) -> None:
    run = fgvalidate("+spec=tiny_llama", "+dynamic_args.learning_rate=1e12")

    values = run.facts["values"]
    assert (run.code, run.check("finite_loss")["status"]) == (1, "failed")
    assert values["watch.global_step"] < 100
    assert run.report["reason"].startswith("numerics: loss is nan at step 10; stopped at step ")


def test_kept_checkpoints_stay(fgvalidate: Call) -> None:
    run = fgvalidate(
        "+spec=tiny_experiment", "max_steps=10", "dynamic_args.save_strategy=steps", "keep=all", *UNBOUNDED
    )

    assert run.code == 0
    assert (run.run_dir / "train/checkpoints/checkpoint-10/model.safetensors").is_file()


def test_two_processes_train_as_one_run(fgvalidate: Call) -> None:
    run = fgvalidate("+spec=tiny_experiment", "max_steps=10", "+dynamic_args.nproc_per_node=2", *UNBOUNDED)

    assert (run.code, run.red) == (0, set()), run.stdout
    assert "No loss bound is set. This run ended at " in run.stdout
