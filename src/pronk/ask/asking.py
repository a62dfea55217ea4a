"""All models over one base answer side by side, in as few batches as memory allows."""

from __future__ import annotations

import gc
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from pronk.ask.models import Form, Model
from pronk.data.questions import Question
from pronk.errors import BaseModelError, DataError
from pronk.recipe import Generation

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.model.adapter import WideAdapter
    from pronk.tokens.prompt import Prompt
    from pronk.train.interrupt import Interruption

# end: at the model's end token. stop: at a stop word. length: at the most tokens allowed, or all that the base
# can read. interrupted: by the user.
Ended = Literal["end", "stop", "length", "interrupted"]


class Stop(Protocol):
    """Whether answers are to end where they are; pronk.train.interrupt.Interruption is one."""

    @property
    def asked(self) -> int:
        """More than 0 from then on."""


class Bar(Protocol):
    """What is told how far answers have come; pronk.train.progress.Work is one."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Move on by so many tokens."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model wrote. tokens: how many, the end token left out. The text may be hostile."""

    model: str
    question: Question
    text: str
    ended: Ended
    tokens: int


@dataclass(frozen=True)
class Answered:
    """All answers, question by question, in the order of the models. interrupted: some may be missing."""

    models: tuple[str, ...]
    questions: tuple[Question, ...]
    settings: Generation
    answers: tuple[Answer, ...]
    interrupted: bool = False

    def of(self, question: Question) -> list[Answer]:
        """The answers to one question."""
        return [answer for answer in self.answers if answer.question == question]


@dataclass(frozen=True)
class Asked:
    """A model with its questions as ids. number: its place among all. limits: most new tokens of each answer."""

    number: int
    model: Model
    base: Any
    prompt: Prompt
    ids: list[list[int]]
    limits: list[int]


def ask(models: Sequence[Model], questions: Sequence[Question], settings: Generation, console: Console) -> Answered:
    """Ask every model every question; models over one base together, bases one after another.

    What is wrong with a question, and an adapter of another base, is found before any weights are loaded. Ctrl-C
    ends the answers where they are. Raises BaseModelError, StudyError, PromptError or DataError.
    """
    from pronk.train.interrupt import listen
    from pronk.train.progress import say

    tell = partial(say, console)
    found: dict[tuple[int, int], Answer] = {}
    with listen(lambda _: tell("stopping; what is answered is kept")) as stop:
        with console.status("reading the questions"):
            asked = ask_all(models, questions, settings, tell)
        for group in over_one_base(asked):
            if not stop.asked:
                found |= _answers(group, questions, settings, stop, console)
                gc.collect()  # a base of several gigabytes goes before the next one comes
    ordered = tuple(found[place] for place in sorted(found))
    return Answered(tuple(model.name for model in models), tuple(questions), settings, ordered, bool(stop.asked))


def ask_all(
    models: Sequence[Model], questions: Sequence[Question], settings: Generation, tell: Callable[[str], None]
) -> list[Asked]:
    """The questions as each model reads them, and adapters that fit their bases; no weights are loaded."""
    prompts: dict[tuple[str, str | None, str | None], Prompt] = {}  # a large vocabulary takes a second to read
    return [open_reader(number, model, tell, prompts).ask(questions, settings) for number, model in enumerate(models)]


@dataclass(frozen=True)
class Reader:
    """A model that questions can be put to, as far as that needs no weights. number: its place among all."""

    number: int
    model: Model
    base: Any
    prompt: Prompt
    config: Any

    def ids(self, questions: Sequence[Question]) -> list[list[int]]:
        """The questions as the model reads them."""
        form = self.model.form
        ids = self.prompt.question_ids([form.messages(question) for question in questions])
        return [one[:-1] for one in ids] if form.plain else ids  # a text to go on with has not ended

    def ask(self, questions: Sequence[Question], settings: Generation) -> Asked:
        """The questions with room for their answers. Raises DataError or BaseModelError where there is none."""
        from pronk.model.load import context_length

        ids, context = self.ids(questions), context_length(self.config)
        check_lengths(self.model, questions, ids, context, self.config.vocab_size)
        limits = [min(settings.max_new_tokens, context - len(one)) for one in ids]
        return Asked(self.number, self.model, self.base, self.prompt, ids, limits)


def open_reader(number: int, model: Model, tell: Callable[[str], None], prompts: dict[Any, Prompt]) -> Reader:
    """A model's base found, its adapter found to fit, its prompt form read. prompts: those read already, by form."""
    from pronk.model.load import find_base, linear_layer_sizes, load_config

    base, form = find_base(model.recipe.base, tell), model.form
    config = load_config(base)
    if model.adapter:
        model.adapter.check_fits(linear_layer_sizes(base))
    key = base.location, form.kind, form.tokens
    prompt = prompts[key] = prompts.get(key) or prompt_of(base, form)
    return Reader(number, model, base, prompt, config)


def prompt_of(base: Any, form: Form) -> Prompt:
    """The form of a base, or of the tokenizer that a model brings."""
    from pronk.model.load import load_tokenizer
    from pronk.tokens.prompt import Prompt

    tokenizer = load_tokenizer(replace(base, location=form.tokens, local=True) if form.tokens else base)
    return Prompt(form.kind or ("chat" if getattr(tokenizer, "chat_template", None) else "alpaca"), tokenizer)


def check_lengths(
    model: Model, questions: Sequence[Question], ids: Sequence[Sequence[int]], context: int, vocabulary: int
) -> None:
    """Raises DataError for a question that leaves no room for an answer, BaseModelError for ids that the model has no
    embedding for."""
    for question, one in zip(questions, ids, strict=True):
        if len(one) >= context:
            raise DataError(
                f"{question.place}: for {model.name} the question takes {len(one)} tokens, and this base reads "
                f"{context} at most, its answer included; shorten the question"
            )
        if max(one, default=0) >= vocabulary:
            raise BaseModelError(
                f"base: the tokenizer of {model.name} gives the id {max(one)}, but the model has only {vocabulary} "
                "embeddings; tokenizer and model do not belong together"
            )


class OverABase(Protocol):
    """A model that was named, and where the weights of its base lie, a pronk.model.hub.Base."""

    @property
    def model(self) -> Model: ...

    @property
    def base(self) -> Any: ...


Over = TypeVar("Over", bound=OverABase)


def over_one_base(models: Sequence[Over]) -> list[list[Over]]:
    """Models that share a base in memory, in the order of the first of each."""
    groups: dict[tuple[Any, ...], list[Over]] = {}
    for one in models:
        groups.setdefault(_loading(one), []).append(one)
    return list(groups.values())


def _loading(one: OverABase) -> tuple[Any, ...]:
    """All that says how the base of a model lies in memory."""
    recipe, train = one.model.recipe, one.model.recipe.train
    kept = (recipe.quantize, recipe.double_quantization, train.fp8_products)
    return (one.base.location, *kept, train.dtype, train.device)


@dataclass(frozen=True)
class Row:
    """A question to a model."""

    asked: Asked
    slot: int
    number: int  # of the question

    @property
    def ids(self) -> list[int]:
        return self.asked.ids[self.number]

    @property
    def limit(self) -> int:
        return self.asked.limits[self.number]


def _answers(
    group: Sequence[Asked], questions: Sequence[Question], settings: Generation, stop: Interruption,
    console: Console,
) -> dict[tuple[int, int], Answer]:  # fmt: skip
    """The answers of models over one base, by question and model."""
    from pronk.model.memory.guard import memory_guard
    from pronk.train import progress

    loaded = load_group(group, console)
    found: dict[tuple[int, int], Answer] = {}
    work = progress.work(console, "answering", sum(sum(one.limits) for one in group))
    with memory_guard("answering"), work as bar:
        for rows in row_batches(group, loaded.slots, len(questions), loaded.token_budget):
            if not stop.asked:
                answers = answer_batch(loaded.model, loaded.adapter, rows, questions, settings, stop, bar)
                found |= {(row.number, row.asked.number): answer for row, answer in zip(rows, answers, strict=True)}
    return found


@dataclass(frozen=True)
class Loaded:
    """A base in memory with the adapters of a group of models. slots: of each of them. device: cuda, cpu, …"""

    model: Any
    adapter: WideAdapter
    slots: list[int]
    token_budget: int
    device: str


def load_group(group: Sequence[Asked], console: Console) -> Loaded:
    """Load the base that models share, and put their adapters on it. Raises as load_model does, OutOfMemoryError where
    it does not fit."""
    from pronk.evaluate.evaluation import evaluation_budget
    from pronk.model.load import load_for_recipe
    from pronk.model.memory.guard import memory_guard

    name = group[0].base.name
    with console.status(f"loading {name}"), memory_guard(f"loading {name}"):
        model, _, device = load_for_recipe(group[0].model.recipe, group[0].base)
        adapter, slots = _attached(model, group)
    return Loaded(model, adapter, slots, evaluation_budget(model), device.type)


def row_batches(group: Sequence[Asked], slots: Sequence[int], questions: int, token_budget: int) -> Iterator[list[Row]]:
    """All questions to all models of a group. A batch has one end token; nearly always all forms have the same."""
    from pronk.evaluate.batches import prompt_batches

    for end_id in dict.fromkeys(one.prompt.end_id for one in group):
        together = [(one, slot) for one, slot in zip(group, slots, strict=True) if one.prompt.end_id == end_id]
        rows = [Row(one, slot, number) for one, slot in together for number in range(questions)]
        longest = max(row.limit for row in rows)
        for batch in prompt_batches([row.ids for row in rows], [0], token_budget, longest):
            yield [rows[place] for place, _ in batch]


def _attached(model: Any, group: Sequence[Asked]) -> tuple[WideAdapter, list[int]]:
    """All adapters of a group in one wide adapter, and the slot of each of its models."""
    from pronk.model.adapter import attach
    from pronk.tokens.pack import BASE_SLOT

    adapters = {one.model.adapter.folder: one.model.adapter for one in group if one.model.adapter}
    folders = list(adapters)
    wide = attach(model, [adapter.shape for adapter in adapters.values()])
    for slot, adapter in enumerate(adapters.values()):
        wide.load(slot, adapter.weights())
    return wide, [folders.index(one.model.adapter.folder) if one.model.adapter else BASE_SLOT for one in group]


def answer_batch(
    model: Any, adapter: WideAdapter, rows: Sequence[Row], questions: Sequence[Question], settings: Generation,
    stop: Stop, bar: Bar, keys: Sequence[int] | None = None,
) -> list[Answer]:  # fmt: skip
    """The answers of rows that are read and written together. keys: what the draws for each question hang on, where it
    is not the question alone."""
    from pronk.model.generate import score_and_answer
    from pronk.model.sampling import Filter, Sampler, likeliest
    from pronk.tokens.pack import pack_prompts

    watcher = _Watcher(rows, settings.stop, stop, bar)
    choose: Any = likeliest
    if settings.draws:
        allowed = Filter(settings.temperature, settings.top_k, settings.top_p)
        own = keys or [draw_key(question) for question in questions]
        choose = Sampler(allowed, settings.seed, [own[row.number] for row in rows])
    reading = pack_prompts([row.ids for row in rows], [row.slot for row in rows])
    longest = max(row.limit for row in rows)
    answers = score_and_answer(
        model, adapter, reading, (), longest, rows[0].asked.prompt.end_id, choose=choose, watch=watcher
    )
    watcher.advance()
    return [
        _answer(row, questions[row.number], ids, ended, settings)
        for row, ids, ended in zip(rows, answers.ids, answers.ended, strict=True)
    ]


def _answer(row: Row, question: Question, ids: list[int], at_end: bool, settings: Generation) -> Answer:
    text, stopped = cut(_decoded(row.asked.prompt, [ids])[0], settings.stop)
    ended: Ended = "stop" if stopped else "end" if at_end else "length" if len(ids) == row.limit else "interrupted"
    if ended in ("length", "interrupted"):
        text = text.rstrip("\ufffd")  # the first bytes of a character that was not finished
    return Answer(row.asked.model.name, question, text, ended, len(ids))


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop word, and whether there was one."""
    places = [text.index(word) for word in stops if word in text]
    return (text[: min(places)], True) if places else (text, False)


def _decoded(prompt: Prompt, ids: list[list[int]]) -> list[str]:
    texts: list[str] = prompt.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts


def draw_key(question: Question) -> int:
    """What the draws for a question hang on: the same for every model, whatever else is asked."""
    return zlib.crc32(f"{question.text}\0{question.context}".encode())


class _Watcher:
    """Says where answers end before the model ends them: at a stop word, at a row's limit, at Ctrl-C.

    A stop word may straddle tokens, so the last few of them are read together: each holds a byte at least.
    """

    def __init__(self, rows: Sequence[Row], stops: Sequence[str], stop: Stop, bar: Bar) -> None:
        self.rows, self.stops, self.stop, self.bar = rows, stops, stop, bar
        self.prompt = rows[0].asked.prompt
        self.written: list[list[int]] = [[] for _ in rows]
        self.window = max((len(word.encode()) for word in stops), default=0) + 8
        self.counted = 0

    def __call__(self, members: list[int], tokens: list[int]) -> list[bool]:
        """See pronk.model.generate.Watch."""
        for member, token in zip(members, tokens, strict=True):
            self.written[member].append(token)
        ends = [bool(self.stop.asked) or len(self.written[m]) >= self.rows[m].limit for m in members]
        if self.stops:
            tails = _decoded(self.prompt, [self.written[member][-self.window :] for member in members])
            ends = [end or cut(tail, self.stops)[1] for end, tail in zip(ends, tails, strict=True)]
        self.advance([member for member, end in zip(members, ends, strict=True) if not end])
        return ends

    def advance(self, going: Sequence[int] = ()) -> None:
        """Move the bar: what an answer leaves unwritten is done too."""
        open_tokens = sum(self.rows[member].limit - len(self.written[member]) for member in going)
        done = sum(row.limit for row in self.rows) - open_tokens
        self.bar.advance(done - self.counted, f"{len(self.rows) - len(going)} of {len(self.rows)} answers")
        self.counted = done
