"""What the training command prints: a regular expression makes a record of each line that it is found in.

Its named groups are the record: `step`, `loss`, and whatever else they are called. A number may have commas between
its thousands. Carriage returns end lines, as those of progress bars. There is no closing mark: the log is complete
unless its last line, which has no end, is one that the expression is found in; a number there may be cut, and it is
left out.
"""

import contextlib
import re
from pathlib import Path
from typing import Any

from fgvalidate.log_reader import LONGEST_PRINTED_LINE_BYTES, LineSource, LogReader, iterate_lines
from fgvalidate.log_records import Records, is_number, parse_number
from fgvalidate.spec import Log

_LOSS_GROUP = "(?P<loss>"
_CLOSING = ",;:|)]}"
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_grouped_number = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)


class Reader(LogReader):
    """Reads lines of stdout."""

    usual_keys = {"step": "global_step"}  # noqa: RUF012 - typed in the base

    def __init__(self, settings: Log) -> None:
        super().__init__(settings)
        assert settings.pattern is not None
        self._pattern = re.compile(settings.pattern)
        self._any_loss = _widen_loss(settings.pattern)

    def read_file(self, path: Path, records: Records) -> None:
        """Adds the records of a file; see `LogReader`."""
        for line, is_whole in iterate_lines(path):
            record = self.match_line(line)
            if record is not None and is_whole:
                records.add(record)
            elif record is not None:
                records.break_off("truncated", f"stdout breaks off within the line after record {records.num_records}")
        if records.num_records == 0 and records.state == "complete":
            pattern = self.settings.pattern
            records.break_off("empty", f"no line of stdout matches backend.log.pattern, {pattern!r}")

    def match_line(self, line: str) -> dict[str, Any] | None:
        """Returns the record of a line; None: the expression is not found in it."""
        line = line[-LONGEST_PRINTED_LINE_BYTES:]
        if "\x1b" in line:
            line = _COLOURS.sub("", line)
        # [\d.]+ finds no nan, and of 1.2e+05 only 1.2: the loss is the whole word, if that is a number.
        wide = self._any_loss.search(line) if self._any_loss is not None else None
        loss = _read_value(wide["loss"].rstrip(_CLOSING)) if wide is not None and wide["loss"] else None
        match = wide if is_number(loss) else self._pattern.search(line)
        if match is None:
            return None
        record = {name: _read_value(text) for name, text in match.groupdict().items() if text is not None}
        return record | {"loss": loss} if is_number(loss) else record

    def make_stdout_source(self) -> LineSource:
        """Returns what reads stdout as it grows."""
        return LineSource(self.match_line, self.describe)


def _widen_loss(pattern: str) -> re.Pattern[str] | None:
    """Returns the expression with a group `loss` that takes a whole word; None: it has no such group."""
    begin = pattern.find(_LOSS_GROUP)
    # The group closes at the first bracket that makes it an expression by itself.
    for end in range(begin + len(_LOSS_GROUP), len(pattern) + 1) if begin >= 0 else ():
        with contextlib.suppress(re.error):
            re.compile(pattern[begin:end])
            return re.compile(f"{pattern[:begin]}{_LOSS_GROUP}\\S+){pattern[end:]}")
    return None


def _read_value(text: str) -> str | int | float:
    plain = text.replace(",", "") if "," in text and _grouped_number.fullmatch(text) else text
    number = parse_number(plain)
    return text if number is None else number
