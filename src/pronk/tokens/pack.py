"""Sequences of all runs into micro-batches of a fixed token budget.

Names carry shapes: T tokens, N targets, S sequences.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pronk.tokens.prompt import Example

# Tokens of a micro-batch. On a CPU a larger one only costs memory.
TOKEN_BUDGET = {"cpu": 4096, "cuda": 16384}
BASE_SLOT = -1  # tokens of this slot see the base model alone


@dataclass(frozen=True, slots=True)
class Member:
    """An example on its way into a micro-batch.

    slot: the adapter that it belongs to, or BASE_SLOT. weight: what each of its target tokens
    counts in the loss. key: identifies it to the dropout generator.
    """

    example: Example
    slot: int = BASE_SLOT
    weight: float = 1.0
    key: int = 0


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Sequences laid end to end. A sequence's last id is only ever a target, never an input."""

    ids_T: npt.NDArray[np.int64]
    positions_T: npt.NDArray[np.int64]
    slots_T: npt.NDArray[np.int64]
    keys_T: npt.NDArray[np.int64]  # the member's key, for dropout
    lengths_S: tuple[int, ...]
    rows_N: npt.NDArray[np.int64]  # the token whose hidden state predicts the target
    targets_N: npt.NDArray[np.int64]
    weights_N: npt.NDArray[np.float64]
    members_N: npt.NDArray[np.int64]  # index of the target's member, in the order given to pack


def pack(members: Sequence[Member], budget: int) -> list[MicroBatch]:
    """Pack members into as few micro-batches of at most `budget` tokens as best-fit-decreasing finds.

    A member longer than the budget gets a micro-batch of its own. Deterministic. Within a
    micro-batch the sequences of a slot lie together.
    """
    bins = _best_fit(np.array([len(member.example.ids) - 1 for member in members], dtype=np.int64), budget)
    return [_lay_out(members, sorted(chosen, key=lambda i: (members[i].slot, i))) for chosen in bins]


def _best_fit(lengths_S: npt.NDArray[np.int64], budget: int) -> list[list[int]]:
    """Best-fit decreasing: each sequence, the longest first, into the fullest bin that takes it."""
    bins: list[list[int]] = []
    open_bins: list[tuple[int, int]] = []  # (room left, bin), sorted
    for index in np.argsort(-lengths_S, kind="stable").tolist():
        length = int(lengths_S[index])
        place = bisect.bisect_left(open_bins, (length, -1))
        if place < len(open_bins):
            room, number = open_bins.pop(place)
        else:
            room, number = max(budget, length), len(bins)
            bins.append([])
        bins[number].append(index)
        bisect.insort(open_bins, (room - length, number))
    return bins


def _lay_out(members: Sequence[Member], chosen: list[int]) -> MicroBatch:
    inputs = [members[i].example.ids[:-1] for i in chosen]
    lengths = np.array([len(ids) for ids in inputs])
    starts = np.cumsum(lengths) - lengths
    predicted = [np.flatnonzero(members[i].example.target[1:]) for i in chosen]
    counts = [len(rows) for rows in predicted]
    return MicroBatch(
        ids_T=np.concatenate(inputs),
        positions_T=np.concatenate([np.arange(length) for length in lengths]),
        slots_T=np.repeat([members[i].slot for i in chosen], lengths),
        keys_T=np.repeat([members[i].key for i in chosen], lengths),
        lengths_S=tuple(lengths.tolist()),
        rows_N=np.concatenate([start + rows for start, rows in zip(starts, predicted, strict=True)]),
        targets_N=np.concatenate([members[i].example.ids[1:][rows] for i, rows in zip(chosen, predicted, strict=True)]),
        weights_N=np.repeat([members[i].weight for i in chosen], counts),
        members_N=np.repeat(chosen, counts),
    )
