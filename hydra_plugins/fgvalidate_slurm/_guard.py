"""A guard over the jobs of one launcher: when the launcher dies without a word, its jobs are cancelled.

It is a process of its own, in a session of its own, with nothing but the standard library and `_queue`. The launcher
holds the other end of its standard input and says there what it is about; the end of the pipe without a last word
means that the launcher was killed, or has left without seeing its jobs end.
"""

import contextlib
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

from hydra_plugins.fgvalidate_slurm._queue import cancel_jobs, list_jobs

SUBMITTING = b"submitting\n"
SUBMITTED = b"submitted\n"
DONE = b"done\n"

SUBMIT_TIMEOUT_S = 60
"""Seconds that sbatch may take."""


class Guard:
    """The launcher's side: a context manager around everything that is submitted.

    Args:
        prefix: What the names of the jobs begin with.
        patience_s: Seconds that the guard goes on trying when Slurm does not answer.
    """

    def __init__(self, prefix: str, patience_s: float) -> None:
        self._is_dismissed = False
        argv = [sys.executable, "-m", __name__, prefix, str(patience_s)]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A terminal's Ctrl-C is not for it.
            start_new_session=True,
        )

    def tell(self, word: bytes) -> None:
        """Says what the launcher is about."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # someone killed it
            self._process.stdin.write(word)
            self._process.stdin.flush()

    def dismiss(self) -> None:
        """Says that no job is left; otherwise leaving the block lets the guard cancel what there is."""
        self._is_dismissed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        if self._is_dismissed:
            self.tell(DONE)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if self._is_dismissed:
            self._process.wait()
        else:
            self._process.returncode = 0  # nobody waits for it, and Python shall not warn of that


def cancel_leftovers(prefix: str, *, patience_s: float, settle_s: float) -> bool:
    """Cancels the jobs of a launcher that is gone, until none is left.

    Args:
        prefix: What their names begin with.
        patience_s: Seconds to try at most.
        settle_s: Seconds for which a last one may still come out of a running sbatch.

    Returns:
        Whether none is left.
    """
    start = time.monotonic()
    while time.monotonic() < start + patience_s:
        jobs = list_jobs(prefix)
        left = [job_id for job_id, entry in (jobs or {}).items() if not entry.is_over]
        if jobs is not None and not left and time.monotonic() >= start + settle_s:
            return True
        cancel_jobs(left)
        time.sleep(1.0)
    return False


def main() -> int:
    """Waits for the launcher's last word; without one, cancels what it has left."""
    prefix, patience_s = sys.argv[1:]
    last = b""
    for line in sys.stdin.buffer:
        last = line
    if last == DONE:
        return 0
    settle_s = SUBMIT_TIMEOUT_S if last == SUBMITTING else 0.0
    return int(not cancel_leftovers(prefix, patience_s=float(patience_s) + settle_s, settle_s=settle_s))


if __name__ == "__main__":
    sys.exit(main())
