"""One Slurm job for one planned job: what sbatch is told, and what then runs on the node.

submitit writes the batch script, pickles the task and starts it on the node. Its way of watching jobs is not used: that
asks `sacct` alone, and waits forever where there is none.
"""

import math
import os
import re
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from submitit import SlurmExecutor

from fgvalidate.errors import LaunchError
from fgvalidate.gpu import VISIBLE_DEVICES
from fgvalidate.hydra_job import prepare_hydra_job
from fgvalidate.suite import Job
from hydra_plugins.fgvalidate_slurm._guard import SUBMIT_TIMEOUT_S
from hydra_plugins.fgvalidate_slurm.launcher import Settings

_TRANSIENT = re.compile(
    r"unable to contact slurm controller|socket timed out|connection (?:refused|reset|timed out)|zero bytes were"
    r"|resource temporarily unavailable|communication|transport|did not answer|authentication|munge",
    re.IGNORECASE,
)
_USERS_OWN = ("SBATCH_ACCOUNT", "SBATCH_CONSTRAINT", "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_RESERVATION")
_ENDED_MESSAGE = b"Slurm asked this job to end, and it does\n"


class SubmitError(Exception):
    """sbatch did not take a job; `str(error)` says why in one line.

    Attributes:
        is_transient: Whether it may take it later.
    """

    def __init__(self, reason: str, *, is_transient: bool) -> None:
        super().__init__(reason)
        self.is_transient = is_transient


@dataclass(frozen=True, kw_only=True)
class Task:
    """What runs in every job; pickled, and called on the node."""

    hydra_context: HydraContext
    config: DictConfig
    function: TaskFunction

    def __call__(self, job: Job, singletons: Any) -> None:
        """Composes and runs one job on the node.

        Args:
            job: Which.
            singletons: The state of Hydra's singletons where it was submitted.

        Raises:
            LaunchError: Slurm does not say which GPUs are the job's.
        """
        # submitit ignores SIGTERM, and requeues on SIGUSR2.
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, _leave)
        confine_gpus(job.gpu_requirement)
        Singleton.set_state(singletons)
        setup_globals()
        prepare_hydra_job(
            job,
            context=self.hydra_context,
            config=self.config,
            task_function=self.function,
            job_id=os.environ["SLURM_JOB_ID"],
        )()


def _leave(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    # Unwinding ends what the task has started; not print, which is not to be called in a signal handler.
    os.write(2, _ENDED_MESSAGE)
    sys.exit(128 + signal.SIGTERM)


def confine_gpus(gpus: int) -> None:
    """Sees to it that the job uses the GPUs that Slurm gave it, and no others.

    Args:
        gpus: How many it asked for.

    Raises:
        LaunchError: It asked for some, and Slurm does not say which.
    """
    if gpus == 0:
        # Slurm leaves it unset, which shows them all where they are not confined by cgroups.
        os.environ[VISIBLE_DEVICES] = ""
    elif not os.environ.get(VISIBLE_DEVICES):
        what = f"Slurm gave the job {gpus} GPU(s), but set no {VISIBLE_DEVICES}, so that it may use another job's"
        raise LaunchError(f"{what}: gres.conf must name the device files (File=)")


class _Executor(SlurmExecutor):
    """submitit's, with a time limit on sbatch, and without the settings of this shell that would overrule ours."""

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        set_here = {f"SBATCH_{name.upper()}" for name in self.parameters}
        kept = set(_USERS_OWN) - set_here
        dropped = [f"--unset={name}" for name in os.environ if name.startswith("SBATCH_") and name not in kept]
        # `timeout` also puts sbatch into a process group of its own, where a terminal's Ctrl-C does not reach it.
        return [
            "timeout",
            "--kill-after=5",
            str(SUBMIT_TIMEOUT_S),
            "env",
            *dropped,
            "sbatch",
            str(submission_file_path),
        ]


def compute_limit_min(job: Job, time_slack_s: int) -> int:
    """Returns the time limit of a job in whole minutes, which is how Slurm counts."""
    return math.ceil((max(job.time_limit, job.timeout) + time_slack_s) / 60) or 1


def build_parameters(job: Job, name: str, settings: Settings) -> dict[str, Any]:
    """Returns what sbatch is told, by submitit's names."""
    memory_gib = job.memory if job.memory is not None else settings.mem_gb
    parameters: dict[str, Any] = {
        "job_name": name,
        "time": compute_limit_min(job, settings.time_slack),
        "nodes": 1,
        "ntasks_per_node": 1,
        "gres": f"{settings.gres}:{job.gpu_requirement}" if job.gpu_requirement else None,
        "mem": None if memory_gib is None else f"{math.ceil(memory_gib * 1024)}M",
        "cpus_per_task": settings.cpus_per_task,
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "setup": settings.setup or None,
        # The task takes the place of the batch shell, which would else die of SIGTERM before it has cleaned up.
        "use_srun": False,
        "stderr_to_stdout": True,
        # A job that runs again would append to what its first run has left.
        "additional_parameters": {"no-requeue": True, **settings.additional_parameters},
    }
    return {key: value for key, value in parameters.items() if value is not None}


def name_job(prefix: str, job: Job) -> str:
    """Returns a name under which the job is found in the queue, fit for a batch script and for squeue."""
    return f"{prefix}-{job.num}-{re.sub(r'[^A-Za-z0-9_.-]', '_', job.test_id)}"


def submit(job: Job, task: Task, name: str, settings: Settings) -> tuple[str, Path]:
    """Hands a job to Slurm.

    Returns:
        Its id, and the file that takes what it prints.

    Raises:
        SubmitError: sbatch does not take it.
    """
    try:
        executor = _Executor(settings.folder, max_num_timeout=0, python=f"exec {shlex.quote(sys.executable)}")
        executor.update_parameters(**build_parameters(job, name, settings))
        submitted = executor.submit(task, job, Singleton.get_state())
    except Exception as error:
        reason = explain_refusal(str(error), getattr(error.__cause__, "returncode", None))
        raise SubmitError(reason, is_transient=_TRANSIENT.search(reason) is not None) from error
    return submitted.job_id, submitted.paths.stdout


def explain_refusal(message: str, returncode: int | None) -> str:
    """Returns one line on why sbatch did not take a job.

    Args:
        message: What it said, or what went wrong around it.
        returncode: Its exit code; None: it was not reached.
    """
    if returncode in {124, 137}:
        return f"sbatch did not answer within {SUBMIT_TIMEOUT_S} s"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else f"sbatch failed with exit code {returncode} and said nothing"
