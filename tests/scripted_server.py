"""A small OpenAI-compatible server on this machine that does what a test tells it to, good and bad."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "planted-key-0123456789"
Step = Any  # a code, "slow", "drip", or (code, headers, content)


class Scripted(ThreadingHTTPServer):
    """answer: what it says to a request's body. plan: steps of the next requests, before it answers as usual.

    seen: the requests so far. at_once: how many were under way when each came.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[dict[str, Any]], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.plan, self.seen, self.at_once = answer, list[Step](), list[dict[str, Any]](), list[int]()
        self.now, self.lock, self.counts = 0, threading.Lock(), True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/"

    def handle_error(self, *_: object) -> None:
        """A client that has given up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.now += 1
            server.at_once.append(server.now)
            server.seen.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
            step = server.plan.pop(0) if server.plan else 200
        try:
            self._answer(step, body)
        finally:
            with server.lock:
                server.now -= 1

    def _answer(self, step: Step, body: dict[str, Any]) -> None:
        code, headers, content = step if isinstance(step, tuple) else (step, {}, None)
        if code == "slow":
            threading.Event().wait(1.5)
        if content is None:
            content = self._usual(body) if code in (200, "slow", "drip") else "{}"
        self.send_response(code if isinstance(code, int) else 200)
        for name, value in {"Content-Length": str(len(content.encode())), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in content if code == "drip" else [content]:
            self.wfile.write(piece.encode())
            if code == "drip":
                self.wfile.flush()
                threading.Event().wait(0.05)

    def _usual(self, body: dict[str, Any]) -> str:
        text = self.server.answer(body)
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        return json.dumps({"choices": [choice], **({"usage": usage} if self.server.counts else {})})


def last_word(body: dict[str, Any]) -> str:
    """The last word of what is asked."""
    return str(body["messages"][-1]["content"].split()[-1])


@contextmanager
def scripted(answer: Callable[[dict[str, Any]], str] = last_word) -> Iterator[Scripted]:
    """A server that runs while the test does."""
    with Scripted(answer) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield running
        finally:
            running.shutdown()
