"""JSON arrays of records, in files of any size: a growing text goes in, records come out one by one.

Records are decoded as the file is read, so a log of a million records costs what is kept of them and no more.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from fgvalidate.log_records import Records

CHUNK_CHARACTERS = 1 << 20
LARGEST_RECORD_CHARACTERS = 1 << 24
_decoder = json.JSONDecoder()
_WHITE_SPACE = " \n\t\r"
_white_space = re.compile(r"[ \n\t\r]*")


class JsonText:
    """The text of a JSON document, read in chunks: the next character that counts, the next value."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._position = 0
        self._exhausted = False

    def peek(self) -> str:
        """Returns the next character that is not white space; "" at the end."""
        while True:
            character = self._text[self._position : self._position + 1]
            if character and character not in _WHITE_SPACE:
                return character
            match = _white_space.match(self._text, self._position)
            assert match is not None
            self._position = match.end()
            if self._position < len(self._text) or self._exhausted:
                return self._text[self._position : self._position + 1]
            self._refill()

    def skip(self) -> None:
        """Steps over the character that `peek` showed."""
        self._position += 1

    def decode(self) -> Any:
        """Decodes the value that begins here; raises JSONDecodeError when none does."""
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError:
                if self._exhausted or len(self._text) - self._position > LARGEST_RECORD_CHARACTERS:
                    raise
                self._refill()
            else:
                if end < len(self._text) or self._exhausted:
                    self._position = end
                    return value
                self._refill()  # a number may go on in the next chunk

    def is_cut(self) -> bool:
        """Returns whether the text ends soon, and without another closing brace."""
        if not self._exhausted:
            self._refill()
        return self._exhausted and "}" not in self._text[self._position :]

    def _refill(self) -> None:
        rest = self._text[self._position :]
        # At least as much as there is, so that a long record is not decoded again and again.
        chunk = self._file.read(max(CHUNK_CHARACTERS, len(rest)))
        self._text, self._position, self._exhausted = rest + chunk, 0, chunk == ""


def read_array(text: JsonText, records: Records) -> bool:
    """Adds the records of the array that begins here; returns whether it could be read to its closing bracket."""
    text.skip()
    try:
        for value in _iterate_items(text):
            if not isinstance(value, dict):
                raise ValueError(f"{value!r:.40} where a record belongs")  # noqa: TRY004, TRY301 - a fault of the text
            records.add(value)
    except (ValueError, RecursionError) as error:
        break_off(records, error)
        return False
    if text.peek() == "":
        records.break_off("truncated", _describe_cut(records))
        return False
    text.skip()
    return True


def _iterate_items(text: JsonText) -> Iterator[Any]:
    """Yields the values up to the closing bracket, or to where the text ends without one."""
    is_first = True
    while (character := text.peek()) not in {"]", ""}:
        if not is_first:
            if character != ",":
                raise ValueError(f"{character!r} where a comma belongs")
            text.skip()
            if text.peek() == "":
                return
        is_first = False
        yield text.decode()


def break_off(records: Records, error: ValueError | RecursionError) -> None:
    """Says what is wrong with a log whose text is at fault."""
    # A record that the end of the file cuts has no closing brace behind the fault.
    if isinstance(error, json.JSONDecodeError) and "}" not in error.doc[error.pos :]:
        records.break_off("truncated", _describe_cut(records))
        return
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    records.break_off("corrupt", f"the log cannot be read beyond record {records.num_records}: {reason}")


def _describe_cut(records: Records) -> str:
    return f"the log breaks off after record {records.num_records}, without its closing bracket"
