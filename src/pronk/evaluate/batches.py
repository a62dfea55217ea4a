"""Which prompts are read and answered together."""

from __future__ import annotations

from collections.abc import Sequence

from pronk.tokens.pack import BASE_SLOT


def prompt_batches(
    prompts: Sequence[Sequence[int]], slots: Sequence[int], token_budget: int, longest_answer: int
) -> list[list[tuple[int, int]]]:
    """(item, slot) pairs by falling length, so that rows of a batch hardly differ. A batch holds at most token_budget
    tokens of prompts and answers, all rows counted as long as its longest, as they are kept.

    The base has batches of its own: it mostly writes on where tuned models have long ended, and a step of generation
    takes the same time for its few rows as for all.
    """
    order = sorted(range(len(prompts)), key=lambda item: -len(prompts[item]))
    batches: list[list[tuple[int, int]]] = []
    for together in ([slot for slot in slots if slot != BASE_SLOT], [slot for slot in slots if slot == BASE_SLOT]):
        pairs, start = [(item, slot) for item in order for slot in together], 0
        while start < len(pairs):
            longest = max(1, len(prompts[pairs[start][0]]) + longest_answer)
            batches.append(pairs[start : start + max(1, token_budget // longest)])
            start += len(batches[-1])
    return batches
