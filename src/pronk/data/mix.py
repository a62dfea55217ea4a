"""Several sources in one: their rows in the proportion of the weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from pronk.data.words import counted, enumerated
from pronk.errors import DataError

T = TypeVar("T")


def mixed(
    parts: Sequence[tuple[str, Sequence[T]]], weights: Sequence[float | None], seed: int, tell: Callable[[str], None]
) -> list[T]:
    """The rows of all parts (name, rows), one part after another, each in its own order.

    Without weights: all rows. With weights, an absent one being 1: rows in proportion to the weights, none
    repeated. The part with the fewest rows for its weight gives all of its rows, the others a draw seeded by
    (seed, position of the part), so that adding a part at the end changes no other's draw but in size.

    Raises DataError if a weight is so small that a part gives no row at all.
    """
    if all(weight is None for weight in weights):
        return [row for _, rows in parts for row in rows]
    shares = [1.0 if weight is None else weight for weight in weights]
    unit = min(len(rows) / share for (_, rows), share in zip(parts, shares, strict=True))
    chosen: list[T] = []
    told = []
    for position, ((name, rows), share) in enumerate(zip(parts, shares, strict=True)):
        count = min(round(unit * share), len(rows))
        if count == 0:
            raise DataError(f"data.source: with the weight {share:g} not one row of {name} is in the mix; raise it")
        drawn = random.Random(f"{seed}/{position}").sample(range(len(rows)), count)
        chosen += [rows[index] for index in sorted(drawn)]
        told.append(f"{count:,} of {counted(len(rows), 'row')} of {name}")
    tell(f"mixed by weight: {enumerated(told, 'and')}")
    return chosen
