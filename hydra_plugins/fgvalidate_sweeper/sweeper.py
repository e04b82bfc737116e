"""The sweeper `fgvalidate_sweeper`: hands a multirun to `fgvalidate.sweep`.

Hydra imports this module in every application of the environment, so it imports nothing that is heavy.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class FgvalidateSweeperConf:
    """The settings `hydra.sweeper`; on the command line, `select=...` is short for `hydra.sweeper.select=...`."""

    _target_: str = "hydra_plugins.fgvalidate_sweeper.sweeper.FgvalidateSweeper"
    params: dict[str, str] = field(default_factory=dict)
    """Axes that hold unless the command line names them: `{"+spec": "glob(*)"}`."""
    select: str | None = None
    """Which specs, by marker, test_id or name: `integration and not slow`. None: all."""
    select_failed: bool = False
    """Only those that the last multirun did not see passing."""
    list: bool = False
    """Print what would run, and run nothing."""
    fail_fast: bool = False
    """Stop after the first spec that is red."""


ConfigStore.instance().store(group="hydra/sweeper", name="fgvalidate_sweeper", node=FgvalidateSweeperConf)


class FgvalidateSweeper(Sweeper):
    """Runs every chosen spec, and reports on all of them."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs the multirun that the words of the command line ask for."""
        from fgvalidate.candidates import Settings  # noqa: PLC0415 - see the module's docstring
        from fgvalidate.sweep import run_sweep  # noqa: PLC0415

        assert self.config is not None
        assert self.hydra_context is not None
        run_sweep(
            arguments,
            Settings(**self._settings),
            config=self.config,
            context=self.hydra_context,
            launcher=self.launcher,
        )
