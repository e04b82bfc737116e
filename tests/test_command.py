"""The training command: its words stand in the right order, and the right program is found."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fgvalidate.command import build_command, build_server_command, find_project
from fgvalidate.errors import LaunchError, SpecError
from fgvalidate.spec import Backend, Flags, Inference, Server, Spec


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/project/templates/configs").mkdir(parents=True)
    (tmp_path / "root/project/templates/configs/train.yaml").touch()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/trainer"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    return tmp_path / "root"


def make_spec(
    root: Path,
    *,
    gpu_requirement: int = 1,
    max_steps: int | None = None,
    dynamic_args: dict[str, Any] | None = None,
    **backend: Any,
) -> Spec:
    return Spec(
        test_id="x",
        project_dir="project",
        config="train.yaml",
        max_steps=max_steps,
        dynamic_args={"max_steps": 200} if dynamic_args is None else dynamic_args,
        gpu_requirement=gpu_requirement,
        backend=Backend(
            **{
                "name": "fake",
                "root": str(root),
                "program": str(root.parent / "bin/trainer"),
                "arguments": ["-p", "{project}", "-t", "{config}", "train", "--output-dir", "{output_dir}"],
                "cpu_arguments": ["--dist-backend", "gloo"],
                "config_files": ["templates/configs/{config}"],
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


def build_argv(root: Path, gpus: tuple[str, ...] = (), **fields: Any) -> list[str]:
    """The command line after its program."""
    spec = make_spec(root, **{"cpu_arguments": [], **fields})
    return list(build_command(spec, find_project(spec), Path("/out"), gpus).argv[1:])


def test_flags_stand_where_the_arguments_say(root: Path) -> None:
    arguments = ["train", "{flags:lr}", "--out", "{output_dir}", "{flags}", "end"]

    argv = build_argv(root, dynamic_args={"max_steps": 5, "lr": 0.1, "name": "{config}"}, arguments=arguments)

    assert argv == ["train", "--lr", "0.1", "--out", "/out", "--max-steps", "5", "--name", "{config}", "end"]


def test_place_of_flags_is_a_word_of_its_own(root: Path) -> None:
    with pytest.raises(SpecError, match=r"^backend\.arguments: '--x=\{flags\}': \{flags\} is a word of its own"):
        build_argv(root, arguments=["--x={flags}"])


def test_output_dir_is_a_flag_where_no_argument_says_it(root: Path) -> None:
    flags = Flags(form="--{name}={value}", names={"output_dir": "out_dir", "max_steps": "max_iters"})

    assert build_argv(root, arguments=["go"], flags=flags) == ["go", "--out_dir=/out", "--max_iters=200"]
    assert build_argv(root, arguments=["-o", "{output_dir}"], flags=flags) == ["-o", "/out", "--max_iters=200"]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("output_dir", {"arguments": ["--output-dir", "{output_dir}"]}),
        ("output_dir", {"arguments": ["--output_dir={output_dir}"]}),
        ("output_dir", {"arguments": [], "flags": Flags(names={"output_dir": "out"})}),
        ("out", {"arguments": ["out={output_dir}"], "flags": Flags(form="{name}={value}", when_true="{name}=true")}),
    ],
)
def test_flag_that_the_backend_sets_itself_is_refused(root: Path, name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as error:
        build_argv(root, dynamic_args={name: "/x"}, **fields)

    assert str(error.value) == f"dynamic_args.{name}: backend=fake sets this flag itself; remove it"


@pytest.mark.parametrize(
    ("gpus", "num_processes", "said"), [((), None, "1"), (("0", "3"), None, "2"), ((), 2, "2"), (("0",), 4, "4")]
)
def test_launcher_stands_first_and_starts_a_process_a_gpu(
    root: Path, gpus: tuple[str, ...], num_processes: int | None, said: str
) -> None:
    (root.parent / "bin/python").symlink_to(sys.executable)
    spec = make_spec(
        root,
        launcher=["trainer", "--nproc-per-node", "{gpus}"],
        num_processes=num_processes,
        program=None,
        python=str(root.parent / "bin/python"),
        arguments=["train.py"],
    )

    command = build_command(spec, find_project(spec), Path("/out"), gpus)

    launcher = [str(root.parent / "bin/trainer"), "--nproc-per-node", said]
    assert list(command.argv[:6]) == [*launcher, "train.py", "--max-steps", "200"]


def test_launcher_may_start_a_program_or_a_python(root: Path) -> None:
    trainer = str(root.parent / "bin/trainer")
    launcher = ["/bin/sh", "-x"]

    assert build_argv(root, launcher=launcher, arguments=[])[:2] == ["-x", trainer]
    argv = build_argv(root, launcher=[*launcher, "{python}"], program=None, python=sys.executable, arguments=["t.py"])
    assert argv[:3] == ["-x", sys.executable, "t.py"]


def test_missing_launcher_is_named(root: Path) -> None:
    with pytest.raises(
        LaunchError, match=r"^backend\.launcher: 'no-such' is not beside backend\.python, in .*; install it"
    ):
        build_argv(root, launcher=["no-such"], python=sys.executable)


def test_script_is_the_projects(root: Path) -> None:
    (root / "project/train.py").touch()

    argv = build_argv(root, script="train.py", arguments=["{script}"])

    assert argv == [f"{root}/project/train.py", "--max-steps", "200"]


def test_missing_script_is_named_with_those_there_are(root: Path) -> None:
    (root / "project/train.py").touch()

    with pytest.raises(SpecError) as error:
        build_argv(root, script="trian.py", arguments=["{script}"])

    there = "It has train.py. Did you mean 'train.py'?"
    assert str(error.value) == f"backend.script: {root}/project has no trian.py. {there}"
    with pytest.raises(SpecError, match=r"^backend\.script: not set; say which file of the project is run"):
        build_argv(root, arguments=["{script}"])


def test_working_directory_is_the_root_or_what_the_backend_says(root: Path) -> None:
    spec = make_spec(root)
    project = find_project(spec)

    cwds = [
        build_command(make_spec(root, cwd=cwd), project, Path("/out"), ()).cwd
        for cwd in (None, "project", "{project}/templates")
    ]

    assert cwds == [root, root / "project", root / "project/templates"]
    with pytest.raises(SpecError, match=rf"^backend\.cwd: no such folder: {root}/nowhere$"):
        build_command(make_spec(root, cwd="nowhere"), project, Path("/out"), ())


def test_environment_is_filled_in_and_other_braces_stay(root: Path) -> None:
    spec = make_spec(root, env={"RUN_DIR": "{output_dir}/x", "FORMAT": "{time} {message}", "PATH": None})

    env = build_command(spec, find_project(spec), Path("/out"), ()).env

    assert (env["RUN_DIR"], env["FORMAT"]) == ("/out/x", "{time} {message}")


def test_server_is_told_the_root_wherever_the_trainer_runs(root: Path) -> None:
    spec = make_spec(root, cwd="project")
    spec.server = Server(name="s", program="/bin/sh", arguments=["{root}/serve.py", "{model_dir}"])

    training = build_command(spec, find_project(spec), Path("/out"), ())
    server = build_server_command(spec, training, (), Path("/cache"))

    assert server.argv[:3] == ("/bin/sh", f"{root}/serve.py", "{model_dir}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_processes": 0}, "backend.num_processes: must be at least 1, or null, not 0"),
        (
            {"saves_model": "sometimes"},
            "backend.saves_model: must be one of by_strategy, always, never, not 'sometimes'",
        ),
        ({"model_dir": "/x"}, "backend.model_dir: must be a pattern below the output directory, not '/x'"),
        ({"model_dir": "{output_dir}/../x"}, "backend.model_dir: must be a pattern below the output directory"),
    ],
)
def test_backend_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        Backend(name="x", **fields)

    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("saves_model", "save_strategy", "problem"),
    [
        ("by_strategy", "steps", None),
        ("by_strategy", "no", "dynamic_args.save_strategy: inference needs saved weights"),
        ("always", None, None),
        ("never", "steps", "inference: backend=fake leaves no Hugging Face model to serve (backend.saves_model=never)"),
    ],
)
def test_inference_needs_a_trainer_that_leaves_a_model(
    root: Path, saves_model: str, save_strategy: str | None, problem: str | None
) -> None:
    spec = make_spec(root, dynamic_args={"save_strategy": save_strategy}, saves_model=saves_model)
    with_inference = {**vars(spec), "inference": Inference()}

    if problem is None:
        assert Spec(**with_inference).inference is not None
    else:
        with pytest.raises(SpecError) as error:
            Spec(**with_inference)
        assert str(error.value).startswith(problem)
