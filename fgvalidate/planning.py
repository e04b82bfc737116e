"""Planning: the candidates that were chosen come in, the jobs of a multirun go out, with all that scheduling needs."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from fgvalidate.candidates import Candidate
from fgvalidate.command_line import write_command
from fgvalidate.composition import require_known_keys
from fgvalidate.diagnosis import diagnose, read_job_line
from fgvalidate.discovery import Discovery
from fgvalidate.errors import SpecError
from fgvalidate.operators import resolve_coalesce
from fgvalidate.suite import Job, find_last_suite, read_plan, read_results

OVERHEAD_S = 120
"""What a run may take beyond the time limits of its stages, in seconds."""

LostJob = tuple[Job, str]
"""A job that cannot be composed, and why."""


def plan_jobs(
    chosen: Iterable[Candidate], discovery: Discovery, *, folder: Path, config_sources: Sequence[Any]
) -> tuple[list[Job], list[LostJob]]:
    """Plans the candidates that were chosen.

    Args:
        chosen: In the order of the axes, in which they are numbered; those that cannot be composed come last.
        discovery: Composes what a job is.
        folder: Holds earlier multiruns, whose durations are what to expect.
        config_sources: Hydra's, for the commands that repeat a job.

    Raises:
        SpecError: Two of them have the same name.
    """
    durations = read_durations(folder)
    jobs: list[Job] = []
    lost: list[LostJob] = []
    for candidate in chosen:
        job = _begin_job(candidate, config_sources)
        try:
            if candidate.problem:
                lost.append((job, candidate.problem))
            else:
                jobs.append(_fill_job(job, candidate, discovery.compose_task(candidate.overrides), durations))
        except Exception as error:
            lost.append((job, diagnose(error, read_job_line(candidate.overrides, config_sources))))
    _require_unique(jobs)
    return number_jobs(jobs, lost)


def number_jobs(jobs: Sequence[Job], lost: Sequence[LostJob]) -> tuple[list[Job], list[LostJob]]:
    """Numbers the jobs without a gap, those that cannot be composed last."""
    everyone = [_number(job, num) for num, job in enumerate([*jobs, *(job for job, _ in lost)])]
    problems = [problem for _, problem in lost]
    return everyone[: len(jobs)], list(zip(everyone[len(jobs) :], problems, strict=True))


def _number(job: Job, num: int) -> Job:
    return replace(job, num=num, run_dir=f"{num}-{job.test_id}")


def _begin_job(candidate: Candidate, config_sources: Sequence[Any]) -> Job:
    test_id = candidate.names.test_id if candidate.names else candidate.spec or "unnamed"
    return Job(
        num=0,
        spec=candidate.spec,
        test_id=test_id,
        name=f"{test_id}{candidate.suffix}",
        overrides=candidate.overrides,
        run_dir="",
        markers=candidate.names.markers if candidate.names else (),
        command=write_command(candidate.overrides, config_sources),
    )


def _fill_job(job: Job, candidate: Candidate, task: DictConfig, durations: dict[str, float]) -> Job:
    require_known_keys(task)
    if task.judge is not None:
        # Nothing is run, so it takes neither GPUs nor the time that a run would take.
        return replace(job, name=f"{task.test_id}{candidate.suffix}", time_limit=OVERHEAD_S, expected_s=0.0)
    asked = task.inference
    serving = asked.server_timeout + asked.num_samples * asked.request_timeout if asked else 0
    time_limit = (1 + task.retries.infrastructure) * (task.timeout + serving + OVERHEAD_S)
    # What is read from a recorded run needs no GPU.
    is_recorded = bool(task.judge or task.mutate)
    return replace(
        job,
        name=f"{task.test_id}{candidate.suffix}",
        gpu_requirement=0 if is_recorded else task.gpu_requirement,
        gpu_memory=task.gpu_memory,
        specs_per_gpu=task.specs_per_gpu,
        memory=task.memory,
        cpu_ok=task.backend.cpu_ok,
        max_steps=resolve_coalesce(task.max_steps, task.dynamic_args.get("max_steps")),
        timeout=task.timeout,
        time_limit=time_limit,
        expected_s=durations.get(job.name, float(task.timeout + serving + OVERHEAD_S)),
    )


def _require_unique(jobs: Iterable[Job]) -> None:
    specs: dict[str, str] = {}
    for job in jobs:
        other = specs.setdefault(job.name, job.spec)
        if other is not job.spec:
            raise SpecError(f"test_id: {job.name!r} is that of two specs, {other} and {job.spec}; each needs its own")


def read_durations(folder: Path) -> dict[str, float]:
    """Returns how long each job of the last multirun took, in seconds, by its name; those that were red left out."""
    last = find_last_suite(folder)
    if last is None:
        return {}
    results = read_results(last)
    ended = ((job.name, results[job.num].report) for job in read_plan(last).jobs if job.num in results)
    return {name: report.duration_s for name, report in ended if report.outcome == "passed"}


def set_aside(
    jobs: Iterable[Job], lost: Sequence[LostJob], *, context: HydraContext, config_sources: Sequence[Any]
) -> tuple[list[Job], list[LostJob]]:
    """Composes every job as its launcher will, and counts those that cannot be composed among the lost ones."""
    good, bad = [], []
    for job in jobs:
        try:
            context.config_loader.load_configuration("config", overrides=list(job.overrides), run_mode=RunMode.RUN)
            good.append(job)
        except Exception as error:
            bad.append((job, diagnose(error, read_job_line(job.overrides, config_sources))))
    return number_jobs(good, [*bad, *lost])
