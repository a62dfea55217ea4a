"""Who judges: a model behind an address, or one of this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Protocol

from pronk.ask.choosing import Chooser
from pronk.ask.contest import identity
from pronk.errors import DataError
from pronk.evaluate.served import WORKERS, ServedFailure, Server, ask_each
from pronk.evaluate.spending import Tally, rough_tokens
from pronk.judge.kept import Reply
from pronk.judge.prompt import Reading, messages
from pronk.judge.verdict import CHOICES, Verdict, read_verdict
from pronk.recipe import Generation

# The form of a reply, for servers that can hold a model to one; others say that they cannot, and do without.
SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "verdict": {"type": "string", "enum": list(CHOICES)}},
    "required": ["reason", "verdict"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA}}

Replies = Iterator[tuple[int, Reply | None]]


class Judge(Protocol):
    """name: for people. identity: what tells it from all other judges. host: of a served one. own: it is one of those
    that it judges. most: readings to measure its speed with. cut: replies that were longer than they may be."""

    name: str
    identity: str
    host: str | None
    own: bool
    most: int
    cut: int

    def tokens(self, readings: Sequence[Reading]) -> list[int]:
        """Tokens of each prompt. Raises DataError for one that the judge cannot read."""
        ...

    def replies(self, readings: Sequence[Reading], again: bool, stop: Callable[[], bool]) -> Replies:
        """Each reading's place and the reply, as they come; None where there is none."""
        ...

    def seconds(self, calls: int, tokens: int) -> float | None:
        """How long so many readings of so many tokens together will take, by those that were made; None before."""
        ...


class ServedJudge:
    """A model behind an OpenAI-compatible interface. count: tokens of texts; by bytes when absent.

    longest: tokens of a reply at most. patience: seconds to wait for one.
    """

    own, most = False, 4

    def __init__(
        self, server: Server, longest: int, patience: float, tally: Tally,
        count: Callable[[Sequence[str]], list[int]] | None = None,
    ) -> None:  # fmt: skip
        self.server, self.longest, self.patience, self.tally = server, longest, patience, tally
        self.name, self.identity = server.model, f"{server.model} at {server.host}"
        self.host: str | None = server.host
        self._count = count or (lambda texts: [rough_tokens([text]) for text in texts])
        self.cut = 0

    def tokens(self, readings: Sequence[Reading]) -> list[int]:
        """Tokens of each prompt, about: the judge's own tokenizer is not here."""
        return self._count(["\n\n".join(one.content for one in messages(reading)) for reading in readings])

    def replies(self, readings: Sequence[Reading], again: bool, stop: Callable[[], bool]) -> Replies:
        """See Judge. Raises OptionError where the server or the key is wrong, or the server has gone."""
        questions = [messages(reading, again=again) for reading in readings]
        settings = {"response_format": FORM}
        asking = ask_each(self.server, questions, self.longest, settings, self.tally, self.patience, stop)
        with closing(asking) as found:
            for place, answer in found:
                if isinstance(answer, ServedFailure):
                    yield place, None
                    continue
                self.cut += not answer.ended
                more = {"tokens_in": answer.tokens_in, "tokens_out": answer.tokens_out}
                yield place, Reply(read_verdict(answer.text), answer.text, answer.seconds, more)

    def seconds(self, calls: int, tokens: int) -> float | None:  # noqa: ARG002
        """See Judge."""
        done = self.tally.answers
        return calls * self.tally.seconds / done / min(WORKERS, calls) if done and calls else None


class LocalJudge:
    """A model of this machine. It chooses among the three verdicts, each scored in full, so every reply is one."""

    host: str | None = None
    most, cut = 2, 0

    def __init__(self, chooser: Chooser, own: bool = False) -> None:
        self.chooser, self.own = chooser, own
        self.name = chooser.model.name
        self.identity = f"{identity(chooser.model, Generation())}, choosing"
        self._done = (0, 0.0)  # tokens read, seconds

    def tokens(self, readings: Sequence[Reading]) -> list[int]:
        """Tokens of each prompt. Raises DataError where the judge reads fewer."""
        sizes = [len(ids) for ids in self._ids(readings)]
        long = [size for size in sizes if size > self.chooser.room]
        if long:
            raise DataError(
                f"--model: {self.name} reads {self.chooser.context} tokens at most, and {len(long)} of {len(sizes)} "
                f"pairs take up to {max(long) + self.chooser.context - self.chooser.room} with its verdict; choose a "
                "judge that reads more, or shorten the answers (--max-new-tokens)"
            )
        return sizes

    def replies(self, readings: Sequence[Reading], again: bool, stop: Callable[[], bool]) -> Replies:  # noqa: ARG002
        """See Judge."""
        ids = self._ids(readings)
        self.chooser.load()
        started = time.monotonic()
        for batch in self.chooser.scores(ids):
            took = time.monotonic() - started
            self._done = self._done[0] + sum(len(ids[place]) for place, _ in batch), self._done[1] + took
            started += took
            for place, scores in batch:
                yield place, _chosen(scores)
            if stop():
                return

    def seconds(self, calls: int, tokens: int) -> float | None:  # noqa: ARG002
        """See Judge."""
        read, took = self._done
        return tokens * took / read if read else None

    def _ids(self, readings: Sequence[Reading]) -> list[list[int]]:
        return self.chooser.question_ids([messages(reading, reasoned=False) for reading in readings])


def _chosen(scores: Sequence[float]) -> Reply:
    """The likeliest of the allowed replies. Scores that are not finite are no verdict."""
    if not all(map(math.isfinite, scores)):
        return Reply(None, "its scores are not finite")
    choice = CHOICES[max(range(len(CHOICES)), key=scores.__getitem__)]
    named = zip(CHOICES, scores, strict=True)
    return Reply(Verdict(choice), more={"scores": {name: round(score, 4) for name, score in named}})


def allowed_replies() -> list[str]:
    """What a judge that chooses may say."""
    return [f'{{"verdict": "{choice}"}}' for choice in CHOICES]
