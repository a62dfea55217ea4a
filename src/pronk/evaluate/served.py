"""A model behind an OpenAI-compatible interface (POST …/chat/completions), asked the same questions.

It only answers, so nothing of it is scored by likelihood. What it says is hostile text like any model's. The key
comes from the environment, goes to the server that was named and nowhere else (served_call.py).
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from pronk.data.conversation import Message
from pronk.errors import OptionError
from pronk.evaluate.served_call import KEY, STOPPED, Caller, ServedAnswer, ServedFailure, Server, text_of
from pronk.evaluate.spending import Tally, rough_tokens

__all__ = ["ServedAnswer", "ServedFailure", "Server", "ask_each", "ask_served", "server_of"]

OPENAI_KEY = "OPENAI_API_KEY"
WORKERS = 4  # questions under way at once
FIRST = 3  # so many are asked one by one, until one is answered: a wrong key or name shows with one question
GIVE_UP = 8  # questions in a row without an answer: the server is gone

Outcome = tuple[int, ServedAnswer | ServedFailure]
Done = queue.SimpleQueue[Outcome | Exception | None]  # None: a thread has come to its end


def server_of(url: str, model: str, option: str = "--against") -> Server:
    """A server as the options of a verb name it, with the key of the environment. option: that of the address.

    OpenAI's own key goes to OpenAI alone; PRONK_API_KEY to whatever is named. Raises OptionError for what is no
    address.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # half an IPv6 address, or a port that is no number
        is_address = False
    if not is_address:
        raise OptionError(f"{option}: found {url!r}, expected an address such as http://localhost:8000/v1")
    if parts.username or parts.password:
        raise OptionError(f"{option}: leave name and password out of the address; a key goes into {KEY}")
    own = parts.hostname == "api.openai.com"
    key = (os.environ.get(KEY) or (os.environ.get(OPENAI_KEY, "") if own else "")).strip()
    if not (key.isascii() and key.isprintable()):  # http.client would refuse it, and quote it
        raise OptionError(
            f"{option}: the key in {KEY} holds a line break or a letter that keys do not have; copy it again"
        )
    path = parts.path.rstrip("/")
    path += "" if path.endswith("/chat/completions") else "/chat/completions"
    return Server(parts._replace(path=path, fragment="").geturl(), model, key, option)


def ask_served(
    server: Server, questions: Sequence[Sequence[Message]], longest: int, progress: Callable[[int], None]
) -> list[ServedAnswer]:
    """The answers to all questions, in their order, at temperature 0. longest: tokens of an answer at most.

    A few questions are under way at once; what fails for a while is tried again. Raises OptionError with what to do.
    """
    answers: dict[int, ServedAnswer] = {}
    with closing(ask_each(server, questions, longest)) as found:
        for place, answer in found:
            if isinstance(answer, ServedFailure):
                raise OptionError(answer.message)
            answers[place] = answer
            progress(1)
    return [answers[place] for place in range(len(questions))]


def ask_each(
    server: Server, questions: Sequence[Sequence[Message]], longest: int, settings: Mapping[str, Any] | None = None,
    tally: Tally | None = None, seconds: float | None = None, stop: Callable[[], bool] = lambda: False,
) -> Generator[Outcome, None, None]:  # fmt: skip
    """Each question's place and its answer, or why there is none, as they come; a few are under way at once.

    longest: tokens of an answer at most. settings: of the request; temperature 0 where they do not name one.
    tally: counts tokens and retries; what its limits do not allow is not asked, and its place does not come.
    seconds: to wait for an answer. stop: asked now and then; once it is true nothing new is asked or tried again, and
    what is under way still comes. Raises OptionError where the key, the model or the address is wrong, where none of
    the first questions is answered, and where the server has gone.
    """
    tally, halted = tally or Tally(), threading.Event()
    caller = Caller(server, {"temperature": 0, "max_tokens": longest, **(settings or {})}, seconds, tally, halted)
    asking = _Asking(caller, questions, halted)
    try:
        yield from asking.first(stop)
        yield from asking.rest(stop)
    finally:
        halted.set()


class _Asking:
    """Questions that are asked by several threads. halted: nobody waits for answers any more."""

    def __init__(self, caller: Caller, questions: Sequence[Sequence[Message]], halted: threading.Event) -> None:
        self.caller, self.questions, self.halted = caller, questions, halted
        self.waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for place in range(len(questions)):
            self.waiting.put(place)

    def first(self, stop: Callable[[], bool]) -> Iterator[Outcome]:
        """One question after another until one is answered. Raises OptionError where none is."""
        for count in range(1, FIRST + 1):
            for place, answer in self._found(1, 1, stop):
                if isinstance(answer, ServedFailure) and _serious(answer, count):
                    raise OptionError(answer.message)
                yield place, answer
                if isinstance(answer, ServedAnswer):
                    return

    def rest(self, stop: Callable[[], bool]) -> Iterator[Outcome]:
        """The other questions, by several threads. Raises OptionError where the server answers no more."""
        lost = 0
        for place, answer in self._found(min(WORKERS, self.waiting.qsize()), None, stop):
            away = isinstance(answer, ServedFailure) and answer.reason not in ("refused", STOPPED)
            lost = lost + 1 if away else 0
            yield place, answer
            if isinstance(answer, ServedFailure) and lost == GIVE_UP:
                raise OptionError(f"{answer.message}; so did {GIVE_UP} questions in a row")

    def _found(self, workers: int, most: int | None, stop: Callable[[], bool]) -> Iterator[Outcome]:
        """Answers as they come, from so many threads; most: of each thread. Once `stop`, what is under way is the
        last, and nothing is tried again."""
        done: Done = queue.SimpleQueue()
        for _ in range(workers):  # no pool: Python waits for its threads, so Ctrl-C would wait for a slow server
            threading.Thread(target=self._work, args=(most, done), daemon=True).start()
        while workers:
            if stop():
                self._withdraw()
                self.halted.set()
            try:
                found = done.get(timeout=0.2)
            except queue.Empty:
                continue
            if found is None:
                workers -= 1
            elif isinstance(found, Exception):
                raise found
            else:
                yield found

    def _work(self, most: int | None, done: Done) -> None:
        try:
            for _ in itertools.count() if most is None else range(most):
                found = None if self.halted.is_set() else self._next()
                if found is None:
                    break
                done.put(found)
        except Exception as error:  # raised again where it is waited for
            done.put(error)
        done.put(None)

    def _next(self) -> Outcome | None:
        """Ask the next question; None where there is none, or none that the limits allow."""
        try:
            place = self.waiting.get_nowait()
        except queue.Empty:
            return None
        question = self.questions[place]
        held = self.caller.tally.hold(rough_tokens([*map(text_of, question)]), self.caller.longest())
        if held is None:
            self._withdraw()
            return None
        try:
            return place, self.caller.ask(question)
        finally:
            self.caller.tally.release(held)

    def _withdraw(self) -> None:
        """Nothing new is asked."""
        while True:
            try:
                self.waiting.get_nowait()
            except queue.Empty:
                return


def _serious(failure: ServedFailure, count: int) -> bool:
    """Whether one of the first questions (the count-th) failed in a way that all others would too."""
    return failure.reason != STOPPED and (count == FIRST or failure.reason != "refused")
