"""Progress while a command runs: what is seen of it comes in, a live line (plain lines elsewhere) goes out."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from fgvalidate.growing_file import GrowingFile
from fgvalidate.report import make_text
from fgvalidate.steps import Step, StepTable
from fgvalidate.watch import Watcher

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

LARGEST_READ_BYTES = 1 << 16
PLAIN_INTERVAL_S = 10.0


class Follower:
    """Reads what is new at the end of a growing stdout, and remembers the last step; memory is constant."""

    def __init__(self, path: Path) -> None:
        self._file = GrowingFile(path)
        self._table = StepTable()
        self.last: Step | None = None

    def read(self) -> Step | None:
        """Reads on; of a flood, its last part alone."""
        self._file.skip_to_last(LARGEST_READ_BYTES)
        num_restarts = self._file.num_restarts
        chunks = list(self._file.read(LARGEST_READ_BYTES))
        if self._file.num_restarts > num_restarts:
            self._table, self.last = StepTable(), None  # by another attempt
        for chunk in chunks:
            if rows := self._table.read(chunk):
                self.last = Step.from_row(rows[-1])
        return self.last


class Progress:
    """Shows elapsed time, step, loss and alarms of a training run; a context manager around it."""

    def __init__(self, console: "Console", requested_steps: int | None) -> None:
        self._console = console
        self._num_alarms = 0
        self._of = f" of {requested_steps}" if requested_steps else ""
        self._status: Status | None = None
        self._next_plain_s = PLAIN_INTERVAL_S

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._status = self._console.status("training")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, elapsed_s: float, watcher: Watcher) -> None:
        """Shows where the run stands, and each alarm once; called about twice a second."""
        step = watcher.last
        where = f"step {step.step}{self._of}, loss {step.loss:.4g}" if step else "no step yet"
        line = f"training  {elapsed_s:.0f} s  {where}"
        for alarm in watcher.alarms[self._num_alarms :]:
            self._console.print(make_text(f"noted     {alarm.elapsed_s:.0f} s  {alarm.text}"), soft_wrap=True)
        self._num_alarms = len(watcher.alarms)
        if self._status is not None:
            self._status.update(line)
        elif elapsed_s >= self._next_plain_s:
            self._next_plain_s = elapsed_s + PLAIN_INTERVAL_S
            self._console.print(line, markup=False, highlight=False)
