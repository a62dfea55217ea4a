"""What one model makes of prompts: a label with the probabilities of all, or a text. A window in few batches.

A record is what is known of a row in the end, and what the file of unfinished predictions keeps:
{"label", "probability", "probabilities"}, {"text", "ended"}, that of choosing.py, or {"error"}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from pronk.ask.asking import Asked, Loaded, Reader, answer_batch, load_group, row_batches
from pronk.data.questions import Question
from pronk.errors import BaseModelError, OutOfMemoryError
from pronk.recipe import Generation
from pronk.ship.predict.calibration import Floats, log_probabilities
from pronk.ship.predict.rows import Item
from pronk.train.interrupt import Interruption
from pronk.train.progress import say

if TYPE_CHECKING:
    from rich.console import Console

Record = dict[str, Any]
Advance = Callable[[float], None]  # told of rows, or parts of a row, as they are done
Made = TypeVar("Made")
SMALLEST_BATCH = 1024  # tokens: where even this runs out of memory, smaller batches do not help
# On a GPU rows of like length are to meet, and a window is seconds; on a CPU a batch takes that long.
WINDOW_BATCHES = 4
DIGITS = 6  # of a probability: float32 scores carry no more


class Weights:
    """A model's weights, read when they are first needed. token_budget: of a batch; window_tokens: of what is sorted by
    length and kept together. Both as memory allows when they are absent."""

    def __init__(self, reader: Reader, console: Console) -> None:
        from pronk.model.load import context_length

        self.reader, self.console = reader, console
        self.context: int = context_length(reader.config)
        self.token_budget: int | None = None
        self._window_tokens: int | None = None
        self._loaded: Loaded | None = None

    @property
    def loaded(self) -> Loaded:
        """The weights, now in memory."""
        if self._loaded is None:
            self._loaded = load_group([self.reader.ask([], Generation())], self.console)
        return self._loaded

    @property
    def budget(self) -> int:
        """Tokens of a batch."""
        self.token_budget = self.token_budget or self.loaded.token_budget
        return self.token_budget

    @property
    def window_tokens(self) -> int:
        """Tokens of a window. It does not shrink with the batches."""
        if self._window_tokens is None:
            self._window_tokens = self.budget * (WINDOW_BATCHES if self.loaded.device == "cuda" else 1)
        return self._window_tokens

    @window_tokens.setter
    def window_tokens(self, tokens: int) -> None:
        self._window_tokens = tokens

    def within_memory(self, work: Callable[[Advance], Made], advance: Advance) -> Made:
        """The result of some work, tried again in smaller batches where memory runs out. Raises OutOfMemoryError."""
        from pronk.model.memory.guard import memory_guard
        from pronk.model.memory.sizes import release

        while True:
            counting = _Counting(advance)
            try:
                with memory_guard("predicting"):
                    return work(counting)
            except OutOfMemoryError:
                if self.budget <= SMALLEST_BATCH:
                    raise
            advance(-counting.done)
            self.token_budget = self.budget // 2
            release(next(self.loaded.model.parameters()).device)
            say(self.console, f"memory ran out; again in batches of {self.budget:,} tokens", "yellow")


class _Counting:
    """Knows how far a bar was moved, to move it back."""

    def __init__(self, advance: Advance) -> None:
        self.done, self._advance = 0.0, advance

    def __call__(self, amount: float) -> None:
        self.done += amount
        self._advance(amount)


class Answering(Protocol):
    """What is made of rows."""

    weights: Weights
    longest_prompt: int  # in tokens

    def size(self, ids: list[int]) -> int:
        """Tokens that a prompt takes in a batch, its answer among them."""
        ...

    def records(self, items: Sequence[Item], stop: Interruption, advance: Advance) -> list[Record]:
        """A record an item, none of which has an error. Raises KeyboardInterrupt between batches."""
        ...


class Labels:
    """The likeliest label of each prompt, each scored in full, end token included, as `pronk eval` does.

    temperature: what scores are divided by before they become probabilities (ship/predict/calibration.py).
    """

    def __init__(self, weights: Weights, names: Sequence[str]) -> None:
        self.weights, self.names = weights, tuple(names)
        self.ids = weights.reader.prompt.answer_ids(self.names)
        self.longest_prompt = weights.context - max(map(len, self.ids)) + 1  # the last token is never read
        self.temperature = 1.0

    def size(self, ids: list[int]) -> int:
        """Tokens that a prompt takes in a batch, with all labels behind it."""
        return len(ids) + sum(map(len, self.ids))

    def scores(self, prompts: Sequence[Sequence[int]], stop: Interruption, advance: Advance) -> Floats:
        """The log-probability of each label after each prompt, in nats (N, C). Raises BaseModelError for what is not
        finite."""
        scores_NC = self.weights.within_memory(lambda told: self._scores(prompts, stop, told), advance)
        if not np.isfinite(scores_NC).all():
            raise not_finite(self.weights)
        return scores_NC

    def records(self, items: Sequence[Item], stop: Interruption, advance: Advance) -> list[Record]:
        """See Answering."""
        scores_NC = self.scores([item.ids for item in items], stop, advance)
        p_NC = np.exp(log_probabilities(scores_NC, self.temperature))
        return [self._record(*row) for row in zip(scores_NC.argmax(axis=1).tolist(), p_NC.tolist(), strict=True)]

    def _scores(self, prompts: Sequence[Sequence[int]], stop: Interruption, advance: Advance) -> Floats:
        from pronk.evaluate.batches import prompt_batches
        from pronk.model.generate import score_and_answer
        from pronk.tokens.pack import pack_prompts

        loaded, (slot,) = self.weights.loaded, self.weights.loaded.slots
        found_NC = np.zeros((len(prompts), len(self.ids)))
        for batch in prompt_batches(prompts, [slot], self.weights.budget, self.size([])):
            stop.check()
            places = [place for place, _ in batch]
            reading = pack_prompts([prompts[place] for place in places], [slot] * len(batch))
            scores = score_and_answer(loaded.model, loaded.adapter, reading, self.ids).scores_NC
            found_NC[places] = scores.double().cpu().numpy()
            advance(len(batch))
        return found_NC

    def _record(self, likeliest: int, p_C: list[float]) -> Record:
        rounded = [float(f"{p:.{DIGITS}g}") for p in p_C]
        return {
            "label": self.names[likeliest],
            "probability": rounded[likeliest],
            "probabilities": dict(zip(self.names, rounded, strict=True)),
        }


def not_finite(weights: Weights) -> BaseModelError:
    """What is to be raised for scores that are no numbers."""
    model = weights.reader.model
    return BaseModelError(
        f"{model.name}: its scores are not finite numbers in {model.recipe.train.dtype}; its weights are damaged, or "
        "too large for this type: --set train.dtype=fp32"
    )


class Texts:
    """An answer to each prompt, as `pronk generate` writes it."""

    def __init__(self, weights: Weights, settings: Generation) -> None:
        self.weights, self.settings = weights, settings
        self.longest_prompt = weights.context - 1

    def size(self, ids: list[int]) -> int:
        """Tokens that a prompt takes in a batch, with the longest answer that it may get."""
        return len(ids) + self._limit(ids)

    def records(self, items: Sequence[Item], stop: Interruption, advance: Advance) -> list[Record]:
        """See Answering."""
        return self.weights.within_memory(lambda told: self._written(items, stop, told), advance)

    def _written(self, items: Sequence[Item], stop: Interruption, advance: Advance) -> list[Record]:
        loaded, reader = self.weights.loaded, self.weights.reader
        prompts = [item.ids for item in items]
        asked = Asked(0, reader.model, reader.base, reader.prompt, prompts, [self._limit(ids) for ids in prompts])
        questions = [Question("", "", item.row.place) for item in items]
        keys, found = [item.key for item in items], [Record()] * len(items)
        for rows in row_batches([asked], loaded.slots, len(items), self.weights.budget):
            stop.check()
            bar = _Rows(sum(row.limit for row in rows) / len(rows), advance)
            for row, answer in zip(
                rows,
                answer_batch(loaded.model, loaded.adapter, rows, questions, self.settings, stop, bar, keys),
                strict=True,
            ):
                found[row.number] = {"text": answer.text, "ended": answer.ended}
            stop.check()  # before answers that it has cut count as done
        return found

    def _limit(self, ids: Sequence[int]) -> int:
        return min(self.settings.max_new_tokens, self.weights.context - len(ids))


class _Rows:
    """A bar that is told of tokens, for one that counts rows. tokens: of a row, at most."""

    def __init__(self, tokens: float, advance: Advance) -> None:
        self.tokens, self._advance = tokens, advance

    def advance(self, amount: float = 1, note: str = "") -> None:  # noqa: ARG002
        """Move on by so many tokens."""
        self._advance(amount / self.tokens)


def records_of(
    answering: Answering, window: Sequence[Item], stop: Interruption, advance: Advance
) -> Iterator[Record]:  # fmt: skip
    """A record for each item of a window, in its order."""
    good = [item for item in window if not item.error]
    made = iter(answering.records(good, stop, advance) if good else [])
    advance(len(window) - len(good))
    for item in window:
        yield {"error": f"{item.row.place}: {item.error}"} if item.error else next(made)
