"""What the training command prints: a regular expression makes a record of each line that it is found in.

Its named groups are the record: `step`, `loss`, and whatever else they are called. A number may have commas between
its thousands. Carriage returns end lines, as those of progress bars. There is no closing mark: the log is complete
unless its last line, which has no end, is one that the expression is found in; a number there may be cut, and it is
left out.
"""

import re
from pathlib import Path
from typing import Any

from fgvalidate.log_reader import LONGEST_PRINTED_LINE_BYTES, LineSource, LogReader, Row, iterate_lines
from fgvalidate.log_records import Records, parse_number
from fgvalidate.spec import Log

_grouped_number = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)


class Reader(LogReader):
    """Reads lines of stdout."""

    usual_keys = {"step": "global_step"}  # noqa: RUF012 - typed in the base
    live_source = "stdout"

    def __init__(self, settings: Log) -> None:
        super().__init__(settings)
        assert settings.pattern is not None
        self._pattern = re.compile(settings.pattern)

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
        match = self._pattern.search(line[-LONGEST_PRINTED_LINE_BYTES:])
        if match is None:
            return None
        return {name: _read_value(text) for name, text in match.groupdict().items() if text is not None}

    def make_source(self) -> "_Source":
        """Returns what reads stdout as it grows."""
        return _Source(self)


def _read_value(text: str) -> str | int | float:
    plain = text.replace(",", "") if _grouped_number.fullmatch(text) else text
    number = parse_number(plain)
    return text if number is None else number


class _Source(LineSource):
    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._reader = reader

    def read_line(self, line: str) -> Row | None:
        record = self._reader.match_line(line)
        return None if record is None else self._reader.describe(record)
