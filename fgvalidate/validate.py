"""One validation, from a checked spec to a report."""

import glob
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fgvalidate.checkout import find_checkout, list_changed_files, read_commit
from fgvalidate.checks import judge
from fgvalidate.command import Command
from fgvalidate.conclusion import Case, conclude
from fgvalidate.facts import Facts
from fgvalidate.gpu import measure_used_share
from fgvalidate.inference import InferenceResult, run_inference
from fgvalidate.log_reader import open_reader
from fgvalidate.observation import Observation, collect_facts, look_for_files
from fgvalidate.perplexity import BackgroundScorer
from fgvalidate.placement import FOREIGN_SHARE
from fgvalidate.process import Process, ProcessResult, run_process
from fgvalidate.report import Outcome, Report
from fgvalidate.signatures import Sign, find_exception, find_signs
from fgvalidate.spec import Spec
from fgvalidate.text_search import search_text
from fgvalidate.training_log import TrainingLog, find_growing_log, find_training_log
from fgvalidate.watch import Watched, Watcher
from fgvalidate.watch_rules import build_rules


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
        watcher.finish(process.duration_s),
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
    findings = search_text(run_dir.stderr_path, spec.stderr.patterns) if has_stderr else None
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
