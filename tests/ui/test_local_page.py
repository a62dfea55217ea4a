"""The server of a local page answers its own page, in the browser of the person who was told its address."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest

import pronk.ui.local_page as subject
from pronk.errors import OptionError
from pronk.ui.local_page import LocalServer, Page

SECONDS = 10.0


class Served:
    """A page with one function of each kind, and what became of them."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.posted: list[Any] = []
        self.closed = threading.Event()
        self.page = Page(
            "<!DOCTYPE html><title>t</title>", "body {}", "// script",
            get={"/api/state": lambda: {"text": "</script>\ud800"}, "/api/broken": lambda: 1 / 0},
            post={"/api/votes": self.vote, "/api/refused": self.refuse},
            stream={"/api/words": self.words, "/api/endless": self.endless},
        )  # fmt: skip
        self.server = LocalServer(self.page, self.told.append)

    def vote(self, body: dict[str, Any]) -> Any:
        self.posted.append(body)
        return {"votes": len(self.posted)}

    def refuse(self, _: dict[str, Any]) -> Any:
        raise OptionError("there is no such pair")

    def words(self, body: dict[str, Any]) -> Iterator[Any]:
        for word in body["words"]:
            if word == "stop":
                raise OptionError("enough")
            yield {"word": word}

    def endless(self, _: dict[str, Any]) -> Iterator[Any]:
        try:
            while True:
                yield {"still": "here"}
                time.sleep(0.01)
        finally:
            self.closed.set()

    # --- a browser --------------------------------------------------------------------------

    def open(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> HTTPResponse:
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=SECONDS)
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None and "Content-Length" not in headers and "Transfer-Encoding" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return connection.getresponse()

    @property
    def cookie(self) -> str:
        with self.open("GET", f"/?token={self.server.token}", {}) as answer:
            return (answer.getheader("Set-Cookie") or "").partition(";")[0]

    def own(self, **more: str) -> dict[str, str]:
        """The headers of a request from the page itself."""
        origin = f"http://127.0.0.1:{self.server.port}"
        return {"Cookie": self.cookie, "Origin": origin, "Content-Type": "application/json", **more}

    def post(self, path: str, body: Any, **more: str) -> HTTPResponse:
        return self.open("POST", path, self.own(**more), json.dumps(body).encode())


@pytest.fixture
def served() -> Iterator[Served]:
    one = Served()
    with one.server:
        yield one


def test_the_address_opens_the_page_and_a_cookie_goes_on(served: Served) -> None:
    with served.open("GET", served.server.address.partition(str(served.server.port))[2], {}) as answer:
        assert (answer.status, answer.read().decode()) == (200, served.page.html)
        cookie = answer.getheader("Set-Cookie") or ""
        assert cookie.endswith("; HttpOnly; SameSite=Strict; Path=/")
        assert served.server.token not in cookie
        policy = answer.getheader("Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
    assert "unsafe" not in policy
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        with served.open("GET", path, {"Cookie": f"other=1; {cookie.partition(';')[0]}"}) as answer:
            assert answer.status == 200
            assert answer.getheader("Content-Type") == f"{kind}; charset=utf-8"
            assert answer.getheader("X-Content-Type-Options") == "nosniff"


def test_functions_answer_in_json(served: Served) -> None:
    with served.open("GET", "/api/state", served.own()) as answer:
        assert json.load(answer) == {"text": "</script>\ud800"}
    with served.post("/api/votes", {"vote": "한국어"}) as answer:
        assert json.load(answer) == {"votes": 1}
    assert served.posted == [{"vote": "한국어"}]
    with served.post("/api/refused", {}) as answer:
        assert (answer.status, json.load(answer)) == (400, {"error": "there is no such pair"})
    with served.open("GET", "/api/broken", served.own()) as answer:
        assert answer.status == 500
        assert "ZeroDivisionError" in json.load(answer)["error"]
    assert len(served.told) == 1


def test_forwarded_ports_and_localhost_are_this_machine_too(served: Served) -> None:
    for host in (f"localhost:{served.server.port}", "127.0.0.1:8000"):
        with served.post("/api/votes", {}, Host=host, Origin=f"http://{host}") as answer:
            assert answer.status == 200


Change = Callable[[Served], tuple[str, str, dict[str, str], bytes | None]]


def posting(path: str = "/api/votes", body: bytes = b"{}", **more: str) -> Change:
    return lambda served: ("POST", path, {**served.own(), **more}, body)


def getting(path: str = "/api/state", **more: str) -> Change:
    return lambda served: ("GET", path, {**served.own(), **more}, None)


REFUSED: dict[str, tuple[int, Change]] = {
    "a foreign name": (403, getting(Host="evil.example")),
    "a foreign name that begins like ours": (403, getting(Host="127.0.0.1.evil.example")),
    "a foreign name and our port": (403, lambda s: getting(Host=f"evil.example:{s.server.port}")(s)),
    "a foreign name, with the token": (
        403, lambda s: ("GET", f"/?token={s.server.token}", {"Host": "evil.example"}, None),
    ),
    "a name with a user": (403, getting(Host="127.0.0.1:80@evil.example")),
    "no cookie": (403, getting(Cookie="")),
    "no cookie for the page": (403, getting("/", Cookie="")),
    "no cookie for its script": (403, getting("/page.js", Cookie="")),
    "a wrong token": (403, getting("/?token=wrong", Cookie="")),
    "a token that is no ASCII": (403, getting("/?token=%C3%A9", Cookie="")),
    "two tokens": (403, lambda s: ("GET", f"/?token={s.server.token}&token=x", {}, None)),
    "the token elsewhere": (403, lambda s: ("GET", f"/api/state?token={s.server.token}", {}, None)),
    "the token as a cookie": (403, lambda s: getting(Cookie=f"pronk-{s.server.port}={s.server.token}")(s)),
    "the cookie under another name": (403, lambda s: getting(Cookie=s.cookie.replace("pronk", "x"))(s)),
    "another page's post": (403, posting(Origin="https://evil.example")),
    "another port's post": (403, posting(Origin="http://127.0.0.1:1")),
    "a post from nowhere": (403, posting(Origin="null")),
    "a post without origin": (403, lambda s: ("POST", "/api/votes", {"Cookie": s.cookie}, b"{}")),
    "a post without cookie": (403, posting(Cookie="")),
    "a form": (415, posting(body=b"vote=a", **{"Content-Type": "application/x-www-form-urlencoded"})),
    "a form in disguise": (415, posting(**{"Content-Type": "text/plain"})),
    "no JSON": (400, posting(body=b"{")),
    "no object": (400, posting(body=b"[1]")),
    "half a character": (400, posting(body=b'{"a": "\xff"}')),
    "deep JSON": (400, posting(body=b"[" * 100_000)),
    "too large": (413, posting(body=b" " * (subject.LARGEST + 1))),
    "far too large": (413, posting(body=b"", **{"Content-Length": "9" * 15})),
    "no length that is one": (411, posting(body=b"", **{"Content-Length": "-1"})),
    "chunks": (411, posting(body=b"", **{"Transfer-Encoding": "chunked", "Content-Length": "0"})),
    "no such function": (404, posting("/api/nothing")),
    "a function by the wrong method": (404, getting("/api/votes")),
    "a stream by the wrong method": (404, getting("/api/words")),
    "a file": (404, getting("/local_page.py")),
    "a file above": (404, getting("/../local_page.py")),
    "a file above, encoded": (404, getting("/%2e%2e/%2e%2e/etc/passwd")),
    "a file by its whole path": (404, getting("//etc/passwd")),
    "a broken address": (404, getting("//[")),
    "another method": (501, lambda s: ("PUT", "/api/votes", s.own(), b"{}")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(served: Served, name: str) -> None:
    status, change = REFUSED[name]
    with served.open(*change(served)) as answer:
        text = answer.read().decode()
        assert answer.status == status
        assert answer.getheader("Content-Type") == "text/plain; charset=utf-8"
        assert "Content-Security-Policy" in answer.headers
        assert "Set-Cookie" not in answer.headers
    assert text.count("\n") == 1
    assert served.posted == []
    assert served.told == []


def test_two_names_at_once_are_none(served: Served) -> None:
    """Proxies and servers disagree on which of two Host lines counts."""
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=SECONDS) as line:
        line.sendall(b"GET /?token=x HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n")
        assert b" 403 " in line.recv(100)


FAULTS: dict[str, Callable[[Any], bool]] = {
    "_of_this_machine": lambda _: True,
    "_known": lambda _: True,
}


@pytest.mark.parametrize(("check", "seen"), [("_of_this_machine", "a foreign name"), ("_known", "no cookie")])
def test_a_check_that_is_left_out_is_seen(
    served: Served, monkeypatch: pytest.MonkeyPatch, check: str, seen: str
) -> None:
    monkeypatch.setattr(subject._Handler, check, FAULTS[check])
    with served.open(*REFUSED[seen][1](served)) as answer:
        assert answer.status == 200


def test_a_stream_comes_line_by_line_and_ends_with_what_went_wrong(served: Served) -> None:
    with served.post("/api/words", {"words": ["a", "\n", "</b>"]}) as answer:
        assert [json.loads(line) for line in answer] == [{"word": "a"}, {"word": "\n"}, {"word": "</b>"}]
    with served.post("/api/words", {"words": ["a", "stop", "b"]}) as answer:
        assert [json.loads(line) for line in answer] == [{"word": "a"}, {"error": "enough"}]
    with served.post("/api/words", {}) as answer:
        assert "KeyError" in json.loads(answer.readline())["error"]


def test_a_stream_ends_when_its_reader_leaves(served: Served) -> None:
    answer = served.post("/api/endless", {})
    assert json.loads(answer.readline()) == {"still": "here"}
    answer.close()
    assert served.closed.wait(SECONDS)


def test_ending_in_the_middle_of_a_stream() -> None:
    one = Served()
    with one.server:
        answer = one.post("/api/endless", {})
        answer.readline()
        began = time.monotonic()
    assert time.monotonic() - began < subject.ENDING
    assert one.closed.is_set()
    with answer:
        assert [json.loads(line) for line in answer][-1] == {"error": "pronk was ended in the terminal"}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", one.server.port), timeout=SECONDS)


def test_only_this_machine_is_listened_to(served: Served) -> None:
    assert served.server._http.socket.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_said(served: Served) -> None:
    for port in (served.server.port, 70_000):
        with pytest.raises(OptionError, match=f"port {port}: cannot be used"):
            LocalServer(served.page, port=port)


def test_the_browser_opens_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(subject.webbrowser, "open", lambda address: bool(opened.append(address)))
    for asked in (False, True):
        told: list[str] = []
        page = Page("", "", "")
        page.ending.set()
        assert subject.serve(page, told.append, asked)
        assert told[0].startswith("open http://127.0.0.1:")
    assert len(opened) == 1
    assert "no browser was found" in told[-1]


def test_ctrl_c_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page("", "", "")

    def interrupted(_: float) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(page.ending, "wait", interrupted)
    assert not subject.serve(page, lambda _: None)
    assert page.ending.is_set()
