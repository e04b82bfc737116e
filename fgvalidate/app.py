"""The Hydra application: the command line comes in, runs go out, and one exit code at the end.

| exit code | meaning |
|---|---|
| 130, 143 | interrupted, terminated (after cleaning up) |
| 1 | a check failed |
| 2 | something could not be validated: a bad spec or override, a missing program |
| 0 | at least one spec was validated and passed |
| 3 | nothing was validated: everything was skipped |
"""

import os
import shlex
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvalidate.command import build_command, build_server_command, find_project
from fgvalidate.composition import find_config_dir, load_spec, register_schema, require_core_checks
from fgvalidate.diagnosis import diagnose, read_command_line
from fgvalidate.errors import FgvalidateError, SpecError
from fgvalidate.gpu import VISIBLE_DEVICES, GpuPool, find_gpus
from fgvalidate.operators import resolve_coalesce
from fgvalidate.perplexity import find_scorer
from fgvalidate.progress import Progress
from fgvalidate.report import Outcome, Report, choose_exit_code, print_report
from fgvalidate.run_dir import RunDir
from fgvalidate.spec import Spec
from fgvalidate.validate import Plan, validate

if TYPE_CHECKING:
    from rich.console import Console

_STEP_KEYS = {"max_steps", "dynamic_args.max_steps"}
_BOUND_FACTS = {
    "loss.final_max": "loss.final",
    "loss.final_min": "loss.final",
    "loss.drop_min": "loss.drop",
    "min_steps_logged": "train.num_steps_logged",
}


@cache
def _console() -> "Console":
    from rich.console import Console  # noqa: PLC0415 - a composition that only shows itself needs none

    class PipedConsole(Console):
        def on_broken_pipe(self) -> None:
            # A reader that leaves early (`| head`) must not turn a verdict into another exit code.
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    # Where there is no terminal to ask, lines may be longer than 80 characters.
    return PipedConsole(highlight=False, width=None if sys.stdout.isatty() else 140)


class Terminated(BaseException):
    """SIGTERM reached us; everything is cleaned up on the way out."""


@dataclass
class Session:
    """One invocation: what Hydra calls back into, and what came of it."""

    outcomes: list[Outcome] = field(default_factory=list)
    is_interrupted: bool = False
    """Whether SIGINT has reached us."""
    is_in_task: bool = False
    """Whether Hydra has called us: what is raised then is a bug of ours, and otherwise a spec that does not compose."""

    def run(self, cfg: DictConfig) -> Outcome:
        """The task that Hydra runs for each spec. It never raises for what a user or a trainer did wrong."""
        self.is_in_task = True
        self.outcomes.append(run_spec(cfg))
        self.is_in_task = False
        return self.outcomes[-1]


def main() -> int:
    """Runs what the command line asks for; returns the exit code."""
    # Hydra then raises what went wrong instead of printing it and leaving.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    for stream in filter(None, (sys.stdout, sys.stderr)):
        # What a trainer says may hold characters that this terminal cannot show.
        stream.reconfigure(errors="backslashreplace")
    sys.argv[1:] = sort_arguments(sys.argv[1:])
    register_schema()
    session = Session()

    def task(cfg: DictConfig) -> Outcome:
        return session.run(cfg)

    try:
        with _raise_on_signals(session):
            hydra.main(version_base="1.3", config_path=str(find_config_dir()), config_name="config")(task)()
    except KeyboardInterrupt:
        return _leave("interrupted", 130)
    except Terminated:
        return _leave("terminated", 143)
    except Exception as error:
        if session.is_interrupted:
            # Raised inside a library that made another error of it.
            return _leave("interrupted", 130)
        session.outcomes.append("invalid")
        if session.is_in_task:
            traceback.print_exc()
            print("fgvalidate: this is a bug of fgvalidate; nothing that was running is left", file=sys.stderr)
        else:
            _print_error(error)
    if len(session.outcomes) > 1:
        counts = Counter(session.outcomes)
        print(f"{len(session.outcomes)} specs: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}")
    if not session.outcomes and not {"-m", "--multirun"} & set(sys.argv):
        return 0  # --cfg, --info and the like only show
    return choose_exit_code(session.outcomes)


def sort_arguments(arguments: list[str]) -> list[str]:
    """Puts the overrides together, before Hydra's options: it does not understand `a=1 -m b=2`."""
    is_override = [not word.startswith("-") and ("=" in word or word.startswith("~")) for word in arguments]
    overrides = [word for word, is_one in zip(arguments, is_override, strict=True) if is_one]
    return overrides + [word for word, is_one in zip(arguments, is_override, strict=True) if not is_one]


def _leave(how: str, code: int) -> int:
    print(f"fgvalidate: {how}: what was running has been ended, and nothing was judged", file=sys.stderr)
    return code


@contextmanager
def _raise_on_signals(session: Session) -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        session.is_interrupted = True
        signal.default_int_handler(number, frame)

    def terminate(_number: int, _frame: FrameType | None) -> NoReturn:
        raise Terminated

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A shell that starts us in the background has SIGINT ignored, and means it.
    if before[signal.SIGINT] is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_error(error: Exception) -> None:
    print(f"fgvalidate: {diagnose(error, read_command_line(sys.argv[1:]))}", file=sys.stderr)


def _list_overrides() -> list[str]:
    # Unresolved: an override may be an expression over facts.
    words = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(words, list)
    return [str(word) for word in words]


def run_spec(cfg: DictConfig) -> Outcome:
    """Validates one composed spec, prints its report, and returns its outcome."""
    run_dir = RunDir(Path(HydraConfig.get().runtime.output_dir))
    words = _list_overrides()
    if "inference=none" in words:
        # Said on the command line, it wins over a spec whose body has an inference section.
        cfg.inference = None
    try:
        report = _run(cfg, run_dir, words)
    except (FgvalidateError, OmegaConfBaseException) as error:
        _print_error(error)
        run_dir.discard_if_empty()
        return "invalid"
    except OSError as error:
        if error.filename is None:
            raise
        what = f"{error.filename}: {error.strerror}: the disk is full, or the trainer removed or replaced it"
        print(f"fgvalidate: {what}; nothing was judged", file=sys.stderr)
        return "invalid"
    print_report(report, _console())
    return report.outcome


def _run(cfg: DictConfig, run_dir: RunDir, words: list[str]) -> Report:
    choices = HydraConfig.get().runtime.choices
    if "spec" not in choices and OmegaConf.is_missing(cfg, "test_id"):
        known = GlobalHydra.instance().config_loader().get_group_options("spec")
        raise SpecError(f"no spec is chosen: say +spec=NAME, one of {', '.join(known)}")
    if any(word.startswith("+spec=[") for word in words):
        raise SpecError("spec: choose one, or run several with -m +spec=A,B")
    if choices["checks"] != "default":
        require_core_checks(cfg.checks, str(choices["checks"]))
    spec = load_spec(cfg)
    project = find_project(spec)
    repeat = build_repeat_command(spec, cfg, words)
    pool = find_gpus() if spec.gpu_requirement else GpuPool((), "none is asked for")
    gpus = pool.devices[: spec.gpu_requirement]
    runs_on_cpu = spec.gpu_requirement <= 1 and spec.backend.cpu_ok
    if len(gpus) < spec.gpu_requirement and not runs_on_cpu:
        run_dir.discard_if_empty()
        reason = f"it needs {spec.gpu_requirement} GPU(s), {len(pool.devices)} are available ({pool.reason})"
        if spec.gpu_requirement == 1:
            reason += "; backend.cpu_ok=true runs it on the CPU"
        return Report(test_id=spec.test_id, outcome="skipped", reason=reason, command=repeat)
    command = build_command(spec, project, run_dir.train_dir, gpus)
    server = None
    if spec.inference is not None:
        find_scorer(spec.scorer.model)
        server = build_server_command(spec, command, gpus, run_dir.modules_cache)
    written_after = run_dir.create()
    _write_composition(cfg, run_dir)
    plan = Plan(
        spec=spec,
        checks=cfg.checks,
        notes=_explain_bounds(spec, words),
        project=project,
        command=command,
        run_dir=run_dir,
        written_after=written_after,
        num_gpus_available=len(pool.devices),
        num_gpus_used=len(gpus),
        repeat=repeat,
        server=server,
    )
    steps = f"{spec.requested_steps} steps" if spec.requested_steps else "as many steps as its config says"
    where = f"{len(gpus)} GPU(s)" if gpus else "the CPU"
    _console().print(
        f"{spec.test_id}: {spec.project_dir}, {spec.config}, {steps} on {where} ({spec.backend.name})",
        markup=False,
        soft_wrap=True,
    )
    with Progress(_console(), run_dir.stdout_path, spec.requested_steps) as progress:
        return validate(plan, progress.show)


def build_repeat_command(spec: Spec, cfg: DictConfig, words: list[str]) -> str:
    """Returns the shell command that repeats this run; a folder that was named is left out, since it is used now."""
    python = "python" if _is_same_program("python") else sys.executable
    environment = [f"{name}={shlex.quote(os.environ[name])}" for name in (VISIBLE_DEVICES,) if name in os.environ]
    sources = HydraConfig.get().runtime.config_sources
    folders = [option for s in sources if s.provider == "command-line" for option in ("--config-dir", str(s.path))]
    root = OmegaConf.to_container(cfg.backend, resolve=False)["root"]  # type: ignore[index,call-overload]
    if "oc.env" in str(root) and spec.backend.root:
        words = [*words, f"backend.root={spec.backend.root}"]
    return " ".join([*environment, shlex.join([python, "-m", "fgvalidate", *folders, *words])])


def _is_same_program(name: str) -> bool:
    return shutil.which(name) == sys.executable


def _write_composition(cfg: DictConfig, run_dir: RunDir) -> None:
    run_dir.hydra_dir.mkdir()
    hydra_config = HydraConfig.get()
    documents = {
        "config.yaml": cfg,
        "hydra.yaml": OmegaConf.create({"hydra": hydra_config}),
        "overrides.yaml": hydra_config.overrides.task,
    }
    for name, document in documents.items():
        OmegaConf.save(document, run_dir.hydra_dir / name)


def _explain_bounds(spec: Spec, words: list[str]) -> dict[str, str]:
    """Says of each bound that the spec set for another number of steps than this run's, by the fact it bounds."""
    keys = {word: word.lstrip("+~").partition("=")[0] for word in words}
    if not _STEP_KEYS & set(keys.values()):
        return {}
    others = [word for word, key in keys.items() if key not in _STEP_KEYS]
    loader = GlobalHydra.instance().config_loader()
    declared = loader.load_configuration("config", overrides=others, run_mode=RunMode.RUN)
    steps = resolve_coalesce(declared.max_steps, declared.dynamic_args.get("max_steps"))
    if steps is None or steps == spec.requested_steps:
        return {}
    note = f"this bound was set for {steps} steps, and this run was given {spec.requested_steps}"
    bounded_anew = {fact for bound, fact in _BOUND_FACTS.items() if bound in keys.values()}
    return dict.fromkeys(set(_BOUND_FACTS.values()) - bounded_anew, note)
