"""The model that writes: a local one, loaded once and asked many questions at a time, or one behind an interface.

Both count what they read and write in one tally, and ask nothing that its limits do not allow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from pronk.ask.asking import Stop
from pronk.ask.models import Form, Model
from pronk.data.conversation import Message
from pronk.data.questions import Question
from pronk.errors import DataError
from pronk.evaluate.served_call import ServedFailure, Server
from pronk.evaluate.spending import Tally, rough_tokens
from pronk.recipe import RequestForm, generation_settings
from pronk.synthesize.requests import Request
from pronk.synthesize.samples import Sample

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.ask.kept import Kept

SERVED_AT_ONCE = 24  # requests of a round; served.py keeps four of them under way
GPU_AT_ONCE, CPU_AT_ONCE = 64, 16  # a round of a small model on a CPU takes a minute or so


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote. ended: by itself, not at the most tokens allowed."""

    text: str
    ended: bool


Tell = Callable[[str], None]
Outcome = tuple[Request, Written | None]  # None: no answer came, and the tally says why


class Writer(Protocol):
    """name: of the model. host: of its server, empty for a local model. form: in which it is asked.
    special: what spells its special tokens, where that is known."""

    name: str
    host: str
    form: RequestForm
    special: re.Pattern[str] | None

    @property
    def at_once(self) -> int:
        """Requests of a round."""

    def ready(self) -> None:
        """Load what there is to load; called before a bar is shown."""

    def tokens(self, request: Request) -> int:
        """Tokens of a request."""

    def has_room(self, request: Request, longest: int) -> bool:
        """Whether the model can read a request and answer it in so many tokens."""

    def write(
        self, requests: Sequence[Request], longest: int, temperature: float, tally: Tally, stop: Stop, tell: Tell,
    ) -> Iterator[Outcome]:  # fmt: skip
        """Requests and answers as they come; those that a limit or `stop` does not allow do not come. tell: how far
        the answers that are being written have come."""


class ServedWriter:
    """A model behind an OpenAI-compatible interface."""

    form: RequestForm = "json"
    special: re.Pattern[str] | None = None
    at_once: int = SERVED_AT_ONCE

    def __init__(self, server: Server) -> None:
        self.server, self.name, self.host = server, server.model, server.host

    def ready(self) -> None:
        """See Writer; there is nothing to load."""

    def tokens(self, request: Request) -> int:
        """See Writer; by the request's bytes."""
        return rough_tokens([request.text])

    def has_room(self, request: Request, longest: int) -> bool:  # noqa: ARG002
        """See Writer; the server says so itself."""
        return True

    def write(
        self, requests: Sequence[Request], longest: int, temperature: float, tally: Tally, stop: Stop, tell: Tell,
    ) -> Iterator[Outcome]:  # fmt: skip
        """See Writer. Raises OptionError where the server, the model or the key is wrong, or the server has gone."""
        from pronk.evaluate.served import ask_each

        asked = [(Message("user", request.text),) for request in requests]
        found = ask_each(
            self.server, asked, longest, {"temperature": temperature}, tally, stop=lambda: bool(stop.asked)
        )
        with closing(found):
            for place, answer in found:
                tell("")
                written = None if isinstance(answer, ServedFailure) else Written(answer.text, answer.ended)
                yield requests[place], written


class LocalWriter:
    """A base or a run on this machine, asked in its own form without the instruction that it was trained with."""

    host = ""

    def __init__(self, model: Model, form: RequestForm | None, seed: int, console: Console) -> None:
        """form: None for JSON, unless the model is a base without a chat template."""
        from pronk.ask.kept import Kept
        from pronk.tokens.check.texts import spelled_specials

        own = Form(model.form.kind, tokens=model.form.tokens)
        kept = Kept(replace(model, form=own), console)
        untuned = model.origin is None and model.form.kind is None and kept.prompt_kind != "chat"
        self.form: RequestForm = form or ("continue" if untuned else "json")
        if self.form == "continue":
            kept = Kept(replace(model, form=replace(own, plain=True)), console)
        self._kept: Kept = kept
        self.name, self._seed = model.name, seed
        self.special: re.Pattern[str] | None = spelled_specials(kept.tokenizer)

    def ready(self) -> None:
        """See Writer."""
        self._kept.loaded()

    @property
    def at_once(self) -> int:
        """Requests of a round."""
        return GPU_AT_ONCE if self._kept.loaded().device == "cuda" else CPU_AT_ONCE

    def tokens(self, request: Request) -> int:
        """See Writer."""
        return self._kept.lengths([_question(request)])[0]

    def has_room(self, request: Request, longest: int) -> bool:
        """See Writer."""
        return self.tokens(request) + min(longest, self._kept.context // 2) <= self._kept.context

    def write(
        self, requests: Sequence[Request], longest: int, temperature: float, tally: Tally, stop: Stop, tell: Tell,
    ) -> Iterator[Outcome]:  # fmt: skip
        """See Writer. An answer that Ctrl-C cut is counted, and does not come."""
        lengths = self._kept.lengths([_question(request) for request in requests])
        held: list[tuple[Request, int, tuple[int, int]]] = []
        for request, length in zip(requests, lengths, strict=True):
            aside = None if stop.asked else tally.hold(length, longest)
            if aside is None:
                break
            held.append((request, length, aside))
        try:
            if held:
                yield from self._answers([one[:2] for one in held], longest, temperature, tally, stop, tell)
        finally:
            for _, _, aside in held:
                tally.release(aside)

    def _answers(
        self, asked: Sequence[tuple[Request, int]], longest: int, temperature: float, tally: Tally, stop: Stop,
        tell: Tell,
    ) -> Iterator[Outcome]:  # fmt: skip
        drawing = {"temperature": temperature, "seed": self._seed} if temperature else {}
        ends = asked[0][0].stop
        settings = generation_settings({"max_new_tokens": longest, "stop": [*ends], **drawing})
        questions = [_question(request) for request, _ in asked]
        keys = [request.number for request, _ in asked]
        for found in self._kept.answers(questions, keys, settings, stop, _Notes(tell)):
            for place, answer in found:
                request, length = asked[place]
                tally.count_answer(length, length, answer.tokens, False, 0.0)
                if answer.ended != "interrupted":
                    yield request, Written(answer.text, answer.ended != "length")


class _Notes:
    """A bar that counts rows: of tokens only the note is told."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def advance(self, amount: float = 1, note: str = "") -> None:  # noqa: ARG002
        """See pronk.ask.asking.Bar."""
        self._tell(note)


def _question(request: Request) -> Question:
    return Question(request.text, "", f"request {request.number}")


def fitted(request: Request, writer: Writer, longest: int, again: Callable[[tuple[Sample, ...]], Request]) -> Request:
    """A request with as many of its seeds as the model has room for. again: makes it anew with fewer.

    Raises DataError where not even one seed fits.
    """
    while not writer.has_room(request, longest):
        if len(request.seeds) < 2:
            raise DataError(
                f"{request.seeds[0].place}: a request that shows this seed leaves {writer.name} no room for an answer; "
                "give shorter seeds, or a base that reads more"
            )
        request = again(request.seeds[:-1])
    return request
