"""One question to an OpenAI-compatible server: the request, what can go wrong, and trying again.

What the server says is hostile text. The key goes to the server that was named and nowhere else: redirects are not
followed, and no message quotes it.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pronk.data.conversation import Message
from pronk.errors import OptionError
from pronk.evaluate.spending import Tally, rough_tokens

KEY = "PRONK_API_KEY"
SECONDS = 60.0  # to wait for an answer, from the request to its last byte
DELAYS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try, unless the server names its own
LONGEST_DELAY = 60.0
LARGEST_ANSWER = 2**20  # bytes
LATER = (408, 409, 425, 429, 500, 502, 503, 504, 529)
STOPPED = "stopped"  # the reason of a question that nobody waits for any more
UNFIT = (400, 413, 422)  # a question that the server does not take: too long, filtered
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask, and which model. key: empty where there is none. option: what messages to people begin with."""

    url: str
    model: str
    key: str
    option: str = "--against"

    @property
    def host(self) -> str:
        """The server's name, without anything that the address may hide."""
        return urlsplit(self.url).hostname or ""

    def __repr__(self) -> str:
        return f"Server({self.host}, {self.model})"


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """ended: the model came to its end by itself, not to the limit of its length.

    tokens_in, tokens_out: as the server counts them, None where it does not. seconds: until it was there.
    """

    text: str
    ended: bool
    tokens_in: int | None = None
    tokens_out: int | None = None
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class ServedFailure:
    """A question without an answer. reason: a few words that many failures share, to count by."""

    reason: str
    message: str


class FailedError(Exception):
    """A question that this server does not answer, while others may be. later: waiting may help."""

    def __init__(self, reason: str, message: str, later: bool, delay: float | None = None, worked: bool = False):
        super().__init__(message)
        self.reason, self.later, self.delay, self.worked = reason, later, delay, worked


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key along."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Caller:
    """Questions to one server, from several threads; what it says of the parameters that it takes is remembered.

    settings: of the request, beside model and messages. seconds: to wait for an answer. stop: no further tries.
    """

    def __init__(
        self, server: Server, settings: Mapping[str, Any], seconds: float | None, tally: Tally, stop: threading.Event
    ) -> None:
        self.server, self.tally, self.stop = server, tally, stop
        self.seconds = SECONDS if seconds is None else seconds
        self._open = urllib.request.build_opener(_NoRedirect).open
        self._settings: dict[str, Any] = dict(settings)
        self._resume = 0.0  # nobody asks before: the server has said so to one of us
        self._proved = False  # it has answered once, as a server of this kind does

    def ask(self, question: Sequence[Message]) -> ServedAnswer | ServedFailure:
        """One answer; several tries where the server is busy or slow. Raises OptionError for what no question mends."""
        failure: FailedError | None = None
        for usual in (*DELAYS, None):
            if self.stop.wait(max(0.0, self._resume - time.monotonic())):
                break
            try:
                return self._counted(question)
            except FailedError as error:
                failure = error
            if usual is None or not failure.later:
                break
            self.tally.count_retry(failure.reason, rough_tokens([*map(text_of, question)]) if failure.worked else 0)
            if failure.delay is not None:
                self._resume = max(self._resume, time.monotonic() + failure.delay)
            if self.stop.wait(usual if failure.delay is None else 0):
                return ServedFailure(STOPPED, "stopped")
        if failure is None:
            return ServedFailure(STOPPED, "stopped")
        self.tally.count_failure(failure.reason)
        tried = f", tried {len(DELAYS) + 1} times" if failure.later else ""
        return ServedFailure(
            failure.reason, f"{self.server.option}: {self.server.host} gave no answer{tried}: {failure}"
        )

    def longest(self) -> int:
        """Tokens that an answer may take."""
        return int(self._settings.get("max_tokens") or self._settings.get("max_completion_tokens") or 0)

    def _counted(self, question: Sequence[Message]) -> ServedAnswer:
        started = time.monotonic()
        found = self._once([{"role": one.role, "content": text_of(one)} for one in question])
        seconds = time.monotonic() - started
        rough = rough_tokens([*map(text_of, question)])
        read, written, estimated = found.tokens_in, found.tokens_out, False
        if read is None or written is None:
            read, written, estimated = rough, rough_tokens([found.text]), True
        self.tally.count_answer(rough, read, written, estimated, seconds)
        return ServedAnswer(found.text, found.ended, found.tokens_in, found.tokens_out, seconds)

    def _once(self, messages: list[dict[str, str]]) -> ServedAnswer:
        settings = self._settings
        try:
            answer = read_answer(self._posted(messages, settings))
            self._proved = True
            return answer
        except urllib.error.HTTPError as error:
            said = _body(error)
            if error.code == 400 and (self._settings is not settings or self._adapts(said)):
                return self._once(messages)
            raise self._explained(error, said) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, TimeoutError):
                slow = f"no answer within {self.seconds:.0f} s"
                raise FailedError("too slow", slow, later=True, worked=True) from None
            raise FailedError("no connection", f"no connection ({clean(str(reason))})", later=True) from None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise self._unreadable() from None

    def _posted(self, messages: list[dict[str, str]], settings: Mapping[str, Any]) -> bytes:
        body = json.dumps({"model": self.server.model, "messages": messages, **settings}).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "pronk"}
        if self.server.key:
            headers["Authorization"] = f"Bearer {self.server.key}"
        request = urllib.request.Request(self.server.url, body, headers)
        latest = time.monotonic() + self.seconds
        with self._open(request, timeout=self.seconds) as response:
            return _whole(response, latest)

    def _adapts(self, said: str) -> bool:
        """Whether the server wants its parameters otherwise: newer models of OpenAI do, small servers know few."""
        settings = dict(self._settings)
        extra = [name for name in settings if name not in ("max_tokens", "max_completion_tokens") and name in said]
        if "max_completion_tokens" in said and "max_tokens" in settings:
            settings["max_completion_tokens"] = settings.pop("max_tokens")
        elif extra:
            del settings[extra[0]]
        else:
            return False
        self._settings = settings
        return True

    def _unreadable(self) -> Exception:
        """An answer that is none: for a while, of a server that has answered before."""
        if self._proved:
            return FailedError("unreadable", "what it sends is no answer", later=True, worked=True)
        return OptionError(
            f"{self.server.option}: {self.server.host} does not answer as OpenAI's interface does; is the address that "
            "of an OpenAI-compatible server, such as http://localhost:8000/v1?"
        )

    def _explained(self, error: urllib.error.HTTPError, said: str) -> Exception:
        """What an error code means: FailedError where it is about one question, OptionError where about all."""
        host, model, option, code = self.server.host, self.server.model, self.server.option, error.code
        if code in LATER:
            failure = "it is asked too often (429)" if code == 429 else f"it fails ({code})"
            return FailedError(
                "rate limit" if code == 429 else "server error", failure, later=True, delay=_delay(error)
            )
        if code in (401, 403):
            what = "refuses the key" if self.server.key else "wants a key"
            return OptionError(f"{option}: {host} {what} ({code}); set {KEY} (it is read from the environment alone)")
        if code == 404:
            return OptionError(
                f"{option}: {host} knows no model {model!r}, or not this address (404); see its list of models, and "
                "end the address with /v1"
            )
        if 300 <= code < 400:
            return OptionError(
                f"{option}: {host} sends elsewhere ({code}), which is not followed; name that address itself"
            )
        said = said.replace(self.server.key, "(hidden)") if self.server.key else said
        refused = f"{option}: {host} refuses the question ({code}): {said or 'no reason is given'}"
        return FailedError("refused", refused, later=False) if code in UNFIT else OptionError(refused)


def text_of(message: Message) -> str:
    """A turn as a server gets it."""
    return "\n\n".join(filter(None, (message.content, message.context)))


def read_answer(content: bytes) -> ServedAnswer:
    """An answer in OpenAI's form. Raises ValueError, KeyError, IndexError, TypeError or AttributeError for another."""
    found = json.loads(content)
    choice = found["choices"][0]
    text = choice["message"].get("content") or ""
    if not isinstance(text, str):
        raise TypeError
    usage = found.get("usage")
    counts = [usage.get(key) if isinstance(usage, dict) else None for key in ("prompt_tokens", "completion_tokens")]
    # a count that is none, or that nobody could have: as if there were none
    tokens_in, tokens_out = (one if type(one) is int and 0 <= one < 2**31 else None for one in counts)
    return ServedAnswer(text, choice.get("finish_reason") != "length", tokens_in, tokens_out)


def clean(text: str) -> str:
    """A server's words as one short line."""
    return _CONTROL.sub(" ", text).strip()[:300]


def _whole(response: Any, latest: float) -> bytes:
    """All of a response; a server that sends a byte now and then holds nobody up for ever."""
    found = bytearray()
    while piece := response.read1(2**16):
        found += piece
        if len(found) > LARGEST_ANSWER:
            raise ValueError("an answer that large is none")
        if time.monotonic() > latest:
            raise TimeoutError
    return bytes(found)


def _body(error: urllib.error.HTTPError) -> str:
    """What the server says, as one short line."""
    try:
        return clean(error.read(LARGEST_ANSWER).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException):
        return ""


def _delay(error: urllib.error.HTTPError) -> float | None:
    """Seconds that the server asks for, as a number or a date, within reason; None where it does not."""
    said = error.headers.get("Retry-After", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), LONGEST_DELAY) if seconds == seconds else None
