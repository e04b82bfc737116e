"""The launcher `fgvalidate_pool`: hands the jobs of a multirun to `fgvalidate.pool`.

Hydra imports this module in every application of the environment, so it imports nothing that is heavy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from fgvalidate.errors import SpecError


@dataclass
class FgvalidatePoolConf:
    """The settings `hydra.launcher`."""

    _target_: str = "hydra_plugins.fgvalidate_pool.launcher.FgvalidatePool"
    max_parallel: int | None = None
    """Specs at a time. None: half the cores, and at least as many as there are places on GPUs."""


ConfigStore.instance().store(group="hydra/launcher", name="fgvalidate_pool", node=FgvalidatePoolConf)


class FgvalidatePool(Launcher):
    """Runs each job in a process of its own, as many at a time as the machine holds."""

    def __init__(self, max_parallel: int | None) -> None:
        self._max_parallel = max_parallel
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None
        self.config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`.

        Raises:
            SpecError: A setting is wrong.
        """
        if self._max_parallel is not None and self._max_parallel < 1:
            raise SpecError(f"hydra.launcher.max_parallel: must be at least 1, or null, not {self._max_parallel}")
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs that the sweeper has planned; returns nothing, since each has written its own result."""
        from fgvalidate.hydra_job import prepare_hydra_job  # noqa: PLC0415 - see the module's docstring
        from fgvalidate.pool import run_pool  # noqa: PLC0415

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.task_function is not None
        setup_globals()
        prepare = partial(
            prepare_hydra_job, context=self.hydra_context, config=self.config, task_function=self.task_function
        )
        run_pool(
            self.config.hydra.sweep.dir,
            range(initial_job_idx, initial_job_idx + len(job_overrides)),
            prepare,
            max_parallel=self._max_parallel,
            fail_fast=self.config.hydra.sweeper.get("fail_fast", False),
        )
        return []
