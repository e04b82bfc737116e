"""Starts programs and ends them, with everything that they have started: the package's only door to subprocess.

In: a command line, where to run it and which files take its output. Out: a `ProcessResult`.

The subject's commands run under a supervisor each (see `fgvalidate.supervisor`), so that no process of theirs is left
when a run has ended, however it has ended, nor when this program is killed. This program itself never reaps them.
"""

import contextlib
import ctypes
import errno
import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fgvalidate import supervisor
from fgvalidate.errors import LaunchError

_DROPPED_NAMES = frozenset(
    {
        "PYTHONHOME",
        "PYTHONPATH",
        # What torchrun tells its workers: a launcher below would take itself for one of them.
        "GROUP_RANK",
        "GROUP_WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "NCCL_ASYNC_ERROR_HANDLING",
        "RANK",
        "ROLE_NAME",
        "ROLE_RANK",
        "ROLE_WORLD_SIZE",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
        "WORLD_SIZE",
    }
)
_DROPPED_PREFIXES = ("FGVALIDATE_", "HYDRA_", "TORCHELASTIC_")

# UTF-8 whatever the locale: an isolated Python does not see the settings of this one.
_SUPERVISOR_ARGV = (sys.executable, "-I", "-S", "-X", "utf8", supervisor.__file__)

_STATEMENT_SLACK_S = 30.0
"""How much longer than the grace time a supervisor may take to end its tree, in seconds; it needs 15 at most."""

_TOOL_OUTPUT_BYTES = 1 << 24
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class ProcessResult:
    """How a command ended, and what it left."""

    argv: tuple[str, ...]
    """The command line as it was asked for."""
    returncode: int | None
    """Exit code of the command itself; negative: the signal that killed it; None: unknown, since the supervisor was
    killed or the command is stuck in the kernel (it is then among the survivors)."""
    timed_out: bool
    """Whether the command was still running at its time limit, whatever it then returned."""
    started_at: float
    """Seconds since the epoch."""
    duration_s: float
    """Wall time until the command itself had ended; until the loss was noticed where the supervisor was killed."""
    cleanup_s: float
    """Wall time from there until its whole tree was gone."""
    peak_memory_bytes: int
    """Largest resident memory of the tree as sampled five times a second, pages that processes share counted in each;
    at least the peak of its largest process, and about 12 MB, since a process inherits its starter's peak. 0 where the
    supervisor was killed."""
    orphans: tuple[str, ...]
    """"pid command line" of each descendant that outlived the command and had to be ended; empty where the supervisor
    was killed. Those that were killed together with a command that ignored SIGTERM have not outlived it."""
    survivors: tuple[str, ...]
    """"pid command line" of what could not be ended: empty but for processes that are stuck in the kernel."""
    stopped: bool = False
    """Whether it was ended before its time because whoever watched it said so, whatever it then returned."""


class Process:
    """A running command under its supervisor; a context manager whose end is the end of the whole tree.

    The command gets a session without terminal, /dev/null as stdin and no other open file than its output. Leaving the
    block ends the tree on exceptions too; interrupts that arrive meanwhile are raised once the tree is gone.

    Args:
        argv: The command line; its first item is looked up in the PATH of `env`, or relative to `cwd` if it has a "/".
        cwd: Folder to run in.
        env: The whole environment of the command; `FGVALIDATE_RUN` is added.
        stdout: File that takes the standard output, emptied first.
        stderr: File that takes the standard error, emptied first; may be the same.
        grace_s: Seconds between SIGTERM and SIGKILL when the tree is ended.
        held_fds: Open descriptors (of advisory locks) that the supervisor, not the command, holds until the tree is
            gone, even if this program is gone sooner.

    Attributes:
        pid: Process ID of the command, also its process group.

    Raises:
        LaunchError: The command cannot be started.
    """

    pid: int

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: Path,
        stderr: Path,
        grace_s: float = 10.0,
        held_fds: Sequence[int] = (),
    ) -> None:
        program = argv[0]
        self._argv = tuple(argv)
        self._grace_s = grace_s
        self._marker = uuid.uuid4().hex
        self._lines: list[bytes] = []
        self._timed_out = False
        self._stopped = False
        self._result: ProcessResult | None = None
        request = {
            "argv": list(argv),
            "executable": program if "/" in program else str(find_program(program, env=env)),
            "cwd": str(cwd),
            "env": {**env, supervisor.MARKER_NAME: self._marker},
            "stdout": str(stdout.absolute()),
            "stderr": str(stderr.absolute()),
            "grace_s": grace_s,
            "marker": self._marker,
            "held_fds": list(held_fds),
        }
        self._started_at = time.time()
        self._start = time.monotonic()
        self._supervisor = _start_supervisor(held_fds)
        assert self._supervisor.stdin is not None
        assert self._supervisor.stdout is not None
        self._lifeline = self._supervisor.stdin
        self._events = self._supervisor.stdout
        try:
            self._launch(request, cwd)
        except BaseException:
            self.end()
            raise

    def _launch(self, request: Mapping[str, Any], cwd: Path) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._lifeline.write(json.dumps(request).encode() + b"\n")
            self._lifeline.flush()
        line = self._events.readline()
        if not line.endswith(b"\n"):
            msg = f"cannot start {self._argv[0]!r}: its supervisor, {' '.join(_SUPERVISOR_ARGV)}, failed"
            raise LaunchError(msg)
        event = json.loads(line)
        if event["event"] == "failed":
            raise LaunchError(_explain_failure(self._argv, cwd, event))
        self.pid = event["pid"]
        self._started_at = event["started_at"]

    def wait(self, timeout_s: float | None = None) -> ProcessResult | None:
        """Waits for the end of the command and of its tree.

        Args:
            timeout_s: Seconds to wait at most; None: without limit.

        Returns:
            The result, None if the command or something of its tree is still there after `timeout_s`.
        """
        if self._result is None and self._has_ended(timeout_s):
            self._result = self._read_result()
        if self._result is not None:
            self._release()
        return self._result

    def list_members(self) -> list[supervisor.ProcessInfo]:
        """Returns the live processes of the tree by pid."""
        return supervisor.Tree(self._supervisor.pid, self._marker).find()

    def end(self, *, timed_out: bool = False, stopped: bool = False, grace_s: float | None = None) -> ProcessResult:
        """Ends the tree and waits until it is gone; does nothing more if it is gone already.

        An interrupt (KeyboardInterrupt, SystemExit) that arrives meanwhile is raised when the tree is gone.

        Args:
            timed_out: Whether the reason is that the command has used up its time.
            stopped: Whether the reason is what was seen of it while it ran.
            grace_s: Seconds between SIGTERM and SIGKILL; None: what the command was started with.
        """
        self._timed_out |= timed_out
        self._stopped |= stopped
        self._grace_s = self._grace_s if grace_s is None else grace_s
        deadline = time.monotonic() + self._grace_s + _STATEMENT_SLACK_S
        interrupt: BaseException | None = None
        while True:
            try:
                self._request_end()
                result = self.wait(max(0.0, deadline - time.monotonic()))
                if result is None:
                    self._supervisor.kill()  # stopped, or stuck: its tree is then ended from here
                    result = self.wait()
            except Exception:
                raise
            except BaseException as error:
                interrupt = error
            else:
                break
        if interrupt is not None:
            raise interrupt
        assert result is not None
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def _request_end(self) -> None:
        # The message as well as the end of the pipe: a fork of this program may still hold it open.
        with contextlib.suppress(BrokenPipeError):
            if not self._lifeline.closed:
                self._lifeline.write(b"end %r\n" % self._grace_s)
                self._lifeline.flush()
        with contextlib.suppress(BrokenPipeError):
            self._lifeline.close()

    def _has_ended(self, timeout_s: float | None) -> bool:
        poll = select.poll()
        poll.register(self._events, select.POLLIN)
        timeout_ms = None if timeout_s is None else min(math.ceil(timeout_s * 1000), 2**31 - 1)
        return bool(poll.poll(timeout_ms))

    def _read_result(self) -> ProcessResult:
        # In one call, so that an interrupt cannot fall between reading a line and keeping it.
        self._lines.extend(self._events)
        if self._lines and self._lines[-1].startswith(b'{"event": "ended"'):
            event = json.loads(self._lines[-1])
            return ProcessResult(
                argv=self._argv,
                returncode=event["returncode"],
                timed_out=self._timed_out and event["was_ended"],
                stopped=self._stopped and event["was_ended"],
                started_at=self._started_at,
                duration_s=event["duration_s"],
                cleanup_s=event["cleanup_s"],
                peak_memory_bytes=event["peak_memory_bytes"],
                orphans=tuple(event["orphans"]),
                survivors=tuple(event["survivors"]),
            )
        lost_at = time.monotonic()
        tree = supervisor.Tree(self._supervisor.pid, self._marker)
        _, survivors = tree.kill(_pause)
        return ProcessResult(
            argv=self._argv,
            returncode=None,
            timed_out=self._timed_out,
            stopped=self._stopped,
            started_at=self._started_at,
            duration_s=lost_at - self._start,
            cleanup_s=time.monotonic() - lost_at,
            peak_memory_bytes=0,
            orphans=(),
            survivors=tuple(survivors),
        )

    def _release(self) -> None:
        self._request_end()
        self._events.close()
        # Only now: as long as it is not reaped, its pid stands for its session alone.
        self._supervisor.wait()


def _start_supervisor(held_fds: Sequence[int]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            _SUPERVISOR_ARGV,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            pass_fds=held_fds,
        )
    except OSError as error:
        msg = f"cannot start the supervisor of commands, {' '.join(_SUPERVISOR_ARGV)}: {error}"
        raise LaunchError(msg) from error


def _pause(limit_s: float) -> bool:
    time.sleep(limit_s)
    return True


def _explain_failure(argv: Sequence[str], cwd: Path, event: Mapping[str, Any]) -> str:
    reason = event["reason"] if event["errno"] is None else os.strerror(event["errno"])
    if event["what"] == "cwd":
        return f"cannot start {argv[0]!r}: its working directory {event['path']} cannot be entered ({reason})"
    if event["what"] == "output":
        return f"cannot start {argv[0]!r}: its output file {event['path']} cannot be written ({reason})"
    path = cwd / event["path"]
    match event["errno"]:
        case errno.ENOENT if path.exists():
            reason = "the interpreter that its first line names does not exist"
        case errno.EACCES if path.is_dir():
            reason = "it is a directory; name the program in it"
        case errno.EACCES:
            reason = f"{reason}; make it executable"
        case errno.ENOEXEC:
            reason = "it is neither a program for this machine nor a script with a #! line"
    return f"cannot start {path}: {reason}"


def run_process(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    timeout_s: float | None,
    on_tick: Callable[[float], None] | None = None,
    should_stop: Callable[[Process, float], bool] | None = None,
    stop_grace_s: float = 2.0,
    tick_s: float = 0.5,
    grace_s: float = 10.0,
    held_fds: Sequence[int] = (),
) -> ProcessResult:
    """Runs a command to its end or to its time limit; either way nothing of its tree is left.

    Args:
        argv: See `Process`, as for `cwd`, `env`, `stdout`, `stderr`, `grace_s` and `held_fds`.
        cwd: See `Process`.
        env: See `Process`.
        stdout: See `Process`.
        stderr: See `Process`.
        timeout_s: Seconds, from its start, after which the command is ended; None: without limit.
        on_tick: Called about every `tick_s` with the seconds since the start; what it raises ends the tree.
        should_stop: Called likewise, with the running command too; what it answers with True is ended.
        stop_grace_s: Seconds between SIGTERM and SIGKILL then: it is short, since what ends so is of no more use.
        tick_s: Seconds between two such calls.
        grace_s: See `Process`.
        held_fds: See `Process`.

    Raises:
        LaunchError: The command cannot be started.
    """
    limit_s = math.inf if timeout_s is None else timeout_s
    with Process(argv, cwd=cwd, env=env, stdout=stdout, stderr=stderr, grace_s=grace_s, held_fds=held_fds) as process:
        start = time.monotonic()
        while True:
            left_s = start + limit_s - time.monotonic()
            if left_s <= 0:
                return process.end(timed_out=True)
            wait_s = left_s if on_tick is None and should_stop is None else min(left_s, tick_s)
            result = process.wait(None if math.isinf(wait_s) else wait_s)
            if result is not None:
                return result
            if on_tick is not None:
                on_tick(time.monotonic() - start)
            if should_stop is not None and should_stop(process, time.monotonic() - start):
                return process.end(stopped=True, grace_s=stop_grace_s)


def die_with_parent(parent_pid: int) -> None:
    """Has the kernel kill this process when its parent ends, however that ends.

    Args:
        parent_pid: The parent's process ID; it may have ended before the kernel was asked.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def build_environment(extra: Mapping[str, str | None], *, path_first: Sequence[Path] = ()) -> dict[str, str]:
    """Returns the environment of a subject: ours, less what is meant for this program alone.

    Hydra's variables, PYTHONPATH, PYTHONHOME, the markers of fgvalidate and what torchrun sets for its workers are left
    out.

    Args:
        extra: Variables to set after that; None removes one.
        path_first: Folders to search for programs before those of PATH.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in _DROPPED_NAMES and not name.startswith(_DROPPED_PREFIXES)
    }
    env = change_variables(env, extra)
    if path_first:
        env["PATH"] = os.pathsep.join([*(str(folder.absolute()) for folder in path_first), env.get("PATH", os.defpath)])
    return env


def change_variables(env: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Returns an environment with some variables set, and those removed whose new value is None."""
    merged = {**env, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def find_program(program: str, *, env: Mapping[str, str]) -> Path:
    """Returns the absolute path of a program, as the PATH of `env` finds it.

    Raises:
        LaunchError: There is none, or it is not executable.
    """
    searched = env.get("PATH", os.defpath)
    found = shutil.which(program, path=searched)
    if found is None and "/" in program:
        msg = f"{program!r} is not an executable file; correct the path, or make it executable"
        raise LaunchError(msg)
    if found is None:
        msg = f"{program!r} was not found in PATH ({searched}); install it, or give its absolute path"
        raise LaunchError(msg)
    return Path(found).absolute()


def run_tool(argv: Sequence[str], *, cwd: Path, timeout_s: float) -> str | None:
    """Runs a small tool of ours, such as git, and returns what it prints.

    Returns:
        None when the tool is missing, fails, is not done after `timeout_s` seconds, or prints more than 16 MiB.
    """
    # A file, not a pipe: a pipe would also wait for whatever the tool leaves behind.
    with tempfile.TemporaryFile() as output:
        try:
            subprocess.run(
                argv,
                cwd=cwd,
                # Looking at a repository must not write its index.
                env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                timeout=timeout_s,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        output.seek(0)
        content = output.read(_TOOL_OUTPUT_BYTES + 1)
        return content.decode(errors="replace") if len(content) <= _TOOL_OUTPUT_BYTES else None
