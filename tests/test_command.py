"""The training command: dynamic args become flags, and the right program is found."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fgvalidate.command import build_command, build_flags, find_project
from fgvalidate.errors import LaunchError, SpecError
from fgvalidate.spec import Backend, Spec


@pytest.mark.parametrize(
    ("dynamic_args", "flags"),
    [
        ({"max_steps": 200, "save_strategy": "no"}, ["--max-steps", "200", "--save-strategy", "no"]),
        ({"compile": True, "dry_run": False, "seed": None}, ["--compile"]),
        ({"learning_rate": 1e-05, "ratio": 0.5}, ["--learning-rate", "1e-05", "--ratio", "0.5"]),
        ({"name": "two words"}, ["--name", "two words"]),
        ({}, []),
    ],
)
def test_flags(dynamic_args: dict[str, Any], flags: list[str]) -> None:
    assert build_flags(dynamic_args) == flags


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/project/templates/configs").mkdir(parents=True)
    (tmp_path / "root/project/templates/configs/train.yaml").touch()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/trainer"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    return tmp_path / "root"


def make_spec(root: Path, *, gpu_requirement: int = 1, max_steps: int | None = None, **backend: Any) -> Spec:
    return Spec(
        test_id="x",
        project_dir="project",
        config="train.yaml",
        max_steps=max_steps,
        dynamic_args={"max_steps": 200},
        gpu_requirement=gpu_requirement,
        backend=Backend(
            **{
                "name": "fake",
                "root": str(root),
                "program": str(root.parent / "bin/trainer"),
                "arguments": ["-p", "{project}", "-t", "{config}", "train", "--output-dir", "{output_dir}"],
                "cpu_arguments": ["--dist-backend", "gloo"],
                "config_files": ["templates/configs/{config}"],
                "log": "runs/*/log.json",
                **backend,
            }
        ),
    )


def test_command_is_the_program_its_arguments_and_the_flags(root: Path) -> None:
    spec = make_spec(root)

    command = build_command(spec, find_project(spec), Path("/out"), ("3",))

    program = str(root.parent / "bin/trainer")
    place = ["-p", f"{root}/project", "-t", "train.yaml", "train", "--output-dir", "/out"]
    assert list(command.argv) == [program, *place, "--max-steps", "200"]
    assert (command.cwd, command.env["CUDA_VISIBLE_DEVICES"]) == (root, "3")
    assert command.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_without_a_gpu_the_backends_cpu_arguments_come_last(root: Path) -> None:
    spec = make_spec(root, gpu_requirement=0)

    command = build_command(spec, find_project(spec), Path("/out"), ())

    assert command.argv[-2:] == ("--dist-backend", "gloo")
    assert command.env["CUDA_VISIBLE_DEVICES"] == ""


def test_max_steps_wins_over_the_dynamic_arg(root: Path) -> None:
    spec = make_spec(root, max_steps=7)

    command = build_command(spec, find_project(spec), Path("/out"), ("0",))

    assert command.argv[-2:] == ("--max-steps", "7")


def test_programs_helpers_are_found_beside_it(root: Path) -> None:
    spec = make_spec(root)

    command = build_command(spec, find_project(spec), Path("/out"), ("0",))

    assert command.env["PATH"].split(os.pathsep)[0] == str(root.parent / "bin")


def test_name_is_looked_up_beside_the_backends_python(root: Path) -> None:
    (root.parent / "bin/python").symlink_to(sys.executable)
    spec = make_spec(root, program="trainer", python=str(root.parent / "bin/python"))

    command = build_command(spec, find_project(spec), Path("/out"), ("0",))

    assert command.argv[0] == str(root.parent / "bin/trainer")


def test_name_is_looked_up_beside_our_own_python_last(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(root.parent / "bin/python"))
    monkeypatch.setenv("PATH", "/nowhere")
    spec = make_spec(root, program="trainer")

    command = build_command(spec, find_project(spec), Path("/out"), ("0",))

    assert command.argv[0] == str(root.parent / "bin/trainer")
    assert command.env["PATH"] == f"{root.parent}/bin{os.pathsep}/nowhere"


def test_python_alone_is_the_program(root: Path) -> None:
    spec = make_spec(root, program=None, python=sys.executable)

    command = build_command(spec, find_project(spec), Path("/out"), ("0",))

    assert command.argv[0] == sys.executable


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ({"program": "no-such-trainer"}, "backend.program: 'no-such-trainer' was not found in PATH"),
        ({"program": "/nowhere/trainer"}, "backend.program: '/nowhere/trainer' is not an executable file"),
        ({"program": None}, "backend.program: backend=fake has neither a program nor a python; set one"),
        ({"program": None, "python": "/nowhere/python"}, "backend.python: '/nowhere/python' is not an executable"),
    ],
)
def test_missing_program_is_named(root: Path, backend: dict[str, Any], message: str) -> None:
    spec = make_spec(root, **backend)

    with pytest.raises((LaunchError, SpecError)) as error:
        build_command(spec, find_project(spec), Path("/out"), ("0",))

    assert str(error.value).startswith(message)


def test_config_may_lie_deeper_where_the_backend_says_so(root: Path) -> None:
    (root / "project/templates/configs/deep").mkdir()
    (root / "project/templates/configs/train.yaml").rename(root / "project/templates/configs/deep/train.yaml")

    with pytest.raises(SpecError, match=r"config: project has no train\.yaml"):
        find_project(make_spec(root))

    assert find_project(make_spec(root, config_files=["**/{config}"])) == root / "project"
    assert find_project(make_spec(root, config_files=[])) == root / "project"
