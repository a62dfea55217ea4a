"""Which prompts are answered together: every one once, in bounded memory, and nobody waits for the base."""

from __future__ import annotations

import random

import pytest

from pronk.evaluate.batches import prompt_batches
from pronk.tokens.pack import BASE_SLOT

draw = random.Random(3)
PROMPTS = [[1] * draw.randrange(5, 90) for _ in range(200)]
ANSWER = 11


def kept(batch: list[tuple[int, int]]) -> int:
    """Tokens of the keys and values that a batch keeps: a row as long as the longest."""
    return len(batch) * (max(len(PROMPTS[item]) for item, _ in batch) + ANSWER)


@pytest.mark.parametrize("slots", [[BASE_SLOT, 0, 1, 2], [BASE_SLOT], [0]])
@pytest.mark.parametrize("budget", [101, 2048, 10**6])
def test_batches_hold_everything_once_and_stay_within_their_budget(slots: list[int], budget: int) -> None:
    batches = prompt_batches(PROMPTS, slots, budget, ANSWER)
    pairs = [pair for batch in batches for pair in batch]
    assert sorted(pairs) == sorted((item, slot) for item in range(len(PROMPTS)) for slot in slots)
    assert all(kept(batch) <= budget or len(batch) == 1 for batch in batches)


def test_a_row_beyond_the_budget_is_alone() -> None:
    assert [len(batch) for batch in prompt_batches([[1] * 50, [1] * 40], [0], 20, 5)] == [1, 1]


def test_the_base_writes_in_batches_of_its_own() -> None:
    batches = prompt_batches(PROMPTS, [BASE_SLOT, 0, 1], 2048, ANSWER)
    assert all(len({slot == BASE_SLOT for _, slot in batch}) == 1 for batch in batches)
    assert len([batch for batch in batches if batch[0][1] == BASE_SLOT]) < len(batches) / 2
