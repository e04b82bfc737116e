"""Runs an inference server for the time of a few questions.

In: its command line as a template, how it says that it is healthy, and a first question. Out: a `ServerStart`, then a
`Completion` or `CompletionFailure` for each question, and, once nothing of the server is left, its `ProcessResult`.

A server that dies, never gets healthy or gives no answer is a value; only a missing program is an error.
"""

import ipaddress
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from fgvalidate.completion import Completion, CompletionFailure, HttpAnswer, exchange, quote, request_completion
from fgvalidate.process import Process, ProcessResult
from fgvalidate.text_search import read_tail

HOST = "127.0.0.1"

MAX_ATTEMPTS = 3
"""How often a server is started while its port turns out to be taken."""

LOG_TAIL_LINES = 40

_PORT_TAKEN = re.compile(r"address already in use|EADDRINUSE|errno 98\b", re.IGNORECASE)
_SEARCHED_LOG_BYTES = 1 << 16

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.25
_HEALTH_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class ServerStart:
    """Whether a server came up, and what it cost."""

    is_healthy: bool
    """The health path answered as it should, and the first completion was one."""
    reason: str
    """Why it is not healthy, on one line; empty when it is."""
    num_attempts: int
    """How often it was started: more than once where its port was taken meanwhile."""
    startup_s: float
    """Wall time spent in `Server.start` until the health path answered as it should, or until that was given up."""
    port: int
    """Of the last attempt."""
    is_loopback: bool | None
    """Whether nobody outside this machine can reach the port; None: not known, as before the server is up."""
    first: Completion | CompletionFailure | None
    """The answer to the first question; None: it was not asked, since the server did not come up."""
    log_tail: tuple[str, ...]
    """The last lines of its log at that time."""
    has_ended: bool = False
    """Whether it had ended by itself at that time."""


@dataclass(frozen=True)
class _Obstacle:
    reason: str
    is_port_taken: bool = False


class Server:
    """An inference server; a context manager whose beginning launches it and whose end is the end of its whole tree.

    `{host}`, `{port}` and `{model_dir}` are filled in wherever they stand in `argv` and `model`. The environment is
    the caller's, see `process.build_environment`.

    Args:
        argv: The command line, as a template.
        model_dir: The model's folder.
        cwd: Folder to run in.
        env: The whole environment of the server.
        log_path: File that takes all its output, emptied first.
        start_timeout_s: Seconds that `start` waits for the health path, over all attempts.
        health_path: What is asked for by GET.
        health_status: The HTTP status that means healthy.
        health_body: Regular expression that must also be found in the answer; None: any answer will do.
        model: The `model` of the requests; None: the field is left out.
        grace_s: Seconds between SIGTERM and SIGKILL when it is ended.

    Attributes:
        port: The loopback port of the last attempt.
        result: How the last attempt ended; None as long as it runs.

    Raises:
        LaunchError: The server cannot be started (on entry).
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        model_dir: Path,
        cwd: Path,
        env: Mapping[str, str],
        log_path: Path,
        start_timeout_s: float,
        health_path: str = "/health",
        health_status: int = 200,
        health_body: str | None = None,
        model: str | None = None,
        grace_s: float = 5.0,
        held_fds: Sequence[int] = (),
    ) -> None:
        self._argv = tuple(argv)
        self._model_dir = model_dir
        self._cwd = cwd
        self._env = env
        self._log_path = log_path
        self._start_timeout_s = start_timeout_s
        self._health_path = health_path
        self._health_status = health_status
        self._health_body = None if health_body is None else re.compile(health_body)
        self._model = model
        self._grace_s = grace_s
        self._held_fds = tuple(held_fds)
        self.port = 0
        self.result: ProcessResult | None = None

    @property
    def base_url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._launch()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.result = self._process.end()

    def start(self, probe: Callable[[], Completion | CompletionFailure]) -> ServerStart:
        """Waits until the server is healthy, then asks the first question.

        Args:
            probe: Asks it, by `complete`. Some servers say that they are healthy and fail every completion, so only an
                answer proves health; it is handed over as `ServerStart.first`, not thrown away.
        """
        start = time.monotonic()
        num_attempts = 1
        while True:
            obstacle = self._await_health(start + self._start_timeout_s)
            if obstacle is None or not obstacle.is_port_taken or num_attempts == MAX_ATTEMPTS:
                break
            self._process.end()
            self._launch()
            num_attempts += 1
        startup_s = time.monotonic() - start
        first = None if obstacle else probe()
        if isinstance(first, CompletionFailure):
            obstacle = _Obstacle(f"healthy after {startup_s:.1f} s, but the first completion failed: {first.reason}")
        elif obstacle and obstacle.is_port_taken:
            obstacle = _Obstacle(f"its port was taken {num_attempts} times, at last {self.port}: {obstacle.reason}")
        return ServerStart(
            is_healthy=obstacle is None,
            reason=obstacle.reason if obstacle else "",
            num_attempts=num_attempts,
            startup_s=startup_s,
            port=self.port,
            is_loopback=self._is_loopback(),
            first=first,
            log_tail=tuple(self._read_log_tail()),
            has_ended=self._process.wait(0) is not None,
        )

    def complete(
        self, *, prompt: str, max_tokens: int, temperature: float, seed: int | None, timeout_s: float
    ) -> Completion | CompletionFailure:
        """Asks one question; the arguments are those of `completion.request_completion`."""
        answer = request_completion(
            self.base_url,
            model=None if self._model is None else self._fill(self._model),
            prompt=prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            timeout_s=timeout_s,
        )
        if isinstance(answer, CompletionFailure) and answer.kind == "connection":
            # The connection breaks a moment before its server is seen to have ended.
            result = self._process.wait(1.0)
            if result is not None:
                return CompletionFailure(answer.kind, f"the server {_explain_end(result)}; {answer.reason}")
        return answer

    def _launch(self) -> None:
        # Somebody may take the port before the server does: `start` then tries another.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((HOST, 0))
            self.port = probe.getsockname()[1]
        self._process = Process(
            [self._fill(word) for word in self._argv],
            cwd=self._cwd,
            env=self._env,
            stdout=self._log_path,
            stderr=self._log_path,
            grace_s=self._grace_s,
            held_fds=self._held_fds,
        )
        import psutil  # noqa: PLC0415 - slow to import, and most runs have no inference stage

        try:
            # The command's supervisor, to which everything that it leaves behind falls.
            self._root_pid = psutil.Process(self._process.pid).ppid()
        except psutil.Error:  # it has ended already
            self._root_pid = self._process.pid

    def _fill(self, word: str) -> str:
        # Not str.format: arguments may hold JSON.
        for name, value in (("{host}", HOST), ("{port}", str(self.port)), ("{model_dir}", str(self._model_dir))):
            word = word.replace(name, value)
        return word

    def _await_health(self, deadline: float) -> _Obstacle | None:
        pause_s = _FIRST_PAUSE_S
        last = "it was not asked"
        while True:
            result = self._process.wait(max(0.0, min(pause_s, deadline - time.monotonic())))
            if result is not None:
                return _Obstacle(f"the server {_explain_end(result)} before it was healthy", self._has_lost_port())
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return _Obstacle(f"not healthy after {self._start_timeout_s:g} s: {last}")
            answer = exchange("GET", self.base_url + self._health_path, timeout_s=min(left_s, _HEALTH_TIMEOUT_S))
            if isinstance(answer, HttpAnswer) or answer.kind == "timeout":
                stranger = self._find_stranger()
                if stranger is not None:
                    return _Obstacle(f"{stranger} listens there", is_port_taken=True)
            if isinstance(answer, HttpAnswer):
                if self._means_healthy(answer):
                    return None
                last = f"GET {self.base_url}{self._health_path} answered {answer.status}: {quote(answer.body)}"
            else:
                last = answer.reason
            pause_s = min(1.25 * pause_s, _LONGEST_PAUSE_S)

    def _means_healthy(self, answer: HttpAnswer) -> bool:
        if answer.status != self._health_status:
            return False
        return self._health_body is None or bool(self._health_body.search(answer.body.decode(errors="replace")))

    def _has_lost_port(self) -> bool:
        """Whether the server, which has ended, did so because somebody else has the port."""
        lines = self._read_log_tail(num_lines=1000, max_bytes=_SEARCHED_LOG_BYTES)
        return any(map(_PORT_TAKEN.search, lines)) or bool(_list_listeners(self.port))

    def _find_stranger(self) -> str | None:
        """Returns who else has the port: whoever holds the socket that takes our connections is not of our tree.

        None if it is ours, and if no such socket is to be seen, as with a server in a network namespace of its own:
        the port was free before it was started, and it lives.
        """
        listeners = [(address, pid) for address, pid in _list_listeners(self.port) if _takes_loopback(address)]
        if not listeners or any(self._owns(pid) for _, pid in listeners):
            return None
        pid = listeners[0][1]
        return "a process of another user" if pid is None else f"process {pid}"

    def _is_loopback(self) -> bool | None:
        addresses = [address for address, pid in _list_listeners(self.port) if self._owns(pid)]
        return all(_unmap(address).is_loopback for address in addresses) if addresses else None

    def _owns(self, pid: int | None) -> bool:
        import psutil  # noqa: PLC0415 - as above

        if pid is None:  # not ours to look into
            return False
        try:
            return self._root_pid in (pid, *(parent.pid for parent in psutil.Process(pid).parents()))
        except psutil.Error:  # gone meanwhile
            return False

    def _read_log_tail(self, *, num_lines: int = LOG_TAIL_LINES, max_bytes: int = 16384) -> list[str]:
        try:
            return read_tail(self._log_path, num_lines=num_lines, max_bytes=max_bytes)
        except OSError:
            return []


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _list_listeners(port: int) -> list[tuple[_Address, int | None]]:
    """Returns who listens on a TCP port: the address and the process, None where it is not ours to look into."""
    import psutil  # noqa: PLC0415 - as above

    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return []
    return [
        (ipaddress.ip_address(connection.laddr.ip), connection.pid)
        for connection in connections
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
    ]


def _unmap(address: _Address) -> _Address:
    """Returns the IPv4 address that stands in an IPv6 one, or the address itself."""
    return getattr(address, "ipv4_mapped", None) or address


def _takes_loopback(address: _Address) -> bool:
    return address.is_unspecified or str(_unmap(address)) == HOST


def _explain_end(result: ProcessResult) -> str:
    if result.returncode is None:
        return "was lost with its supervisor"
    if result.returncode < 0:
        return f"was killed by signal {-result.returncode}"
    return f"exited with code {result.returncode}"
