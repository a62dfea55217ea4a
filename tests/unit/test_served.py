"""A model behind an OpenAI-compatible interface, against a small server on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import pronk.evaluate.served as subject
from pronk.data.conversation import Message
from pronk.errors import OptionError

KEY = "planted-key-0123456789"


class Handler(BaseHTTPRequestHandler):
    """Answers with the last word of what it is asked; `plan` holds the codes of the next answers."""

    plan: list[Any]
    seen: list[dict[str, Any]]
    at_once: list[int]
    lock = threading.Lock()
    now = 0

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            type(self).now += 1
            self.at_once.append(type(self).now)
            self.seen.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
            step = self.plan.pop(0) if self.plan else 200
        try:
            self._answer(step, body)
        finally:
            with self.lock:
                type(self).now -= 1

    def _answer(self, step: Any, body: dict[str, Any]) -> None:
        code, headers, content = step if isinstance(step, tuple) else (step, {}, None)
        if code == "slow":
            threading.Event().wait(1.5)
            code = 200
        if content is None:
            last = body["messages"][-1]["content"].split()[-1]
            choice = {"message": {"role": "assistant", "content": last}, "finish_reason": "stop"}
            content = json.dumps({"choices": [choice]}) if code == 200 else "{}"
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content.encode())), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content.encode())


class Quiet(ThreadingHTTPServer):
    """A client that has given up is no news."""

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[subject.Server]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PRONK_API_KEY", KEY)
    monkeypatch.setattr(subject, "DELAYS", (0.01, 0.01))
    Handler.plan, Handler.seen, Handler.at_once, Handler.now = [], [], [], 0
    with Quiet(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield subject.server_of(f"http://127.0.0.1:{running.server_port}/v1/", "some/model")
        running.shutdown()


def questions(count: int) -> list[tuple[Message, ...]]:
    return [(Message("system", "be short"), Message("user", "what?", f"text {k}")) for k in range(count)]


def test_answers_come_in_the_order_of_the_questions(server: subject.Server) -> None:
    told: list[int] = []
    answers = subject.ask_served(server, questions(30), 12, told.append)
    assert [one.text for one in answers] == [str(k) for k in range(30)]
    assert all(one.ended for one in answers)
    assert sum(told) == 30
    first = Handler.seen[0]
    assert first["path"] == "/v1/chat/completions"
    assert first["messages"] == [
        {"role": "system", "content": "be short"}, {"role": "user", "content": "what?\n\ntext 0"},
    ]  # fmt: skip
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("some/model", 0, 12)
    assert first["key"] == f"Bearer {KEY}"
    assert max(Handler.at_once) <= subject.WORKERS


def test_what_fails_for_a_while_is_tried_again(server: subject.Server) -> None:
    Handler.plan = [(429, {"Retry-After": "0"}, None), 503, 200]
    assert [one.text for one in subject.ask_served(server, questions(3), 9, lambda _: None)] == ["0", "1", "2"]
    assert len(Handler.seen) == 5


def test_a_server_that_wants_other_parameters_gets_them(server: subject.Server) -> None:
    wants = "Unsupported parameter: 'max_tokens'; use 'max_completion_tokens' instead."
    warm = "'temperature' does not support 0"
    Handler.plan = [(400, {}, json.dumps({"error": wants})), (400, {}, json.dumps({"error": warm}))]
    assert len(subject.ask_served(server, questions(2), 9, lambda _: None)) == 2
    assert Handler.seen[-1]["max_completion_tokens"] == 9
    assert not {"max_tokens", "temperature"} & Handler.seen[-1].keys()


REFUSED = [
    (401, "refuses the key (401); set PRONK_API_KEY"),
    (403, "refuses the key"),
    (404, "knows no model 'some/model'"),
    ((302, {"Location": "http://127.0.0.1:9/"}, "{}"), "sends elsewhere (302)"),
    ((400, {}, f"\x1b[31mbad {KEY}"), "refuses the question (400): [31mbad (hidden)"),
    ((200, {}, "<html>"), "does not answer as OpenAI's interface does"),
    ((200, {}, '{"choices": []}'), "does not answer as OpenAI's interface does"),
    ((200, {}, '{"choices": [{"message": {"content": [1]}}]}'), "does not answer as OpenAI's interface does"),
]


@pytest.mark.parametrize(("step", "expected"), REFUSED)
def test_what_cannot_be_mended_by_waiting_is_told_at_once(server: subject.Server, step: Any, expected: str) -> None:
    Handler.plan = [step]
    with pytest.raises(OptionError) as caught:
        subject.ask_served(server, questions(5), 9, lambda _: None)
    assert expected in str(caught.value)
    assert KEY not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(Handler.seen) == 1


@pytest.mark.parametrize(
    ("step", "expected"), [(429, "asked too often (429)"), (500, "it fails (500)"), ("slow", "no answer within 0 s")]
)
def test_what_does_not_pass_is_told_after_some_tries(
    server: subject.Server, monkeypatch: pytest.MonkeyPatch, step: Any, expected: str
) -> None:
    monkeypatch.setattr(subject, "SECONDS", 0.2)
    Handler.plan = [step] * 9
    with pytest.raises(OptionError, match="tried 3 times") as caught:
        subject.ask_served(server, questions(2), 9, lambda _: None)
    assert expected in str(caught.value)
    assert len(Handler.seen) == 3


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "DELAYS", ())
    with pytest.raises(OptionError, match=r"127\.0\.0\.1 gave no answer.*no connection"):
        subject.ask_served(subject.server_of("http://127.0.0.1:9/v1", "m"), questions(1), 9, lambda _: None)


def test_a_cut_answer_and_an_empty_one(server: subject.Server) -> None:
    cut = {"choices": [{"message": {"content": "half of"}, "finish_reason": "length"}]}
    empty = {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}
    Handler.plan = [(200, {}, json.dumps(cut)), (200, {}, json.dumps(empty))]
    assert subject.ask_served(server, questions(2), 9, lambda _: None) == [
        subject.ServedAnswer("half of", False), subject.ServedAnswer("", True),
    ]  # fmt: skip


def test_openais_key_goes_to_openai_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRONK_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert subject.server_of("https://api.openai.com/v1", "m").key == KEY
    for other in ("https://api.openai.com.evil.example/v1", "http://localhost:8000/v1"):
        assert subject.server_of(other, "m").key == ""
    assert KEY not in repr(subject.server_of("https://api.openai.com/v1", "m"))


@pytest.mark.parametrize("url", ["http://[half", "http://localhost:port/v1", "localhost:8000/v1", "http://a:99999/v1"])
def test_what_is_no_address_is_told_before_anything_is_asked(url: str) -> None:
    with pytest.raises(OptionError, match="expected an address such as"):
        subject.server_of(url, "m")


def test_a_key_that_cannot_be_sent_is_told_and_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """http.client would raise for it, with the key in its message."""
    for key in (f"{KEY}\n{KEY}", f"{KEY}é"):
        monkeypatch.setenv("PRONK_API_KEY", key)
        with pytest.raises(OptionError, match="PRONK_API_KEY") as error:
            subject.server_of("http://localhost:8000/v1", "m")
        assert KEY not in str(error.value)


def test_a_slow_server_holds_nobody_up(server: subject.Server) -> None:
    """Ctrl-C in the middle: Python waits at its end for every thread that is no daemon."""
    Handler.plan, told = [200, 200, *["slow"] * 9], []

    def progress(count: int) -> None:
        told.append(count)
        if len(told) == 2:
            raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        subject.ask_served(server, questions(9), 9, progress)
    assert [thread.name for thread in set(threading.enumerate()) - before if not thread.daemon] == []
