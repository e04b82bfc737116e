"""One validation, from a checked spec to a report."""

import glob
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from fgvalidate.causes import Cause, find_cause
from fgvalidate.checkout import find_checkout, list_changed_files, read_commit
from fgvalidate.checks import Verdict, judge
from fgvalidate.command import Command
from fgvalidate.composition import explain_unknown_keys
from fgvalidate.expectations import expect_failures
from fgvalidate.facts import Facts
from fgvalidate.gpu import measure_used_share
from fgvalidate.inference import InferenceResult, run_inference
from fgvalidate.log_reader import open_reader
from fgvalidate.observation import Observation, collect_facts, look_for_files
from fgvalidate.perplexity import BackgroundScorer
from fgvalidate.placement import FOREIGN_SHARE
from fgvalidate.process import Process, ProcessResult, run_process
from fgvalidate.report import FailureKind, Outcome, Report, read_versions
from fgvalidate.run_dir import RunDir
from fgvalidate.signatures import Sign, find_exception, find_signs
from fgvalidate.spec import Spec
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
    gpu_uuids: tuple[str, ...] = ()
    """Their full UUIDs, likewise."""
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

    # What is in use on the run's GPUs while nothing of it runs is others'.
    used_before = measure_used_share(plan.gpu_uuids)
    process = train(plan, should_stop)
    used_after = measure_used_share(plan.gpu_uuids)
    files_after = list_changed_files(checkout, apart=apart) if checkout else None
    return observe(
        plan,
        process,
        watcher.finish(),
        scorer,
        created_files=None if files_before is None or files_after is None else files_after - files_before,
        commit=commit,
        foreign_share=max((share for share in (used_before, used_after) if share is not None), default=None),
    )


def start_watcher(plan: Plan) -> Watcher:
    """Begins to watch the training command."""
    run_dir, settings = plan.run_dir, plan.spec.backend.log
    reader = open_reader(settings)
    return Watcher(
        build_rules(plan.spec, plan.checks),
        stdout=run_dir.stdout_path,
        stderr=run_dir.stderr_path,
        find_log=lambda: find_growing_log(run_dir.train_dir, settings, written_after=plan.written_after),
        make_stdout_steps=reader.make_stdout_source,
        make_log_steps=reader.make_log_source,
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
    if not log.finished:
        return "training did not finish" if log.finished is False else "nothing proves that training finished"
    return ""


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
    foreign_share: float | None,
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
    has_stderr = run_dir.stderr_path.is_file()
    findings = search_text(run_dir.stderr_path, list_patterns(spec)) if has_stderr else None
    forbidden = [name for name in spec.stderr.forbidden_patterns if findings and findings[name]]
    has_broken_off = process.returncode != 0 or process.timed_out or log.finished is False or bool(forbidden)
    inference = infer(plan, process, log, scorer)
    return collect_facts(
        Observation(
            process=process,
            timeout=spec.timeout,
            log=log,
            requested_steps=spec.requested_steps,
            findings=findings,
            stderr_bytes=run_dir.stderr_path.stat().st_size if has_stderr else None,
            files=look_for_files(log.folder, spec.expected_files),
            created_files=created_files,
            commit=commit,
            num_gpus_available=plan.num_gpus_available,
            gpu_names=plan.gpu_names,
            host=platform.node(),
            num_cores=len(os.sched_getaffinity(0)),
            inference=inference,
            watched=watched,
            foreign_memory_share=foreign_share,
            exception=find_exception(run_dir.stderr_path) if has_broken_off else None,
            signs=look_for_signs(plan, has_broken_off, inference, foreign_share),
        )
    )


def list_patterns(spec: Spec) -> list[str]:
    """Returns what is looked for in stderr."""
    return [*spec.stderr.forbidden_patterns, *spec.stderr.warn_patterns]


def look_for_signs(
    plan: Plan, has_broken_off: bool, inference: InferenceResult | str, foreign_share: float | None
) -> tuple[Sign, ...] | None:
    """Looks for signs of trouble of the machine in the output of what came to a bad end; None: all ended well."""
    run_dir = plan.run_dir
    outputs = [[run_dir.stderr_path, run_dir.stdout_path]] if has_broken_off else []
    if isinstance(inference, InferenceResult) and inference.problem:
        outputs.append([run_dir.server_log_path])
    signs = [
        find_signs(paths, plan.spec.signatures, foreign_share=foreign_share, taken_share=FOREIGN_SHARE)
        for paths in outputs
    ]
    return tuple(sign for found in signs for sign in found) if outputs else None


def conclude(plan: Case, facts: Facts, verdicts: list[Verdict], *, duration_s: float) -> Report:
    """Sums the verdicts up: green when at least one check passed and none is red, unless that is what is expected.

    Args:
        plan: What was run.
        facts: What was observed.
        verdicts: What the checks said of it.
        duration_s: The whole run's, wall time.
    """
    spec = plan.spec
    red = [verdict for verdict in verdicts if verdict.is_red]
    is_machines = bool(red) and find_cause(red, facts).kind == "infrastructure"
    if spec.xfail_checks and not is_machines:
        verdicts = expect_failures(verdicts, spec.xfail_checks)
    is_red = any(verdict.is_red for verdict in verdicts)
    is_unhealthy = facts.values.get("inference.server_healthy") is False
    outcome, failure, reason = decide(spec, facts, verdicts)
    return Report(
        test_id=plan.spec.test_id,
        outcome=outcome,
        failure=failure,
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


def decide(spec: Spec, facts: Facts, verdicts: list[Verdict]) -> tuple[Outcome, FailureKind | Literal[""], str]:
    """Sums the verdicts up.

    Returns:
        The outcome; the class of failure, "" where there is none; the first cause, or what is worth a warning.
    """
    return conclude_expectation(spec, verdicts, find_failure(spec, facts, verdicts))


def find_failure(spec: Spec, facts: Facts, verdicts: list[Verdict]) -> Cause | None:
    """Returns why the run is red; None: it is green."""
    red = [verdict for verdict in verdicts if verdict.is_red]
    # What was ended early is no pass, whatever its checks say.
    if red or facts.values.get("watch.stopped") is True:
        return find_cause(red, facts)
    # A stage that was asked for and never ran is no pass, whichever checks the spec has switched off.
    if spec.inference is not None and "inference.server_healthy" not in facts.values:
        why = facts.get("inference.server_healthy").reason
        return Cause("evidence", f"the inference stage was not run: {why}")
    if not any(verdict.status == "passed" for verdict in verdicts):
        return Cause("evidence", "no check could be judged, or none passed")
    return None


def conclude_expectation(
    spec: Spec, verdicts: list[Verdict], cause: Cause | None
) -> tuple[Outcome, FailureKind | Literal[""], str]:
    """Returns outcome, class of failure and reason, by whether the spec is expected to be red."""
    if cause is None and spec.xfail is not None:
        what = f"passed, though xfail says: {spec.xfail}; remove xfail"
        return "failed", "spec", str(Cause("spec", what))
    if cause is None:
        named = {
            "with warnings": [verdict.name for verdict in verdicts if verdict.status == "warned"],
            "red as expected": [verdict.name for verdict in verdicts if verdict.status == "xfailed"],
        }
        return "passed", "", "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names)
    # What could not be judged, what passed against expectation and what the machine did was not expected.
    statuses = {verdict.status for verdict in verdicts}
    has_failed = "failed" in statuses and "xpassed" not in statuses
    if spec.xfail is not None and has_failed and cause.kind != "infrastructure":
        return "passed", "", f"red as expected ({spec.xfail}): {cause}"
    return "failed", cause.kind, str(cause)


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
    train_dir = plan.run_dir.train_dir
    for pattern in plan.spec.backend.checkpoints:
        for path in [train_dir / match for match in glob.glob(pattern, root_dir=train_dir, recursive=True)]:
            if path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)
