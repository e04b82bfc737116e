"""The training log, `trainer_logs.json`, and the step table on stdout.

In: the trainer's figures, step by step. Out: a JSON array with one record a line, each on disk as soon as it is known,
and one line a record on stdout. NaN is written as bare `NaN`, as Python's json does.
"""

import json
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TABLE_HEADER = (
    f"{'step':>10} {'epoch':>9} {'loss':>9} {'grad':>9} {'maxg':>9} {'lr':>11} {'tokens':>11} {'total_tok':>11} "
    f"{'tok/s':>11}"
)


def new_log_dir(output_dir: Path) -> Path:
    """Creates and returns a folder for a new log under `output_dir`, `runs/log_<local time, to the microsecond>`."""
    path = output_dir / "runs" / f"log_{datetime.now(tz=UTC).astimezone():%Y-%m-%dT%H-%M-%S-%f}"
    path.mkdir(parents=True)
    return path


class TrainingLog:
    """An open log file; as a context manager it closes the array, so that a failed run leaves valid JSON too."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._separator = ""
        self._file.write("[\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.write("\n]")
        self._file.close()

    def write(self, record: dict[str, Any]) -> None:
        """Appends a record, with the time of writing as its `timestamp` (seconds since the epoch) in front."""
        self._file.write(self._separator + json.dumps({"timestamp": time.time()} | record))
        self._file.flush()
        self._separator = ",\n"


class StepWindow:
    """Gathers the steps between two training records, and makes the record of them.

    Args:
        tokens_per_step: Tokens that all processes together train on in a step.
    """

    def __init__(self, tokens_per_step: int) -> None:
        self._tokens_per_step = tokens_per_step
        self._losses: list[float] = []
        self._grad_norms: list[float] = []
        self._started = time.monotonic()

    def add(self, loss: float, grad_norm: float) -> None:
        """Takes in one step."""
        self._losses.append(loss)
        self._grad_norms.append(grad_norm)

    def close(self, *, global_step: int, epoch: float, total_flos: float, learning_rate: float) -> dict[str, Any]:
        """Returns the window's training record, prints its line, and starts the next window.

        Loss and gradient norm are means over the window, `max_grad_norm` is the window's largest. NaN in any step makes
        them NaN.
        """
        tokens = self._tokens_per_step * len(self._losses)
        has_nan = any(norm != norm for norm in self._grad_norms)  # noqa: PLR0124
        record = {
            "global_step": global_step,
            "epoch": round(epoch, 6),
            "loss": statistics.fmean(self._losses),
            "grad_norm": statistics.fmean(self._grad_norms),
            "max_grad_norm": float("nan") if has_nan else max(self._grad_norms),
            "tokens": tokens,
            "total_tokens": self._tokens_per_step * global_step,
            "total_flos": total_flos,
            "learning_rate": learning_rate,
        }
        now = time.monotonic()
        print_row(
            f"{global_step:>10} {epoch:>9.4f} {record['loss']:>9.5f} {record['grad_norm']:>9.4f} "
            f"{record['max_grad_norm']:>9.4f} {learning_rate:>11.2e} {tokens:>11,} {record['total_tokens']:>11,} "
            f"{tokens / (now - self._started):>11,.0f}"
        )
        self._losses, self._grad_norms, self._started = [], [], now
        return record


def print_row(text: str) -> None:
    """Prints a line of the step table, with the local time in front, at once."""
    print(f"{datetime.now(tz=UTC).astimezone():%Y-%m-%d %H:%M:%S} {text}", flush=True)
