"""Claims on this host's GPUs, as files that all users share. A claim comes in; which claims stand comes out.

    /tmp/fgvalidate-gpus/       or FGVALIDATE_LEASES; on a local disk
      claim-PID-<unique>.json   one a claimant: what it asks for, what it has
      README

A claim stands as long as its file is locked (flock). The lock belongs to an open file description, so whoever got a
duplicate of the descriptor keeps it: a supervisor, say. The file of a dead claim is removed by whoever may.

Claims are read and written under a lock of the folder itself. (A lock file, filelock's too, belongs to the user who
made it; where `fs.protected_regular` is set, others cannot open it to write.)
"""

import contextlib
import fcntl
import json
import math
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fgvalidate.errors import LeaseError
from fgvalidate.placement import Claim, Request

FOLDER_NAME = "FGVALIDATE_LEASES"
"""The environment variable that names the folder of claims."""

DEFAULT_FOLDER = Path("/tmp/fgvalidate-gpus")
"""The folder of claims otherwise: the same for all users, whatever their TMPDIR."""

_README = "Who uses which GPU: one locked file a run of fgvalidate. Remove nothing while one is under way.\n"
_SCHEMA_VERSION = 1
_CLAIM_NAME = re.compile(r"claim-\d+-[0-9a-f]+\.json")
_CLAIM_LIMIT_BYTES = 1 << 20
_LOCK_PAUSE_S = 0.005

_locked_fds: set[int] = set()
"""Descriptors of this process that hold locks. A fork duplicates them: the locks would last as long as the child."""


def _close_locked_fds() -> None:
    for fd in _locked_fds:
        os.close(fd)
    _locked_fds.clear()


os.register_at_fork(after_in_child=_close_locked_fds)


def find_folder() -> Path:
    """Returns the folder of claims, which need not exist."""
    chosen = os.environ.get(FOLDER_NAME)
    return Path(chosen).resolve() if chosen else DEFAULT_FOLDER


@contextlib.contextmanager
def lock_folder(folder: Path, on_busy: Callable[[str], None]) -> Iterator[int]:
    """Locks the folder of claims, which is made if need be, and yields its descriptor.

    Args:
        folder: The folder.
        on_busy: Called with one line, again and again, while another process keeps it locked for longer than a second.

    Raises:
        LeaseError: The folder cannot be used.
    """
    while True:
        fd = _open_folder(folder)
        try:
            _locked_fds.add(fd)
            _wait_for_lock(fd, folder, on_busy)
            if _is_at(fd, folder):
                yield fd
                return
        finally:
            with contextlib.suppress(OSError):
                # In so many words: a fork of this program may hold a duplicate for a moment.
                fcntl.flock(fd, fcntl.LOCK_UN)
            _locked_fds.discard(fd)
            os.close(fd)


def _wait_for_lock(fd: int, folder: Path, on_busy: Callable[[str], None]) -> None:
    patience_at = time.monotonic() + 1.0
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > patience_at:
                on_busy(f"waiting for the GPU leases: another process keeps {folder} locked")
            time.sleep(_LOCK_PAUSE_S)
        except OSError as error:
            raise _explain_folder(folder, error) from error
        else:
            return


def _is_at(fd: int, folder: Path) -> bool:
    """Says whether the folder that was opened still is the one of that name: it may have been cleared away."""
    try:
        return os.path.samestat(os.fstat(fd), folder.lstat())
    except OSError:
        return False


def _open_folder(folder: Path) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with contextlib.suppress(FileNotFoundError):
            return os.open(folder, flags)
        _make_folder(folder)
        return os.open(folder, flags)
    except OSError as error:
        raise _explain_folder(folder, error) from error


def _make_folder(folder: Path) -> None:
    """Makes the folder, writable for all users from the first moment."""
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        # Not empty: an empty folder would be replaced by another process's, though this one had locked it already.
        (draft / "README").write_text(_README, encoding="utf-8")
        draft.chmod(0o1777)
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another was quicker
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _explain_folder(folder: Path, error: OSError) -> LeaseError:
    what = f"the folder of GPU leases cannot be used ({error.strerror})"
    return LeaseError(f"{folder}: {what}; set {FOLDER_NAME} to one that all users of these GPUs can write")


@dataclass(frozen=True)
class StandingClaim:
    """A claim whose file is locked."""

    claim: Claim
    touched_at: float
    """When it was written or touched last, seconds since the epoch."""


class ClaimFile:
    """Our claim: a locked file, from the first `write` until it is closed.

    Attributes:
        folder: The folder of claims.
        name: The file's name in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"claim-{os.getpid()}-{uuid.uuid4().hex}.json"
        self._fd: int | None = None

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptor that holds the lock; () before and after that, and in forks of this process."""
        return (self._fd,) if self._fd is not None and self._fd in _locked_fds else ()

    def write(self, folder_fd: int, claim: Claim) -> None:
        """Writes down a claim, in a new file when there is none of ours.

        Args:
            folder_fd: The locked folder: nobody reads half a claim.
            claim: What is asked for, and what is ours.

        Raises:
            LeaseError: The folder cannot be used.
        """
        content = json.dumps({"schema": _SCHEMA_VERSION, **asdict(claim)}).encode()
        try:
            if self._fd is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._fd = os.open(self.name, flags, 0o644, dir_fd=folder_fd)
                _locked_fds.add(self._fd)
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.fchmod(self._fd, 0o644)  # whatever the umask: others must be able to read who has what
            with open(self._fd, "wb", closefd=False) as file:
                file.write(content)
                file.truncate()
                file.seek(0)
        except OSError as error:
            raise _explain_folder(self.folder, error) from error

    def touch(self) -> None:
        """Sets the time of the claim to now."""
        for fd in self.fds:
            os.utime(fd)

    def close(self) -> None:
        """Closes our descriptor, and removes the file if nobody else holds it."""
        fds, self._fd = self.fds, None
        for fd in fds:
            _locked_fds.discard(fd)
            # The lock is let go by closing alone: to unlock would end it for supervisors too.
            os.close(fd)
            path = self.folder / self.name
            with contextlib.suppress(OSError):
                _remove_if_dead(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), path)


def read_claims(folder_fd: int) -> dict[str, StandingClaim]:
    """Reads the claims that stand, by the name of their file, and removes those that are dead.

    Args:
        folder_fd: The locked folder.
    """
    names = [name for name in os.listdir(folder_fd) if _CLAIM_NAME.fullmatch(name)]
    found = {name: _read_claim(folder_fd, name) for name in names}
    return {name: claim for name, claim in found.items() if claim is not None}


def _remove_if_dead(fd: int, path: str | Path, folder_fd: int | None = None) -> bool:
    """Removes a claim's file when nobody holds its lock, and closes the descriptor, which must be a new one."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        with contextlib.suppress(OSError):  # another user's, or gone
            os.unlink(path, dir_fd=folder_fd)
        fcntl.flock(fd, fcntl.LOCK_UN)
        return True
    finally:
        os.close(fd)


def _read_claim(folder_fd: int, name: str) -> StandingClaim | None:
    """Reads a claim; None when it is dead, or no claim at all."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder_fd)
    except OSError:
        return None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        return None
    content = os.pread(fd, _CLAIM_LIMIT_BYTES, 0)
    if _remove_if_dead(fd, name, folder_fd):
        return None
    claim = _parse_claim(content)
    return None if claim is None else StandingClaim(claim, status.st_mtime)


def _parse_claim(content: bytes) -> Claim | None:
    """Parses a claim; None when another program wrote it, or another version."""
    try:
        document = json.loads(content)
        if document.pop("schema") != _SCHEMA_VERSION:
            return None
        request = Request(**document.pop("request"))
        claim = Claim(request=request, gpus=tuple(document.pop("gpus")), pool=tuple(document.pop("pool")), **document)
        _check_claim(claim)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return claim


def _check_claim(claim: Claim) -> None:
    request = claim.request
    numbers = (request.num_gpus, request.specs_per_gpu, claim.ticket, claim.pid, claim.start_ticks)
    memory = 1.0 if request.gpu_memory is None else request.gpu_memory
    is_sound = (
        all(type(number) is int and number >= 0 for number in numbers)
        and all(isinstance(text, str) for text in (request.test_id, *claim.gpus, *claim.pool))
        and all(type(number) in (int, float) and math.isfinite(number) for number in (memory, claim.since))
        and memory > 0
        and request.specs_per_gpu > 0
    )
    if not is_sound:
        raise ValueError(claim)
