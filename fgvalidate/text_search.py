"""Patterns in files of any size: a file and patterns come in, the first finding of each goes out.

Memory is constant: the file is read in chunks that overlap by the longest pattern, or are cut between two lines.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 22
LONGEST_QUOTE_BYTES = 400
LONGEST_LINE_BYTES = 1 << 16
"""Of a longer line, this much is searched at a time."""


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


def search_lines(path: Path, patterns: Mapping[str, str]) -> dict[str, Finding | None]:
    """Looks for the first line that each regular expression matches within.

    Args:
        path: The file; its bytes are compared with the expressions' UTF-8.
        patterns: The expressions, by name.

    Returns:
        By name: the first finding, or None.

    Raises:
        OSError: The file cannot be read.
    """
    findings: dict[str, Finding | None] = dict.fromkeys(patterns)
    wanted = {name: re.compile(pattern.encode(), re.MULTILINE) for name, pattern in patterns.items()}
    for first_number, block in read_blocks(path):
        for name, pattern in list(wanted.items()):
            if pattern.search(block) is None:
                continue
            # Line by line: an expression such as [^x] also matches line ends.
            numbered = enumerate(block.split(b"\n"), first_number)
            found = next(((number, line) for number, line in numbered if pattern.search(line)), None)
            if found is not None:
                findings[name] = Finding(found[0], show_line(found[1]))
                del wanted[name]
    return findings


def read_blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields a file in pieces of whole lines, each with the number of its first line, counted from 1.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        first_number, rest = 1, b""
        while chunk := file.read(CHUNK_BYTES):
            block = rest + chunk
            end = block.rfind(b"\n") + 1
            if not end and len(block) >= LONGEST_LINE_BYTES:
                end = len(block)
            rest = block[end:]
            yield first_number, block[:end]
            first_number += block.count(b"\n", 0, end)
        yield first_number, rest


def show_line(line: bytes) -> str:
    """Returns a line as text, cut where it is long."""
    return line[: 2 * LONGEST_QUOTE_BYTES].decode(errors="replace").rstrip("\r")


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
