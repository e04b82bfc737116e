"""Stands for an inference server: `server_fake.py --model DIR --host HOST --port PORT`, with the standard library only.

FAKE_SERVER, `key=value;key;...`, says what goes wrong:

Before it listens: slow=SECONDS, die=CODE, taken=N (the first N starts find the port taken; counted in the working
directory), host=ADDRESS (it listens there instead), chatty=BYTES (of output), in_child (a child does the rest).
When it is asked for its health: unhealthy (503), silent (no answer), die_after_health=CODE.
When it is asked for a completion: broken (500), die_in_answer (half an answer, then it kills itself), answer=TEXT (as
the body), empty (text), repeat (one word), hang (half an answer, then none), drip (a byte of the head at a time),
drip_body (a byte of the body at a time), huge=BYTES (of body), elsewhere=URL (a redirect).
When it is ended: ignore_sigterm.
"""

import argparse
import errno
import hashlib
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LONGEST_LIFE_S = 180
DRIP_S = 0.2
WORDS = ("once", "upon", "a", "time", "there", "was", "little", "dog", "who", "liked", "to", "play", "in", "park")
WAYS = dict(word.partition("=")[::2] for word in os.environ.get("FAKE_SERVER", "").split(";") if word)


def invent(request: dict[str, Any]) -> str:
    """Returns words that depend on the prompt, and on the seed unless the temperature is 0."""
    seed = request.get("seed") if request["temperature"] > 0 else 0
    key = f"{request['prompt']} {time.time_ns() if seed is None else seed}"
    numbers = (hashlib.sha256(f"{key} {index}".encode()).digest()[0] for index in range(request["max_tokens"]))
    return "".join(f" {WORDS[number % len(WORDS)]}" for number in numbers)


def compose(request: dict[str, Any]) -> bytes:
    """Returns the body of an answer."""
    text = invent(request)
    if "empty" in WAYS:
        text = ""
    if "repeat" in WAYS:
        text = " dog" * request["max_tokens"]
    num_tokens = len(text.split())
    answer = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": int(time.time()),
        "model": request.get("model", "the only one"),
        "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": num_tokens, "total_tokens": 4 + num_tokens},
    }
    return WAYS.get("answer", json.dumps(answer)).encode()


class Handler(BaseHTTPRequestHandler):
    """Answers as FAKE_SERVER says."""

    def do_GET(self) -> None:
        """The health path."""
        if self.path != "/health":
            self.reply(404, b"no such path")
        elif "unhealthy" in WAYS:
            self.reply(503, b'{"status": "loading"}')
        elif "silent" in WAYS:
            time.sleep(LONGEST_LIFE_S)
        else:
            self.reply(200, b'{"status": "healthy", "model_loaded": true}')
        if "die_after_health" in WAYS:
            print("server: lost its GPU", file=sys.stderr, flush=True)
            os._exit(int(WAYS["die_after_health"]))

    def do_POST(self) -> None:
        """A completion."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with Path("requests").open("a", encoding="utf-8") as file:
            file.write(json.dumps(request) + "\n")
        if "broken" in WAYS:
            self.reply(500, b"Internal Server Error")
        elif "elsewhere" in WAYS:
            self.send_response(307)
            self.send_header("Location", WAYS["elsewhere"])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif "huge" in WAYS:
            self.reply(200, b"x" * int(WAYS["huge"]))
        else:
            self.reply_slowly(compose(request))

    def reply_slowly(self, body: bytes) -> None:
        """Answers, unless it is to stop, or to take its time, on the way."""
        head = f"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        if "drip" in WAYS:
            self.drip(head)
        else:
            self.wfile.write(head)
        if "drip_body" in WAYS:
            self.drip(body)
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.wfile.flush()
        if "hang" in WAYS:
            time.sleep(LONGEST_LIFE_S)
        if "die_in_answer" in WAYS:
            os.kill(os.getpid(), signal.SIGKILL)
        self.wfile.write(body[half:])

    def drip(self, content: bytes) -> None:
        """Sends a byte at a time."""
        for index in range(len(content)):
            self.wfile.write(content[index : index + 1])
            self.wfile.flush()
            time.sleep(DRIP_S)

    def reply(self, status: int, body: bytes) -> None:
        """Answers."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says what was asked, as servers do."""
        sys.stderr.write(f"INFO: {format % args}\n")


class Server(ThreadingHTTPServer):
    """One thread for each request; a connection that breaks is no error."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Says so."""
        print(f"ERROR: {sys.exc_info()[1]}", file=sys.stderr, flush=True)


def count_start() -> int:
    """Returns how often a server was started here, this time included."""
    path = Path("starts")
    num_starts = 1 + (int(path.read_text()) if path.exists() else 0)
    path.write_text(str(num_starts))
    return num_starts


def refuse_port(host: str, port: int) -> None:
    """Ends as servers do that find their port taken."""
    reason = f"[Errno {errno.EADDRINUSE}] error while attempting to bind on address ('{host}', {port})"
    print(f"ERROR: {reason}: address already in use", file=sys.stderr, flush=True)
    sys.exit(3)


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    # What Forgather's server takes as well.
    parser.add_argument("--from-checkpoint", action="store_true")
    parser.add_argument("--log-level")
    parser.add_argument("-d", "--device")
    args = parser.parse_args()
    if "in_child" in WAYS and os.fork():
        signal.alarm(LONGEST_LIFE_S)
        while True:
            signal.pause()
    signal.alarm(LONGEST_LIFE_S)
    if "ignore_sigterm" in WAYS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(f"INFO: loading {args.model}", flush=True)
    num_starts = count_start()
    line = b"INFO: a long line about nothing, as there are many in the log of a server\n"
    for _ in range(int(WAYS.get("chatty", 0)) // (1000 * len(line))):
        os.write(1, 1000 * line)
    time.sleep(float(WAYS.get("slow", 0)))
    if "die" in WAYS:
        print("RuntimeError: No model.safetensors found", file=sys.stderr, flush=True)
        sys.exit(int(WAYS["die"]))
    if num_starts <= int(WAYS.get("taken", 0)):
        refuse_port(args.host, args.port)
    host = WAYS.get("host", args.host)
    try:
        server = Server((host, args.port), Handler)
    except OSError:
        refuse_port(host, args.port)
    else:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while True:
            signal.pause()


if __name__ == "__main__":
    main()
