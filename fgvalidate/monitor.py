"""What a multirun shows while it runs: a live table in a terminal, plain lines elsewhere.

Where a run stands is read from its folder, so that it is the same for every launcher and costs the run nothing.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fgvalidate.progress import Follower
from fgvalidate.report import OUTCOME_STYLES, Report, make_table, make_text
from fgvalidate.run_dir import RunDir
from fgvalidate.suite import Job, Plan

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

PLAIN_INTERVAL_S = 30.0


@dataclass
class _Watched:
    job: Job
    run_dir: RunDir
    steps: Follower
    began: float

    @property
    def stage(self) -> str:
        """Which stage it is in, as far as its folder shows."""
        if self.run_dir.facts_path.is_file():
            return "judging"
        if self.run_dir.server_log_path.is_file():
            return "serving"
        if self.run_dir.stdout_path.is_file():
            return "training"
        return "waiting for GPUs" if self.job.gpu_requirement else "starting"


class Monitor:
    """Follows the runs of a multirun; a context manager around them.

    Args:
        console: Where to show it.
        root: The multirun's folder.
        plan: What it sets out to do.
        clock: The time in seconds.
    """

    def __init__(
        self, console: "Console", root: Path, plan: Plan, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._root = root
        self._num_jobs = len(plan.jobs)
        self._clock = clock
        self._began = clock()
        self._next_plain_s = PLAIN_INTERVAL_S
        self._watched: dict[int, _Watched] = {}
        self._num_ended = 0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.live import Live  # noqa: PLC0415 - a single run needs none

            # It is brought up to date by `update`: a thread of its own would be forked with the jobs.
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def submit(self, job: Job, job_id: str) -> None:
        """Takes note that a scheduler has a job in its queue."""
        self._print(f"queued   {job.name}  as job {job_id}")

    def start(self, job: Job) -> None:
        """Takes note that a job has been started."""
        run_dir = RunDir(self._root / job.run_dir)
        self._watched[job.num] = _Watched(job, run_dir, Follower(run_dir.stdout_path), self._clock())
        if self._live is None:
            self._print(f"started  {job.name}  ({len(self._watched) + self._num_ended} of {self._num_jobs})")

    def finish(self, job: Job, report: Report) -> None:
        """Takes note that a job has ended."""
        self._watched.pop(job.num, None)
        self._num_ended += 1
        reason = f": {report.reason}" if report.reason else ""
        took = f" in {report.duration_s:.1f} s" if report.duration_s else ""
        self._print(f"{report.outcome.upper():8} {job.name}{took}{reason}", OUTCOME_STYLES[report.outcome])

    def update(self) -> None:
        """Shows where the running jobs stand; to be called a few times a second."""
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.update(self._build_table(), refresh=True)
        elif self._clock() - self._began >= self._next_plain_s:
            self._next_plain_s = self._clock() - self._began + PLAIN_INTERVAL_S
            for watched in self._watched.values():
                name, stage, step, loss, elapsed = self._describe(watched)
                where = f"  step {step}, loss {loss}" if step else ""
                self._print(f"running  {name}  {stage}{where}  {elapsed}")

    def _print(self, line: str, style: str = "") -> None:
        with contextlib.suppress(OSError):  # the terminal is gone, and the jobs must be ended all the same
            self._console.print(make_text(line, style), soft_wrap=True)

    def _describe(self, watched: _Watched) -> tuple[str, str, str, str, str]:
        """Returns the cells of a row: spec, stage, step, loss, elapsed."""
        stage = watched.stage
        last = watched.steps.read() if stage == "training" else watched.steps.last
        of = f" of {watched.job.max_steps}" if watched.job.max_steps else ""
        step, loss = (f"{last.step}{of}", f"{last.loss:.4g}") if last else ("", "")
        return watched.job.name, stage, step, loss, f"{self._clock() - watched.began:.0f} s"

    def _build_table(self) -> "Table":
        table = make_table("spec", "stage", "step", "loss", "elapsed")
        table.title = f"{self._num_ended} of {self._num_jobs} specs ended, {self._clock() - self._began:.0f} s"
        for watched in self._watched.values():
            table.add_row(*map(make_text, self._describe(watched)))
        return table
