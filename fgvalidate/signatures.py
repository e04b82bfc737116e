"""Signs of trouble of the machine: what a program printed and the signatures come in, the first sign of each goes out.

A sign must stand in what ended the program, or machines would be blamed for the bugs of subjects: in the message of
its first uncaught Python exception (with those that it is chained to), else in its last lines. An earlier word of a
trouble that was overcome is no sign, nor is what another rank of the same run complains of after the first exception.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fgvalidate.spec import Signature
from fgvalidate.text_search import Finding, read_blocks, search_lines, show_line

NUM_LAST_LINES = 40
NUM_MESSAGE_LINES = 8
"""How many lines of an exception's message are looked at."""
MOST_MESSAGE_LINES = 400
MOST_ERRORS = 1000
"""Likewise, of all exceptions of one chain together."""

_Lines = list[tuple[int, bytes]]
"""Lines with their numbers, counted from 1."""

_HEADER = b"Traceback (most recent call last):"
_LINKS = (
    b"During handling of the above exception, another exception occurred:",
    b"The above exception was the direct cause of the following exception:",
)
# What launchers put before each line of a rank.
_PREFIX = re.compile(rb"^\[[\w.-]+\]:\s?")
_EXCEPTION = re.compile(rb"^[A-Za-z_][\w.]*(?::|$)")
# Of a launcher, which only says that one of its workers has failed.
_OF_LAUNCHER = re.compile(rb"^(?:[\w.]+\.)?(?:ChildFailedError|SignalException)\b")


@dataclass(frozen=True, kw_only=True)
class Sign:
    """Where a signature was found."""

    signature: str
    """Its name."""
    hint: str
    """What it means; empty: nobody said."""
    file: str
    """The name of the file in the run's folder."""
    line_number: int
    """Counted from 1."""
    line: str
    """The line, shortened where it is long."""


def find_signs(
    paths: list[Path], signatures: Mapping[str, Signature | None], *, foreign_share: float | None, taken_share: float
) -> tuple[Sign, ...]:
    """Looks for signs in the output of one program that came to a bad end.

    Args:
        paths: The files that took it; one that is gone is left out.
        signatures: By name; None: disabled.
        foreign_share: The largest share of a GPU's memory that others than the run had; None: not known.
        taken_share: Above it, a GPU's memory counts as taken.

    Returns:
        At most one a signature, in the order in which they stand, file by file; none when an exception that no
        signature knows came before them, in any of the files.
    """
    is_taken = foreign_share is not None and foreign_share > taken_share
    usable = {
        name: signature
        for name, signature in signatures.items()
        if signature is not None and (signature.condition is None or is_taken)
    }
    signs: list[Sign] = []
    for path in paths:
        if usable and path.is_file():
            found = _search_file(path, usable)
            if found is None:
                return ()
            signs += [sign for sign in found if sign.signature not in {known.signature for known in signs}]
    return tuple(signs)


def _search_file(path: Path, signatures: Mapping[str, Signature]) -> list[Sign] | None:
    """Returns the signs in one file, the first one first; None: it ended with something else."""
    errors = _iterate_errors(path)
    error = next(errors, [])
    begin = error[0][0] if error else None
    found = _match_lines(error or _read_last_lines(path), signatures)
    fatal = {name: signature.pattern for name, signature in signatures.items() if signature.is_fatal}
    for name, finding in search_lines(path, fatal).items() if fatal else ():
        if finding is not None and (begin is None or finding.line_number < begin):
            found[name] = finding
    found = _drop_explained(path, found, signatures)
    others = itertools.islice(errors, MOST_ERRORS)
    # Of two exceptions nobody knows which one the program handled: each has to be the machine's.
    if error and (not found or not all(_match_lines(other, signatures) for other in others)):
        return None
    return [
        Sign(
            signature=name,
            hint=signatures[name].hint,
            file=path.name,
            line_number=finding.line_number,
            line=finding.line,
        )
        for name, finding in sorted(found.items(), key=lambda item: item[1].line_number)
    ]


def _match_lines(lines: _Lines, signatures: Mapping[str, Signature]) -> dict[str, Finding]:
    found: dict[str, Finding] = {}
    for name, signature in signatures.items():
        pattern = re.compile(signature.pattern.encode())
        match = next(((number, line) for number, line in lines if pattern.search(line)), None)
        if match is not None:
            found[name] = Finding(match[0], show_line(match[1]))
    return found


def _drop_explained(path: Path, found: dict[str, Finding], signatures: Mapping[str, Signature]) -> dict[str, Finding]:
    """Leaves out what the rest of the output explains otherwise."""
    others = {name: other for name in found if (other := signatures[name].unless) is not None}
    explained = {name for name, other in search_lines(path, others).items() if other is not None} if others else set()
    return {name: finding for name, finding in found.items() if name not in explained}


def _read_last_lines(path: Path) -> _Lines:
    lines: _Lines = []
    for number, block in read_blocks(path):
        # Two blocks may share the last lines.
        tail = block.rstrip(b"\n").split(b"\n")
        last = number + len(tail) - 1
        if block:
            lines += list(enumerate(tail[-NUM_LAST_LINES:], last - len(tail[-NUM_LAST_LINES:]) + 1))
            lines = lines[-NUM_LAST_LINES:]
    return lines


def _iterate_errors(path: Path) -> Iterator[_Lines]:
    """Yields the Python exceptions that a program printed; those of launchers are passed over.

    Each is the lines of its message and of those of the exceptions that it is chained to.

    Raises:
        OSError: The file cannot be read.
    """
    messages: _Lines = []
    is_message = is_linked = False
    budget, prefix = 0, b""
    for number, raw in _iterate_error_lines(path):
        marked = _PREFIX.match(raw)
        line = raw[marked.end() :] if marked else raw
        if line.startswith(_HEADER):
            if messages and is_message and not is_linked:
                if not _is_of_launcher(messages):
                    yield messages
                messages = []
            is_message = is_linked = False
        elif is_message:
            is_linked |= line.startswith(_LINKS)
            has_same_prefix = (marked[0] if marked else b"") == prefix
            if budget and has_same_prefix and len(messages) < MOST_MESSAGE_LINES:
                budget -= 1
                messages.append((number, raw))
        elif _EXCEPTION.match(line):
            is_message, budget, prefix = True, NUM_MESSAGE_LINES - 1, marked[0] if marked else b""
            messages.append((number, raw))
    if messages and not _is_of_launcher(messages):
        yield messages


def find_exception(path: Path) -> Finding | None:
    """Returns the first uncaught Python exception in a file; None: there is none, or the file is gone."""
    lines = next(_iterate_errors(path), []) if path.is_file() else []
    return Finding(lines[0][0], show_line(lines[0][1])) if lines else None


def _iterate_error_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the lines from the first traceback on; pieces that are far from any are left out."""
    has_begun = was_loud = False
    for first_number, block in read_blocks(path):
        is_loud = any(mark in block for mark in (_HEADER, *_LINKS))
        # What belongs to a traceback at the end of one piece stands in the next.
        if is_loud or was_loud:
            for number, line in enumerate(block.split(b"\n"), first_number):
                has_begun |= _HEADER in line
                if has_begun:
                    yield number, line
        was_loud = is_loud


def _is_of_launcher(messages: _Lines) -> bool:
    return bool(messages) and _OF_LAUNCHER.match(_PREFIX.sub(b"", messages[0][1])) is not None
