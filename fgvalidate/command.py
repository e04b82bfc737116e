"""The training command: a spec comes in, the argv, folder and environment to run it with go out."""

import glob
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvalidate.errors import LaunchError, SpecError, suggest
from fgvalidate.gpu import build_gpu_variables
from fgvalidate.process import build_environment, change_variables, find_program
from fgvalidate.spec import Backend, Spec


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
    root = _resolve_root(backend.root)
    if not root.is_dir():
        raise SpecError(f"backend.root: no such folder: {root}")
    project = root / spec.project_dir
    if not project.is_dir():
        beside = [path.name for path in project.parent.iterdir() if path.is_dir()] if project.parent.is_dir() else []
        raise SpecError(
            f"project_dir: no such folder: {spec.project_dir} (below backend.root, {root})."
            f"{suggest(project.name, beside)}"
        )
    config = glob.escape(spec.config)
    patterns = [_fill(pattern, "backend.config_files", {"config": config}) for pattern in backend.config_files]
    if patterns and not any(map(os.path.isfile, _find_files(project, patterns))):
        known = sorted(path.name for path in _find_files(project, [backend.config_files[0].replace("{config}", "*")]))
        there = f" It has {', '.join(known)}." if known else ""
        raise SpecError(f"config: {spec.project_dir} has no {spec.config}.{there}{suggest(spec.config, known)}")
    return project


def _resolve_root(root: str) -> Path:
    return Path(root).expanduser().absolute()


def _find_files(folder: Path, patterns: list[str]) -> Iterator[Path]:
    for pattern in patterns:
        yield from (folder / path for path in glob.iglob(pattern, root_dir=folder, recursive=True))


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
    # A GPU count of 0 hides them all; otherwise the run sees those it was given, and no more.
    visible = build_gpu_variables(gpus) if gpus or spec.gpu_requirement == 0 else {}
    executable, bin_dir = _find_executable(backend, build_environment(backend.env))
    env = build_environment({**visible, **backend.env}, path_first=[bin_dir] if bin_dir else [])
    fields = {"project": str(project), "config": spec.config, "output_dir": str(output_dir)}
    arguments = [_fill(argument, "backend.arguments", fields) for argument in backend.arguments]
    for name in spec.dynamic_args:
        if f"--{name.replace('_', '-')}" in backend.arguments:
            raise SpecError(f"dynamic_args.{name}: backend={backend.name} sets this flag itself; remove it")
    flags = build_flags({**spec.dynamic_args, "max_steps": spec.requested_steps})
    device = [] if gpus else backend.cpu_arguments
    argv = (str(executable), *arguments, *flags, *device)
    return Command(argv=argv, cwd=_resolve_root(backend.root), env=env)


def build_server_command(spec: Spec, training: Command, gpus: tuple[str, ...], modules_cache: Path) -> Command:
    """Builds the command that serves the trained model; `{model_dir}`, `{host}` and `{port}` are left to fill in.

    Args:
        spec: What to run.
        training: The training command: the server runs in its environment.
        gpus: The GPUs it is given; (): none.
        modules_cache: Where transformers keeps the code of this run's model, so that no earlier run's is served.

    Raises:
        LaunchError: The server's program is not to be found.
    """
    server = spec.server
    env = change_variables(training.env, {"HF_MODULES_CACHE": str(modules_cache), **server.env})
    python = spec.backend.python
    beside = Path(python).expanduser().absolute().parent if python else Path(training.argv[0]).parent
    path = os.pathsep.join([str(beside), env.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    try:
        executable = find_program(str(Path(server.program).expanduser()), env={"PATH": path})
    except LaunchError as error:
        raise LaunchError(f"server.program: {error}") from error
    later = {name: f"{{{name}}}" for name in ("model_dir", "host", "port")}
    fields = {"root": str(training.cwd), **later}
    device = [] if gpus else server.cpu_arguments
    arguments = [_fill(argument, "server.arguments", fields) for argument in (*server.arguments, *device)]
    return Command(argv=(str(executable), *arguments), cwd=training.cwd, env=env)


def _fill(template: str, key: str, fields: dict[str, str]) -> str:
    """Puts values in for `{name}`; other braces, as of JSON, stay."""

    def look_up(match: re.Match[str]) -> str:
        if match[1] not in fields:
            names = ", ".join(f"{{{name}}}" for name in fields)
            raise SpecError(f"{key}: {match[0]} is none of {names}.{suggest(match[1], fields)}")
        return fields[match[1]]

    return re.sub(r"\{(\w+)\}", look_up, template)


def _find_executable(backend: Backend, env: dict[str, str]) -> tuple[Path, Path | None]:
    """Finds the backend's program, and the folder in which it will look for its own helpers (None: on PATH)."""
    python = Path(backend.python).expanduser().absolute() if backend.python else None
    if python is not None and not os.access(python, os.X_OK):
        raise LaunchError(f"backend.python: {backend.python!r} is not an executable file; correct the path")
    if backend.program is None:
        if python is None:
            raise SpecError(f"backend.program: backend={backend.name} has neither a program nor a python; set one")
        return python, python.parent
    program = Path(backend.program).expanduser()
    if len(program.parts) > 1:
        # A path; programs bring their helpers (torchrun) beside them.
        if not os.access(program, os.X_OK) or program.is_dir():
            raise LaunchError(f"backend.program: {backend.program!r} is not an executable file; correct the path")
        return program.absolute(), program.absolute().parent
    if python is not None:
        # Only there: the program of another environment would be another program.
        beside = python.parent / program
        if not os.access(beside, os.X_OK):
            raise LaunchError(f"backend.program: {backend.program!r} is not beside backend.python, in {python.parent}")
        return beside, python.parent
    try:
        return find_program(backend.program, env=env), None
    except LaunchError as error:
        own = Path(sys.executable).parent / program
        if not os.access(own, os.X_OK):
            raise LaunchError(f"backend.program: {error}") from error
        # Installed beside us, in an environment that was not activated.
        return own, own.parent


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
