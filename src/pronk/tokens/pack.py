"""Sequences of all runs into micro-batches of a fixed token budget; equal beginnings are laid down once.

The examples of a run mostly begin alike: with the same preamble and instruction. Without dropout such
a beginning has the same hidden states in each of them, so it becomes a segment of its own, which the
segments behind it look back at; its gradient is the sum of theirs.

Names carry shapes: T tokens, N targets, S segments.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pronk.tokens.prompt import Example

# Tokens of a micro-batch. On a CPU a larger one only costs memory.
TOKEN_BUDGET = {"cpu": 4096, "cuda": 16384}
BASE_SLOT = -1  # tokens of this slot see the base model alone
SHORTEST_SHARED = 8  # tokens; a shorter beginning is not worth a segment of its own


@dataclass(frozen=True, slots=True)
class Member:
    """An example on its way into a micro-batch.

    slot: the adapter that it belongs to, or BASE_SLOT. weight: what each of its target tokens
    counts in the loss. key: identifies it to the dropout generator; None where nothing is dropped.
    family: those of one family may share their beginning; in one, examples with much in common are not held back
    by others with little.
    """

    example: Example
    slot: int = BASE_SLOT
    weight: float = 1.0
    key: int | None = None
    family: int = 0


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Segments laid end to end. A sequence's last id is only ever a target, never an input.

    parents_S: the segment that holds a segment's beginning; -1 where a segment is a whole sequence,
    or a beginning itself.
    """

    ids_T: npt.NDArray[np.int64]
    positions_T: npt.NDArray[np.int64]
    slots_T: npt.NDArray[np.int64]
    keys_T: npt.NDArray[np.int64]  # the member's key, for dropout
    lengths_S: tuple[int, ...]
    parents_S: tuple[int, ...]
    rows_N: npt.NDArray[np.int64]  # the token whose hidden state predicts the target
    targets_N: npt.NDArray[np.int64]
    weights_N: npt.NDArray[np.float64]
    members_N: npt.NDArray[np.int64]  # index of the target's member, in the order given to pack


@dataclass(frozen=True, slots=True)
class _Group:
    """Members (their indices) of one slot whose first `shared` ids are the same and no targets."""

    members: tuple[int, ...]
    shared: int


def pack(members: Sequence[Member], budget: int) -> list[MicroBatch]:
    """Pack members into few micro-batches of at most `budget` tokens, by best fit decreasing.

    A member longer than the budget gets a micro-batch of its own. Deterministic. Within a
    micro-batch the segments of a slot lie together.
    """
    groups = _groups(members)
    group_of = {index: number for number, group in enumerate(groups) for index in group.members}
    bins = _best_fit([len(member.example.ids) - 1 for member in members], groups, budget)
    batches = []
    for chosen in bins:
        order = sorted(chosen, key=lambda index: (members[index].slot, group_of[index], index))
        batches.append(_lay_out(members, order, [groups[group_of[index]] for index in order]))
    return batches


def pack_prompts(
    prompts: Sequence[Sequence[int]], slots: Sequence[int], families: Sequence[int] | None = None
) -> MicroBatch:
    """All prompts in one pack. Each has one target, a token that stands for whatever may follow: the hidden
    state that predicts it is where an answer begins. families: see Member; all of one when absent."""
    members = []
    for prompt, slot, family in zip(prompts, slots, families or [0] * len(slots), strict=True):
        ids = np.array([*prompt, 0], dtype=np.int64)
        members.append(Member(Example(ids, np.arange(len(ids)) == len(prompt)), slot, family=family))
    (batch,) = pack(members, sum(len(member.example.ids) for member in members))
    return batch


def _groups(members: Sequence[Member]) -> list[_Group]:
    """Members with a common beginning together, all others in a last group that shares nothing."""
    alike: dict[tuple[int, int, bytes], list[int]] = {}
    alone: list[int] = []
    for index, member in enumerate(members):
        if member.key is None and _room(member.example) >= SHORTEST_SHARED:
            beginning = member.example.ids[:SHORTEST_SHARED].tobytes()
            alike.setdefault((member.slot, member.family, beginning), []).append(index)
        else:
            alone.append(index)
    groups = []
    for indices in alike.values():
        if len(indices) > 1:
            groups.append(_Group(tuple(indices), _shared([members[index].example for index in indices])))
        else:
            alone += indices
    return [*groups, _Group(tuple(alone), 0)]


def _room(example: Example) -> int:
    """The longest beginning that may be shared: no target is among it or predicted from it."""
    return int(np.argmax(example.target)) - 1


def _shared(examples: Sequence[Example]) -> int:
    """How many ids all examples begin with."""
    first, length = examples[0], min(_room(example) for example in examples)
    for other in examples[1:]:
        differs = np.flatnonzero(first.ids[:length] != other.ids[:length])
        length = int(differs[0]) if len(differs) else length
    return length


def _best_fit(lengths: Sequence[int], groups: Sequence[_Group], budget: int) -> list[list[int]]:
    """Best-fit decreasing, group by group: the longest first, into the fullest bin that takes it.

    A bin that holds a group's beginning already is preferred, as the beginning is then for nothing.
    """
    bins: list[list[int]] = []
    open_bins: list[tuple[int, int]] = []  # (room left, bin), sorted
    for group in groups:
        begun: list[tuple[int, int]] = []  # those that hold the group's beginning
        for index in sorted(group.members, key=lambda index: -lengths[index]):
            size = lengths[index] - group.shared
            found = _take(begun, size)
            if found is None:
                size += group.shared
                found = _take(open_bins, size)
            if found is None:
                found = max(budget, size), len(bins)
                bins.append([])
            room, number = found
            bins[number].append(index)
            bisect.insort(begun if group.shared else open_bins, (room - size, number))
        for entry in begun:
            bisect.insort(open_bins, entry)
    return bins


def _take(rooms: list[tuple[int, int]], size: int) -> tuple[int, int] | None:
    """Remove and return the fullest bin that has room for `size`."""
    place = bisect.bisect_left(rooms, (size, -1))
    return rooms.pop(place) if place < len(rooms) else None


@dataclass(frozen=True, slots=True)
class _Segment:
    ids: npt.NDArray[np.int64]
    position: int  # of its first token
    parent: int
    member: int  # whose slot and key it has


def _lay_out(members: Sequence[Member], order: Sequence[int], groups: Sequence[_Group]) -> MicroBatch:
    segments, segment_of = _segments(members, order, groups)
    lengths = np.array([len(segment.ids) for segment in segments])
    starts = np.cumsum(lengths) - lengths
    positions = np.array([segment.position for segment in segments])
    predicted = [np.flatnonzero(members[index].example.target[1:]) for index in order]
    shifts = [starts[segment_of[index]] - positions[segment_of[index]] for index in order]
    counts = [len(rows) for rows in predicted]
    owners = [members[segment.member] for segment in segments]
    return MicroBatch(
        ids_T=np.concatenate([segment.ids for segment in segments]),
        positions_T=np.concatenate([np.arange(s.position, s.position + len(s.ids)) for s in segments]),
        slots_T=np.repeat([owner.slot for owner in owners], lengths),
        keys_T=np.repeat([owner.key or 0 for owner in owners], lengths),
        lengths_S=tuple(lengths.tolist()),
        parents_S=tuple(segment.parent for segment in segments),
        rows_N=np.concatenate([shift + rows for shift, rows in zip(shifts, predicted, strict=True)]),
        targets_N=np.concatenate(
            [members[index].example.ids[1:][rows] for index, rows in zip(order, predicted, strict=True)]
        ),
        weights_N=np.repeat([members[index].weight for index in order], counts),
        members_N=np.repeat(order, counts),
    )


def _segments(
    members: Sequence[Member], order: Sequence[int], groups: Sequence[_Group]
) -> tuple[list[_Segment], dict[int, int]]:
    """The segments of a micro-batch, and for each member the one in which it ends."""
    segments: list[_Segment] = []
    segment_of: dict[int, int] = {}
    for group, indices in _runs(order, groups):
        shared = group.shared if len(indices) > 1 else 0
        parent = -1
        if shared:
            parent = len(segments)
            segments.append(_Segment(members[indices[0]].example.ids[:shared], 0, -1, indices[0]))
        for index in indices:
            segment_of[index] = len(segments)
            segments.append(_Segment(members[index].example.ids[shared:-1], shared, parent, index))
    return segments, segment_of


def _runs(order: Sequence[int], groups: Sequence[_Group]) -> Iterator[tuple[_Group, list[int]]]:
    """The members of a micro-batch, those of a group together."""
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or groups[end] is not groups[start]:
            yield groups[start], list(order[start:end])
            start = end
