"""A model behind an OpenAI-compatible interface (POST …/chat/completions), asked the same questions.

It only answers, so nothing of it is scored by likelihood. What it says is hostile text like any model's. The key
comes from the environment, goes to the server that was named and nowhere else: redirects are not followed.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pronk.data.conversation import Message
from pronk.errors import OptionError

KEY, OPENAI_KEY = "PRONK_API_KEY", "OPENAI_API_KEY"
WORKERS, SECONDS = 4, 60.0  # questions under way at once; to wait for an answer
DELAYS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try, unless the server names its own
LONGEST_DELAY = 30.0
LARGEST_ANSWER = 2**20  # bytes
LATER = (408, 409, 425, 429, 500, 502, 503, 504)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask, and which model. key: empty where there is none."""

    url: str
    model: str
    key: str

    @property
    def host(self) -> str:
        """The server's name, without anything that the address may hide."""
        return urlsplit(self.url).hostname or ""

    def __repr__(self) -> str:
        return f"Server({self.host}, {self.model})"


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """ended: the model came to its end by itself, not to the limit of its length."""

    text: str
    ended: bool


def server_of(url: str, model: str) -> Server:
    """A server as --against and --against-model name it, with the key of the environment.

    OpenAI's own key goes to OpenAI alone; PRONK_API_KEY to whatever is named. Raises OptionError for what is no
    address.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # half an IPv6 address, or a port that is no number
        is_address = False
    if not is_address:
        raise OptionError(f"--against: found {url!r}, expected an address such as http://localhost:8000/v1")
    if parts.username or parts.password:
        raise OptionError(f"--against: leave name and password out of the address; a key goes into {KEY}")
    own = parts.hostname == "api.openai.com"
    key = (os.environ.get(KEY) or (os.environ.get(OPENAI_KEY, "") if own else "")).strip()
    if not (key.isascii() and key.isprintable()):  # http.client would refuse it, and quote it
        raise OptionError(
            f"--against: the key in {KEY} holds a line break or a letter that keys do not have; copy it again"
        )
    path = parts.path.rstrip("/")
    path += "" if path.endswith("/chat/completions") else "/chat/completions"
    return Server(parts._replace(path=path, fragment="").geturl(), model, key)


def ask_served(
    server: Server, questions: Sequence[Sequence[Message]], longest: int, progress: Callable[[int], None]
) -> list[ServedAnswer]:
    """The answers to all questions, in their order, at temperature 0. longest: tokens of an answer at most.

    A few questions are under way at once; what fails for a while is tried again. Raises OptionError with what to do.
    """
    stop = threading.Event()
    asking = _Asking(server, longest, stop)
    if not questions:
        return []
    answers: dict[int, ServedAnswer] = {0: asking.ask(questions[0])}  # a wrong key or name shows with one question
    progress(1)
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, ServedAnswer | Exception]] = queue.SimpleQueue()
    for place in range(1, len(questions)):
        waiting.put(place)

    def work() -> None:
        while not stop.is_set():
            try:
                place = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((place, asking.ask(questions[place])))
            except Exception as error:  # raised again where it is waited for
                done.put((place, error))

    for _ in range(WORKERS):  # no pool: Python waits for its threads, so Ctrl-C would wait for a slow server
        threading.Thread(target=work, daemon=True).start()
    try:
        while len(answers) < len(questions):
            place, found = done.get()
            if isinstance(found, Exception):
                raise found
            answers[place] = found
            progress(1)
    finally:
        stop.set()
    return [answers[place] for place in range(len(questions))]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key along."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class _LaterError(Exception):
    """It may work after a while. delay: seconds, where the server says how long."""

    def __init__(self, failure: str, delay: float | None = None) -> None:
        super().__init__(failure)
        self.delay = delay


class _Asking:
    """Questions to one server; what it says of the parameters that it takes is remembered."""

    def __init__(self, server: Server, longest: int, stop: threading.Event) -> None:
        self.server, self.stop = server, stop
        self._open = urllib.request.build_opener(_NoRedirect).open
        self._settings: dict[str, Any] = {"temperature": 0, "max_tokens": longest}

    def ask(self, question: Sequence[Message]) -> ServedAnswer:
        """One answer; several tries where the server is busy or slow."""
        messages = [
            {"role": one.role, "content": "\n\n".join(filter(None, (one.content, one.context)))} for one in question
        ]
        failure = ""
        for usual in (*DELAYS, None):
            try:
                return self._once(messages)
            except _LaterError as later:
                failure = str(later)
                if usual is None or self.stop.wait(usual if later.delay is None else later.delay):
                    break
        raise OptionError(f"--against: {self.server.host} gave no answer, tried {len(DELAYS) + 1} times: {failure}")

    def _once(self, messages: list[dict[str, str]]) -> ServedAnswer:
        try:
            return _read(self._posted(messages))
        except urllib.error.HTTPError as error:
            said = _body(error)
            if error.code == 400 and self._adapts(said):
                return self._once(messages)
            if error.code not in LATER:
                raise OptionError(self._refused(error.code, said)) from None
            failure = "it is asked too often (429)" if error.code == 429 else f"it fails ({error.code})"
            raise _LaterError(failure, _delay(error)) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            slow = isinstance(reason, TimeoutError)
            raise _LaterError(
                f"no answer within {SECONDS:.0f} s" if slow else f"no connection ({_clean(str(reason))})"
            ) from None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise OptionError(
                f"--against: {self.server.host} does not answer as OpenAI's interface does; is the address that of an "
                "OpenAI-compatible server, such as http://localhost:8000/v1?"
            ) from None

    def _posted(self, messages: list[dict[str, str]]) -> bytes:
        body = json.dumps({"model": self.server.model, "messages": messages, **self._settings}).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "pronk"}
        if self.server.key:
            headers["Authorization"] = f"Bearer {self.server.key}"
        request = urllib.request.Request(self.server.url, body, headers)
        with self._open(request, timeout=SECONDS) as response:
            return bytes(response.read(LARGEST_ANSWER))

    def _adapts(self, said: str) -> bool:
        """Whether the server wants its parameters otherwise: newer models of OpenAI do."""
        settings = dict(self._settings)
        if "max_completion_tokens" in said and "max_tokens" in settings:
            settings["max_completion_tokens"] = settings.pop("max_tokens")
        elif "temperature" not in said or settings.pop("temperature", None) is None:
            return False
        self._settings = settings
        return True

    def _refused(self, code: int, said: str) -> str:
        host, model = self.server.host, self.server.model
        if code in (401, 403):
            what = "refuses the key" if self.server.key else "wants a key"
            return f"--against: {host} {what} ({code}); set {KEY} (it is read from the environment alone)"
        if code == 404:
            return (
                f"--against: {host} knows no model {model!r}, or not this address (404); see its list of models, and "
                "end the address with /v1"
            )
        if 300 <= code < 400:
            return f"--against: {host} sends elsewhere ({code}), which is not followed; name that address itself"
        said = said.replace(self.server.key, "(hidden)") if self.server.key else said
        return f"--against: {host} refuses the question ({code}): {said or 'no reason is given'}"


def _read(content: bytes) -> ServedAnswer:
    choice = json.loads(content)["choices"][0]
    text = choice["message"].get("content") or ""
    if not isinstance(text, str):
        raise TypeError
    return ServedAnswer(text, choice.get("finish_reason") != "length")


def _body(error: urllib.error.HTTPError) -> str:
    """What the server says, as one short line."""
    try:
        return _clean(error.read(LARGEST_ANSWER).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException):
        return ""


def _clean(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()[:300]


def _delay(error: urllib.error.HTTPError) -> float | None:
    """Seconds that the server asks for, within reason; None where it does not."""
    try:
        return min(max(float(error.headers.get("Retry-After", "")), 0.0), LONGEST_DELAY)
    except ValueError:
        return None
