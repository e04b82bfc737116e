"""Guards one command: starts it, alone reaps its process tree, ends the tree and says what was left of it.

In: one JSON line on stdin, the request `{argv, executable, cwd, env, stdout, stderr, grace_s, marker, held_fds}`. Then
stdin is a lifeline: anything that arrives on it, and its end, asks for the tree to be ended; `end SECONDS` also says
with which grace time. So the tree ends with the program that asked for it, even when that was killed with SIGKILL.
SIGTERM asks for the same; SIGINT and SIGHUP are ignored.
Out: JSON lines on stdout, `{"event": "started" | "failed" | "ended", ...}` (see `Supervisor`).

It runs as a script in a session of its own, `python -I -S supervisor.py`, and is a child subreaper: whatever the
command leaves behind becomes a child of this process, wherever it hides, and "no child left" therefore means "no tree
left". It imports only the standard library, and of that what is quick to import: every command waits for its start.
"""

import contextlib
import ctypes
import itertools
import json
import math
import os
import select
import signal
import time

TYPE_CHECKING = False  # `typing` itself would cost a fifth of the start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

MARKER_NAME = "FGVALIDATE_RUN"
"""The environment variable whose value, unique to a command, marks the processes of its tree."""

DRAIN_S = 2.0
"""How long descendants of a command that has ended by itself may take to follow it, in seconds."""

ORPHAN_GRACE_S = 2.0
"""How long they may then take to obey SIGTERM, in seconds."""

KILL_LIMIT_S = 10.0
"""How long SIGKILL is repeated before what is left is given up, in seconds."""

SAMPLE_S = 0.2
"""Seconds between two samples of the tree's memory."""

_SAMPLE_SHARE = 0.01
_DESCRIPTION_LENGTH = 200
_PR_SET_CHILD_SUBREAPER = 36
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessInfo:
    """One line of the process table: a process as it was when `/proc/PID/stat` was read.

    Attributes:
        pid: Its process ID.
        parent: Its parent's process ID.
        group: Its process group.
        session: Its session.
        start_ticks: When it started, in clock ticks since boot; with the pid it identifies the process for good.
        is_alive: False for a zombie, unless other threads of it live on.
    """

    __slots__ = ("group", "is_alive", "parent", "pid", "session", "start_ticks")

    def __init__(self, pid: int, stat: bytes) -> None:
        # The name stands in parentheses and may itself hold spaces and parentheses.
        fields = stat[stat.rindex(b")") + 2 :].split()
        self.pid = pid
        self.parent = int(fields[1])
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.start_ticks = int(fields[19])
        self.is_alive = fields[0] not in b"ZX" or int(fields[17]) > 1

    @property
    def identity(self) -> tuple[int, int]:
        """The pid and the start time: no other process ever has both."""
        return self.pid, self.start_ticks


def _read(pid: int, name: str) -> bytes:
    """Returns `/proc/PID/<name>`, or nothing when the process is gone or not ours to read."""
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        content = b""
        while chunk := os.read(fd, 65536):
            content += chunk
    except OSError:
        return b""
    else:
        return content
    finally:
        os.close(fd)


def list_pids() -> set[int]:
    """Returns the process IDs of this machine or container."""
    with os.scandir("/proc") as entries:
        return {int(entry.name) for entry in entries if entry.name.isdecimal()}


def read_process(pid: int) -> ProcessInfo | None:
    """Returns one process, None when it is gone."""
    stat = _read(pid, "stat")
    return ProcessInfo(pid, stat) if stat else None


def describe(process: ProcessInfo) -> str:
    """Returns "pid command line" on one line, cut at 200 characters; the bare name where there is no command line."""
    command = _read(process.pid, "cmdline").replace(b"\0", b" ") or b"[" + _read(process.pid, "comm").strip() + b"]"
    line = f"{process.pid} {' '.join(command.decode(errors='replace').split())}"
    return line if len(line) <= _DESCRIPTION_LENGTH else f"{line[: _DESCRIPTION_LENGTH - 3]}..."


def send_signal(process: ProcessInfo, signal_number: int) -> None:
    """Signals a process, unless it is gone and its pid perhaps another's."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        fd = None  # gone, or a kernel or sandbox without pidfds
    try:
        found = read_process(process.pid)
        if found is None or found.identity != process.identity:
            return
        if fd is None:
            os.kill(process.pid, signal_number)
        else:
            signal.pidfd_send_signal(fd, signal_number)
    except OSError:
        pass  # gone meanwhile, or not ours to signal: the next look at the tree tells which
    finally:
        if fd is not None:
            os.close(fd)


class Tree:
    """The processes that one supervisor answers for, found and ended by whoever is asked to.

    The supervisor uses it for its own tree. When the supervisor was killed, the program that started it uses it for
    what is left; as long as the dead supervisor is not reaped, its pid names nobody else's session.

    Args:
        supervisor_pid: Process ID, and so session ID, of the supervisor.
        marker: The value of `FGVALIDATE_RUN` in the command's environment.
    """

    def __init__(self, supervisor_pid: int, marker: str) -> None:
        self._supervisor_pid = supervisor_pid
        self._assignment = f"\0{MARKER_NAME}={marker}\0".encode()

    def _is_marked(self, pid: int) -> bool:
        return self._assignment in b"\0" + _read(pid, "environ") + b"\0"

    def _split(self) -> tuple[list[ProcessInfo], list[ProcessInfo]]:
        """Returns the live processes of the tree by pid, and all processes that are not of it."""
        table = {process.pid: process for process in map(read_process, list_pids()) if process is not None}
        children: dict[int, list[ProcessInfo]] = {}
        for process in table.values():
            children.setdefault(process.parent, []).append(process)
        untouchable = {self._supervisor_pid, os.getpid(), os.getppid()}
        owned: dict[int, ProcessInfo] = {}

        def adopt(process: ProcessInfo) -> None:
            family = [process]
            while family:
                member = family.pop()
                if member.pid in owned or member.pid in untouchable:
                    continue
                owned[member.pid] = member
                # One older than its parent was read before that pid changed hands.
                family += [child for child in children.get(member.pid, ()) if child.start_ticks >= member.start_ticks]

        for process in table.values():
            if self._supervisor_pid in (process.parent, process.session):
                adopt(process)
        supervisor = table.get(self._supervisor_pid)
        since_ticks = supervisor.start_ticks if supervisor else 0
        for process in table.values():
            # Nobody older than the supervisor can carry the marker.
            if process.pid not in owned and process.start_ticks >= since_ticks and self._is_marked(process.pid):
                adopt(process)
        alive = [owned[pid] for pid in sorted(owned) if owned[pid].is_alive]
        return alive, [process for process in table.values() if process.pid not in owned]

    def find(self) -> list[ProcessInfo]:
        """Returns the live processes of the tree by pid.

        A process belongs to it by descent from the supervisor, by the supervisor's session, by the marker in its
        environment, or by descent from such a process.
        """
        return self._split()[0]

    def kill(self, is_gone: "Callable[[float], bool]") -> tuple[dict[tuple[int, int], str], list[str]]:
        """Sends SIGKILL until nothing is found any more, for at most `KILL_LIMIT_S`.

        Args:
            is_gone: Waits up to the given seconds; says whether, as far as the caller can tell, nothing is left.

        Returns:
            The processes that were killed, identity to description, and the descriptions of those that live on.
        """
        deadline = time.monotonic() + KILL_LIMIT_S
        killed: dict[tuple[int, int], str] = {}
        for attempt in itertools.count(1):
            alive, others = self._split()
            if time.monotonic() > deadline:
                return killed, [describe(process) for process in alive]
            for process in alive:
                if process.identity not in killed:
                    killed[process.identity] = describe(process)
                send_signal(process, signal.SIGKILL)
            if attempt > 3:
                # A tree that forks faster than it can be read: signals to a group reach even a child being born.
                for group in {process.group for process in alive} - {process.group for process in others}:
                    _signal_group(group, signal.SIGKILL)
            if is_gone(min(0.005 * attempt, 0.05)) and not alive:
                break
        return killed, []


def _signal_group(group: int, signal_number: int) -> None:
    with contextlib.suppress(OSError):  # gone meanwhile
        os.killpg(group, signal_number)


class MemoryMeter:
    """The peak of a tree's resident memory, in bytes, shared pages counted once for each process.

    Looks only at processes that came after it, and once at each that is not of the tree: a sample costs about as much
    as listing /proc and reading two small files for each process of the tree, and needs no `/proc/*/task/*/children`.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.due_at = time.monotonic()
        self._own_pid = os.getpid()
        self._strangers = list_pids() - {self._own_pid}

    def raise_to(self, num_bytes: int) -> None:
        """Sets a floor: what the kernel measured of one process."""
        self.peak_bytes = max(self.peak_bytes, num_bytes)

    def sample_when_due(self) -> None:
        """Samples every `SAMPLE_S`, or less often where a sample would take more than 1 % of a core."""
        if time.monotonic() < self.due_at:
            return
        cpu_s = time.thread_time()
        self._sample()
        self.due_at = time.monotonic() + max(SAMPLE_S, (time.thread_time() - cpu_s) / _SAMPLE_SHARE)

    def _sample(self) -> None:
        pids = list_pids()
        self._strangers &= pids  # a pid that is free may become one of the tree
        children: dict[int, list[int]] = {}
        for pid in pids - self._strangers:
            process = read_process(pid)
            if process is not None and process.parent in self._strangers and pid != self._own_pid:
                self._strangers.add(pid)
            elif process is not None:
                children.setdefault(process.parent, []).append(pid)
        num_pages = 0
        family = children.pop(self._own_pid, [])
        while family:
            pid = family.pop()
            family += children.pop(pid, [])
            # Not the figure in stat, which may be off by megabytes for every core.
            if statm := _read(pid, "statm"):
                num_pages += int(statm.split()[1])
        self.raise_to(num_pages * _PAGE_BYTES)


class Supervisor:
    """Runs one request to its end.

    Events, each a dict:
        started: `pid` of the command, `started_at` in seconds since the epoch.
        failed: the command could not be started; `what` was tried ("cwd", "output" or "program"), on which `path`,
            with which `errno`.
        ended: nothing of the tree is left. `returncode` (negative: the signal that killed the command), `was_ended`
            (the end was requested while the command ran), `duration_s`, `cleanup_s`, `peak_memory_bytes`, `orphans`
            and `survivors`, as in `fgvalidate.process.ProcessResult`.
    """

    def __init__(self, lifeline_fd: int) -> None:
        self._lifeline_fd = lifeline_fd
        self._end_requested = False
        self._is_childless = False
        self._grace_s = 0.0
        self._command_pid = 0
        self._returncode: int | None = None
        self._ended_at = 0.0
        # Made before the command starts, so that all there is now is known not to be of its tree.
        self._memory = MemoryMeter()
        self._wake_fd, wake_end = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._wake_fd, select.POLLIN)
        for fd in (self._wake_fd, wake_end):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._request_end)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def _request_end(self, *_: object) -> None:
        self._end_requested = True

    def _hear(self, message: bytes) -> None:
        words = message.split()
        if len(words) == 2:
            self._grace_s = float(words[1])
        self._request_end()

    def receive(self) -> "dict[str, Any] | None":
        """Returns the request, None when the lifeline ended before it was complete."""
        content = b""
        while b"\n" not in content:
            chunk = os.read(self._lifeline_fd, 1 << 20)
            if not chunk:
                return None
            content += chunk
        line, _, rest = content.partition(b"\n")
        self._end_requested = bool(rest)
        self._poll.register(self._lifeline_fd, select.POLLIN)
        request: dict[str, Any] = json.loads(line)
        return request

    def run(self, request: "dict[str, Any]") -> "Iterable[dict[str, Any]]":
        """Yields the events of one command."""
        for fd in request["held_fds"]:
            os.set_inheritable(fd, False)
        self._grace_s = request["grace_s"]
        become_subreaper()
        started_at, start = time.time(), time.monotonic()
        what, path = "cwd", request["cwd"]
        try:
            os.chdir(path)
            what, path = "output", request["stdout"]
            stdout_fd = _open_output(path)
            path = request["stderr"]
            stderr_fd = _open_output(path)
            what, path = "program", request["executable"]
            self._command_pid = _spawn(path, request["argv"], request["env"], stdout_fd, stderr_fd)
        except (OSError, ValueError) as error:  # ValueError: a null byte
            number = error.errno if isinstance(error, OSError) else None
            yield {"event": "failed", "what": what, "path": path, "errno": number, "reason": str(error)}
            return
        os.close(stdout_fd)
        os.close(stderr_fd)
        yield {"event": "started", "pid": self._command_pid, "started_at": started_at}

        tree = Tree(os.getpid(), request["marker"])
        self._pump(lambda: self._returncode is not None or self._end_requested)
        was_ended = self._returncode is None
        orphans = self._ask_to_end(tree)
        outlived = self._returncode is not None
        killed, survivors = tree.kill(lambda limit_s: self._pump(lambda: self._is_childless, limit_s))
        if outlived:
            orphans |= killed
        if self._returncode is None:
            self._ended_at = time.monotonic()  # stuck in the kernel
        yield {
            "event": "ended",
            "returncode": self._returncode,
            "was_ended": was_ended,
            "duration_s": self._ended_at - start,
            "cleanup_s": time.monotonic() - self._ended_at,
            "peak_memory_bytes": self._memory.peak_bytes,
            "orphans": list(orphans.values()),
            "survivors": survivors,
        }

    def _ask_to_end(self, tree: Tree) -> dict[tuple[int, int], str]:
        """Lets the tree end by itself; returns the orphans that had to be told to, identity to description."""
        orphans: dict[tuple[int, int], str] = {}
        if self._returncode is None:
            # Only its group: launchers hand SIGTERM on to their workers, and want to be the ones to do it. The group
            # cannot be another's, since the command is not reaped yet.
            _signal_group(self._command_pid, signal.SIGTERM)
            self._pump(lambda: self._is_childless, self._grace_s)
        elif not self._pump(lambda: self._is_childless, DRAIN_S):
            for process in tree.find():
                orphans[process.identity] = describe(process)
                send_signal(process, signal.SIGTERM)
            self._pump(lambda: self._is_childless, ORPHAN_GRACE_S)
        return orphans

    def _pump(self, is_done: "Callable[[], bool]", limit_s: float = math.inf) -> bool:
        """Reaps, listens and samples until `is_done` or the limit; returns whether it is done."""
        deadline = time.monotonic() + limit_s
        while True:
            self._reap()
            if is_done():
                return True
            if time.monotonic() >= deadline:
                return False
            self._memory.sample_when_due()
            wait_s = min(deadline, self._memory.due_at) - time.monotonic()
            for fd, _ in self._poll.poll(max(0, math.ceil(wait_s * 1000))):
                if fd == self._lifeline_fd:
                    self._hear(os.read(fd, 4096))
                    self._poll.unregister(fd)
                else:
                    os.read(fd, 4096)

    def _reap(self) -> None:
        while not self._is_childless:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self._is_childless = True
                return
            if pid == 0:
                return
            self._memory.raise_to(usage.ru_maxrss * 1024)
            if pid == self._command_pid:
                self._returncode = os.waitstatus_to_exitcode(status)
                self._ended_at = time.monotonic()


def become_subreaper() -> None:
    """Makes this process the parent of every descendant whose own parent has ended.

    Raises:
        OSError: The kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def _open_output(path: str) -> int:
    # Appending keeps both streams whole when they go to the same file.
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o666)


def _spawn(executable: str, argv: list[str], env: dict[str, str], stdout_fd: int, stderr_fd: int) -> int:
    """Starts the command in a process group of its own and returns its pid; raises what exec reports."""
    null_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.posix_spawn(
            executable,
            argv,
            env,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null_fd, 0),
                (os.POSIX_SPAWN_DUP2, stdout_fd, 1),
                (os.POSIX_SPAWN_DUP2, stderr_fd, 2),
            ],
            setpgroup=0,
            setsigmask=(),
            # What Python and this program ignore would stay ignored in the command.
            setsigdef=(signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ),
        )
    finally:
        os.close(null_fd)


def _emit(event: "dict[str, Any]") -> None:
    line = memoryview(json.dumps(event).encode() + b"\n")
    try:
        while line:
            line = line[os.write(1, line) :]
    except BrokenPipeError:
        pass  # nobody listens any more; the tree must be ended all the same


def main() -> None:
    """Runs the request on stdin."""
    supervisor = Supervisor(lifeline_fd=0)
    request = supervisor.receive()
    if request is not None:
        for event in supervisor.run(request):
            _emit(event)


if __name__ == "__main__":
    main()
