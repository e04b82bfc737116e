"""The task that Hydra runs for each spec: a composed config comes in, a report goes out, printed and written.

It never raises for what a user or a trainer did wrong: in a sweep that would lose the other specs.
"""

import sys
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvalidate.attempts import Attempts, explain_stop, repeat_run
from fgvalidate.causes import classify_error
from fgvalidate.command import Command, build_command, build_server_command, find_project
from fgvalidate.command_line import read_key, write_command
from fgvalidate.composition import load_spec, require_core_checks
from fgvalidate.conclusion import Case
from fgvalidate.diagnosis import diagnose, read_job_line
from fgvalidate.errors import FgvalidateError, SpecError
from fgvalidate.facts import Facts
from fgvalidate.gpu import GpuPool, find_gpus
from fgvalidate.judgement import judge_recording, require_apart, require_run_of
from fgvalidate.lease import Lease, lease_gpus
from fgvalidate.log_reader import open_reader
from fgvalidate.operators import resolve_coalesce
from fgvalidate.overview import print_purposes
from fgvalidate.perplexity import find_scorer
from fgvalidate.placement import Request, build_request, explain_shortage, explain_skip
from fgvalidate.progress import Progress
from fgvalidate.purpose import list_purposes
from fgvalidate.recording import Recording, read_recording
from fgvalidate.report import FailureKind, Outcome, Report, escape_controls, make_text, print_report
from fgvalidate.run_dir import RunDir
from fgvalidate.search_path import find_spec_file, read_config_sources
from fgvalidate.spec import Spec
from fgvalidate.suite import append_result, read_plan
from fgvalidate.terminal import get_console
from fgvalidate.validate import Plan, validate

_STEP_KEYS = {"max_steps", "dynamic_args.max_steps"}
_BOUND_FACTS = {
    "loss.final_max": "loss.final",
    "loss.final_min": "loss.final",
    "loss.drop_min": "loss.drop",
    "min_steps_logged": "train.num_steps_logged",
}


def run_task(cfg: DictConfig) -> Outcome:
    """Validates one composed spec, prints and writes its report, and returns its outcome."""
    hydra_config = HydraConfig.get()
    run_dir = RunDir(Path(hydra_config.runtime.output_dir))
    report, facts = validate_config(cfg, run_dir)
    if hydra_config.mode == RunMode.MULTIRUN:
        append_result(Path(hydra_config.sweep.dir), hydra_config.job.num, report, facts)
    elif facts is not None or report.mutations:
        _write_page(run_dir, report, facts)
    return report.outcome


def _write_page(run_dir: RunDir, report: Report, facts: Facts | None) -> None:
    try:
        from fgvalidate.page import write_run_page  # noqa: PLC0415 - what it needs is loaded when a page is written

        write_run_page(run_dir.page_path, report, facts)
    except Exception as error:
        print(f"fgvalidate: {run_dir.page_path} cannot be written: {escape_controls(str(error))}", file=sys.stderr)


def validate_config(cfg: DictConfig, run_dir: RunDir) -> tuple[Report, Facts | None]:
    """Validates one composed spec and prints its report.

    Returns:
        The report, and what was observed (None: nothing was run).
    """
    words = _list_overrides()
    if "inference=none" in words:
        # Said on the command line, it wins over a spec whose body has an inference section.
        cfg.inference = None
    facts = None
    attempts = Attempts(run_dir)
    try:
        report, facts = _run(cfg, words, attempts)
    except (FgvalidateError, OmegaConfBaseException) as error:
        problem = diagnose(error, read_job_line(words, HydraConfig.get().runtime.config_sources))
        report = _report_error(cfg, words, classify_error(error), problem, attempts)
        run_dir.discard_if_empty()
    except OSError as error:
        if error.filename is None:
            raise
        what = f"{error.filename}: {error.strerror}: the disk is full, or the trainer removed or replaced it"
        report = _report_error(cfg, words, classify_error(error), f"{what}; nothing was judged", attempts)
    if report.outcome == "error":
        # The line begins with a file and a line number, where it has them.
        problem = report.reason.removeprefix(f"{report.failure}: ")
        print(f"fgvalidate: {escape_controls(problem)}", file=sys.stderr)
    else:
        print_report(report, get_console())
    return report, facts


def _list_overrides() -> list[str]:
    # Unresolved: an override may be an expression over facts.
    words = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(words, list)
    return [str(word) for word in words]


def find_chosen_spec() -> Path | None:
    """Returns the file of the spec that is composed; None: none was chosen, or it is not in a folder.

    Raises:
        SpecError: Another one of that name is hidden by it.
    """
    runtime = HydraConfig.get().runtime
    option = runtime.choices.get("spec")
    return find_spec_file(option, read_config_sources(runtime.config_sources)) if isinstance(option, str) else None


def _report_error(cfg: DictConfig, words: list[str], failure: FailureKind, problem: str, attempts: Attempts) -> Report:
    test_id = OmegaConf.select(cfg, "test_id", throw_on_missing=False, default="unnamed")
    return Report(
        test_id=str(test_id),
        outcome="error",
        failure=failure,
        reason=f"{failure}: {problem}",
        attempts=tuple(attempts.past),
        command=write_command(words, HydraConfig.get().runtime.config_sources),
    )


def _run(cfg: DictConfig, words: list[str], attempts: Attempts) -> tuple[Report, Facts | None]:
    run_dir = attempts.run_dir
    choices = HydraConfig.get().runtime.choices
    if "spec" not in choices and OmegaConf.is_missing(cfg, "test_id"):
        print_purposes(list_purposes(GlobalHydra.instance().config_loader()), get_console())
        raise SpecError("no spec is chosen: say +spec=NAME")
    if any(word.startswith("+spec=[") for word in words):
        raise SpecError("spec: choose one, or run several with -m +spec=A,B")
    spec_file = find_chosen_spec()
    if choices["checks"] != "default":
        require_core_checks(cfg.checks, str(choices["checks"]))
    spec = load_spec(cfg)
    repeat = build_repeat_command(spec, cfg, words)
    if spec.judge is not None or spec.mutate is not None:
        return _use_recording(spec, cfg, words, run_dir, repeat=repeat, spec_file=spec_file)
    project = find_project(spec)
    pool = find_gpus() if spec.gpu_requirement else GpuPool((), "none is asked for")
    request = build_request(spec)
    if reason := explain_skip(request, pool, cpu_ok=spec.backend.cpu_ok):
        run_dir.discard_if_empty()
        skipped = Report(test_id=spec.test_id, outcome="skipped", reason=reason, command=repeat, spec_file=spec_file)
        return skipped, None
    if explain_shortage(pool, request):
        request = Request(num_gpus=0, test_id=spec.test_id)  # it runs on the CPU
    if spec.inference is not None:
        find_scorer(spec.scorer.model)
    open_reader(spec.backend.log)
    # A missing program is found before anything is waited for.
    _build_commands(spec, project, run_dir, ())

    def run_once(avoid: tuple[str, ...]) -> tuple[Report, Facts, tuple[str, ...]]:
        with lease_gpus(pool, request, avoid=avoid, on_wait=lambda text: _say(f"{spec.test_id}: {text}")) as lease:
            plan = _make_plan(
                spec, cfg, words, run_dir, project=project, pool=pool, lease=lease, repeat=repeat, spec_file=spec_file
            )
            steps = f"{spec.requested_steps} steps" if spec.requested_steps else "as many steps as its config says"
            where = f"GPU {', '.join(lease.devices)}" if lease.devices else "the CPU"
            _say(f"{spec.test_id}: {spec.project_dir}, {spec.config}, {steps} on {where} ({spec.backend.name})")
            with Progress(get_console(), spec.requested_steps) as progress:
                return *validate(plan, progress.show), plan.gpu_uuids

    report, facts = repeat_run(
        run_once, attempts, num_retries=spec.retries.infrastructure, explain_stop=_explain_stop, say=_say
    )
    if report.run_dir is not None:
        report.write(run_dir.report_path)
    return report, facts


def _explain_stop() -> str:
    """Says why no run is repeated any more in this multirun; an empty string outside of one."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN:
        return ""
    return explain_stop(Path(hydra_config.sweep.dir), hydra_config.job.num)


def _use_recording(
    spec: Spec, cfg: DictConfig, words: list[str], run_dir: RunDir, *, repeat: str, spec_file: Path | None
) -> tuple[Report, Facts | None]:
    """Judges a recorded run, or plants faults in it: nothing is run or leased."""
    key, named = ("judge", spec.judge) if spec.judge is not None else ("mutate", spec.mutate)
    assert named is not None
    if key not in map(read_key, words):
        raise SpecError(f"{key}: it belongs on the command line; a spec that sets it would never be run")
    recording = read_recording(Path(named).expanduser(), test_id=spec.test_id, name=_find_job_name())
    if recording.facts is None:
        assert recording.report is not None
        run_dir.discard_if_empty()
        reason = f"the recorded run was skipped: {recording.report.reason}"
        return Report(test_id=spec.test_id, outcome="skipped", reason=reason, command=repeat, spec_file=spec_file), None
    require_apart(run_dir, recording)
    if key == "mutate":
        return _mutate(spec, cfg, recording, run_dir, repeat=repeat, spec_file=spec_file), None
    typed = set(map(read_key, sys.argv[1:]))
    as_composed = ", or say judge= without +spec, and it is judged with the words of then" if "spec" in typed else ""
    require_run_of(spec, recording, f"judge: {named}", decisive={"training"}, hint=as_composed)
    run_dir.claim()
    _write_composition(cfg, run_dir)
    case = Case(
        spec=spec,
        checks=cfg.checks,
        notes=_explain_bounds(spec, words),
        run_dir=recording.run_dir,
        repeat=repeat,
        spec_file=spec_file,
    )
    _say(f"{spec.test_id}: judged again, nothing is run")
    return judge_recording(case, recording, run_dir)


def _mutate(
    spec: Spec, cfg: DictConfig, recording: Recording, run_dir: RunDir, *, repeat: str, spec_file: Path | None
) -> Report:
    from fgvalidate.mutation import Trial, require_sound_run, run_mutation_test  # noqa: PLC0415 - seldom needed

    trial = Trial(
        spec=spec, checks=cfg.checks, recording=recording, run_dir=run_dir, repeat=repeat, spec_file=spec_file
    )
    require_sound_run(trial)
    if spec.inference is not None:
        find_scorer(spec.scorer.model)
    run_dir.create()
    _say(f"{spec.test_id}: faults are planted in {recording.run_dir.root}")
    report = run_mutation_test(trial)
    _write_composition(cfg, run_dir)
    return report


def _find_job_name() -> str | None:
    """Returns how this job is called in its multirun; None: it is none's."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN:
        return None
    jobs = read_plan(Path(hydra_config.sweep.dir)).jobs
    return next((job.name for job in jobs if job.num == hydra_config.job.num), None)


def _build_commands(
    spec: Spec, project: Path, run_dir: RunDir, gpus: tuple[str, ...]
) -> tuple[Command, Command | None]:
    command = build_command(spec, project, run_dir.train_dir, gpus)
    has_server = spec.inference is not None
    return command, build_server_command(spec, command, gpus, run_dir.modules_cache) if has_server else None


def _make_plan(
    spec: Spec,
    cfg: DictConfig,
    words: list[str],
    run_dir: RunDir,
    *,
    project: Path,
    pool: GpuPool,
    lease: Lease,
    repeat: str,
    spec_file: Path | None,
) -> Plan:
    command, server = _build_commands(spec, project, run_dir, lease.devices)
    written_after = run_dir.create()
    _write_composition(cfg, run_dir)
    return Plan(
        spec=spec,
        checks=cfg.checks,
        notes=_explain_bounds(spec, words),
        project=project,
        command=command,
        run_dir=run_dir,
        written_after=written_after,
        num_gpus_available=len(pool.gpus),
        gpu_names=tuple(gpu.model for gpu in lease.gpus),
        gpu_uuids=tuple(gpu.uuid for gpu in lease.gpus),
        repeat=repeat,
        spec_file=spec_file,
        server=server,
        held_fds=lease.fds,
    )


def _say(line: str) -> None:
    get_console().print(make_text(line), soft_wrap=True)


def build_repeat_command(spec: Spec, cfg: DictConfig, words: list[str]) -> str:
    """Returns the shell command that repeats this run; a folder that was named is left out, since it is used now."""
    root = OmegaConf.to_container(cfg.backend, resolve=False)["root"]  # type: ignore[index,call-overload]
    if "oc.env" in str(root) and spec.backend.root:
        words = [*words, f"backend.root={spec.backend.root}"]
    return write_command(words, HydraConfig.get().runtime.config_sources)


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
