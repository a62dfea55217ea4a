"""Which prompts are read and answered together."""

from __future__ import annotations

from collections.abc import Sequence


def prompt_batches(
    prompts: Sequence[Sequence[int]], slots: Sequence[int], token_budget: int, longest_answer: int
) -> list[list[tuple[int, int]]]:
    """(item, slot) pairs by falling length, so that rows of a batch hardly differ and the largest
    batch comes first; a batch holds at most token_budget tokens of prompts and answers."""
    order = sorted(range(len(prompts)), key=lambda item: -len(prompts[item]))
    batches: list[list[tuple[int, int]]] = []
    room = 0
    for item in order:
        for slot in slots:
            size = len(prompts[item]) + longest_answer
            if size > room or not batches:
                batches.append([])
                room = max(token_budget, size)
            batches[-1].append((item, slot))
            room -= size
    return batches
