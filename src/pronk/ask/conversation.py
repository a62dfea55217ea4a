"""A conversation with several models at once: each is asked the same, sees its own answers, and writes as it is read.

chat = Conversation(find_models(["studies/a/runs/tuned"], with_base=True), Generation(), console)
for replies in chat.say("What is a llama?"):
    ...                                       # the replies so far, one of each model, whenever they have grown
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pronk.ask.asking import Asked, Ended, ask_all, check_lengths, draw_key, load_group, over_one_base
from pronk.ask.models import Form, Model
from pronk.ask.room import check_room, patience
from pronk.ask.writing import Writing
from pronk.data.conversation import Message
from pronk.data.questions import Question
from pronk.data.words import is_whole
from pronk.errors import DataError, OptionError, PronkError
from pronk.recipe import Generation

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.model.turns import Turns

LEAST_ROOM = 4  # an answer is kept 1/4 of what a base reads, if the most tokens of an answer are more than that


@dataclass
class Reply:
    """What one model answers; it grows. text: whole characters, hostile like all that models write.

    ids: its tokens, the end token left out. ended: None as long as it is being written. forgotten: how many of the
    oldest questions, with their answers, the model no longer saw, as they do not fit.
    """

    model: str
    text: str = ""
    ids: list[int] = field(default_factory=list)
    ended: Ended | None = None
    forgotten: int = 0


@dataclass
class Turn:
    """A question and every model's reply. attempt: how often it was asked before, by `retry`."""

    question: Question
    replies: list[Reply]
    attempt: int = 0


@dataclass
class _Speaker:
    """A model in the conversation. context: tokens that its base reads; forgotten: as in Reply, so far."""

    asked: Asked
    context: int
    vocabulary: int
    forgotten: int = 0


@dataclass(frozen=True)
class _Group:
    """Speakers (their places) that write together: over one base, with one end token."""

    places: list[int]
    turns: Turns
    end_id: int


class Conversation:
    """Models that are asked together, turn by turn. One turn at a time; not for several threads at once.

    settings: as for `pronk generate`; system: in place of what the models were trained with. All bases stay in memory.
    Raises PronkError where a model cannot be asked, before any weights are loaded where that can be.
    """

    def __init__(
        self, models: Sequence[Model], settings: Generation, console: Console, system: str | None = None
    ) -> None:
        from pronk.model.load import context_length, load_config
        from pronk.train.progress import say

        tell = partial(say, console)
        asked = ask_all(models, (), settings, tell)
        configs = [load_config(one.base) for one in asked]
        self.settings, self.turns = settings, list[Turn]()
        self._speakers = [
            _Speaker(one, context_length(config), config.vocab_size)
            for one, config in zip(asked, configs, strict=True)
        ]  # fmt: skip
        self._system: str | None = None
        self.system = system
        groups = over_one_base(asked)
        check_room([(group[0].base, group[0].model.recipe) for group in groups])
        for group in groups:
            if warning := patience(group[0].base, group[0].model.recipe, settings.max_new_tokens):
                tell(warning)
        self._groups = [one for group in groups for one in _loaded(group, console)]

    @property
    def names(self) -> list[str]:
        return [speaker.asked.model.name for speaker in self._speakers]

    @property
    def system(self) -> str | None:
        """The system message in place of the runs' own; None for those. Raises PronkError where a form takes none."""
        return self._system

    @system.setter
    def system(self, text: str | None) -> None:
        before, self._system = self._system, text
        try:
            for speaker in self._speakers:
                if text is not None and speaker.asked.model.form.plain:
                    raise OptionError(f"{speaker.asked.model.name} goes on with texts; it takes no system message")
                self._ids(speaker, [], Question("a question", "", ""))  # a template may refuse it
        except PronkError:
            self._system = before
            raise
        self._remember_all()

    # --- what is said ---------------------------------------------------------------------------

    def say(self, text: str) -> Iterator[list[Reply]]:
        """Ask all models; yields their replies, which grow, after every token. Whoever stops listening (`close`, or
        leaving a loop for good) interrupts the answers, which are kept as they are.

        Raises DataError for a question that is empty or too long; the conversation is then as it was.
        """
        return self._answer(Question(_checked(text), "", "your question"), 0)

    def ask(self, text: str) -> list[Reply]:
        """Ask all models and wait for their replies. Raises as `say`."""
        for _ in self.say(text):
            pass
        return self.turns[-1].replies

    def retry(self) -> Iterator[list[Reply]]:
        """Ask the last question again; its answers are replaced. Raises OptionError if there is none."""
        last = self.undo()
        return self._answer(last.question, last.attempt + 1)

    def undo(self) -> Turn:
        """Take the last question and its answers back. Raises OptionError if there is none."""
        if not self.turns:
            raise OptionError("nothing was asked yet")
        self._remember_all()
        return self.turns.pop()

    def reset(self) -> None:
        """Forget all that was said; the system message stays."""
        self.turns.clear()
        self._remember_all()

    def messages(self, place: int) -> list[dict[str, str]]:
        """The conversation with one model as people said it, in OpenAI's form."""
        system = self._form(self._speakers[place]).system
        said = [{"role": "system", "content": system}] if system else []
        for turn in self.turns:
            said.append({"role": "user", "content": turn.question.text})
            said.append({"role": "assistant", "content": turn.replies[place].text})
        return said

    # --- how it is read and written -------------------------------------------------------------

    def _answer(self, question: Question, attempt: int) -> Iterator[list[Reply]]:
        prompts = [self._fitting(speaker, question) for speaker in self._speakers]
        replies = [Reply(speaker.asked.model.name, forgotten=speaker.forgotten) for speaker in self._speakers]
        turn = Turn(question, replies, attempt)
        key = self._key(turn)
        self.turns.append(turn)
        pens = [
            _Pen(reply, self._speakers[place], self.settings, len(prompts[place]))
            for place, reply in enumerate(replies)
        ]  # fmt: skip
        stream = self._written(turn, pens, prompts, key)
        next(stream)  # begun, so that whoever leaves before the first token interrupts it too
        return stream

    def _written(
        self, turn: Turn, pens: Sequence[_Pen], prompts: Sequence[list[int]], key: int
    ) -> Iterator[list[Reply]]:
        from pronk.model.memory.guard import memory_guard

        streams = [_Stream(group, [pens[place] for place in group.places]) for group in self._groups]
        writing = []
        for group, stream in zip(self._groups, streams, strict=True):
            asked = [prompts[place] for place in group.places]
            most = max(pen.limit for pen in stream.pens)
            choose = _choose(self.settings, [key] * len(asked))
            writing.append((stream, group.turns.answer(asked, most, group.end_id, choose, stream)))
        try:
            yield turn.replies
            while True:
                with memory_guard("answering"):
                    writing = [(stream, steps) for stream, steps in writing if stream.step(steps)]
                if not writing:
                    break
                yield turn.replies
        except PronkError:
            self.turns.remove(turn)
            raise
        finally:
            for pen in pens:
                pen.end()

    def _fitting(self, speaker: _Speaker, question: Question) -> list[int]:
        """The ids that a speaker is asked with: of what was said, as much as leaves room for an answer."""
        room = min(self.settings.max_new_tokens, speaker.context // LEAST_ROOM)
        for first in range(speaker.forgotten, len(self.turns) + 1):
            ids = self._ids(speaker, self.turns[first:], question)
            if len(ids) + room <= speaker.context:
                break
        check_lengths(speaker.asked.model, [question], [ids], speaker.context, speaker.vocabulary)
        speaker.forgotten = first
        return ids

    def _ids(self, speaker: _Speaker, turns: Sequence[Turn], question: Question) -> list[int]:
        form, place = self._form(speaker), speaker.asked.number
        *system, asked = form.messages(question)
        if form.plain:
            return speaker.asked.prompt.question_ids([[asked]])[0][:-1]  # a text to go on with has not ended
        said: list[Message] = []
        for turn in turns:
            said += [form.messages(turn.question)[-1], Message("assistant", turn.replies[place].text)]
        return speaker.asked.prompt.question_ids([[*system, *said, asked]])[0]

    def _form(self, speaker: _Speaker) -> Form:
        form = speaker.asked.model.form
        return form if self.system is None else replace(form, system=self.system)

    def _key(self, turn: Turn) -> int:
        """What draws hang on: what was asked, by every model alike; of a first question as for `pronk generate`."""
        key = draw_key(turn.question)
        for before in self.turns:
            key = zlib.crc32(f"\0{before.question.text}".encode(), key)
        return zlib.crc32(str(turn.attempt).encode(), key) if turn.attempt else key

    def _remember_all(self) -> None:
        for speaker in self._speakers:
            speaker.forgotten = 0


class _Pen:
    """Writes a reply."""

    def __init__(self, reply: Reply, speaker: _Speaker, settings: Generation, asked: int) -> None:
        self.reply = reply
        self.limit = min(settings.max_new_tokens, speaker.context - asked)
        self.writing = Writing(speaker.asked.prompt.tokenizer, settings.stop)
        self._over = False

    def add(self, token: int) -> bool:
        """Write a token; whether the answer ends here."""
        stopped = self.writing.add(token)
        self.reply.ids.append(token)
        self.reply.text = self.writing.text
        if stopped or len(self.reply.ids) >= self.limit:
            self.end("stop" if stopped else "length")
        return self.reply.ended is not None

    def end(self, how: Ended = "interrupted") -> None:
        """The answer is over, if it was not before."""
        if self.reply.ended is None:
            self.reply.text = self.writing.end(finished=how in ("end", "stop"))
            self.reply.ended = how


class _Stream:
    """Replies that are written together: a watch (pronk.model.generate) that hands tokens to pens."""

    def __init__(self, group: _Group, pens: Sequence[_Pen]) -> None:
        self.group, self.pens = group, pens
        self._told: set[int] = set()

    def step(self, writing: Iterator[None]) -> bool:
        """A token of each reply that goes on; False when all have ended. Who gets none has written its end token."""
        self._told = set()
        if next(writing, self) is self:
            return False
        for member, pen in enumerate(self.pens):
            if member not in self._told:
                pen.end("end")
        return True

    def __call__(self, members: list[int], tokens: list[int]) -> list[bool]:
        """See pronk.model.generate.Watch."""
        self._told.update(members)
        return [self.pens[member].add(token) for member, token in zip(members, tokens, strict=True)]


def _loaded(group: Sequence[Asked], console: Console) -> list[_Group]:
    """Models over one base, in memory; those whose forms end alike write together."""
    from pronk.model.turns import Turns
    from pronk.tokens.pack import pack_prompts

    loaded = load_group(group, console)
    groups = []
    for end_id in dict.fromkeys(one.prompt.end_id for one in group):
        own = [(one.number, slot) for one, slot in zip(group, loaded.slots, strict=True) if one.prompt.end_id == end_id]
        places, slots = [number for number, _ in own], [slot for _, slot in own]
        groups.append(_Group(places, Turns(loaded.model, loaded.adapter, slots, pack_prompts), end_id))
    return groups


def _choose(settings: Generation, keys: Sequence[int]) -> Any:
    from pronk.model.sampling import Filter, Sampler, likeliest

    if not settings.draws:
        return likeliest
    return Sampler(Filter(settings.temperature, settings.top_k, settings.top_p), settings.seed, keys)


def _checked(text: str) -> str:
    if not text.strip():
        raise DataError("the question is empty")
    if not is_whole(text):
        raise DataError("there is half a character in the question (a lone surrogate); type it again")
    return text
