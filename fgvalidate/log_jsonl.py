"""JSON lines: a record a line, appended while training runs.

There is no closing mark: the log is complete when its last line is whole. A line that is no record leaves the log
corrupt, but those after it are read: a run that was killed within a line and resumed has such a one. NaN may stand
there bare, as a text, or as null; a loss of null is a loss that is no number.
"""

import json
from pathlib import Path
from typing import Any

from fgvalidate.log_reader import LONGEST_LINE_BYTES, LineSource, LogReader
from fgvalidate.log_records import Records


class Reader(LogReader):
    """Reads JSON lines."""

    usual_keys = {"step": "global_step"}  # noqa: RUF012 - typed in the base

    def read_file(self, path: Path, records: Records) -> None:
        """Adds the records of a file; see `LogReader`."""
        number = 0
        fault = ""
        with path.open("rb") as file:
            while line := file.readline(LONGEST_LINE_BYTES):
                number += 1
                if not line.strip():
                    continue
                if (record := _read_line(line)) is not None:
                    records.add(record)
                elif not line.endswith(b"\n") and len(line) < LONGEST_LINE_BYTES:
                    records.break_off("truncated", f"the log breaks off within line {number}")
                    break
                else:
                    fault = fault or f"line {number} of the log is no JSON object"
        if fault:
            records.break_off("corrupt", fault)
        elif records.num_records == 0 and records.state == "complete":
            records.break_off("empty", "the log is empty: no record was ever written")

    def make_log_source(self) -> LineSource:
        """Returns what reads the file as it grows."""
        return LineSource(_read_line, self.describe)


def _read_line(line: str | bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
