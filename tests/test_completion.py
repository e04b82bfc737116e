import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fgvalidate.completion import (
    MAX_ANSWER_BYTES,
    Completion,
    CompletionFailure,
    HttpAnswer,
    distinct_2,
    exchange,
    request_completion,
)
from fgvalidate.process import Process, build_environment

FAKE = Path(__file__).parent / "fakes" / "server_fake.py"
QUESTION = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0.7, "seed": 1, "timeout_s": 30.0}

Ask = Callable[..., Completion | CompletionFailure]


@pytest.fixture
def serve(tmp_path: Path, wait_until: Callable[..., None]) -> Iterator[Callable[[str], str]]:
    """Starts the fake server in a way, and returns its address."""
    processes: list[Process] = []

    def start(ways: str) -> str:
        def is_up() -> bool:
            return isinstance(exchange("GET", f"http://127.0.0.1:{port}/other", timeout_s=5), HttpAnswer)

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = Process(
            [sys.executable, "-I", "-S", str(FAKE), "--model", "m", "--host", "127.0.0.1", "--port", str(port)],
            cwd=tmp_path,
            env=build_environment({"FAKE_SERVER": ways}),
            stdout=tmp_path / "log",
            stderr=tmp_path / "log",
            grace_s=0.5,
        )
        processes.append(process)
        wait_until(is_up)
        return f"http://127.0.0.1:{port}"

    yield start
    for process in processes:
        process.end()


def ask(base_url: str, **changes: Any) -> Completion | CompletionFailure:
    return request_completion(base_url, **{"model": "m", **QUESTION, **changes})


def test_completion_says_what_the_server_said(serve: Callable[[str], str], tmp_path: Path) -> None:
    completion = ask(serve(""))

    assert isinstance(completion, Completion)
    assert len(completion.text.split()) == 8
    assert (completion.finish_reason, completion.prompt_tokens, completion.completion_tokens) == ("length", 4, 8)
    assert 0 < completion.latency_s < 30
    asked = json.loads((tmp_path / "requests").read_text())
    assert asked == {"model": "m", "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0.7, "seed": 1}


def test_request_leaves_out_what_is_not_given(serve: Callable[[str], str], tmp_path: Path) -> None:
    ask(serve(""), model=None, seed=None, temperature=0)

    asked = json.loads((tmp_path / "requests").read_text())
    assert asked == {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param('{"choices": [{"text": ""}]}', ("", None, None, None), id="empty text"),
        pytest.param(
            '{"choices": [{"text": " a", "finish_reason": 1}], "usage": {"prompt_tokens": true}}',
            (" a", None, None, None),
            id="no counts",
        ),
        pytest.param(
            '{"choices": [{"text": "a"}, {"text": "b"}], "usage": [1]}', ("a", None, None, None), id="two choices"
        ),
        pytest.param(
            '{"choices": [{"text": "a", "finish_reason": "stop"}], "usage": {"completion_tokens": 0}}',
            ("a", "stop", None, 0),
            id="no tokens",
        ),
        pytest.param('{"choices": [{"text": "\\ud800 a"}]}', ("? a", None, None, None), id="half a character"),
    ],
)
def test_completions_may_say_little(
    serve: Callable[[str], str], answer: str, expected: tuple[str, str | None, int | None, int | None]
) -> None:
    completion = ask(serve(f"answer={answer}"))

    assert isinstance(completion, Completion)
    found = (completion.text, completion.finish_reason, completion.prompt_tokens, completion.completion_tokens)
    assert found == expected


@pytest.mark.parametrize(
    ("ways", "kind", "reason"),
    [
        pytest.param("broken", "http_status", "answered 500: Internal Server Error", id="500"),
        pytest.param("elsewhere=http://127.0.0.1:1/", "http_status", "answered 307: ", id="redirect"),
        pytest.param("answer=no JSON", "not_json", "answered what is not JSON: no JSON", id="nonsense"),
        pytest.param("answer=", "not_json", "answered what is not JSON: ", id="nothing"),
        pytest.param(f"answer={'[' * 100_000}", "not_json", "[[[...", id="deep nonsense"),
        pytest.param(f"answer={'9' * 10_000}", "not_json", "999...", id="number without end"),
        pytest.param("answer=null", "wrong_shape", "without a text at", id="null"),
        pytest.param("answer={}", "wrong_shape", "without a text at", id="no choices"),
        pytest.param('answer={"choices": []}', "wrong_shape", "without a text at", id="empty choices"),
        pytest.param('answer={"choices": ["a"]}', "wrong_shape", "without a text at", id="choice without fields"),
        pytest.param('answer={"choices": [{}]}', "wrong_shape", "without a text at", id="no text"),
        pytest.param('answer={"choices": [{"text": null}]}', "wrong_shape", "without a text at", id="text is null"),
        pytest.param('answer={"choices": [{"text": 1}]}', "wrong_shape", "without a text at", id="text is a number"),
        pytest.param(f"huge={MAX_ANSWER_BYTES + 1}", "wrong_shape", "answered with more than 16 MiB", id="huge"),
        pytest.param(f"huge={MAX_ANSWER_BYTES}", "not_json", "answered what is not JSON: xxx", id="almost huge"),
        pytest.param("die_in_answer", "connection", "/v1/completions failed: ", id="dies in mid-answer"),
    ],
)
def test_what_is_no_completion_is_a_failure_with_its_reason(
    serve: Callable[[str], str], ways: str, kind: str, reason: str
) -> None:
    failure = ask(serve(ways))

    assert isinstance(failure, CompletionFailure)
    assert failure.kind == kind
    assert reason in failure.reason
    assert len(failure.reason) < 500
    assert "\n" not in failure.reason


@pytest.mark.parametrize("way", ["hang", "drip", "drip_body"])
def test_time_limit_is_that_of_the_whole_answer(serve: Callable[[str], str], way: str) -> None:
    base_url = serve(way)
    start = time.monotonic()

    failure = ask(base_url, timeout_s=0.5)

    assert failure == CompletionFailure(
        "timeout", f"POST {base_url}/v1/completions was not answered in full within 0.5 s"
    )
    assert 0.5 <= time.monotonic() - start < 10


def test_nobody_listening_is_a_connection_failure() -> None:
    failure = ask("http://127.0.0.1:1")

    assert failure == CompletionFailure(
        "connection", "POST http://127.0.0.1:1/v1/completions failed: Connection refused"
    )


def test_proxies_of_the_environment_are_not_used(serve: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    completion = ask(serve(""))

    assert isinstance(completion, Completion)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", None, id="nothing"),
        pytest.param("  dog\n", None, id="one word"),
        pytest.param("a dog", 1.0, id="one pair"),
        pytest.param("dog dog dog dog dog", 0.25, id="one word over and over"),
        pytest.param("a dog a dog a dog a dog a", 0.25, id="two words over and over"),
        pytest.param("the dog saw the dog", 0.75, id="one pair twice"),
        pytest.param("once upon a time", 1.0, id="no pair twice"),
    ],
)
def test_distinct_2_is_the_share_of_distinct_pairs(text: str, expected: float | None) -> None:
    assert distinct_2(text) == expected
