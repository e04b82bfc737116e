"""Asks an inference server for text, as OpenAI's completions do, and says how repetitive a text is.

In: a server's address and a prompt. Out: a `Completion`, or a `CompletionFailure` with the reason. Whatever the server
does (nothing, half an answer, nonsense, gigabytes) is one of the two, after the time that was granted and no more.
"""

import itertools
import json
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MAX_ANSWER_BYTES = 1 << 24
"""Longest answer that is read; a completion of 4096 tokens takes about 20 kB."""

_CHUNK_BYTES = 1 << 16
_QUOTE_LENGTH = 300

FailureKind = Literal["http_status", "connection", "timeout", "not_json", "wrong_shape"]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a server made of a prompt."""

    text: str
    """Without the prompt; may be empty. Half characters that cannot be written as UTF-8 are replaced."""
    finish_reason: str | None
    """Such as "stop" or "length"; None: not said."""
    prompt_tokens: int | None
    """As the server counts them; None: not said."""
    completion_tokens: int | None
    """As the server counts them; None: not said."""
    latency_s: float
    """Wall time from before the connection to the end of the answer."""


@dataclass(frozen=True)
class CompletionFailure:
    """Why there is no completion."""

    kind: FailureKind
    """http_status: any status but 200; connection: refused or broken off; timeout: not all of the answer in time;
    not_json and wrong_shape: an answer, but not a completion."""
    reason: str
    """One line: what was asked, and what came instead."""


@dataclass(frozen=True, kw_only=True)
class HttpAnswer:
    """A whole answer."""

    status: int
    body: bytes


def request_completion(
    base_url: str,
    *,
    model: str | None,
    prompt: str,
    max_tokens: int,
    temperature: float,
    seed: int | None,
    timeout_s: float,
) -> Completion | CompletionFailure:
    """Asks for one completion, by `POST /v1/completions`.

    Args:
        base_url: Such as "http://127.0.0.1:8000".
        model: The model to ask; None: the field is left out, for servers that have one only.
        prompt: What to continue.
        max_tokens: Tokens to generate at most.
        temperature: 0: the likeliest token each time.
        seed: Makes sampling repeatable; None: the field is left out.
        timeout_s: Seconds that the whole answer may take.
    """
    fields = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    body = {name: value for name, value in fields.items() if value is not None}
    start = time.monotonic()
    answer = exchange("POST", f"{base_url}/v1/completions", json_body=body, timeout_s=timeout_s)
    latency_s = time.monotonic() - start
    if isinstance(answer, CompletionFailure):
        return answer
    asked = f"POST {base_url}/v1/completions answered"
    if answer.status != 200:
        return CompletionFailure("http_status", f"{asked} {answer.status}: {quote(answer.body)}")
    try:
        content = json.loads(answer.body)
    except (ValueError, RecursionError):
        return CompletionFailure("not_json", f"{asked} what is not JSON: {quote(answer.body)}")
    match content:
        case {"choices": [{"text": str(text)} as choice, *_]}:
            usage = content.get("usage")
            reason = choice.get("finish_reason")
            return Completion(
                text=text.encode(errors="replace").decode(),
                finish_reason=reason if isinstance(reason, str) else None,
                prompt_tokens=_read_count(usage, "prompt_tokens"),
                completion_tokens=_read_count(usage, "completion_tokens"),
                latency_s=latency_s,
            )
    expected = 'without a text at {"choices": [{"text": ...}]}'
    return CompletionFailure("wrong_shape", f"{asked} {expected}: {quote(answer.body)}")


def _read_count(usage: object, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int and count >= 0 else None


def exchange(
    method: Literal["GET", "POST"], url: str, *, json_body: Mapping[str, Any] | None = None, timeout_s: float
) -> HttpAnswer | CompletionFailure:
    """Sends one request and reads all of its answer, with any status.

    No proxy is used, no redirect followed, and the connection is closed.

    Args:
        method: The HTTP method.
        url: Where to send it.
        json_body: What to send; None: nothing.
        timeout_s: Seconds that all of it may take.
    """
    # A thread, since the timeouts of requests start anew with each byte that arrives. One that is given up ends with
    # its connection, when its server ends at the latest.
    answers: queue.SimpleQueue[HttpAnswer | CompletionFailure] = queue.SimpleQueue()
    deadline = time.monotonic() + timeout_s

    def work() -> None:
        answers.put(_exchange(method, url, json_body, timeout_s, deadline))

    threading.Thread(target=work, name=f"{method} {url}", daemon=True).start()
    try:
        return answers.get(timeout=timeout_s)
    except queue.Empty:
        return _explain_timeout(method, url, timeout_s)


def _exchange(
    method: str, url: str, json_body: Mapping[str, Any] | None, timeout_s: float, deadline: float
) -> HttpAnswer | CompletionFailure:
    import requests  # noqa: PLC0415 - slow to import, and most runs have no inference stage

    asked = f"{method} {url}"
    try:
        with requests.Session() as session:
            session.trust_env = False
            with session.request(
                method,
                url,
                json=json_body,
                headers={"Accept-Encoding": "identity", "Connection": "close"},
                # Later than the caller's, who must not find one timeout called by two names.
                timeout=timeout_s + 1.0,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = bytearray()
                for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        limit = f"{MAX_ANSWER_BYTES >> 20} MiB"
                        return CompletionFailure("wrong_shape", f"{asked} answered with more than {limit}")
                    if time.monotonic() > deadline:
                        return _explain_timeout(method, url, timeout_s)
                return HttpAnswer(status=response.status_code, body=bytes(body))
    except Exception as error:  # whatever it is, the server is the reason, and a thread has nobody to raise it to
        return CompletionFailure("connection", f"{asked} failed: {_find_cause(error)}")


def _explain_timeout(method: str, url: str, timeout_s: float) -> CompletionFailure:
    return CompletionFailure("timeout", f"{method} {url} was not answered in full within {timeout_s:g} s")


def _find_cause(error: BaseException) -> str:
    """Returns what the innermost error says; requests and urllib3 each wrap it in sentences of their own."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__


def quote(body: bytes) -> str:
    """Returns the beginning of a body on one line."""
    # Far fewer bytes than there may be, yet enough for this many characters.
    line = " ".join(body[: 4 * _QUOTE_LENGTH].decode(errors="replace").split())
    return line if len(line) <= _QUOTE_LENGTH else f"{line[: _QUOTE_LENGTH - 3]}..."


def distinct_2(text: str) -> float | None:
    """Returns the share of distinct pairs among the pairs of neighbouring words, from above 0 to 1.

    A text that loops has few distinct pairs. This is distinct-2 of Li et al. 2016, "A Diversity-Promoting Objective
    Function for Neural Conversation Models", with words for tokens.

    Returns:
        None for a text of fewer than two words.
    """
    words = text.split()
    pairs = list(itertools.pairwise(words))
    return len(set(pairs)) / len(pairs) if pairs else None
