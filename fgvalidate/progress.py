"""Progress while a command runs: its growing stdout comes in, a live line (plain lines elsewhere) goes out."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from fgvalidate.log_forgather import STEP_ROW

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

LARGEST_READ_BYTES = 1 << 16
PLAIN_INTERVAL_S = 10.0


@dataclass(frozen=True)
class Step:
    """The last step that was printed."""

    step: int
    loss: float


class Follower:
    """Reads what is new at the end of a growing file, and remembers the last step row; memory is constant."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = ""
        self.last: Step | None = None

    def read(self) -> Step | None:
        """Reads on; of a flood, its last part alone."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                self._offset = max(self._offset, size - LARGEST_READ_BYTES)
                file.seek(self._offset)
                text = self._rest + file.read(LARGEST_READ_BYTES).decode(errors="replace")
                self._offset = file.tell()
        except OSError:
            return self.last
        *lines, self._rest = text.split("\n")
        self._rest = self._rest[-LARGEST_READ_BYTES:]
        for line in lines:
            match = STEP_ROW.match(line)
            if match:
                self.last = Step(int(match["step"].replace(",", "")), float(match["loss"]))
        return self.last


class Progress:
    """Shows elapsed time, step and loss of a training run; a context manager around it."""

    def __init__(self, console: "Console", stdout: Path, requested_steps: int | None) -> None:
        self._console = console
        self._follower = Follower(stdout)
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

    def show(self, elapsed_s: float) -> None:
        """Shows where the run stands; called about twice a second."""
        step = self._follower.read()
        where = f"step {step.step}{self._of}, loss {step.loss:.4g}" if step else "no step yet"
        line = f"training  {elapsed_s:.0f} s  {where}"
        if self._status is not None:
            self._status.update(line)
        elif elapsed_s >= self._next_plain_s:
            self._next_plain_s = elapsed_s + PLAIN_INTERVAL_S
            self._console.print(line, markup=False, highlight=False)
