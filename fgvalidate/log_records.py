"""What the records of a training log come to: records go in one by one, in any format's spelling; sums come out.

A record is a mapping from the trainer's names to values. Names that `LOG_KEYS` has mean something here; the others are
kept, so that facts can be made of them. A record with `loss` is a training record, one with `eval_loss` an evaluation.

Training may go back and do steps again, after a restart from a checkpoint. Then the last record of a step counts: one
whose step is not above the one before supersedes all records from that step on. They are kept apart, since a loss that
was NaN was NaN.

Memory is two numbers a training record, and a few hundred bytes for each key.
"""

import math
import re
from array import array
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeGuard

State = Literal["complete", "truncated", "corrupt", "empty", "stale", "missing"]

MAX_PACE_POINTS = 512
LARGEST_TIMESTAMP_S = 1e11
"""Beyond it (the year 5138) a timestamp counts something else than seconds."""
_number = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_whole_number = re.compile(r"\s*[+-]?\d{1,18}\s*", re.ASCII)
_not_finite = re.compile(r"\s*[+-]?(?:nan|inf|infinity)\s*", re.ASCII | re.IGNORECASE)


def is_number(value: Any) -> TypeGuard[float]:
    """Returns whether a value is a number, NaN and infinity included; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_number(text: str) -> int | float | None:
    """Returns the number that a text spells, NaN and infinity in any of their usual spellings; None: it is none."""
    if _whole_number.fullmatch(text):
        return int(text)
    return float(text) if _number.fullmatch(text) or _not_finite.fullmatch(text) else None


def to_float(value: Any) -> float:
    """Returns a value as a number; NaN for null, and for whatever else is no number that anyone can bound."""
    if type(value) is float:  # nearly always, and often
        return value
    if not is_number(value):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # a whole number beyond any float
        return math.inf if value > 0 else -math.inf


def to_step(value: Any) -> int | None:
    """Returns a value as a number of steps; None: it is none."""
    if type(value) is int:
        return value if 0 <= value < 1 << 63 else None
    return int(value) if is_number(value) and 0 <= value < 1 << 63 else None


def to_time(value: Any) -> float | None:
    """Returns a timestamp, a number or a text of ISO 8601, in seconds since the trainer's epoch; None: it is none."""
    if type(value) is float:
        return value if abs(value) < LARGEST_TIMESTAMP_S else None
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.strip()).timestamp()
        except (ValueError, OverflowError, OSError):
            return None
    return float(value) if is_number(value) and abs(value) < LARGEST_TIMESTAMP_S else None


def names_zone(timestamp: str) -> bool:
    """Returns whether a timestamp of ISO 8601 says of which time zone it is."""
    try:
        return datetime.fromisoformat(timestamp.strip()).tzinfo is not None
    except ValueError:
        return False


class Pace:
    """How fast something grows by the log's clock, once training has warmed up; memory is constant.

    Points of (time, amount) go in. An amount that falls means that training was started again: only what comes after
    counts.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._points: list[tuple[float, float]] = []
        self._num_seen = 0
        self._stride = 1
        self._last = (math.nan, -math.inf)

    def add(self, time_s: float, amount: float) -> None:
        """Takes in what there is at a time, seconds; an amount that has not grown says nothing."""
        last = self._last[1]
        if amount <= last:
            if amount == last:
                return
            self._begin()
        self._last = (time_s, amount)
        if self._num_seen % self._stride == 0:
            self._points.append(self._last)
            if len(self._points) > MAX_PACE_POINTS:
                del self._points[1::2]
                self._stride *= 2
        self._num_seen += 1

    def per_second(self) -> float | None:
        """Returns the growth per second after the first tenth of the points, at least one; None: fewer than two."""
        if self._num_seen < 2:
            return None
        last_left_out = math.ceil(self._num_seen / 10) - 1
        time_s, amount = self._points[math.ceil(last_left_out / self._stride)]
        took_s = self._last[0] - time_s
        return (self._last[1] - amount) / took_s if took_s > 0 else None


class KeyMap:
    """Gives the values of a record the names that mean something here."""

    def __init__(
        self, keys: Mapping[str, str] | None = None, usual_keys: Mapping[str, str] | None = None, *, first_step: int = 1
    ) -> None:
        """Takes the names.

        Args:
            keys: By the trainer's name: ours, of `LOG_KEYS`. It wins over a value that has our name already.
            usual_keys: Likewise, by the names that the format usually has; they are used for what has no other name.
            first_step: What the trainer numbers the first step, 0 or 1.
        """
        keys, usual_keys = keys or {}, usual_keys or {}
        taken = set(keys.values())
        self._names = [(theirs, ours, True) for theirs, ours in keys.items() if theirs != ours]
        self._names += [(theirs, ours, False) for theirs, ours in usual_keys.items() if ours not in taken]
        self._to_steps_done = 1 - first_step

    def apply(self, record: dict[str, Any]) -> dict[str, Any]:
        """Returns the record with our names beside the trainer's; `global_step` is the number of steps done."""
        if not self._names and not self._to_steps_done:
            return record
        renamed = dict(record)
        for theirs, ours, is_declared in self._names:
            if theirs in record and (is_declared or ours not in record):
                renamed[ours] = record[theirs]
        step = to_step(renamed.get("global_step"))
        if step is not None:
            renamed["global_step"] = step + self._to_steps_done
        return renamed


class Records:
    """Sums up the records of a log, in the order in which they were written."""

    def __init__(self, key_map: KeyMap | None = None, *, final_key: str | None = None) -> None:
        """Begins with no record.

        Args:
            key_map: The names in this log; None: they are ours.
            final_key: A record without a loss that has this key, and neither null nor false under it, is the final one.
                None: no record is.
        """
        self._key_map = key_map or KeyMap()
        self._final_key = final_key
        self.state: State = "complete"
        self.reason = ""
        self.num_records = 0
        self.steps = array("q")
        self.losses = array("d")
        self.superseded_steps = array("q")
        self.superseded_losses = array("d")
        self.last_values: dict[str, Any] = {}
        self.last_eval_loss: float | None = None
        self.last_step: int | None = None
        self.max_grad_norm: float | None = None
        self.peak_memory_bytes: float | None = None
        self.has_fractional_epochs = False
        self.final: dict[str, Any] | None = None
        self.says_finished = False
        """Whether the log says, besides its records, that all steps were done."""
        self.steps_pace = Pace()
        self.tokens_pace = Pace()
        self._num_tokens = 0.0
        self._last_placed_step = -1

    def break_off(self, state: State, reason: str) -> None:
        """Says what is wrong with the log; the records so far stay."""
        self.state, self.reason = state, reason

    def add(self, record: dict[str, Any]) -> None:
        """Takes in the next record."""
        self.num_records += 1
        record = self._key_map.apply(record)
        self.last_values.update(record)
        step = to_step(record.get("global_step"))
        if step is not None:
            self.last_step = step
        if "loss" in record:
            self.final = None
            self._add_loss(step, to_float(record["loss"]))
        elif self._is_final(record):
            self.final = record
        if "eval_loss" in record:
            self.last_eval_loss = to_float(record["eval_loss"])
        self._add_measurements(record, step)

    def _is_final(self, record: dict[str, Any]) -> bool:
        value = None if self._final_key is None else record.get(self._final_key)
        return value is not None and value is not False

    def _add_loss(self, step: int | None, loss: float) -> None:
        if step is None:
            self.steps.append(-1)
        else:
            if step <= self._last_placed_step:
                self._supersede(step)
            self._last_placed_step = step
            self.steps.append(step)
        self.losses.append(loss)

    def _supersede(self, step: int) -> None:
        """Sets the records from a step on apart."""
        index = cut = len(self.steps)
        while index and (self.steps[index - 1] < 0 or self.steps[index - 1] >= step):
            index -= 1
            if self.steps[index] >= 0:
                cut = index
        self.superseded_steps += self.steps[cut:]
        self.superseded_losses += self.losses[cut:]
        del self.steps[cut:], self.losses[cut:]

    def _add_measurements(self, record: dict[str, Any], step: int | None) -> None:
        if "grad_norm" in record:
            self._add_grad_norm(to_float(record["grad_norm"]))
        if "peak_mem_allocated" in record:
            peak = to_float(record["peak_mem_allocated"])
            if math.isfinite(peak):
                self.peak_memory_bytes = max(peak, self.peak_memory_bytes or 0.0)
        if not self.has_fractional_epochs and "epoch" in record:
            epoch = to_float(record["epoch"])
            self.has_fractional_epochs = math.isfinite(epoch) and not epoch.is_integer()
        tokens = self._count_tokens(record)
        time_s = to_time(record["timestamp"]) if "timestamp" in record else None
        if time_s is not None:
            if step is not None and "loss" in record:
                self.steps_pace.add(time_s, step)
            if tokens is not None:
                self.tokens_pace.add(time_s, tokens)

    def _add_grad_norm(self, norm: float) -> None:
        highest = self.max_grad_norm
        # NaN stays: no bound may hold where one was NaN.
        if highest is None or math.isnan(norm) or norm > highest:
            self.max_grad_norm = norm

    def _count_tokens(self, record: dict[str, Any]) -> float | None:
        if "total_tokens" in record:
            total = to_float(record["total_tokens"])
        elif "tokens" in record:
            self._num_tokens += to_float(record["tokens"])
            total = self._num_tokens
        else:
            return None
        return total if math.isfinite(total) else None
