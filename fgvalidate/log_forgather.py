"""Forgather's log, `trainer_logs.json`: a JSON array of records.

The final record has `train_runtime`, and is written only when training completes. While training runs, and after a
kill, the file is empty or cut after any record; NaN and Infinity stand there bare. Progress shows on stdout, in a
table.
"""

import re
from pathlib import Path

from fgvalidate.json_records import JsonText, read_array
from fgvalidate.log_reader import LineSource, LogReader, Row
from fgvalidate.log_records import Records

# A row of the step table: date, time, step, epoch, loss, ...
STEP_ROW = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\s+(?P<step>\d[\d,]*)\s+\d+(?:\.\d+)?\s+"
    r"(?P<loss>-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf))\s",
    re.ASCII | re.IGNORECASE,
)


class Reader(LogReader):
    """Reads `trainer_logs.json`."""

    final_key = "train_runtime"
    counts_epochs_in_fractions = True
    live_source = "stdout"

    def read_file(self, path: Path, records: Records) -> None:
        """Adds the records of a file; see `LogReader`."""
        with path.open(encoding="utf-8", errors="replace") as file:
            text = JsonText(file)
            first = text.peek()
            if first != "[":
                reason = "the log is not a JSON array" if first else "the log is empty: no record was ever written"
                records.break_off("corrupt" if first else "empty", reason)
            elif read_array(text, records) and text.peek() != "":
                records.break_off("corrupt", "the log goes on after its closing bracket")

    def make_source(self) -> "TableSource":
        """Returns what reads the table on stdout."""
        return TableSource()


class TableSource(LineSource):
    """Reads the table on stdout."""

    def read_line(self, line: str) -> Row | None:
        """Returns what a row says."""
        match = STEP_ROW.match(f"{line}\n")
        return (match["step"].replace(",", "").encode(), match["loss"].encode()) if match else None
