"""Training steps as a trainer tells of them: new bytes of its output come in, the steps in them go out.

A `StepSource` reads one format: `StepTable` the rows on stdout that Forgather prints, `RecordArray` the JSON array that
it logs; those of other formats are with their readers. Each looks at every byte once, keeps at most the beginning of
what is not whole yet, and gives the same rows however the output is cut into pieces.
"""

import codecs
import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from fgvalidate.log_records import to_float, to_step

Row = tuple[bytes, bytes]
"""The global step and the loss of a training step, as they were printed; a step of b"" was not said."""

# A row of the step table: date, time, step, epoch, loss, ...; what is bounded fits into LONGEST_ROW_BYTES. It begins
# with the end of the line before, which makes the search fast.
STEP_ROW = re.compile(
    rb"\n\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[ \t]{1,200}(\d[\d,]{0,40})[ \t]{1,200}\d{1,40}(?:\.\d{1,40})?[ \t]{1,200}"
    rb"(-?(?:\d{1,500}(?:\.\d{1,40})?(?:e[+-]?\d{1,9})?|nan|inf(?:inity)?))(?=[ \t\r\n])",
    re.IGNORECASE,
)
LONGEST_ROW_BYTES = 4096
LONGEST_RECORD_CHARACTERS = 1 << 20
_decoder = json.JSONDecoder()
_between_records = re.compile(r"[\s\[,]*")


class Step(NamedTuple):
    """A training step that was told of."""

    step: int | None
    """None: it was not said."""
    loss: float

    @classmethod
    def from_row(cls, row: Row) -> "Step":
        """Returns what a row says."""
        step, loss = row
        return cls(int(step.replace(b",", b"")) if step else None, float(loss))


class StepSource(Protocol):
    """Finds the training steps in an output that grows."""

    def read(self, new: bytes) -> list[Row]:
        """Takes in what is new; returns the steps that are now whole."""
        ...

    def finish(self) -> list[Row]:
        """Returns the steps in what is not whole, once nothing more will come."""
        ...


class LineBuffer:
    """Cuts an output into whole lines."""

    def __init__(self) -> None:
        self.rest = b""
        """The beginning of the line that is not whole yet, LONGEST_ROW_BYTES of it at most."""

    def read(self, new: bytes) -> bytes:
        """Returns the lines that are now whole, each with its line end."""
        whole, end, rest = new.rpartition(b"\n")
        lines = self.rest + whole + end if end else b""
        self.rest = rest[:LONGEST_ROW_BYTES] if end else (self.rest + rest)[:LONGEST_ROW_BYTES]
        return lines


class StepTable:
    """The rows of a step table on stdout.

    Args:
        pattern: Of a row, from the line end before it; its two groups are the step and the loss.
    """

    def __init__(self, pattern: re.Pattern[bytes] = STEP_ROW) -> None:
        self._pattern = pattern
        self._lines = LineBuffer()

    def read(self, new: bytes) -> list[Row]:
        """See `StepSource`."""
        return self._pattern.findall(b"\n" + self._lines.read(new))

    def finish(self) -> list[Row]:
        """See `StepSource`."""
        return self._pattern.findall(b"\n" + self._lines.rest)


class RecordArray:
    """The training records of a JSON array that is written record by record; what cannot be read ends it.

    Args:
        describe: Returns the row of a record, None where it is no training record.
    """

    def __init__(self, describe: Callable[[dict[str, Any]], Row | None] | None = None) -> None:
        self._describe = describe or describe_record
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._text = ""
        self._is_broken = False

    def read(self, new: bytes) -> list[Row]:
        """See `StepSource`."""
        if self._is_broken:
            return []
        text, rows = self._text + self._decode(new), []
        position = 0
        while match := _between_records.match(text, position):
            try:
                record, end = _decoder.raw_decode(text, match.end())
            except (ValueError, RecursionError):
                break  # not whole yet, or never
            position = end
            if isinstance(record, dict) and (row := self._describe(record)):
                rows.append(row)
        self._text = text[position:]
        self._is_broken = len(self._text) > LONGEST_RECORD_CHARACTERS
        return rows

    def finish(self) -> list[Row]:
        """See `StepSource`."""
        return []


def describe_record(record: dict[str, Any]) -> Row | None:
    """Returns the row of a training record, by the names that mean something here; None: it is another one."""
    if "loss" not in record:
        return None
    step = to_step(record.get("global_step"))
    return b"" if step is None else str(step).encode(), repr(to_float(record["loss"])).encode()


def find_least_loss(row: Row) -> float:
    """Returns the lowest loss that is printed so: a half of the last digit's place below it."""
    loss = Decimal(row[1].decode())
    exponent = loss.as_tuple().exponent
    return float(loss - Decimal((0, (5,), exponent - 1))) if isinstance(exponent, int) else float(loss)


class Tally:
    """Sums up the steps of one source.

    Args:
        ceiling: The loss above which a step is remarkable; None: none is.
        num_kept: How many of the steps with a loss that is not finite are kept.

    Attributes:
        num_steps: Steps seen.
        last: The last of them; None: there was none.
        num_nonfinite: Steps whose loss is not finite; one that is told of again is not counted again.
        nonfinite: The first of them.
        max_loss: The highest loss, infinity included, less what its printed digits may be rounded up by; None: no step
            had a loss that is a number.
        highest: The step with the highest loss, infinity included, that is above the ceiling whatever the digits that
            were not printed; None: there was none.
    """

    def __init__(self, ceiling: float | None = None, *, num_kept: int = 10) -> None:
        self._ceiling = math.inf if ceiling is None else ceiling
        self._num_kept = num_kept
        self._last_nonfinite = -1
        self.num_steps = 0
        self.last: Step | None = None
        self.num_nonfinite = 0
        self.nonfinite: list[Step] = []
        self.highest: Step | None = None
        self.max_loss: float | None = None
        self._max_printed = -math.inf

    def add(self, rows: list[Row]) -> None:
        """Takes in steps, in the order in which they were told of."""
        if not rows:
            return
        self.num_steps += len(rows)
        self.last = Step.from_row(rows[-1])
        losses = [float(loss) for _, loss in rows]
        # Nearly always there is nothing to see, and a step costs a fraction of a microsecond.
        top = max(losses) if math.isfinite(sum(losses)) else math.nan
        if not top <= self._ceiling:
            for row, loss in zip(rows, losses, strict=True):
                if not math.isfinite(loss):
                    self._add_nonfinite(Step.from_row(row))
                if loss > self._ceiling:
                    self._add_high(row)
        if not top <= self._max_printed:
            self._raise_max(rows, losses)

    def _raise_max(self, rows: list[Row], losses: list[float]) -> None:
        numbered = [(loss, row) for loss, row in zip(losses, rows, strict=True) if not math.isnan(loss)]
        loss, row = max(numbered, default=(-math.inf, None))
        if row is not None and loss > self._max_printed:
            self._max_printed, self.max_loss = loss, find_least_loss(row)

    def _add_nonfinite(self, step: Step) -> None:
        if step.step is not None and step.step <= self._last_nonfinite:
            return
        self._last_nonfinite = self._last_nonfinite if step.step is None else step.step
        self.num_nonfinite += 1
        if len(self.nonfinite) < self._num_kept:
            self.nonfinite.append(step)

    def _add_high(self, row: Row) -> None:
        step = Step.from_row(row)
        is_higher = self.highest is None or step.loss > self.highest.loss
        if is_higher and find_least_loss(row) > self._ceiling:
            self.highest = step
