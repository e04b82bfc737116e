"""What a reader of training logs is: settings come in, the records of files and the steps in growing text go out.

A format is a module `log_<name>` with a class `Reader`, and its name in `spec.LOG_READERS`. It is imported when a spec
chooses it.
"""

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fgvalidate.errors import LaunchError
from fgvalidate.log_records import KeyMap, Records
from fgvalidate.spec import Log
from fgvalidate.steps import Row, StepSource, describe_record

LONGEST_LINE_BYTES = 1 << 24
LONGEST_PRINTED_LINE_BYTES = 1 << 16
CHUNK_BYTES = 1 << 20


class LogReader(ABC):
    """Reads the logs of one format."""

    usual_keys: ClassVar[Mapping[str, str]] = {}
    """By the names that this format usually has: ours."""
    final_key: ClassVar[str | None] = None
    """What the record has that this format's trainer writes last, when training has ended; None: there is none."""
    counts_epochs_in_fractions: ClassVar[bool] = False
    """Whether `epoch` is always the passes over the data done; elsewhere it may be the number of the current one."""
    library: ClassVar[str | None] = None
    """A module that reads this format, of the extra of the same name; None: none is needed."""
    may_be_beside_the_point: ClassVar[bool] = False
    """Whether the trainer may write further logs of this format that hold no training record."""

    def __init__(self, settings: Log) -> None:
        self.settings = settings
        self.key_map = KeyMap(settings.keys, self.usual_keys, first_step=settings.first_step)

    def group_files(self, paths: Sequence[Path]) -> list[list[Path]]:
        """Returns the files of each log, none of them empty, in the order in which they are to be read."""
        return [[path] for path in paths]

    def read(self, paths: Sequence[Path]) -> Records:
        """Reads the files of one log, whatever their state; what could be read before one broke off is kept."""
        records = Records(self.key_map, final_key=self.settings.finished.key or self.final_key)
        for path in paths:
            records.break_off("complete", "")
            try:
                self.read_file(path, records)
            except OSError as error:
                records.break_off("corrupt", f"{path} cannot be read: {error.strerror}")
            if records.state == "corrupt":
                break
        return records

    @abstractmethod
    def read_file(self, path: Path, records: Records) -> None:
        """Adds the records of a file, and says what is wrong with it.

        Raises:
            OSError: It cannot be read.
        """

    def make_stdout_source(self) -> StepSource | None:
        """Returns what reads stdout from its beginning as it grows; None: nothing there is of this format."""
        return None

    def make_log_source(self) -> StepSource | None:
        """Returns what reads the log from its beginning as it grows; None: it cannot be followed."""
        return None

    def describe(self, record: dict[str, Any]) -> Row | None:
        """Returns the row of a training record; None: it is another one."""
        return describe_record(self.key_map.apply(record))


class LineSource:
    """A `StepSource` of lines; of a very long one, the end is kept.

    Args:
        read_line: Returns the record of a line; None: it is none.
        describe: Returns the row of a training record; None: it is another one.
    """

    def __init__(
        self, read_line: Callable[[str], dict[str, Any] | None], describe: Callable[[dict[str, Any]], Row | None]
    ) -> None:
        self._read_line, self._describe = read_line, describe
        self._rest = b""

    def read(self, new: bytes) -> list[Row]:
        """Takes in what is new; see `StepSource`."""
        lines, self._rest = _split_lines(self._rest + new)
        records = (self._read_line(line.decode(errors="replace")) for line in lines if line)
        return [row for record in records if record is not None and (row := self._describe(record)) is not None]

    def finish(self) -> list[Row]:
        """Returns nothing: a line that has no end may be cut within a number."""
        return []


def _split_lines(text: bytes) -> tuple[list[bytes], bytes]:
    """Returns the whole lines of a text, and the beginning of the one that has no end; of a long one, its end."""
    # Carriage returns end lines, as those of progress bars.
    *lines, rest = text.replace(b"\r", b"\n").split(b"\n")
    return lines, rest[-LONGEST_PRINTED_LINE_BYTES:]


def iterate_lines(path: Path) -> Iterator[tuple[str, bool]]:
    """Yields the lines of a text of any size, and whether each has its end; of a very long one, the end is kept.

    Raises:
        OSError: It cannot be read.
    """
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            lines, rest = _split_lines(rest + chunk)
            yield from ((line.decode(errors="replace"), True) for line in lines)
    if rest:
        yield rest.decode(errors="replace"), False


def open_reader(settings: Log) -> LogReader:
    """Returns the reader that the settings choose.

    Raises:
        LaunchError: A library that it needs is missing.
    """
    kind: type[LogReader] = importlib.import_module(f"fgvalidate.log_{settings.reader}").Reader
    if kind.library is not None and importlib.util.find_spec(kind.library) is None:
        raise LaunchError(
            f"backend.log.reader: {kind.library} is not installed beside fgvalidate; "
            f"pip install 'fgvalidate[{kind.library}]'"
        )
    return kind(settings)
