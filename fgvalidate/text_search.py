"""Plain substrings in files of any size: a file and patterns come in, the first finding of each goes out.

Memory is constant: the file is read in chunks that overlap by the longest pattern.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 22
LONGEST_QUOTE_BYTES = 400


@dataclass(frozen=True)
class Finding:
    """Where a pattern first occurs."""

    line_number: int
    """Counted from 1."""
    line: str
    """The line, shortened where it is long."""


def search_text(path: Path, patterns: Iterable[str]) -> dict[str, Finding | None]:
    """Looks for the first occurrence of each pattern.

    Args:
        path: The file; its bytes are compared with the patterns' UTF-8.
        patterns: Substrings, not empty; one may hold line ends.

    Returns:
        By pattern: its first finding, or None.

    Raises:
        OSError: The file cannot be read.
    """
    findings: dict[str, Finding | None] = dict.fromkeys(patterns)
    wanted = {pattern: pattern.encode() for pattern in findings}
    overlap = max((len(needle) for needle in wanted.values()), default=1) - 1
    with path.open("rb") as file:
        num_lines, start, tail = 0, 0, b""
        while wanted and (chunk := file.read(CHUNK_BYTES)):
            window = tail + chunk
            for pattern, needle in list(wanted.items()):
                at = window.find(needle)
                if at >= 0:
                    line_number = 1 + num_lines + window.count(b"\n", 0, at)
                    findings[pattern] = Finding(line_number, _quote_line(path, start + at))
                    del wanted[pattern]
            keep = min(overlap, len(window))
            num_lines += window.count(b"\n", 0, len(window) - keep)
            start += len(window) - keep
            tail = window[len(window) - keep :]
    return findings


def _quote_line(path: Path, offset: int) -> str:
    """Returns the line around a byte offset, at most LONGEST_QUOTE_BYTES to either side."""
    with path.open("rb") as file:
        before = _read_at(file, max(0, offset - LONGEST_QUOTE_BYTES), min(offset, LONGEST_QUOTE_BYTES))
        after = _read_at(file, offset, LONGEST_QUOTE_BYTES)
    line = before[before.rfind(b"\n") + 1 :] + after.split(b"\n", 1)[0]
    return line.decode(errors="replace").rstrip("\r")


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def read_tail(path: Path, *, num_lines: int, max_bytes: int = 16384) -> list[str]:
    """Returns the last lines of a file, without their line ends; of a long last line, its end."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        text = _read_at(file, max(0, size - max_bytes), max_bytes).decode(errors="replace")
    return text.splitlines()[-num_lines:]
