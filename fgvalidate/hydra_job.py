"""One job of a multirun, run as Hydra runs it: its overrides come in; the task composes, runs and writes its result."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hydra.core.utils import run_job
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from fgvalidate.diagnosis import diagnose, read_job_line
from fgvalidate.suite import Job, append_error


def prepare_hydra_job(
    job: Job, *, context: HydraContext, config: DictConfig, task_function: TaskFunction, job_id: str = ""
) -> Callable[[], None]:
    """Composes one job.

    Args:
        job: Which.
        context: Hydra's.
        config: The composed config of the sweep.
        task_function: The task, which appends its own result.
        job_id: The scheduler's; empty: there is none.

    Returns:
        What runs it, and raises whatever the task raises. Of a job that cannot be composed, it writes the result.
    """
    try:
        job_config = context.config_loader.load_sweep_config(config, list(job.overrides))
    except Exception as error:  # whatever composing raises is the user's to know
        reason = diagnose(error, read_job_line(job.overrides, config.hydra.runtime.config_sources))
        return partial(_report_problem, job, Path(str(config.hydra.sweep.dir)), reason)
    with open_dict(job_config):
        job_config.hydra.job.id = job_id or job.name
        job_config.hydra.job.num = job.num
    return partial(_run, context, task_function, job_config)


def _report_problem(job: Job, root: Path, reason: str) -> None:
    print(f"fgvalidate: {reason}", file=sys.stderr)
    append_error(root, job, "spec", reason)


def _run(context: HydraContext, task_function: TaskFunction, job_config: DictConfig) -> None:
    ended = run_job(
        hydra_context=context,
        task_function=task_function,
        config=job_config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    _ = ended.return_value  # raises what the task raised
