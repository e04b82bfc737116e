"""The shipped specs on the built-in trainer, judged in earnest: real training, and training that learns nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def run(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Runs a spec; returns the exit code, the report and what was printed."""
    answer = subprocess.run(
        [sys.executable, "-m", "fgvalidate", *arguments, "hydra.run.dir=run"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads((folder / "run/report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    return answer.returncode, report, answer.stdout


def list_red(report: dict[str, Any]) -> list[str]:
    return [check["name"] for check in report["checks"] if check["status"] in {"failed", "error"}]


def test_good_training_passes_and_its_checkpoints_are_removed(tmp_path: Path) -> None:
    code, report, printed = run(tmp_path, "+spec=tiny_experiment", "dynamic_args.save_strategy=steps")

    assert (code, list_red(report), report["outcome"]) == (0, [], "passed")
    assert "PASSED tiny_experiment_smoke" in printed
    assert not (tmp_path / "run/train/checkpoints").exists()
    assert list((tmp_path / "run/train/runs").glob("*/trainer_logs.json"))


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
    tmp_path: Path, fault: str, may_be_red: set[str]
) -> None:
    code, report, printed = run(tmp_path, "+spec=tiny_llama", fault)

    red = list_red(report)
    assert (code, set(red) - may_be_red) == (1, {"final_loss_max", "loss_drop"})
    assert f"FAILED tiny_llama in {report['duration_s']:.1f} s: {red[0]} is " in printed


def test_kept_checkpoints_stay(tmp_path: Path) -> None:
    save = "dynamic_args.save_strategy=steps"
    code, _, _ = run(
        tmp_path, "+spec=tiny_experiment", "max_steps=10", save, "keep=all", "loss.final_max=null", "loss.drop_min=null"
    )

    assert code == 0
    assert (tmp_path / "run/train/checkpoints/checkpoint-10/model.safetensors").is_file()


def test_two_processes_train_as_one_run(tmp_path: Path) -> None:
    bounds = ["loss.final_max=null", "loss.drop_min=null"]
    code, report, printed = run(
        tmp_path, "+spec=tiny_experiment", "max_steps=10", "+dynamic_args.nproc_per_node=2", *bounds
    )

    assert (code, list_red(report)) == (0, []), printed
    assert "No loss bound is set. This run ended at " in printed
