"""A web page of this machine's own: served on 127.0.0.1, for the person who was told its address, and nobody else.

Who can reach a port of this machine is more than its user: every web site that they visit can make their browser ask
it, and so can everybody who is logged in here. So all of these must be right before anything is answered:

- the name that was asked for (`Host`) is this machine's: a foreign name that was pointed here is refused (DNS
  rebinding);
- the secret: first in the address that was printed, from then on in a cookie that no other site's request carries and
  no script can read;
- for what changes something (POST): its `Origin` is this page, and it is JSON of a bounded size.

The page may load its own style sheet and script, ask this server, and nothing else; text cannot become markup in it
(Trusted Types, where the browser has them). No path is ever looked up in the file system.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import webbrowser
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment, StrictUndefined

from pronk.errors import OptionError, PronkError

HERE = ("127.0.0.1", "localhost")
LARGEST = 2**20  # bytes of a request's body
PATIENCE = 30.0  # seconds that a browser may take to send or to read
ENDING = 5.0  # seconds that answers in progress get when the server ends
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Connection": "close",
}
# a browser that left, or never finished its sentence
_GONE = (ConnectionError, TimeoutError)


@dataclass(frozen=True)
class Page:
    """What is served. get, post, stream: plain functions by path, such as `/api/votes`; called in several threads.

    html, style, script: answered at `/`, `/page.css` and `/page.js`. A post or stream gets the request's JSON object.
    What a function returns goes out as JSON; what a stream's iterator yields, a line of JSON each, as it comes. The
    iterator is closed (GeneratorExit where it stands) when the browser has left or the server ends. A PronkError
    becomes `{"error": its message}` with status 400, in a stream its last line. ending: is set when the server ends,
    so that long work can end too; a function may set it to have `serve` return.
    """

    html: str
    style: str
    script: str
    get: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    post: Mapping[str, Callable[[dict[str, Any]], Any]] = field(default_factory=dict)
    stream: Mapping[str, Callable[[dict[str, Any]], Iterator[Any]]] = field(default_factory=dict)
    ending: threading.Event = field(default_factory=threading.Event)


def read_page(name: str, blanks: Mapping[str, Any] | None = None, **handlers: Any) -> Page:
    """The page NAME of this folder: its html, its style and script behind those that all pages share; see Page.

    blanks: what is filled into html that is a template, escaped where it is not marked as markup.
    """
    folder = files("pronk.ui")

    def text(file: str) -> str:
        return (folder / file).read_text(encoding="utf-8")

    style, script = (text(f"page.{kind}") + text(f"{name}.{kind}") for kind in ("css", "js"))
    html = text(f"{name}.html")
    if blanks is not None:
        html = Environment(autoescape=True, undefined=StrictUndefined).from_string(html).render(blanks)
    return Page(html, style, script, **handlers)


class LocalServer:
    """Serves a page while it is entered: `with LocalServer(page) as server: … server.address …`.

    Leaving sets the page's `ending`, waits ENDING seconds for the streams in progress, and closes the port.
    tell: for a line about a fault of our own. port: 0 takes a free one. Raises OptionError where it is taken.
    """

    def __init__(self, page: Page, tell: Callable[[str], None] = lambda _: None, port: int = 0) -> None:
        self.page, self.tell = page, tell
        self.token, self.cookie = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self.streams: set[threading.Thread] = set()
        try:
            self._http = _Server(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OptionError(f"port {port}: cannot be used ({reason}); choose another, or 0 for a free one") from None
        self._http.owner = self

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def address(self) -> str:
        """The address with the secret in it: for the terminal, never for a file."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def __enter__(self) -> LocalServer:
        threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True, name="local page").start()
        return self

    def __exit__(self, *_: object) -> None:
        self.page.ending.set()
        self._http.shutdown()
        for thread in list(self.streams):
            thread.join(ENDING)
        self._http.server_close()


def serve(page: Page, tell: Callable[[str], None], open_browser: bool = False, port: int = 0) -> bool:
    """Serve a page until Ctrl-C, or until one of its functions sets its `ending`: then True.

    Prints the address through `tell`; opens a browser only where that was asked for. Raises OptionError where the
    port is taken.
    """
    with LocalServer(page, tell, port) as server:
        tell(f"open {server.address}")
        tell(f"only this machine reaches it; from another: ssh -L {server.port}:127.0.0.1:{server.port} HOST. "
             "Ctrl-C ends.")  # fmt: skip
        if open_browser and not webbrowser.open(server.address):
            tell("no browser was found here; open the address yourself")
        try:
            while not page.ending.wait(0.2):  # a wait without an end cannot be interrupted everywhere
                pass
        except KeyboardInterrupt:
            return False
    return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a browser that does not read holds up nobody
    owner: LocalServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers that leave are no news; anything else has been told where it happened."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "pronk", ""
    timeout = PATIENCE

    def log_message(self, *_: object) -> None:
        """Addresses hold the secret: nothing is logged."""

    def parse_request(self) -> bool:
        return super().parse_request() and self._of_this_machine()

    def do_GET(self) -> None:
        path, token, page = *self._asked(), self.server.owner.page
        if path == "/" and self._same(token, self.server.owner.token):
            # no redirect: a browser that came from elsewhere would not bring the cookie along
            cookie = f"{self._cookie_name}={self.server.owner.cookie}; HttpOnly; SameSite=Strict; Path=/"
            return self._send(200, "text/html", page.html, {"Set-Cookie": cookie})
        if not self._known():
            return None
        own = {"/": ("text/html", page.html), "/page.css": ("text/css", page.style),
               "/page.js": ("text/javascript", page.script), "/favicon.ico": ("image/x-icon", "")}  # fmt: skip
        if path in own:
            return self._send(200, *own[path])
        if path in page.get:
            return self._answer(page.get[path])
        return self.send_error(404)

    def do_POST(self) -> None:
        path, page = self._asked()[0], self.server.owner.page
        if self.headers.get_all("Origin") != [f"http://{self.headers['Host']}"]:
            return self._drain(lambda: self.send_error(403, "this request came from another page"))
        if not self._known():
            return None
        if path not in page.post and path not in page.stream:
            return self._drain(lambda: self.send_error(404))
        body = self._body()
        if body is None:
            return None
        if path in page.stream:
            return self._stream(lambda: page.stream[path](body))
        return self._answer(lambda: page.post[path](body))

    def _asked(self) -> tuple[str, str]:
        """Path and token of the request; nothing where it names something else."""
        try:
            asked = urlsplit(self.path)
            tokens = parse_qs(asked.query).get("token", [])
        except ValueError:
            return "", ""
        return asked.path, tokens[0] if len(tokens) == 1 else ""

    # --- what must be right ---------------------------------------------------------------------

    @property
    def _cookie_name(self) -> str:
        return f"pronk-{self.server.owner.port}"  # cookies are shared by all ports of a machine

    def _of_this_machine(self) -> bool:
        """Whether one of our names was asked for. The port may be another: it may have been forwarded."""
        hosts = self.headers.get_all("Host") or []
        name, _, port = hosts[0].partition(":") if len(hosts) == 1 else ("", "", "")
        if name in HERE and (not port or (port.isascii() and port.isdigit())):
            return True
        self._drain(lambda: self.send_error(403, "this is not the address that pronk printed"))
        return False

    def _known(self) -> bool:
        """Whether the request carries the cookie; if not, it is answered with what to do."""
        pairs = (part.strip().partition("=") for part in (self.headers.get("Cookie") or "").split(";"))
        if any(name == self._cookie_name and self._same(value, self.server.owner.cookie) for name, _, value in pairs):
            return True
        self._drain(lambda: self.send_error(403, "open the whole address that pronk printed in the terminal"))
        return False

    @staticmethod
    def _same(given: str, secret: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())

    def _body(self) -> dict[str, Any] | None:
        """The JSON object that was sent; None where there is none, which is answered here."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 16) or "Transfer-Encoding" in self.headers:
            self.send_error(411)
            return None
        if int(length) > LARGEST:
            self._drain(lambda: self.send_error(413, f"more than {LARGEST:,} bytes"))
            return None
        content = self.rfile.read(int(length))
        if self.headers.get_content_type() != "application/json":
            self.send_error(415, "expected application/json")
            return None
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return found
        self.send_error(400, "expected a JSON object")
        return None

    def _drain(self, refuse: Callable[[], None]) -> None:
        """Refuse; then read a little of what is still coming, or the browser would see a reset and not the answer."""
        refuse()
        self.wfile.flush()
        length = self.headers.get("Content-Length", "")
        left = min(int(length), 4 * LARGEST) if length.isascii() and length.isdigit() and len(length) < 16 else 0
        self.connection.settimeout(1.0)
        while left > 0 and (read := self.rfile.read1(min(left, 2**16))):
            left -= len(read)

    # --- answers --------------------------------------------------------------------------------

    def _answer(self, handler: Callable[[], Any]) -> None:
        try:
            code, content = 200, json.dumps(handler())
        except PronkError as error:
            code, content = 400, json.dumps({"error": str(error)})
        except Exception as error:
            code, content = 500, json.dumps({"error": self._fault(error)})
        self._send(code, "application/json", content)

    def _stream(self, handler: Callable[[], Iterator[Any]]) -> None:
        thread, owner = threading.current_thread(), self.server.owner
        owner.streams.add(thread)
        try:
            self._head(200, "application/x-ndjson", {"Transfer-Encoding": "chunked"})
            with closing(self._lines(handler)) as lines:
                for line in lines:
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        finally:
            owner.streams.discard(thread)

    def _lines(self, handler: Callable[[], Iterator[Any]]) -> Generator[bytes, None, None]:
        """What a stream yields, as lines; its iterator is closed whatever becomes of its reader."""
        items: Iterator[Any] = iter(())
        try:
            items = handler()
            for item in items:
                yield json.dumps(item).encode() + b"\n"
                if self.server.owner.page.ending.is_set():
                    raise PronkError("pronk was ended in the terminal")
        except PronkError as error:
            yield json.dumps({"error": str(error)}).encode() + b"\n"
        except Exception as error:
            yield json.dumps({"error": self._fault(error)}).encode() + b"\n"
        finally:
            getattr(items, "close", lambda: None)()

    def _fault(self, error: Exception) -> str:
        line = f"pronk failed at this ({type(error).__name__}: {error}); this is a fault of pronk's own"
        self.server.owner.tell(line)
        return line

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """A refusal is a line of text."""
        self._send(code, "text/plain", f"{message or HTTPStatus(code).phrase}\n")

    def _send(self, code: int, kind: str, content: str, more: Mapping[str, str] | None = None) -> None:
        body = content.encode()
        self._head(code, kind, {"Content-Length": str(len(body)), **(more or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, code: int, kind: str, more: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": f"{kind}; charset=utf-8", **HEADERS, **more}.items():
            self.send_header(name, value)
        self.close_connection = True
        self.end_headers()

    def handle(self) -> None:
        with suppress(*_GONE):
            super().handle()

    def finish(self) -> None:
        with suppress(*_GONE):
            super().finish()
