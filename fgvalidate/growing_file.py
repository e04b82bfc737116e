"""A file that another program writes: what is new in it comes out, in chunks."""

import os
from collections.abc import Iterator
from pathlib import Path

CHUNK_BYTES = 1 << 20
HEAD_BYTES = 256


class GrowingFile:
    """Reads on where it stopped; memory is one chunk.

    Args:
        path: The file; it need not exist yet.

    Attributes:
        num_restarts: How often it was found to be written anew: it had shrunk, or it began with something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._head = b""
        self.num_restarts = 0

    def read(self, limit: int | None = None) -> Iterator[bytes]:
        """Yields what is new, up to the size that the file has now; a file that is written anew is read anew.

        Args:
            limit: Bytes to read at most, the rest being left for the next time; None: all.
        """
        try:
            with self._path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                self._restart_if_new(size, file.read(HEAD_BYTES))
                end = size if limit is None else min(size, self._offset + limit)
                file.seek(self._offset)
                while self._offset < end and (chunk := file.read(min(CHUNK_BYTES, end - self._offset))):
                    self._offset += len(chunk)
                    yield chunk
        except OSError:
            return  # not there yet, or gone

    def _restart_if_new(self, size: int, head: bytes) -> None:
        if size < self._offset or not head.startswith(self._head):
            self._offset = 0
            self.num_restarts += 1
        self._head = head

    def skip_to_last(self, num_bytes: int) -> None:
        """Leaves out all that is new but the last bytes."""
        try:
            self._offset = max(self._offset, self._path.stat().st_size - num_bytes)
        except OSError:
            return
