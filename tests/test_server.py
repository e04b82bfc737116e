import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from fgvalidate import server as server_module
from fgvalidate.completion import Completion, CompletionFailure
from fgvalidate.errors import LaunchError
from fgvalidate.process import build_environment
from fgvalidate.server import Server, ServerStart

FAKE = Path(__file__).parent / "fakes" / "server_fake.py"
ARGV = [sys.executable, "-I", "-S", str(FAKE), "--model", "{model_dir}", "--host", "{host}", "--port", "{port}"]
QUESTION = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0.7, "seed": 1, "timeout_s": 30.0}
MARKER = "FORGATHER_TEST_MARKER"


class Workplace(Protocol):
    folder: Path
    env: dict[str, str]

    def find_processes(self) -> list[int]: ...


Build = Callable[..., Server]


def ask(server: Server, **changes: Any) -> Completion | CompletionFailure:
    return server.complete(**{**QUESTION, **changes})


def start(server: Server, **changes: Any) -> ServerStart:
    return server.start(lambda: ask(server, **changes))


def has_listener(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def listen() -> Iterator[int]:
    """Somebody else's server: takes connections, never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.fixture
def build(workplace: Workplace) -> Iterator[Build]:
    """Makes a server that goes wrong in a way; in the end nothing of it may be left."""
    servers: list[Server] = []

    def make(ways: str = "", **settings: Any) -> Server:
        env = build_environment({"FAKE_SERVER": ways, MARKER: workplace.env[MARKER]})
        given = {
            "argv": ARGV,
            "model_dir": workplace.folder / "model",
            "cwd": workplace.folder,
            "env": env,
            "log_path": workplace.folder / "server.log",
            "start_timeout_s": 60.0,
            "grace_s": 1.0,
            "health_body": '"model_loaded": *true',
            "model": "{model_dir}",
        }
        servers.append(Server(**{**given, **settings}))
        return servers[-1]

    yield make
    assert workplace.find_processes() == []
    assert [server.port for server in servers if has_listener(server.port)] == []


def test_healthy_server_answers_and_leaves_nothing(build: Build, workplace: Workplace) -> None:
    with build() as server:
        begun = start(server)
        second = ask(server, seed=2)
        assert server.result is None

    assert (begun.is_healthy, begun.reason, begun.num_attempts, begun.port) == (True, "", 1, server.port)
    assert begun.is_loopback is True
    assert isinstance(begun.first, Completion)
    assert isinstance(second, Completion)
    assert begun.first.text != second.text
    asked = [json.loads(line) for line in (workplace.folder / "requests").read_text().splitlines()]
    assert [request["seed"] for request in asked] == [1, 2]
    assert {request["model"] for request in asked} == {str(workplace.folder / "model")}
    assert server.result is not None
    assert (server.result.returncode, server.result.orphans, server.result.survivors) == (-15, (), ())


def test_seed_repeats_a_completion(build: Build) -> None:
    with build() as server:
        first, again, other = start(server).first, ask(server), ask(server, seed=3)

    assert isinstance(first, Completion)
    assert isinstance(again, Completion)
    assert isinstance(other, Completion)
    assert first.text == again.text
    assert first.text != other.text


def test_slow_server_is_waited_for(build: Build) -> None:
    with build("slow=1.5") as server:
        begun = start(server)

    assert begun.is_healthy
    assert begun.startup_s > 0.5


def test_launch_does_not_wait(build: Build) -> None:
    before = time.monotonic()

    with build("slow=30") as server:
        launched_s = time.monotonic() - before
        assert psutil.pid_exists(server._process.pid)

    assert launched_s < 10


@pytest.mark.parametrize(
    ("ways", "settings", "reason", "log"),
    [
        pytest.param(
            "die=1",
            {},
            "the server exited with code 1 before it was healthy",
            "RuntimeError: No model.safetensors found",
            id="dies at start",
        ),
        pytest.param(
            "",
            {"argv": ["/bin/sh", "-c", "echo out of memory; kill -9 $$", "{port}"]},
            "the server was killed by signal 9 before it was healthy",
            "out of memory",
            id="is killed at start",
        ),
        pytest.param(
            "",
            {"argv": ["/bin/true"]},
            "the server exited with code 0 before it was healthy",
            None,
            id="ends at once",
        ),
        pytest.param(
            "unhealthy",
            {"start_timeout_s": 2.5},
            'not healthy after 2.5 s: GET {url}/health answered 503: {"status": "loading"}',
            "INFO: loading",
            id="never healthy",
        ),
        pytest.param(
            "",
            {"start_timeout_s": 2.5, "health_path": "/v2/health"},
            "not healthy after 2.5 s: GET {url}/v2/health answered 404: no such path",
            "INFO: loading",
            id="wrong path",
        ),
        pytest.param(
            "",
            {"start_timeout_s": 2.5, "health_body": '"model_loaded": false'},
            'not healthy after 2.5 s: GET {url}/health answered 200: {"status": "healthy", "model_loaded": true}',
            "INFO: loading",
            id="wrong body",
        ),
        pytest.param(
            "slow=60",
            {"start_timeout_s": 2.5},
            "not healthy after 2.5 s: GET {url}/health failed: Connection refused",
            "INFO: loading",
            id="never listens",
        ),
        pytest.param(
            "silent",
            {"start_timeout_s": 2.5},
            "not healthy after 2.5 s: GET {url}/health was not answered in full within ",
            "INFO: loading",
            id="never answers",
        ),
    ],
)
def test_server_that_never_gets_healthy_says_why(
    build: Build, ways: str, settings: dict[str, Any], reason: str, log: str | None
) -> None:
    with build(ways, **settings) as server:
        begun = start(server)

    assert not begun.is_healthy
    assert begun.reason.startswith(reason.replace("{url}", server.base_url))
    assert begun.num_attempts == 1
    assert begun.first is None
    assert any(line.startswith(log) for line in begun.log_tail) if log else begun.log_tail == ()


@pytest.mark.parametrize(
    ("ways", "kind", "reason"),
    [
        pytest.param("broken", "http_status", "answered 500: Internal Server Error", id="lies about its health"),
        pytest.param("hang", "timeout", "was not answered in full within 0.5 s", id="hangs in mid-answer"),
        pytest.param("answer=nonsense", "not_json", "answered what is not JSON: nonsense", id="nonsense"),
        pytest.param("answer={}", "wrong_shape", "without a text at", id="wrong shape"),
        pytest.param("die_after_health=7", "connection", "the server exited with code 7; POST", id="dies after health"),
        pytest.param(
            "die_in_answer", "connection", "the server was killed by signal 9; POST", id="is killed in mid-answer"
        ),
    ],
)
def test_server_is_healthy_only_if_it_completes(build: Build, ways: str, kind: str, reason: str) -> None:
    with build(ways) as server:
        begun = start(server, timeout_s=0.5 if ways == "hang" else 30.0)

    assert not begun.is_healthy
    assert isinstance(begun.first, CompletionFailure)
    assert begun.first.kind == kind
    assert reason in begun.first.reason
    assert begun.reason.startswith("healthy after ")
    assert begun.reason.endswith(f", but the first completion failed: {begun.first.reason}")


@pytest.mark.parametrize(
    ("ways", "text"), [pytest.param("empty", "", id="empty"), pytest.param("repeat", " dog" * 8, id="repeating")]
)
def test_poor_text_is_a_completion_all_the_same(build: Build, ways: str, text: str) -> None:
    with build(ways) as server:
        begun = start(server)

    assert begun.is_healthy
    assert isinstance(begun.first, Completion)
    assert begun.first.text == text


def test_chatty_server_neither_blocks_nor_fills_memory(build: Build, workplace: Workplace) -> None:
    before = psutil.Process().memory_info().rss

    with build("chatty=100000000") as server:
        begun = start(server)

    assert begun.is_healthy
    assert (workplace.folder / "server.log").stat().st_size > 99_000_000
    assert len("".join(begun.log_tail)) < 20_000
    assert psutil.Process().memory_info().rss - before < 30_000_000


def test_taken_port_is_tried_anew_elsewhere(build: Build) -> None:
    with build("taken=2") as server:
        begun = start(server)

    assert begun.is_healthy
    assert begun.num_attempts == 3


def test_taken_port_is_given_up_after_three_attempts(build: Build) -> None:
    with build("taken=9") as server:
        begun = start(server)

    assert not begun.is_healthy
    assert begun.num_attempts == 3
    assert begun.reason == (
        f"its port was taken 3 times, at last {server.port}: the server exited with code 3 before it was healthy"
    )
    assert "address already in use" in begun.log_tail[-1]


def steal_port(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the next server be launched on a port that somebody else has taken since it was picked."""
    fill = Server._fill

    def fill_first(server: Server, word: str) -> str:
        if word == ARGV[-1] and not hasattr(server, "_process"):
            server.port = port
        return fill(server, word)

    monkeypatch.setattr(Server, "_fill", fill_first)


@pytest.mark.parametrize("ways", ["", "slow=40"], ids=["server sees it", "server is still loading"])
def test_somebody_elses_server_is_not_taken_for_ours(
    build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ways: str
) -> None:
    """The other one is a healthy server too: only the owner of the socket tells them apart."""
    with build(argv=ARGV, cwd=tmp_path, log_path=tmp_path / "other.log") as other:
        assert start(other).is_healthy
        steal_port(other.port, monkeypatch)
        monkeypatch.setattr(server_module, "MAX_ATTEMPTS", 1)

        with build(ways) as server:
            begun = start(server)

        assert begun.port == other.port
    assert not begun.is_healthy
    assert begun.reason.startswith(f"its port was taken 1 times, at last {other.port}: ")
    assert begun.startup_s < 30


def test_stranger_on_the_port_makes_it_try_another(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_HEALTH_TIMEOUT_S", 0.2)
    with listen() as port:
        steal_port(port, monkeypatch)

        with build() as server:
            begun = start(server)

    assert begun.is_healthy
    assert begun.num_attempts == 2
    assert begun.port != port


@pytest.mark.parametrize(
    ("host", "expected"),
    [pytest.param("127.0.0.1", True, id="loopback"), pytest.param("0.0.0.0", False, id="every interface")],
)
def test_listening_to_the_world_is_seen(build: Build, host: str, expected: bool) -> None:
    with build(f"host={host}") as server:
        begun = start(server)

    assert begun.is_healthy
    assert begun.is_loopback is expected


def test_server_in_a_child_is_ours(build: Build) -> None:
    with build("in_child") as server:
        begun = start(server)

    assert begun.is_healthy
    assert begun.is_loopback is True


def test_server_that_ignores_sigterm_is_killed(build: Build) -> None:
    with build("ignore_sigterm") as server:
        start(server)

    assert server.result is not None
    assert server.result.returncode == -9


def test_exceptions_end_the_server_too(build: Build) -> None:
    server = build()

    with pytest.raises(ZeroDivisionError), server:
        start(server, max_tokens=1 / 0)

    assert server.result is not None


def test_missing_program_is_an_error_of_ours(build: Build) -> None:
    with pytest.raises(LaunchError, match="'no-such-server' was not found in PATH"), build(argv=["no-such-server"]):
        pass


def test_braces_in_arguments_stay_as_they_are(build: Build, workplace: Workplace) -> None:
    with build(argv=["/bin/echo", '{"a": {}}', "{host}:{port}", "{other}"]) as server:
        start(server)

    assert (workplace.folder / "server.log").read_text() == f'{{"a": {{}}}} 127.0.0.1:{server.port} {{other}}\n'


@pytest.fixture
def tiny_llama(workplace: Workplace) -> Path:
    """A model of random weights that samples, as `transformers` saves it."""
    folder = workplace.folder / "model"
    env = {**workplace.env, "XDG_CACHE_HOME": str(workplace.folder / "cache")}
    subprocess.run([sys.executable, str(FAKE.with_name("server_model.py")), str(folder)], env=env, check=True)
    return folder


def test_transformers_serves_a_saved_model(build: Build, workplace: Workplace, tiny_llama: Path) -> None:
    program = str(Path(sys.executable).with_name("transformers"))
    env = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HOME": str(workplace.folder / "huggingface"),
        MARKER: workplace.env[MARKER],
    }

    with build(
        argv=[program, "serve", "{model_dir}", "--host", "{host}", "--port", "{port}", "--device", "cpu"],
        model_dir=tiny_llama,
        env=build_environment(env),
        health_body='"status": *"ok"',
        start_timeout_s=300.0,
        grace_s=10.0,
    ) as server:
        begun = start(server)
        settings: list[dict[str, Any]] = [
            {"seed": 1},
            {"seed": 2},
            {"temperature": 0, "seed": None},
            {"temperature": 0, "seed": None},
        ]
        rest = [ask(server, **changes) for changes in settings]

    assert begun.is_healthy, begun.reason + os.linesep.join(begun.log_tail)
    completions = [answer for answer in (begun.first, *rest) if isinstance(answer, Completion)]
    first, same_seed, other_seed, greedy, greedy_again = (completion.text for completion in completions)
    assert first == same_seed
    assert first != other_seed
    assert greedy == greedy_again
    assert greedy != first
    assert completions[0].finish_reason in {"length", "stop"}
    assert completions[0].completion_tokens is not None
    assert 1 <= completions[0].completion_tokens <= 8
    assert begun.is_loopback is True
    assert server.result is not None
    assert (server.result.orphans, server.result.survivors) == ((), ())
