"""Multiple choice: the likelihood of every choice as the answer, each question read once for all of them.

As lm-evaluation-harness defines it: a choice's score is the log-probability of its tokens behind the prompt, its end
token left out; `acc` takes the highest, `acc_norm` the highest by the letter (characters of the choice), of equals
the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pronk.evaluate.likelihood import member_losses
from pronk.model.adapter import WideAdapter
from pronk.tokens.pack import Member
from pronk.tokens.prompt import Example

PORTION = 8192  # choices that are laid out at once, so that large sets stay small in memory


@dataclass(frozen=True, slots=True)
class ChosenItem:
    """answer: the right one of the choices. scores: log-probability in nats of each."""

    answer: str
    choices: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def predicted(self) -> str:
        """The likeliest choice."""
        return self.choices[int(np.argmax(self.scores))]

    @property
    def predicted_normalised(self) -> str:
        """The likeliest choice by the letter."""
        return self.choices[int(np.argmax(np.array(self.scores) / [len(choice) for choice in self.choices]))]


def choose(
    model: Any,
    adapter: WideAdapter,
    prompts: Sequence[Sequence[int]],
    choice_ids: Sequence[Sequence[Sequence[int]]],
    slots: Sequence[int],
    token_budget: int,
    progress: Callable[[int], None] = lambda _: None,
    families: Sequence[int] | None = None,
) -> dict[int, list[tuple[float, ...]]]:
    """The scores of every item's choices under every slot.

    choice_ids: of each item the ids of its choices, without an end token. families: of the prompts, see
    tokens.pack.Member; a family of its own for each when absent, so that its choices share all of their prompt.
    progress is told the tokens of each batch when it is done.
    """
    found: dict[int, list[tuple[float, ...]]] = {slot: [()] * len(prompts) for slot in slots}
    for pairs in _portions(prompts, choice_ids, slots):
        members = [
            Member(choice_example(prompts[item], ids), slot, family=item if families is None else families[item])
            for item, slot in pairs
            for ids in choice_ids[item]
        ]
        losses_N, start = member_losses(model, adapter, members, token_budget, progress), 0
        for item, slot in pairs:
            end = start + len(choice_ids[item])
            found[slot][item] = tuple((-losses_N[start:end]).tolist())
            start = end
    return found


def choice_example(prompt: Sequence[int], ids: Sequence[int]) -> Example:
    """A prompt with one of its choices as the target."""
    whole = np.array([*prompt, *ids], dtype=np.int64)
    return Example(whole, np.arange(len(whole)) >= len(prompt))


def choice_tokens(prompt: Sequence[int], choices: Sequence[Sequence[int]]) -> int:
    """Tokens of a question and its choices, the prompt once."""
    return len(prompt) + sum(map(len, choices))


def _portions(
    prompts: Sequence[Sequence[int]], choice_ids: Sequence[Sequence[Sequence[int]]], slots: Sequence[int]
) -> Iterator[list[tuple[int, int]]]:
    """(item, slot) pairs by falling length, a portion of choices at a time."""
    portion: list[tuple[int, int]] = []
    size = 0
    for item in sorted(range(len(prompts)), key=lambda item: -choice_tokens(prompts[item], choice_ids[item])):
        for slot in slots:
            if portion and size + len(choice_ids[item]) > PORTION:
                yield portion
                portion, size = [], 0
            portion.append((item, slot))
            size += len(choice_ids[item])
    if portion:
        yield portion


def chosen_items(
    scores: Sequence[tuple[float, ...]], answers: Sequence[str], choices: Sequence[Sequence[str]]
) -> list[ChosenItem]:
    """Scores beside the choices and the right one of them."""
    return [ChosenItem(a, tuple(c), s) for s, a, c in zip(scores, answers, choices, strict=True)]


def records(items: Sequence[ChosenItem], ids: Sequence[str]) -> list[dict[str, Any]]:
    """One record an item, for the run folder."""
    return [
        {
            "id": name,
            "answer": item.answer,
            "predicted": item.predicted,
            "predicted_normalised": item.predicted_normalised,
            "choices": list(item.choices),
            "scores": list(item.scores),
        }
        for name, item in zip(ids, items, strict=True)
    ]
