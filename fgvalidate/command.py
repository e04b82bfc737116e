"""The training command: a spec comes in, the argv, folder and environment to run it with go out."""

import glob
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgvalidate.errors import LaunchError, SpecError, suggest
from fgvalidate.flags import Flag, build_flags, find_collision, is_place, place_flags
from fgvalidate.gpu import build_gpu_variables
from fgvalidate.process import build_environment, change_variables, find_program
from fgvalidate.spec import Backend, Spec

NUM_NAMED = 8
"""Files that a message names at most."""


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
    _require_script(backend, project)
    config = glob.escape(spec.config)
    patterns = [_fill(pattern, "backend.config_files", {"config": config}) for pattern in backend.config_files]
    if patterns and not any(map(os.path.isfile, _find_files(project, patterns))):
        known = sorted(path.name for path in _find_files(project, [backend.config_files[0].replace("{config}", "*")]))
        there = f" It has {', '.join(known)}." if known else ""
        raise SpecError(f"config: {spec.project_dir} has no {spec.config}.{there}{suggest(spec.config, known)}")
    return project


def _require_script(backend: Backend, project: Path) -> None:
    """Raises SpecError when the command line runs a script, and the project has none of that name."""
    if not any("{script}" in argument for argument in (*backend.launcher, *backend.arguments)):
        return
    if backend.script is None:
        raise SpecError("backend.script: not set; say which file of the project is run, as backend.script=train.py")
    if not (project / backend.script).is_file():
        known = sorted(path.name for path in project.glob("*.py"))
        there = f" It has {', '.join(known[:NUM_NAMED])}." if known else ""
        raise SpecError(f"backend.script: {project} has no {backend.script}.{there}{suggest(backend.script, known)}")


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
        SpecError: The command line cannot be filled in, or says a flag twice.
    """
    backend = spec.backend
    assert backend.root is not None
    root = _resolve_root(backend.root)
    fields = {
        "project": str(project),
        "config": spec.config,
        "output_dir": str(output_dir),
        "gpus": str(backend.num_processes or max(1, len(gpus))),
    }
    if backend.script is not None:
        fields["script"] = str(project / backend.script)
    if (python := _find_python(backend)) is not None:
        fields["python"] = str(python)
    variables = {name: value and _fill_known(value, fields) for name, value in backend.env.items()}
    executable, bin_dir, others = _find_start(backend, python, build_environment(variables))
    # A GPU count of 0 hides them all; otherwise the run sees those it was given, and no more.
    visible = build_gpu_variables(gpus) if gpus or spec.gpu_requirement == 0 else {}
    env = build_environment({**visible, **variables}, path_first=[bin_dir] if bin_dir else [])
    start = _fill_words(others, "backend.launcher", fields)
    arguments = _fill_words(backend.arguments, "backend.arguments", fields)
    words = place_flags([*start, *arguments], _build_flags(spec, output_dir))
    device = [] if gpus else backend.cpu_arguments
    argv = (str(executable), *words, *device)
    return Command(argv=argv, cwd=_resolve_cwd(backend, root, project), env=env)


def _build_flags(spec: Spec, output_dir: Path) -> list[Flag]:
    backend = spec.backend
    args = {**spec.dynamic_args, "max_steps": spec.requested_steps}
    if backend.flags.names.get("save_strategy", "") is None:
        # Nothing is told to a trainer that has no such flag; `saves_model` says what it does.
        args.pop("save_strategy", None)
    said = any("{output_dir}" in argument for argument in (*backend.launcher, *backend.arguments))
    is_flag = backend.flags.names.get("output_dir") is not None and not said
    twice = find_collision(backend.arguments, build_flags(args, backend.flags))
    if twice is None and is_flag and "output_dir" in args:
        twice = "output_dir"
    if twice is not None:
        raise SpecError(f"dynamic_args.{twice}: backend={backend.name} sets this flag itself; remove it")
    return build_flags({**({"output_dir": str(output_dir)} if is_flag else {}), **args}, backend.flags)


def _resolve_cwd(backend: Backend, root: Path, project: Path) -> Path:
    if backend.cwd is None:
        return root
    cwd = root / Path(_fill(backend.cwd, "backend.cwd", {"project": str(project)})).expanduser()
    if not cwd.is_dir():
        raise SpecError(f"backend.cwd: no such folder: {cwd}")
    return cwd


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
    assert spec.backend.root is not None
    fields = {"root": str(_resolve_root(spec.backend.root)), **later}
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


def _fill_known(template: str, fields: dict[str, str]) -> str:
    """Puts values in for those of `{name}` that have one: in an environment variable others may mean anything."""
    return re.sub(r"\{(\w+)\}", lambda match: fields.get(match[1], match[0]), template)


def _fill_words(template: Sequence[str], key: str, fields: dict[str, str]) -> list[str]:
    """Fills words in; those where flags go are left for later."""
    words = []
    for word in template:
        if not is_place(word) and "{flags" in word:
            raise SpecError(f"{key}: {word!r}: {{flags}} is a word of its own, since several take its place")
        words.append(word if is_place(word) else _fill(word, key, fields))
    return words


def _find_python(backend: Backend) -> Path | None:
    python = Path(backend.python).expanduser().absolute() if backend.python else None
    if python is not None and not os.access(python, os.X_OK):
        raise LaunchError(f"backend.python: {backend.python!r} is not an executable file; correct the path")
    return python


def _find_start(backend: Backend, python: Path | None, env: dict[str, str]) -> tuple[Path, Path | None, list[str]]:
    """Finds what the command line begins with.

    Returns:
        The executable, the folder in which it will look for its own helpers (None: on PATH), and the words between it
        and the arguments.
    """
    if backend.launcher:
        launcher, bin_dir = _find_executable("backend.launcher", backend.launcher[0], python, env)
        inner = [] if backend.program is None else [_find_executable("backend.program", backend.program, python, env)]
        return launcher, bin_dir, [*backend.launcher[1:], *(str(program) for program, _ in inner)]
    if backend.program is not None:
        return *_find_executable("backend.program", backend.program, python, env), []
    if python is None:
        raise SpecError(f"backend.program: backend={backend.name} has neither a program nor a python; set one")
    return python, python.parent, []


def _find_executable(key: str, name: str, python: Path | None, env: dict[str, str]) -> tuple[Path, Path | None]:
    program = Path(name).expanduser()
    if len(program.parts) > 1:
        # A path; programs bring their helpers (torchrun) beside them.
        if not os.access(program, os.X_OK) or program.is_dir():
            raise LaunchError(f"{key}: {name!r} is not an executable file; correct the path")
        return program.absolute(), program.absolute().parent
    if python is not None:
        # Only there: the program of another environment would be another program.
        beside = python.parent / program
        if not os.access(beside, os.X_OK):
            raise LaunchError(
                f"{key}: {name!r} is not beside backend.python, in {python.parent}; install it there, or give its path"
            )
        return beside, python.parent
    try:
        return find_program(name, env=env), None
    except LaunchError as error:
        own = Path(sys.executable).parent / program
        if not os.access(own, os.X_OK):
            raise LaunchError(f"{key}: {error}") from error
        # Installed beside us, in an environment that was not activated.
        return own, own.parent
