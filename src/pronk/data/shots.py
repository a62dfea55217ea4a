"""Examples that stand in a prompt (few-shot, Brown et al. 2020): rows of train, the same for every question."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from pronk.data.conversation import Conversation
from pronk.data.split import Splits
from pronk.data.words import counted
from pronk.errors import DataError


def choose_shots(splits: Splits, most: int, labels: Sequence[str], seed: int) -> tuple[Conversation, ...]:
    """`most` rows of train, drawn by the seed; fewer examples are the first of them.

    labels: where there are any, they take turns, so that each stands among the examples about equally often. Rows
    of validation and test are never drawn. Raises DataError where train has too few rows, or rows ask nothing.
    """
    if not most:
        return ()
    rows = list(splits.train)
    if any(not row.question for row in [*rows[:1], *splits.test[:1]]):
        raise DataError("baseline.shots: rows of the format text have no question to show examples of; leave it out")
    if len(rows) < most:
        raise DataError(
            f"baseline.shots: {counted(most, 'example')} asked for, but train has {counted(len(rows), 'row')}; "
            "ask for fewer"
        )
    generator = random.Random(seed)
    generator.shuffle(rows)
    names: list[str | None] = [*labels] or [None]
    generator.shuffle(names)
    waiting = {name: deque(row for row in rows if name is None or row.label == name) for name in names}
    drawn: list[Conversation] = []
    while len(drawn) < most:
        drawn += [waiting[name].popleft() for name in names if waiting[name]]
    return tuple(drawn[:most])


def after_shots(row: Conversation, shots: Sequence[Conversation]) -> Conversation:
    """A conversation in which the examples come first, as earlier turns. Only its own system message is kept."""
    start = 1 if row.messages[0].role == "system" else 0
    earlier = (message for shot in shots for message in shot.messages if message.role != "system")
    return replace(row, messages=(*row.messages[:start], *earlier, *row.messages[start:]))
