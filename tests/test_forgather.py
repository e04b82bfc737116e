"""The forgather backend: the command it builds, the environment it runs it in, and good runs that pass."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fgvalidate.command import build_command
from fgvalidate.spec import Backend, Log, Spec

Validate = Callable[..., Any]

LLAMA = "examples/tutorials/tiny_llama"
NOISE = "control_callback:Server thread error: Event loop stopped before Future completed."


def flags_of(call: dict[str, Any]) -> list[str]:
    """The flags after the output directory."""
    argv = call["argv"]
    return list(argv[argv.index("--output-dir") + 2 :])


@pytest.fixture
def the_call(forgather_root: Any) -> Callable[[], dict[str, Any]]:
    """How the program was called, which it must have been once."""

    def read() -> dict[str, Any]:
        (call,) = forgather_root.calls()
        return dict(call)

    return read


def test_the_command_is_the_one_a_user_types(validate: Validate, forgather_root: Any, the_call: Validate) -> None:
    run = validate()

    call = the_call()
    output_dir = str(run.run_dir / "train")
    options = [
        "-p",
        str(forgather_root.root / LLAMA),
        "-t",
        "train_tiny_llama.yaml",
        "train",
        "--output-dir",
        output_dir,
    ]
    flags = ["--save-strategy", "no", "--max-steps", "200", "--dist-backend", "gloo"]
    assert call["argv"] == [str(forgather_root.bin_dir / "forgather"), *options, *flags]
    assert call["argv"] == run.facts["values"]["train.argv"]
    assert call["cwd"] == str(forgather_root.root)


@pytest.mark.parametrize(
    ("spec", "max_steps", "num_logged"), [("tiny_llama", 200, 20), ("tiny_experiment", 150, 15)], ids=str
)
def test_a_good_run_passes_whatever_its_stderr_says(
    validate: Validate, spec: str, max_steps: int, num_logged: int
) -> None:
    run = validate("", f"+spec={spec}")

    assert NOISE in (run.run_dir / "train.stderr").read_text(encoding="utf-8")
    assert (run.code, run.report["outcome"], run.red, run.warned) == (0, "passed", set(), set())
    assert run.check("all_steps")["actual"] == max_steps
    assert run.check("steps_logged")["actual"] == num_logged
    assert run.facts["values"]["train.orphans"] == []


def test_a_run_that_is_given_no_gpu_sees_none_and_uses_gloo(fgvalidate: Validate, forgather_root: Any) -> None:
    backend = ["backend=forgather", f"backend.root={forgather_root.root}"]

    run = fgvalidate("+spec=tiny_llama", *backend, "gpu_requirement=0", env={"CUDA_VISIBLE_DEVICES": "0"})

    (call,) = forgather_root.calls()
    assert run.code == 0
    assert flags_of(call)[-2:] == ["--dist-backend", "gloo"]
    assert call["env"]["CUDA_VISIBLE_DEVICES"] == ""


def test_without_a_gpu_nothing_is_run_and_the_reason_is_said(fgvalidate: Validate, forgather_root: Any) -> None:
    run = fgvalidate("+spec=tiny_llama", "backend=forgather", f"backend.root={forgather_root.root}")

    assert (run.code, run.run_dir, forgather_root.calls()) == (3, None, [])
    assert "SKIPPED tiny_llama: it needs 1 GPU, none is available" in run.stdout
    assert "backend.cpu_ok=true runs it on the CPU" in run.stdout


def test_two_gpus_are_not_replaced_by_the_cpu(validate: Validate, forgather_root: Any) -> None:
    run = validate("", "gpu_requirement=2")

    assert (run.code, run.run_dir, forgather_root.calls()) == (3, None, [])
    assert "SKIPPED tiny_llama: it needs 2 GPUs, none is available" in run.stdout


def test_a_run_sees_the_gpus_it_is_given_and_is_not_told_to_use_gloo(forgather_root: Any, tmp_path: Path) -> None:
    program = str(forgather_root.bin_dir / "forgather")
    backend = Backend(
        name="forgather",
        root=str(forgather_root.root),
        program=program,
        arguments=["-p", "{project}", "train", "--output-dir", "{output_dir}"],
        cpu_arguments=["--dist-backend", "gloo"],
        log=Log(reader="forgather", path="runs/*/trainer_logs.json"),
    )
    spec = Spec(test_id="two", project_dir=LLAMA, config="train_tiny_llama.yaml", gpu_requirement=2, backend=backend)

    command = build_command(spec, forgather_root.root / LLAMA, tmp_path, ("1", "3"))

    project = str(forgather_root.root / LLAMA)
    assert command.argv == (program, "-p", project, "train", "--output-dir", str(tmp_path))
    assert command.env["CUDA_VISIBLE_DEVICES"] == "1,3"


def test_the_checkout_is_taken_from_the_environment(fgvalidate: Validate, forgather_root: Any) -> None:
    root = str(forgather_root.root)

    run = fgvalidate("+spec=tiny_llama", "backend=forgather", "backend.cpu_ok=true", env={"FORGATHER_ROOT": root})

    (call,) = forgather_root.calls()
    assert run.code == 0
    assert call["argv"][2] == str(forgather_root.root / LLAMA)
    assert f"backend.root={root}" in run.report["command"]


def test_a_checkout_that_is_not_named_is_asked_for(fgvalidate: Validate) -> None:
    run = fgvalidate("+spec=tiny_llama", "backend=forgather", "backend.cpu_ok=true")

    assert (run.code, run.run_dir) == (2, None)
    assert "say backend.root=DIR or set FORGATHER_ROOT" in run.stderr


def test_a_program_is_taken_by_its_path_and_torchrun_from_beside_it(
    validate: Validate, forgather_root: Any, tmp_path: Path, the_call: Validate
) -> None:
    other = tmp_path / "other" / "bin"
    forgather_root.install(other, Path(sys.executable))

    run = validate("", f"backend.program={other / 'forgather'}")

    call = the_call()
    assert run.code == 0
    assert call["argv"][0] == str(other / "forgather")
    assert call["torchrun"] == str(other / "torchrun")


def test_a_python_of_another_environment_brings_its_program_and_torchrun(
    validate: Validate, forgather_root: Any, tmp_path: Path, the_call: Validate
) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    forgather_root.install(venv / "bin", venv / "bin" / "python")

    run = validate("", f"backend.python={venv / 'bin' / 'python'}")

    call = the_call()
    assert run.code == 0
    assert call["argv"][0] == str(venv / "bin" / "forgather")
    assert call["prefix"] == str(venv)
    assert call["torchrun"] == str(venv / "bin" / "torchrun")
    assert call["env"]["PATH"].split(os.pathsep)[0] == str(venv / "bin")


@pytest.mark.parametrize("has_python", [True, False], ids=["no_program_beside_python", "no_such_python"])
def test_a_program_is_not_taken_from_another_environment_than_the_one_named(
    validate: Validate, forgather_root: Any, tmp_path: Path, has_python: bool
) -> None:
    venv = tmp_path / "venv"
    if has_python:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)

    run = validate("", f"backend.python={venv / 'bin' / 'python'}")

    assert (run.code, run.run_dir, forgather_root.calls()) == (2, None, [])
    assert str(venv) in run.stderr


def test_the_environment_is_the_callers_less_what_is_ours_and_plus_what_the_backend_sets(
    fgvalidate: Validate, forgather_args: Validate, the_call: Validate, workplace: Any
) -> None:
    launcher = ("GROUP_RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "RANK", "ROLE_RANK")
    torchrun = dict.fromkeys((*launcher, "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_RUN_ID", "WORLD_SIZE"), "1")
    callers = {**torchrun, "HYDRA_FULL_ERROR": "1", "KEPT": "kept", "CHANGED": "before", "REMOVED": "before"}

    run = fgvalidate(
        *forgather_args("", "+backend.env.CHANGED=after", "+backend.env.ADDED='a b=c'", "+backend.env.REMOVED=null"),
        env=callers,
    )

    env = the_call()["env"]
    assert run.code == 0
    assert {name: env.get(name) for name in ("KEPT", "CHANGED", "ADDED")} == {
        "KEPT": "kept",
        "CHANGED": "after",
        "ADDED": "a b=c",
    }
    assert env["HOME"] == workplace.env["HOME"]
    assert not {"REMOVED", "PYTHONPATH", *torchrun} & env.keys()
    assert not [name for name in env if name.startswith("HYDRA_")]


@pytest.mark.parametrize(
    ("overrides", "flags"),
    [
        pytest.param(
            ["+dynamic_args.compile=true", "+dynamic_args.learning_rate=0.001"],
            ["--save-strategy", "no", "--max-steps", "200", "--compile", "--learning-rate", "0.001"],
            id="true_is_the_bare_flag",
        ),
        pytest.param(
            ["+dynamic_args.compile=false", "+dynamic_args.learning_rate=null"],
            ["--save-strategy", "no", "--max-steps", "200"],
            id="false_and_null_are_nothing",
        ),
        pytest.param(["max_steps=50"], ["--save-strategy", "no", "--max-steps", "50"], id="max_steps"),
        pytest.param(
            ["dynamic_args.max_steps=50"], ["--save-strategy", "no", "--max-steps", "50"], id="dynamic_args_max_steps"
        ),
        pytest.param(
            ["max_steps=50", "dynamic_args.max_steps=60"],
            ["--save-strategy", "no", "--max-steps", "50"],
            id="max_steps_wins",
        ),
    ],
)
def test_dynamic_args_become_flags(
    validate: Validate, the_call: Validate, overrides: list[str], flags: list[str]
) -> None:
    run = validate("", *overrides)

    assert run.code == 0
    assert flags_of(the_call()) == [*flags, "--dist-backend", "gloo"]
    assert str(run.check("all_steps")["actual"]) == flags[3]


def test_a_bound_says_that_it_was_set_for_another_number_of_steps(validate: Validate) -> None:
    run = validate("", "max_steps=20")

    note = "this bound was set for 200 steps, and this run was given 20"
    assert (run.code, run.red) == (1, {"final_loss_max", "loss_drop"})
    assert note in run.check("final_loss_max")["message"]
    assert note in run.check("loss_drop")["message"]


def test_a_bound_that_was_set_with_the_steps_says_nothing_of_others(validate: Validate) -> None:
    run = validate("", "max_steps=20", "loss.final_max=6.1", "loss.drop_min=null")

    assert (run.code, run.red) == (1, {"final_loss_max"})
    assert run.check("final_loss_max")["message"] == ""


def test_steps_that_the_end_of_the_data_cut_off_are_a_warning(validate: Validate) -> None:
    run = validate("steps_per_epoch=120")

    assert (run.code, run.red, run.warned) == (0, set(), {"all_steps"})
    assert (run.check("all_steps")["actual"], run.check("all_steps")["expected"]) == (120, ">= 200")


def test_checkpoints_of_a_run_that_passed_are_removed(validate: Validate) -> None:
    kept = validate("", "dynamic_args.save_strategy=steps", "keep=all")
    removed = validate("", "dynamic_args.save_strategy=steps")

    assert (kept.code, removed.code) == (0, 0)
    assert (kept.run_dir / "train" / "checkpoints" / "checkpoint-200").is_dir()
    assert not (removed.run_dir / "train" / "checkpoints").exists()
    assert (removed.run_dir / "train" / "config.json").is_file()


def test_what_is_not_a_number_is_written_as_strict_json(validate: Validate) -> None:
    run = validate("loss=200:NaN")

    assert run.facts["values"]["loss.final"] == {"float": "nan"}
    assert run.facts["values"]["loss.nonfinite_steps"] == [200]
    assert run.check("final_loss_max")["actual"] == {"float": "nan"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        pytest.param("backend.program=nowhere-to-be-found", "backend.program: 'nowhere-to-be-found'", id="program"),
        pytest.param("backend.root=/nowhere", "backend.root: no such folder: /nowhere", id="root"),
        pytest.param("project_dir=examples/tutorials/tiny_lama", "Did you mean 'tiny_llama'?", id="project"),
        pytest.param("config=train_tiny_lama.yaml", "Did you mean 'train_tiny_llama.yaml'?", id="config"),
    ],
)
def test_what_cannot_be_started_is_no_failure_of_the_project(
    validate: Validate, forgather_root: Any, override: str, words: str
) -> None:
    run = validate("", override)

    assert (run.code, run.run_dir, forgather_root.calls()) == (2, None, [])
    assert words in run.stderr
    assert "Traceback" not in run.stderr
