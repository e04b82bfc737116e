"""One validation, from a checked spec to a report."""

import glob
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig

from fgvalidate.checkout import find_checkout, list_changed_files, read_commit
from fgvalidate.checks import Verdict, judge
from fgvalidate.command import Command
from fgvalidate.composition import explain_unknown_keys
from fgvalidate.facts import Facts
from fgvalidate.inference import InferenceResult, run_inference
from fgvalidate.observation import Observation, collect_facts, look_for_files
from fgvalidate.perplexity import BackgroundScorer
from fgvalidate.process import ProcessResult, run_process
from fgvalidate.report import Outcome, Report, read_versions, show_value
from fgvalidate.run_dir import RunDir
from fgvalidate.spec import Spec
from fgvalidate.text_search import read_tail, search_text
from fgvalidate.training_log import TrainingLog, find_training_log

NUM_TAIL_LINES = 20
SUGGESTED_HEADROOM = 1.25


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A validation that is ready to start: everything was looked up, nothing was run."""

    spec: Spec
    checks: DictConfig
    """The check expressions, inside the composed config that their bounds refer to."""
    notes: Mapping[str, str]
    """By fact name: what to say in a verdict on that fact that is not green."""
    project: Path
    command: Command
    run_dir: RunDir
    written_after: float
    """When the run's folder was made, by the clock of its file system, seconds since the epoch."""
    num_gpus_available: int
    gpu_names: tuple[str, ...]
    """The models of those that the run was given."""
    repeat: str
    """What to type to repeat the run."""
    spec_file: Path | None = None
    """Where the spec was read; None: it came from no file."""
    server: Command | None = None
    """The inference server's, with its placeholders; None: the spec has no inference stage."""
    held_fds: tuple[int, ...] = ()
    """Descriptors of the GPUs' lease, which ends with the processes that hold it."""


def validate(plan: Plan, on_tick: Callable[[float], None]) -> tuple[Report, Facts]:
    """Runs the training command, observes what it left, judges every check, and reports.

    Args:
        plan: What to do.
        on_tick: Called about twice a second while the command runs, with the seconds since it began.

    Returns:
        The report, and what was observed.
    """
    began = time.monotonic()
    facts = train_and_observe(plan, on_tick)
    facts.write(plan.run_dir.facts_path)
    verdicts = judge(plan.checks, facts, plan.notes)
    report = conclude(plan, facts, verdicts, duration_s=time.monotonic() - began)
    report.write(plan.run_dir.report_path)
    remove_checkpoints(plan, report.outcome)
    return report, facts


def train_and_observe(plan: Plan, on_tick: Callable[[float], None]) -> Facts:
    """Runs the training command and collects the facts of it."""
    checkout = find_checkout(plan.project)
    apart = (plan.run_dir.root, Path.cwd() / "outputs")
    # It loads while training runs, and so costs the run nothing.
    scorer = start_scorer(plan.spec) if plan.server else None
    commit = read_commit(checkout) if checkout else None
    files_before = list_changed_files(checkout, apart=apart) if checkout else None
    process = train(plan, on_tick)
    files_after = list_changed_files(checkout, apart=apart) if checkout else None
    created_files = None if files_before is None or files_after is None else files_after - files_before
    return observe(plan, process, scorer, created_files=created_files, commit=commit)


def start_scorer(spec: Spec) -> BackgroundScorer:
    """Begins to load the reference model."""
    return BackgroundScorer(spec.scorer.model, device=spec.scorer.device, max_length=spec.scorer.max_length)


def infer(plan: Plan, log: TrainingLog, scorer: BackgroundScorer | None) -> InferenceResult | str:
    """Runs the inference stage; returns why not where there is none, or nothing to serve."""
    if plan.server is None or scorer is None:
        return "there is no inference stage"
    if not log.finished:
        return "training did not finish" if log.finished is False else "nothing proves that training finished"
    run_dir = plan.run_dir
    return run_inference(
        plan.spec,
        plan.server,
        scorer,
        output_dir=run_dir.train_dir,
        log_path=run_dir.server_log_path,
        held_fds=plan.held_fds,
    )


def train(plan: Plan, on_tick: Callable[[float], None]) -> ProcessResult:
    """Runs the training command to its end, or to the spec's timeout."""
    return run_process(
        plan.command.argv,
        cwd=plan.command.cwd,
        env=plan.command.env,
        stdout=plan.run_dir.stdout_path,
        stderr=plan.run_dir.stderr_path,
        timeout_s=plan.spec.timeout,
        on_tick=on_tick,
        held_fds=plan.held_fds,
    )


def observe(
    plan: Plan,
    process: ProcessResult,
    scorer: BackgroundScorer | None,
    *,
    created_files: frozenset[str] | None,
    commit: str | None,
) -> Facts:
    """Looks at everything that the training command left, and at what the trained model says."""
    spec, run_dir = plan.spec, plan.run_dir
    log = find_training_log(
        run_dir.train_dir,
        spec.backend.log,
        stdout=run_dir.stdout_path,
        written_after=plan.written_after,
        started_at=process.started_at,
        requested_steps=spec.requested_steps,
    )
    patterns = [*spec.stderr.forbidden_patterns, *spec.stderr.warn_patterns]
    has_stderr = run_dir.stderr_path.is_file()
    return collect_facts(
        Observation(
            process=process,
            timeout=spec.timeout,
            log=log,
            requested_steps=spec.requested_steps,
            findings=search_text(run_dir.stderr_path, patterns) if has_stderr else None,
            stderr_bytes=run_dir.stderr_path.stat().st_size if has_stderr else None,
            files=look_for_files(log.folder, spec.expected_files),
            created_files=created_files,
            commit=commit,
            num_gpus_available=plan.num_gpus_available,
            gpu_names=plan.gpu_names,
            host=platform.node(),
            num_cores=len(os.sched_getaffinity(0)),
            inference=infer(plan, log, scorer),
        )
    )


def conclude(plan: Plan, facts: Facts, verdicts: list[Verdict], *, duration_s: float) -> Report:
    """Sums the verdicts up: green when at least one check passed and none is red."""
    red = [verdict for verdict in verdicts if verdict.is_red]
    is_unhealthy = facts.values.get("inference.server_healthy") is False
    judged = any(verdict.status == "passed" for verdict in verdicts)
    # A stage that was asked for and never ran is no pass, whichever checks the spec has switched off.
    is_unserved = plan.server is not None and "inference.server_healthy" not in facts.values
    outcome: Outcome = "passed" if judged and not red and not is_unserved else "failed"
    warned = ", ".join(verdict.name for verdict in verdicts if verdict.status == "warned")
    noted = f"with warnings: {warned}" if warned else ""
    reason = explain(red) if red else noted if judged else "no check could be judged"
    if is_unserved and not red:
        reason = f"the inference stage was not run: {facts.not_applicable['inference.server_healthy']}"
    return Report(
        test_id=plan.spec.test_id,
        outcome=outcome,
        reason=reason,
        command=plan.repeat,
        verdicts=tuple(verdicts),
        advice=(*note_unknown_keys(plan.spec), *quote_text(facts), *advise(plan.spec, facts)),
        server_log_tail=read_last_lines(plan.run_dir.server_log_path) if is_unhealthy else (),
        stderr_tail=read_last_lines(plan.run_dir.stderr_path) if red else (),
        run_dir=plan.run_dir.root,
        spec_file=plan.spec_file,
        duration_s=duration_s,
        spec=asdict(plan.spec),
        versions=read_versions(),
    )


def explain(red: list[Verdict]) -> str:
    """Returns the first cause, and what else is red: checks are declared in the order of cause and effect."""
    first, *others = red
    also = f"; also red: {', '.join(verdict.name for verdict in others)}" if others else ""
    if first.actual is None:
        return f"{first.name} could not be judged: {first.message}{also}"
    why = f" ({first.message})" if first.message else ""
    return f"{first.name} is {show_value(first.actual)}, expected {first.expected}{why}{also}"


def read_last_lines(path: Path) -> tuple[str, ...]:
    """Returns the end of what a program printed; nothing when the file is gone."""
    return tuple(read_tail(path, num_lines=NUM_TAIL_LINES)) if path.is_file() else ()


def note_unknown_keys(spec: Spec) -> list[str]:
    """Returns what was left out of the spec, since no field has these names."""
    return [f"Ignored {problem}" for problem in explain_unknown_keys(spec.unknown)]


def quote_text(facts: Facts) -> list[str]:
    """Returns what the model said, and what its perplexity means."""
    text, perplexity = facts.values.get("inference.text"), facts.values.get("inference.perplexity")
    if text is None or perplexity is None:
        return []
    scorer = facts.values["inference.scorer"]
    band = f", {name_band(perplexity)}" if scorer == "gpt2" else ""
    return [f"Text    {' '.join(text.split())} (perplexity {perplexity:.1f} under {scorer}{band})"]


def name_band(perplexity: float) -> str:
    """Returns what a perplexity under GPT-2 means: the bands overlap, and the better one is named."""
    bands = [(60, "well-written English"), (200, "acceptable"), (1000, "poorly trained")]
    return next((name for bound, name in bands if perplexity <= bound), "random tokens")


def advise(spec: Spec, facts: Facts) -> list[str]:
    """Suggests bounds: for a backend that has none, for a loss that has none, for a loss that may stay where it is."""
    loss, drop = facts.values.get("loss.final"), facts.values.get("loss.drop")
    lines = []
    if spec.bounds and spec.backend.name not in spec.bounds:
        known = ", ".join(spec.bounds)
        lines.append(f"The spec's bounds are for {known}; for backend={spec.backend.name} there are none.")
    if loss is None or not loss > 0:
        return lines
    if spec.loss.final_max is None and spec.loss.final_min is None and spec.loss.drop_min is None:
        bound = f"loss.final_max={loss * SUGGESTED_HEADROOM:.3g}"
        lines.append(f"No loss bound is set. This run ended at {loss:.4g}; with 25 % of headroom: {bound}")
    if spec.loss.drop_min is None and drop is not None and not drop > 0:
        lines.append("The loss did not fall, and no bound demands it: loss.drop_min=0.1 would be red.")
    return lines


def remove_checkpoints(plan: Plan, outcome: Outcome) -> None:
    """Removes the saved weights unless the spec keeps them; logs and reports stay."""
    keep = plan.spec.keep
    if keep == "all" or (keep == "failed" and outcome != "passed"):
        return
    train_dir = plan.run_dir.train_dir
    for pattern in plan.spec.backend.checkpoints:
        for path in [train_dir / match for match in glob.glob(pattern, root_dir=train_dir, recursive=True)]:
            if path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)
