"""Builds a process tree of a given shape: `tree_shapes.py MARK SHAPE`, with the standard library only.

Every process of the tree carries MARK in its command line, so that a test can count what is left, and writes "ready" to
stdout once it is as it shall be. None lives for more than a minute, in case the test fails.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

LIFETIME_S = 60
NUM_BYTES = 60_000_000


def rest() -> None:
    """Sleeps until a signal comes."""
    signal.alarm(LIFETIME_S)
    while True:
        signal.pause()


def linger() -> None:
    """Says that this process is ready, and rests."""
    os.write(1, b"ready\n")
    rest()


def linger_stubbornly() -> None:
    """Lingers whatever SIGTERM says."""
    ignore_sigterm()
    linger()


def ignore_sigterm() -> None:
    """Makes this process, and those it will start, ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def start(body: Callable[[], object]) -> int:
    """Runs `body` in a child."""
    pid = os.fork()
    if pid == 0:
        body()
        os._exit(0)
    return pid


def start_daemon(body: Callable[[], object]) -> None:
    """Runs `body` in a session of its own whose parent is gone."""

    def lead() -> None:
        os.setsid()
        start(body)

    os.waitpid(start(lead), 0)


def await_ready(body: Callable[[], object]) -> None:
    """Starts a daemon with `body` and returns once it runs."""
    read_end, write_end = os.pipe()

    def announce() -> None:
        os.write(write_end, b".")
        body()

    start_daemon(announce)
    os.read(read_end, 1)


def become_bare() -> None:
    """Becomes a process without any environment that ignores SIGTERM, whatever its parent did."""
    os.execve(sys.executable, [sys.executable, "-I", "-S", __file__, sys.argv[1], "stubborn"], {})


def fork_on() -> None:
    """Hands over to a child every few milliseconds, so that no process of the chain lives long."""
    deadline = time.monotonic() + LIFETIME_S
    os.write(1, b"ready\n")
    while time.monotonic() < deadline:
        time.sleep(0.003)
        if os.fork() != 0:
            os._exit(0)


def multiply() -> None:
    """Starts a sleeper every few milliseconds, up to a bound that protects the machine."""
    os.write(1, b"ready\n")
    for _ in range(300):
        time.sleep(0.01)
        start(rest)
    linger()


def hold_memory() -> None:
    """Keeps 60 MB resident for long enough to be sampled."""
    content = b"x" * NUM_BYTES
    time.sleep(0.8)
    os._exit(len(content) - NUM_BYTES)


def have_children() -> None:
    """A group that ignores SIGTERM."""
    ignore_sigterm()
    start(linger)
    start(linger)
    linger()


def have_daemons(*bodies: Callable[[], object]) -> None:
    """Daemons beside a main process; all ignore SIGTERM."""
    ignore_sigterm()
    for body in bodies:
        start_daemon(body)
    linger()


def have_stubborn_daemon() -> None:
    """A main process that obeys SIGTERM, its daemon does not."""
    start_daemon(linger_stubbornly)
    linger()


def have_bare_daemon() -> None:
    """A main process that obeys SIGTERM, its daemon does not and has no environment."""
    start_daemon(become_bare)
    linger()


def leave_orphans() -> None:
    """Two daemons, one of which ignores SIGTERM; the main process ends."""
    await_ready(linger)
    await_ready(linger_stubbornly)


def lose_worker() -> None:
    """The only worker is killed; the main process takes no notice."""
    os.waitpid(start(lambda: os.kill(os.getpid(), signal.SIGKILL)), 0)


def use_memory() -> None:
    """Two grandchildren of 60 MB each, at the same time."""
    for pid in [start(lambda: os.waitpid(start(hold_memory), 0)) for _ in range(2)]:
        os.waitpid(pid, 0)


SHAPES: dict[str, Callable[[], object]] = {
    "plain": linger,
    "stubborn": linger_stubbornly,
    "children": have_children,
    "daemons": lambda: have_daemons(linger, linger),
    "daemon of an obedient command": have_stubborn_daemon,
    "no environment": have_bare_daemon,
    "forking on": lambda: have_daemons(fork_on),
    "multiplying": lambda: have_daemons(multiply),
    "orphans": leave_orphans,
    "late helper": lambda: start(lambda: time.sleep(0.4)),
    "killed worker": lose_worker,
    "memory": use_memory,
}

if __name__ == "__main__":
    SHAPES[sys.argv[2]]()
