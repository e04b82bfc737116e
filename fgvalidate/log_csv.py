"""Comma-separated values under a header, as Lightning's CSVLogger writes `metrics.csv`.

A row need not fill every cell: an empty one is no value. A writer that leaves NaN out (pandas, unless told `na_rep`)
cannot be told from one that has nothing to say. NaN and infinity have their usual spellings. When a new key appears,
CSVLogger writes the file anew under a longer header; other writers put another header into the middle.

There is no closing mark: the log is complete when its last line is.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from fgvalidate.log_reader import LONGEST_LINE_BYTES, LineSource, LogReader
from fgvalidate.log_records import Records, parse_number


class Reader(LogReader):
    """Reads comma-separated values."""

    usual_keys = {"step": "global_step"}  # noqa: RUF012 - typed in the base

    def read_file(self, path: Path, records: Records) -> None:
        """Adds the records of a file; see `LogReader`."""
        table, fault = _Table(), ""
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            lines = _Lines(file)
            rows = csv.reader(lines)
            try:
                for row in rows:
                    if not lines.is_whole:
                        break
                    try:
                        record = table.read_row(row)
                    except ValueError as error:
                        fault = fault or f"line {rows.line_num} of the log has {error}"
                        continue
                    if record is not None:
                        records.add(record)
            except csv.Error as error:
                fault = fault or f"the log cannot be read beyond line {rows.line_num}: {error}"
        if fault:
            records.break_off("corrupt", fault)
        elif not lines.is_whole:
            records.break_off("truncated", f"the log breaks off within line {rows.line_num}")
        elif records.num_records == 0:
            records.break_off("empty", "the log is empty: no record was ever written")

    def make_log_source(self) -> LineSource:
        """Returns what reads the file as it grows."""
        return LineSource(_Table().read_line, self.describe)


class _Lines:
    """The lines of a file, and whether the last one that was taken has its end."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.is_whole = True

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(LONGEST_LINE_BYTES):
            self.is_whole = line.endswith(("\n", "\r"))
            yield line


class _Table:
    """Rows under the header that came last."""

    def __init__(self) -> None:
        self._header: list[str] = []

    def read_row(self, row: list[str]) -> dict[str, Any] | None:
        """Returns the record of a row; None: it is a header, or empty.

        Raises:
            ValueError: It has more or fewer cells than the header.
        """
        if not row:
            return None
        if not self._header or self._is_header(row):
            twice = next((name for name in row if row.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"a header with two columns {twice!r}, of which one would hide the other")
            self._header = row
            return None
        if len(row) != len(self._header):
            raise ValueError(f"{len(row)} cells under a header of {len(self._header)}")
        return {name: _read_cell(cell) for name, cell in zip(self._header, row, strict=True) if cell}

    def read_line(self, line: str) -> dict[str, Any] | None:
        """Returns the record of a line; None: it has none, or is at fault."""
        try:
            return next((self.read_row(row) for row in csv.reader([line])), None)
        except (csv.Error, ValueError):
            return None

    def _is_header(self, row: list[str]) -> bool:
        return not set(row).isdisjoint(self._header) and all(cell and parse_number(cell) is None for cell in row)


def _read_cell(cell: str) -> str | int | float:
    number = parse_number(cell)
    return cell if number is None else number
