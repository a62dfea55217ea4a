"""Which examples a step sees: a seeded shuffle for every epoch, cut into batches."""

from __future__ import annotations

import functools
import random


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Steps in one pass; the last batch may be smaller."""
    return -(-examples // batch_size)


def batch_indices(examples: int, batch_size: int, seed: int, step: int) -> list[int]:
    """The examples of a step (from 0). Depends on its arguments alone, so any step can be taken up again."""
    epoch, position = divmod(step, steps_per_epoch(examples, batch_size))
    order = _epoch_order(examples, seed, epoch)
    return list(order[position * batch_size : (position + 1) * batch_size])


@functools.lru_cache(maxsize=64)
def _epoch_order(examples: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(examples))
    random.Random(f"{seed}/{epoch}").shuffle(order)  # a text seed is hashed the same everywhere
    return tuple(order)
