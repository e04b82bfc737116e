"""The training log: the trainer's output directory comes in, what its log proves goes out.

The format is Forgather's `trainer_logs.json`: a JSON array of records. A training record has `loss`, an evaluation
record `eval_loss`, the final record `train_runtime`; the final record alone proves that training completed. While
training runs, and after a kill, the file is empty or cut after any record; NaN and Infinity stand there bare.

Records are decoded one by one as the file is read, so a log of a million records costs its two series and no more.
"""

import contextlib
import glob
import json
import math
import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO, TypeGuard

State = Literal["complete", "truncated", "corrupt", "empty", "stale", "missing"]

CHUNK_CHARACTERS = 1 << 20
LARGEST_RECORD_CHARACTERS = 1 << 24
CLOCK_TOLERANCE_S = 1.0
FIRST_EPOCH_TIME_S = 1e9
_decoder = json.JSONDecoder()
_white_space = re.compile(r"\s*")


@dataclass(frozen=True, kw_only=True)
class TrainingLog:
    """What a log holds, as far as it could be read."""

    path: Path | None
    """The file; None when there is none."""
    state: State
    """complete: a whole JSON array. stale: written before this run began, and therefore not read as its log."""
    reason: str = ""
    """What is wrong with it; empty when it is complete."""
    num_records: int = 0
    steps: "array[int]" = field(default_factory=lambda: array("q"))
    """Global steps of the training records; -1 where a record has none."""
    losses: "array[float]" = field(default_factory=lambda: array("d"))
    """Their losses, nats per token; NaN also for a loss that is null or not a number."""
    last_values: dict[str, Any] = field(default_factory=dict)
    """By key: the value in the last record that has it."""
    last_eval_loss: float | None = None
    """None: no evaluation record."""
    final: dict[str, Any] | None = None
    """The final record; None when there is none, or when training records follow it."""

    @property
    def global_step(self) -> int | None:
        """Steps done: the final record's, else the last training record's; None when neither says."""
        if self.final is not None:
            return _to_step(self.final)
        return self.steps[-1] if self.steps and self.steps[-1] >= 0 else None

    @property
    def epoch(self) -> float | None:
        """Passes over the data done, by the last record that says so; None when none does."""
        epoch = self.last_values.get("epoch")
        return _to_float(epoch) if _is_number(epoch) else None


def find_training_log(output_dir: Path, pattern: str, *, written_after: float, started_at: float) -> TrainingLog:
    """Finds the newest log that this run wrote, and reads it.

    Args:
        output_dir: The trainer's output directory.
        pattern: Where the log is expected below it, as `runs/*/trainer_logs.json`; without a match there, its last part
            is looked for at any depth.
        written_after: By the clock of the file system, seconds since the epoch: an older file is an earlier run's.
        started_at: By this machine's clock, seconds since the epoch: a log whose last record is older is a copy of an
            earlier run's.

    Returns:
        The log; of state stale, empty or missing where that is all there is.
    """
    name = Path(pattern).name
    found = [path for match in glob.glob(pattern, root_dir=output_dir) if (path := output_dir / match).is_file()]
    if not any(_is_fresh(path, written_after) for path in found):
        found += [path for path in output_dir.rglob(name) if path.is_file()]
    fresh = [path for path in found if _is_fresh(path, written_after)]
    if not fresh:
        if found:
            return _stale(found[0])
        written = sorted(path.name for path in output_dir.iterdir()) if output_dir.is_dir() else []
        holds = f"it holds {', '.join(written[:8])}" if written else "the trainer left nothing there"
        return TrainingLog(path=None, state="missing", reason=f"no {name} in {output_dir}: {holds}")
    for path in sorted(fresh, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        log = read_training_log(path)
        last_said = log.last_values.get("timestamp")
        # Some trainers' timestamps are not seconds since the epoch but since their start: those prove nothing.
        is_copy = _is_number(last_said) and FIRST_EPOCH_TIME_S < last_said < started_at - CLOCK_TOLERANCE_S
        if not is_copy:
            return log
    return _stale(fresh[0])


def find_growing_log(output_dir: Path, pattern: str, *, written_after: float) -> Path | None:
    """Returns the newest log that this run has begun to write where it is expected; None: there is none yet.

    Args:
        output_dir: See `find_training_log`, as for `pattern` and `written_after`.
        pattern: See `find_training_log`.
        written_after: See `find_training_log`.
    """
    times = {}
    for match in glob.glob(pattern, root_dir=output_dir):
        with contextlib.suppress(OSError):  # gone meanwhile
            times[output_dir / match] = (output_dir / match).stat().st_mtime
    return max((path for path, time in times.items() if time >= written_after), key=times.__getitem__, default=None)


def _stale(path: Path) -> TrainingLog:
    reason = f"{path} was written before this run began: it is an earlier run's log"
    return TrainingLog(path=path, state="stale", reason=reason)


def _is_fresh(path: Path, written_after: float) -> bool:
    return path.stat().st_mtime >= written_after


def read_training_log(path: Path) -> TrainingLog:
    """Reads a log, whatever its state; what could be read before it broke off is kept."""
    reader = _Reader()
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            reader.read(file)
    except OSError as error:
        reader.state, reader.reason = "corrupt", f"{path} cannot be read: {error.strerror}"
    return TrainingLog(
        path=path,
        state=reader.state,
        reason=reader.reason,
        num_records=reader.num_records,
        steps=reader.steps,
        losses=reader.losses,
        last_values=reader.last_values,
        last_eval_loss=reader.last_eval_loss,
        final=reader.final,
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _to_step(record: Mapping[str, Any]) -> int | None:
    step = record.get("global_step")
    return int(step) if _is_number(step) and 0 <= step < 1 << 63 else None


def _to_loss(value: Any) -> float:
    # A loss that is null, a text or a list is none that anyone can bound.
    return _to_float(value) if _is_number(value) else math.nan


def _to_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:  # a whole number beyond any float
        return math.inf if number > 0 else -math.inf


def read_training_record(record: Mapping[str, Any]) -> tuple[int | None, float] | None:
    """Returns the global step (None: it does not say) and the loss of a training record; None: it is another one."""
    if "loss" not in record or "train_runtime" in record:
        return None
    return _to_step(record), _to_loss(record["loss"])


class _ArrayText:
    """The text of a JSON array, read in chunks: the next character that counts, the next value."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._position = 0
        self._exhausted = False

    def peek(self) -> str:
        """Returns the next character that is not white space; "" at the end."""
        while True:
            match = _white_space.match(self._text, self._position)
            assert match is not None
            self._position = match.end()
            if self._position < len(self._text) or self._exhausted:
                return self._text[self._position : self._position + 1]
            self._refill()

    def skip(self) -> None:
        """Steps over the character that `peek` showed."""
        self._position += 1

    def decode(self) -> Any:
        """Decodes the value that begins here; raises JSONDecodeError when none does."""
        while True:
            try:
                value, self._position = _decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError:
                if self._exhausted or len(self._text) - self._position > LARGEST_RECORD_CHARACTERS:
                    raise
                self._refill()
            else:
                return value

    def _refill(self) -> None:
        rest = self._text[self._position :]
        # At least as much as there is, so that a long record is not decoded again and again.
        chunk = self._file.read(max(CHUNK_CHARACTERS, len(rest)))
        self._text, self._position, self._exhausted = rest + chunk, 0, chunk == ""


def _require_comma(character: str) -> None:
    if character != ",":
        raise ValueError(f"{character!r} where a comma belongs")


class _Reader:
    """Sums up the records of a log."""

    def __init__(self) -> None:
        self.state: State = "complete"
        self.reason = ""
        self.num_records = 0
        self.steps = array("q")
        self.losses = array("d")
        self.last_values: dict[str, Any] = {}
        self.last_eval_loss: float | None = None
        self.final: dict[str, Any] | None = None

    def read(self, file: TextIO) -> None:
        text = _ArrayText(file)
        first = text.peek()
        if first != "[":
            self.state = "corrupt" if first else "empty"
            self.reason = "the log is not a JSON array" if first else "the log is empty: no record was ever written"
            return
        text.skip()
        try:
            while (character := text.peek()) not in {"]", ""}:
                if self.num_records:
                    _require_comma(character)
                    text.skip()
                    if text.peek() == "":
                        break
                self._add(text.decode())
        except (ValueError, RecursionError) as error:
            self._diagnose(error)
            return
        if text.peek() == "":
            self._break_off()
            return
        text.skip()
        if text.peek() != "":
            self.state, self.reason = "corrupt", "the log goes on after its closing bracket"

    def _add(self, record: Any) -> None:
        if not isinstance(record, dict):
            raise ValueError(f"{record!r:.40} where a record belongs")  # noqa: TRY004 - one of several faults of the text
        self.num_records += 1
        self.last_values.update(record)
        if "train_runtime" in record:
            self.final = record
        elif "loss" in record:
            self.final = None
            step = _to_step(record)
            self.steps.append(-1 if step is None else step)
            self.losses.append(_to_loss(record["loss"]))
        elif "eval_loss" in record:
            self.last_eval_loss = _to_loss(record["eval_loss"])

    def _diagnose(self, error: ValueError | RecursionError) -> None:
        # A record that the end of the file cuts has no closing brace behind the fault.
        if isinstance(error, json.JSONDecodeError) and "}" not in error.doc[error.pos :]:
            self._break_off()
            return
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        self.state = "corrupt"
        self.reason = f"the log cannot be read beyond record {self.num_records}: {reason}"

    def _break_off(self) -> None:
        self.state = "truncated"
        self.reason = f"the log breaks off after record {self.num_records}, without its closing bracket"
