"""Forgather's log, `trainer_logs.json`: a JSON array of records.

The final record has `train_runtime`, and is written only when training completes. While training runs, and after a
kill, the file is empty or cut after any record; NaN and Infinity stand there bare. Progress shows on stdout, in a
table.
"""

from pathlib import Path

from fgvalidate.json_records import JsonText, read_array
from fgvalidate.log_reader import LogReader
from fgvalidate.log_records import Records
from fgvalidate.steps import RecordArray, StepTable


class Reader(LogReader):
    """Reads `trainer_logs.json`."""

    final_key = "train_runtime"
    counts_epochs_in_fractions = True

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

    def make_stdout_source(self) -> StepTable:
        """Returns what reads the table on stdout."""
        return StepTable()

    def make_log_source(self) -> RecordArray:
        """Returns what reads the file as it grows, where the trainer does not keep it until the end."""
        return RecordArray(self.describe)
