"""The launcher as Hydra finds it: the settings `hydra.launcher.*` come in, one `JobReturn` a job goes out.

Every Hydra application of the environment imports this module, so what is heavy waits until something is launched.
"""

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from fgvalidate.errors import LaunchError, SpecError

PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol")


@dataclass(kw_only=True)
class Settings:
    """What `hydra.launcher.*` takes; GPUs, time and main memory are each spec's own."""

    _target_: str = "hydra_plugins.fgvalidate_slurm.launcher.SlurmLauncher"
    _convert_: str = "all"
    folder: str = "${hydra.sweep.dir}/.submitit"
    """Takes the batch scripts and the logs; on a file system that the nodes share."""
    partition: str | None = None
    """None: Slurm's default, as for the next two."""
    account: str | None = None
    qos: str | None = None
    gres: str = "gpu"
    """How this cluster names its GPUs: `gpu`, or with their type `gpu:a100`."""
    mem_gb: float | None = None
    """Main memory of a spec that does not say its own, GiB; None: Slurm's default."""
    cpus_per_task: int | None = None
    """CPUs of a job; None: Slurm's default."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell that each job runs first."""
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    """Further options of sbatch, by their long names without the dashes; true for one that takes no value."""
    max_parallel: int | None = None
    """Jobs in Slurm's queue at most, pending ones included; None: all at once."""
    time_slack: int = 300
    """Seconds that a job may take beyond what its spec's stages may."""
    queue_timeout: int | None = None
    """Seconds that a job may wait in the queue; None: as long as it takes."""
    poll_interval: float = 5.0
    """Seconds between two questions to Slurm."""
    grace: float = 15.0
    """Seconds that an ended job's result may take to appear on a slow file system; also, those that a job may take to
    end once its result is there."""
    patience: int = 600
    """Seconds without an answer from Slurm after which what is in its queue is given up; also, those that a job may
    run beyond its time limit without being ended."""


class SlurmLauncher(Launcher):
    """Submits each job of a multirun to Slurm with its own resources, and waits for them all."""

    def __init__(self, **settings: Any) -> None:
        self._settings = Settings(**settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what Hydra hands out before a launch.

        Raises:
            LaunchError: The extra is not installed, or this machine has no Slurm.
            SpecError: A setting is wrong.
        """
        self._hydra_context = hydra_context
        self._task_function = task_function
        self._config = config
        for name, lowest in (("max_parallel", 1), ("queue_timeout", 1), ("time_slack", 0), ("grace", 0)):
            value = getattr(self._settings, name)
            if value is not None and not value >= lowest:
                raise SpecError(f"hydra.launcher.{name}: must be at least {lowest}, not {value}")
        for name in ("poll_interval", "patience"):
            value = getattr(self._settings, name)
            if not value > 0:
                raise SpecError(f"hydra.launcher.{name}: must be positive, not {value}")
        if importlib.util.find_spec("submitit") is None:
            what = "hydra/launcher=fgvalidate_slurm needs submitit, which is not installed"
            raise LaunchError(f"{what}: pip install 'fgvalidate[slurm]'")
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            what = f"hydra/launcher=fgvalidate_slurm: {', '.join(missing)} not found in PATH"
            raise LaunchError(f"{what}; run it where Slurm's commands are, on a login node")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs, whose plan is in the multirun's folder, and waits until all have ended.

        What came of each is appended to the multirun's results, by the job itself or, where it was lost, from here.

        Args:
            job_overrides: The words that compose each job.
            initial_job_idx: The number of the first in the plan.

        Raises:
            SpecError: The multirun's folder holds no plan.
        """
        from fgvalidate.monitor import Monitor  # noqa: PLC0415 - heavy
        from fgvalidate.suite import read_plan  # noqa: PLC0415 - heavy
        from fgvalidate.terminal import get_console  # noqa: PLC0415 - heavy
        from hydra_plugins.fgvalidate_slurm._submission import Task  # noqa: PLC0415 - heavy
        from hydra_plugins.fgvalidate_slurm._watch import run_jobs  # noqa: PLC0415 - heavy

        root = Path(str(self._config.hydra.sweep.dir)).absolute()
        plan = read_plan(root)
        nums = range(initial_job_idx, initial_job_idx + len(job_overrides))
        jobs = [job for job in plan.jobs if job.num in nums]
        task = Task(hydra_context=self._hydra_context, config=self._config, function=self._task_function)
        with Monitor(get_console(), root, plan) as monitor:
            return run_jobs(jobs, task, root, self._settings, monitor)


ConfigStore.instance().store(group="hydra/launcher", name="fgvalidate_slurm", node=Settings, provider="fgvalidate")
