"""The training command: a spec comes in, the argv, folder and environment to run it with go out."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvalidate.errors import LaunchError, SpecError, suggest
from fgvalidate.gpu import VISIBLE_DEVICES
from fgvalidate.process import build_environment, find_program
from fgvalidate.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Command:
    """A program that can be started."""

    argv: tuple[str, ...]
    cwd: Path
    env: dict[str, str]


def find_project(spec: Spec) -> Path:
    """Returns the project's folder, after looking for it and for its config.

    Raises:
        SpecError: The backend's root, the project or its config does not exist.
    """
    backend = spec.backend
    if backend.root is None:
        raise SpecError(
            f"backend.root: not set, and backend={backend.name} needs the folder of its checkout; "
            f"say backend.root=DIR{' or set FORGATHER_ROOT' if backend.name == 'forgather' else ''}"
        )
    root = Path(backend.root).expanduser().absolute()
    if not root.is_dir():
        raise SpecError(f"backend.root: no such folder: {root}")
    project = root / spec.project_dir
    if not project.is_dir():
        beside = [path.name for path in project.parent.iterdir() if path.is_dir()] if project.parent.is_dir() else []
        raise SpecError(
            f"project_dir: no such folder: {spec.project_dir} (below backend.root, {root})."
            f"{suggest(project.name, beside)}"
        )
    patterns = [pattern.format(config=spec.config) for pattern in backend.config_files]
    if patterns and not any(path.is_file() for pattern in patterns for path in project.glob(pattern)):
        known = sorted(path.name for path in project.glob(backend.config_files[0].format(config="*")))
        there = f" It has {', '.join(known)}." if known else ""
        raise SpecError(f"config: {spec.project_dir} has no {spec.config}.{there}{suggest(spec.config, known)}")
    return project


def build_command(spec: Spec, project: Path, output_dir: Path, gpus: tuple[str, ...]) -> Command:
    """Builds the training command.

    Args:
        spec: What to run.
        project: The project's folder, as `find_project` returned it.
        output_dir: Where the trainer shall write.
        gpus: The GPUs it is given, as CUDA_VISIBLE_DEVICES names them; (): none.

    Raises:
        LaunchError: The backend's program is not to be found.
    """
    backend = spec.backend
    assert backend.root is not None
    bin_dir = [Path(backend.python).expanduser().absolute().parent] if backend.python else []
    # A GPU count of 0 hides them all; otherwise the run sees those it was given, and no more.
    visible = {VISIBLE_DEVICES: ",".join(gpus)} if gpus or spec.gpu_requirement == 0 else {}
    program = Path(backend.program).expanduser() if backend.program else None
    if program is not None and len(program.parts) > 1:
        # Programs bring their helpers (torchrun) beside them.
        bin_dir.append(program.absolute().parent)
    env = build_environment({**visible, **backend.env}, path_first=bin_dir)
    name = backend.program or backend.python
    if name is None:
        raise SpecError(f"backend.program: backend={backend.name} has neither a program nor a python; set one")
    try:
        executable = find_program(name, env=env)
    except LaunchError as error:
        own_bin = Path(sys.executable).parent
        executable = own_bin / name
        if not os.access(executable, os.X_OK):
            raise LaunchError(f"backend.{'program' if backend.program else 'python'}: {error}") from error
        # Installed beside us, in an environment that was not activated.
        env = build_environment({**visible, **backend.env}, path_first=[own_bin])
    fields = {"project": str(project), "config": spec.config, "output_dir": str(output_dir)}
    arguments = [argument.format(**fields) for argument in backend.arguments]
    flags = build_flags({**spec.dynamic_args, "max_steps": spec.requested_steps})
    device = [] if gpus else backend.cpu_arguments
    argv = (str(executable), *arguments, *flags, *device)
    return Command(argv=argv, cwd=Path(backend.root).expanduser().absolute(), env=env)


def build_flags(dynamic_args: dict[str, Any]) -> list[str]:
    """Turns dynamic args into flags: true is the bare flag; false and null are left out.

    >>> build_flags({"max_steps": 200, "save_strategy": "no", "compile": True, "dry": False})
    ['--max-steps', '200', '--save-strategy', 'no', '--compile']
    """
    flags: list[str] = []
    for name, value in dynamic_args.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            flags.append(flag)
        elif value is not None and value is not False:
            flags += [flag, str(value)]
    return flags
