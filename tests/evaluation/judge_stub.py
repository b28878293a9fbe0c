"""A judge on this machine, whose behavior a marker in the prompt chooses."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPLIES = {
    "bold": "**Rating**: 4",
    "two": "Rating: 1 or Rating: 5",
    "ten": "Rating: 10",
    "none": "I cannot say.",
    "list": '["dog", "cat"]',
    "fenced": '```json\n["dog"]\n```',
    "prose": "There is a dog.",
    "right": "correct",
    "wrong": "Incorrect.",
}


class Stub(ThreadingHTTPServer):
    """Counts requests, and keeps their bodies.

    A prompt with ``[[NAME]]`` gets the behavior of that name; any other a rating of 5.
    """

    daemon_threads = True

    def __init__(self, *, pause: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pause = pause
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()
        self.running = self.most = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed or give up are no news."""


class Handler(BaseHTTPRequestHandler):
    server: Stub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        stub = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        with stub.lock:
            stub.asked[text] += 1
            number = stub.asked[text]
            stub.bodies.append(body)
            stub.keys.append(self.headers.get("Authorization"))
            stub.running += 1
            stub.most = max(stub.most, stub.running)
        try:
            if stub.pause:
                time.sleep(stub.pause)
            match = re.search(r"\[\[(\w+)\]\]", text)
            self.behave(match[1] if match else "", body, number)
        finally:
            with stub.lock:
                stub.running -= 1

    def behave(self, name: str, body: dict[str, Any], number: int) -> None:
        good = {"content": REPLIES.get(name, "It is fine.\nRating: 5")}
        reply: dict[str, Any] = {
            "model": body["model"],
            "choices": [{"message": good, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 3},
        }
        first = number == 1
        if name == "limit" and first:
            return self.send(429, b"slow down", {"Retry-After": "7"})
        if name == "once500" and first:
            return self.send(500, b"oops")
        if name == "always500":
            return self.send(500, b"oops")
        if name == "once520" and first:
            return self.send(520, b"oops")
        if name.startswith("wait"):
            return self.send(429, b"slow down", {"Retry-After": name.removeprefix("wait")})
        if name == "locked" and self.headers.get("Authorization") != "Bearer good":
            return self.send(401, b"locked")
        if name == "gone":
            return self.send(404, b"no such model")
        if name == "echo":
            # As far as the cut of the message, so that half of the key would be left.
            return self.send(400, b"." * 180 + str(self.headers["Authorization"]).encode())
        if name == "void":
            reply["choices"][0]["message"]["content"] = None
        if name == "forbidden":
            return self.send(401, b"who are you")
        if name == "redirect":
            return self.send(302, b"", {"Location": "http://127.0.0.1:9/"})
        if name == "slow" and first:
            time.sleep(1.0)
        if name == "broken" and first:
            return self.send(200, b'{"choices": [')
        if name == "reset" and first:
            self.connection.close()
            return None
        if name == "empty":
            reply["choices"][0]["message"]["content"] = "" if first else "Rating: 2"
        if name == "nochoice":
            reply["choices"] = []
        if name == "other":
            reply["model"] = "another"
        if name == "dated":
            reply["model"] += "-0613"
        if name == "nousage":
            del reply["usage"]
        return self.send(200, json.dumps(reply).encode())

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def judge_stub(*, pause: float = 0.0) -> Iterator[Stub]:
    """Run the stub in a thread."""
    with Stub(pause=pause) as stub:
        thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stub
        finally:
            stub.shutdown()
            thread.join()
