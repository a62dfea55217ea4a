"""Of each row's own choices the likeliest, with the scores of all, as `pronk eval`'s `choice` has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pronk.evaluate.choice import ChosenItem, choose
from pronk.ship.predict.answers import DIGITS, Advance, Record, Weights, not_finite
from pronk.ship.predict.rows import Item
from pronk.train.interrupt import Interruption


class Choices:
    """See pronk.ship.predict.answers.Answering. A record is {"choice", "choice_normalised", "scores"}: the likeliest
    choice, the likeliest by the letter, and the log-probability in nats of each, in the order of the row's choices."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.longest_prompt = weights.context - 1

    def size(self, ids: list[int]) -> int:
        """Tokens that a prompt takes in a batch; those of its choices are counted with the row."""
        return len(ids)

    def records(self, items: Sequence[Item], stop: Interruption, advance: Advance) -> list[Record]:
        """A record an item. Raises KeyboardInterrupt between batches, BaseModelError for scores that are not finite."""
        found = self.weights.within_memory(lambda told: self._scores(items, stop, told), advance)
        if not all(np.isfinite(scores).all() for scores in found):
            raise not_finite(self.weights)
        return [_record(ChosenItem("", item.choices, scores)) for item, scores in zip(items, found, strict=True)]

    def _scores(self, items: Sequence[Item], stop: Interruption, advance: Advance) -> list[tuple[float, ...]]:
        loaded, (slot,) = self.weights.loaded, self.weights.loaded.slots
        # a bar counts rows, and a batch holds tokens of some; what is told comes to all rows in the end
        whole, told = sum(len(item.ids) + item.answer_size for item in items), 0.0

        def progress(tokens: int) -> None:
            nonlocal told
            step = min(len(items) * tokens / whole, len(items) - told)
            told += step
            advance(step)
            stop.check()

        prompts, choices = [item.ids for item in items], [item.choice_ids for item in items]
        stop.check()
        found = choose(loaded.model, loaded.adapter, prompts, choices, [slot], self.weights.budget, progress)
        advance(len(items) - told)
        return found[slot]


def _record(item: ChosenItem) -> Record:
    return {
        "choice": item.predicted,
        "choice_normalised": item.predicted_normalised,
        "scores": [float(f"{score:.{DIGITS}g}") for score in item.scores],
    }
