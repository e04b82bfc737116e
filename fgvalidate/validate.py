"""One validation, from a checked spec to a report."""

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
from fgvalidate.process import Process, ProcessResult, run_process
from fgvalidate.report import Outcome, Report, read_versions, show_value
from fgvalidate.run_dir import RunDir
from fgvalidate.spec import Spec
from fgvalidate.steps import RecordArray, StepTable
from fgvalidate.text_search import read_tail, search_text
from fgvalidate.training_log import TrainingLog, find_growing_log, find_training_log
from fgvalidate.watch import Watched, Watcher
from fgvalidate.watch_rules import build_rules

NUM_TAIL_LINES = 20
NUM_STACK_LINES = 100
SUGGESTED_HEADROOM = 1.25


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a verdict is reached on, whether the run is still to come or was recorded."""

    spec: Spec
    checks: DictConfig
    """The check expressions, inside the composed config that their bounds refer to."""
    notes: Mapping[str, str]
    """By fact name: what to say in a verdict on that fact that is not green."""
    run_dir: RunDir
    """Holds what the run printed."""
    repeat: str
    """What to type to repeat it."""
    spec_file: Path | None = None
    """Where the spec was read; None: it came from no file."""


@dataclass(frozen=True, kw_only=True)
class Plan(Case):
    """A validation that is ready to start: everything was looked up, nothing was run."""

    project: Path
    command: Command
    written_after: float
    """When the run's folder was made, by the clock of its file system, seconds since the epoch."""
    num_gpus_available: int
    gpu_names: tuple[str, ...]
    """The models of those that the run was given."""
    server: Command | None = None
    """The inference server's, with its placeholders; None: the spec has no inference stage."""
    held_fds: tuple[int, ...] = ()
    """Descriptors of the GPUs' lease, which ends with the processes that hold it."""


def validate(plan: Plan, on_tick: Callable[[float, Watcher], None]) -> tuple[Report, Facts]:
    """Runs the training command, observes what it left, judges every check, and reports.

    Args:
        plan: What to do.
        on_tick: Called about twice a second while the command runs, with the seconds since it began and what is seen.

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


def train_and_observe(plan: Plan, on_tick: Callable[[float, Watcher], None]) -> Facts:
    """Runs the training command and collects the facts of it."""
    checkout = find_checkout(plan.project)
    apart = (plan.run_dir.root, Path.cwd() / "outputs")
    # It loads while training runs, and so costs the run nothing.
    scorer = start_scorer(plan.spec) if plan.server else None
    commit = read_commit(checkout) if checkout else None
    files_before = list_changed_files(checkout, apart=apart) if checkout else None
    watcher = start_watcher(plan)

    def should_stop(process: Process, elapsed_s: float) -> bool:
        is_due = watcher.look(elapsed_s, process.list_members)
        on_tick(elapsed_s, watcher)
        return is_due

    process = train(plan, should_stop)
    files_after = list_changed_files(checkout, apart=apart) if checkout else None
    created_files = None if files_before is None or files_after is None else files_after - files_before
    return observe(plan, process, watcher.finish(), scorer, created_files=created_files, commit=commit)


def start_watcher(plan: Plan) -> Watcher:
    """Begins to watch the training command."""
    run_dir = plan.run_dir
    return Watcher(
        build_rules(plan.spec, plan.checks),
        stdout=run_dir.stdout_path,
        stderr=run_dir.stderr_path,
        find_log=lambda: find_growing_log(run_dir.train_dir, plan.spec.backend.log, written_after=plan.written_after),
        stdout_steps=StepTable(),
        log_steps=RecordArray(),
        stacks=run_dir.stacks_path,
    )


def start_scorer(spec: Spec) -> BackgroundScorer:
    """Begins to load the reference model."""
    return BackgroundScorer(spec.scorer.model, device=spec.scorer.device, max_length=spec.scorer.max_length)


def infer(
    plan: Plan, process: ProcessResult, log: TrainingLog, scorer: BackgroundScorer | None
) -> InferenceResult | str:
    """Runs the inference stage; returns why not where there is none, or nothing to serve."""
    if reason := explain_unserved(plan.spec, log):
        return reason
    if process.stopped:
        return "training was ended early"
    assert plan.server is not None
    assert scorer is not None
    run_dir = plan.run_dir
    return run_inference(
        plan.spec,
        plan.server,
        scorer,
        output_dir=run_dir.train_dir,
        log_path=run_dir.server_log_path,
        held_fds=plan.held_fds,
    )


def explain_unserved(spec: Spec, log: TrainingLog) -> str:
    """Says why there is nothing to serve; an empty string where there is."""
    if spec.inference is None:
        return "there is no inference stage"
    return "training did not finish" if log.final is None else ""


def train(plan: Plan, should_stop: Callable[[Process, float], bool]) -> ProcessResult:
    """Runs the training command to its end, to the spec's timeout, or until it is to stop."""
    return run_process(
        plan.command.argv,
        cwd=plan.command.cwd,
        env=plan.command.env,
        stdout=plan.run_dir.stdout_path,
        stderr=plan.run_dir.stderr_path,
        timeout_s=plan.spec.timeout,
        should_stop=should_stop,
        held_fds=plan.held_fds,
    )


def observe(
    plan: Plan,
    process: ProcessResult,
    watched: Watched,
    scorer: BackgroundScorer | None,
    *,
    created_files: frozenset[str] | None,
    commit: str | None,
) -> Facts:
    """Looks at everything that the training command left, and at what the trained model says."""
    spec, run_dir = plan.spec, plan.run_dir
    log = find_training_log(
        run_dir.train_dir, spec.backend.log, written_after=plan.written_after, started_at=process.started_at
    )
    has_stderr = run_dir.stderr_path.is_file()
    return collect_facts(
        Observation(
            process=process,
            timeout=spec.timeout,
            log=log,
            requested_steps=spec.requested_steps,
            findings=search_text(run_dir.stderr_path, list_patterns(spec)) if has_stderr else None,
            stderr_bytes=run_dir.stderr_path.stat().st_size if has_stderr else None,
            files=look_for_files(find_log_folder(log), spec.expected_files),
            created_files=created_files,
            commit=commit,
            num_gpus_available=plan.num_gpus_available,
            gpu_names=plan.gpu_names,
            host=platform.node(),
            num_cores=len(os.sched_getaffinity(0)),
            inference=infer(plan, process, log, scorer),
            watched=watched,
        )
    )


def list_patterns(spec: Spec) -> list[str]:
    """Returns what is looked for in stderr."""
    return [*spec.stderr.forbidden_patterns, *spec.stderr.warn_patterns]


def find_log_folder(log: TrainingLog) -> Path | None:
    """Returns the folder of the run's own log, where files are expected; None: there is no such log."""
    return log.path.parent if log.path is not None and log.state != "stale" else None


def decide(spec: Spec, facts: Facts, verdicts: list[Verdict]) -> tuple[Outcome, str]:
    """Sums the verdicts up: green when at least one check passed and none is red.

    Returns:
        The outcome; the first cause where it is red, else what is worth a warning.
    """
    red = [verdict for verdict in verdicts if verdict.is_red]
    judged = any(verdict.status == "passed" for verdict in verdicts)
    # A stage that was asked for and never ran is no pass, whichever checks the spec has switched off.
    is_unserved = spec.inference is not None and "inference.server_healthy" not in facts.values
    # What was ended early is no pass either.
    is_stopped = facts.values.get("watch.stopped") is True
    outcome: Outcome = "passed" if judged and not red and not is_unserved and not is_stopped else "failed"
    if is_stopped:
        # All that is red besides has its reason in this.
        return outcome, facts.notes["watch.stopped"]
    if is_unserved and not red:
        return outcome, f"the inference stage was not run: {facts.get('inference.server_healthy').reason}"
    warned = ", ".join(verdict.name for verdict in verdicts if verdict.status == "warned")
    noted = f"with warnings: {warned}" if warned else ""
    return outcome, explain(red) if red else noted if judged else "no check could be judged"


def conclude(plan: Case, facts: Facts, verdicts: list[Verdict], *, duration_s: float) -> Report:
    """Sums the verdicts up, and says all that the report does."""
    outcome, reason = decide(plan.spec, facts, verdicts)
    is_red = any(verdict.is_red for verdict in verdicts)
    is_unhealthy = facts.values.get("inference.server_healthy") is False
    return Report(
        test_id=plan.spec.test_id,
        outcome=outcome,
        reason=reason,
        command=plan.repeat,
        verdicts=tuple(verdicts),
        advice=(*note_unknown_keys(plan.spec), *quote_text(facts), *advise(plan.spec, facts)),
        server_log_tail=read_last_lines(plan.run_dir.server_log_path) if is_unhealthy else (),
        stderr_tail=read_last_lines(plan.run_dir.stderr_path) if is_red else (),
        stacks=quote_stacks(facts),
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


def quote_stacks(facts: Facts) -> tuple[str, ...]:
    """Returns the beginning of where the processes stood when the run stalled; nothing when it did not."""
    lines = [line for text in facts.values.get("watch.stacks", []) for line in text.splitlines()]
    left_out = len(lines) - NUM_STACK_LINES
    return (*lines[:NUM_STACK_LINES], *([f"and {left_out} more lines in stacks.txt"] if left_out > 0 else []))


def note_unknown_keys(spec: Spec) -> list[str]:
    """Returns what was left out of the spec, since no field has these names."""
    return [f"Ignored {problem}" for problem in explain_unknown_keys(spec.unknown)]


def quote_text(facts: Facts) -> list[str]:
    """Returns what the model said, and what its perplexity means."""
    text, perplexity = facts.values.get("inference.text"), facts.values.get("inference.perplexity")
    scorer = facts.values.get("inference.scorer")
    if text is None or perplexity is None or scorer is None:
        return []
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
    for name in plan.spec.backend.checkpoints:
        shutil.rmtree(plan.run_dir.train_dir / name, ignore_errors=True)
