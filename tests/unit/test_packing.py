"""Packing against a slow reference that lays out one token at a time."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pronk.tokens.pack import BASE_SLOT, Member, MicroBatch, pack
from pronk.tokens.prompt import Example


def members(seed: int, count: int, longest: int) -> list[Member]:
    """Random examples; ids tell members apart, so that what went where can be seen."""
    random_ = random.Random(seed)
    made = []
    for number in range(count):
        length = random_.randint(2, longest)
        prompt = random_.randint(1, length - 1)
        ids = np.array([1000 * number + place for place in range(length)], dtype=np.int64)
        example = Example(ids, np.arange(length) >= prompt)
        slot = random_.choice([BASE_SLOT, 0, 1, 2])
        made.append(Member(example, slot, random_.random(), random_.randrange(10**6)))
    return made


def laid_out_slowly(all_members: list[Member], chosen: list[int]) -> dict[str, list[float]]:
    """What a micro-batch of these members must hold."""
    wanted: dict[str, list[float]] = {name: [] for name in MicroBatch.__dataclass_fields__}
    for index in chosen:
        member = all_members[index]
        length = len(member.example.ids) - 1
        wanted["lengths_S"].append(length)
        wanted["parents_S"].append(-1)
        for place in range(length):
            row = len(wanted["ids_T"])
            wanted["ids_T"].append(int(member.example.ids[place]))
            wanted["positions_T"].append(place)
            wanted["slots_T"].append(member.slot)
            wanted["keys_T"].append(member.key or 0)
            if member.example.target[place + 1]:
                wanted["rows_N"].append(row)
                wanted["targets_N"].append(int(member.example.ids[place + 1]))
                wanted["weights_N"].append(member.weight)
                wanted["members_N"].append(index)
    return wanted


def order_in(batch: MicroBatch) -> list[int]:
    """The members of a batch in their order, read from the ids."""
    return [int(ids) // 1000 for ids, place in zip(batch.ids_T, batch.positions_T, strict=True) if place == 0]


CASES = [(seed, count, longest, budget) for seed in range(12) for count, longest, budget in
         [(1, 5, 3), (7, 30, 30), (40, 60, 64), (40, 100, 50), (60, 20, 4096)]]  # fmt: skip


@pytest.mark.parametrize(("seed", "count", "longest", "budget"), CASES)
def test_every_batch_equals_the_slow_reference(seed: int, count: int, longest: int, budget: int) -> None:
    given = members(seed, count, longest)
    batches = pack(given, budget)
    orders = [order_in(batch) for batch in batches]
    assert sorted(index for order in orders for index in order) == list(range(count))
    for batch, order in zip(batches, orders, strict=True):
        wanted = laid_out_slowly(given, order)
        for name, values in wanted.items():
            assert list(getattr(batch, name)) == values, name
        assert len(batch.ids_T) <= budget or len(order) == 1
        assert [given[index].slot for index in order] == sorted(given[index].slot for index in order)
        assert {batch.ids_T.dtype, batch.positions_T.dtype, batch.slots_T.dtype, batch.rows_N.dtype} == {np.dtype("i8")}


@pytest.mark.parametrize("seed", range(6))
def test_the_same_members_give_the_same_batches(seed: int) -> None:
    first, second = (pack(members(seed, 50, 40), 100) for _ in range(2))
    assert [order_in(batch) for batch in first] == [order_in(batch) for batch in second]


@pytest.mark.parametrize("seed", range(6))
def test_batches_are_well_filled(seed: int) -> None:
    """Best fit never leaves two batches that would fit into one."""
    batches = pack(members(seed, 80, 40), 128)
    sizes = sorted(len(batch.ids_T) for batch in batches)
    assert len(sizes) == 1 or sizes[0] + sizes[1] > 128


def test_nothing_packs_to_nothing() -> None:
    assert pack([], 100) == []


def alike(seed: int, count: int) -> list[Member]:
    """Members with three beginnings, one of which ends with the prompt; some with dropout, some unlike all others."""
    random_ = random.Random(seed)
    beginnings = [list(range(100, 130)), list(range(200, 212)), list(range(100, 104))]
    made = []
    for number in range(count):
        own = [10_000 + 100 * number + place for place in range(random_.randint(3, 30))]
        ids = np.array([*random_.choice([*beginnings, []]), *own], dtype=np.int64)
        prompt = random_.randint(max(1, len(ids) - len(own)), len(ids) - 2)
        key = random_.choice([None, None, 7])
        made.append(Member(Example(ids, np.arange(len(ids)) >= prompt), random_.choice([BASE_SLOT, 0, 1]), 0.5, key))
    return made


def sequences(batch: MicroBatch) -> dict[int, tuple[list[int], list[int], list[int]]]:
    """Ids, positions and rows of each member of a batch, put together again."""
    tokens = np.split(np.arange(len(batch.ids_T)), np.cumsum(batch.lengths_S)[:-1])
    found = {}
    for member in dict.fromkeys(batch.members_N.tolist()):
        rows = batch.rows_N[batch.members_N == member]
        segment = next(number for number, part in enumerate(tokens) if rows[0] in part)
        parent = batch.parents_S[segment]
        whole = [*([] if parent < 0 else tokens[parent]), *tokens[segment]]
        found[member] = (batch.ids_T[whole].tolist(), batch.positions_T[whole].tolist(), rows.tolist())
        assert set(batch.slots_T[whole]) == {batch.slots_T[rows[0]]}
        assert set(rows.tolist()) <= set(tokens[segment].tolist()), "a target is predicted from a shared beginning"
    return found


@pytest.mark.parametrize("budget", [1, 60, 200, 10_000])
@pytest.mark.parametrize("seed", range(8))
def test_every_member_can_be_put_together_again(seed: int, budget: int) -> None:
    given = alike(seed, 60)
    batches = pack(given, budget)
    assert sorted(member for batch in batches for member in sequences(batch)) == list(range(60))
    for batch in batches:
        for member, (ids, positions, rows) in sequences(batch).items():
            example = given[member].example
            assert ids == example.ids[:-1].tolist()
            assert positions == list(range(len(ids)))
            targets = batch.targets_N[batch.members_N == member].tolist()
            assert targets == example.ids[1:][example.target[1:]].tolist()
            assert batch.positions_T[rows].tolist() == np.flatnonzero(example.target[1:]).tolist()
        assert len(batch.ids_T) <= budget or len(sequences(batch)) == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_beginning_is_laid_down_once_for_each_run(seed: int) -> None:
    """In one micro-batch; with dropout every sequence has hidden states of its own, so nothing is shared."""
    given = alike(seed, 60)
    (batch,) = pack(given, 10_000)
    for slot in (BASE_SLOT, 0, 1):
        owned = batch.slots_T == slot
        begin = [member.key for member in given if member.slot == slot and member.example.ids[0] == 200]
        with_dropout = sum(key is not None for key in begin)
        assert (batch.ids_T[owned] == 200).sum() == with_dropout + (None in begin)
    assert len(batch.ids_T) < 0.9 * sum(len(member.example.ids) - 1 for member in given)


def test_one_odd_row_does_not_undo_the_sharing_of_all_others() -> None:
    rows = [Member(Example(np.arange(40) + (1000 * (n == 3)), np.arange(40) > 35)) for n in range(6)]
    (batch,) = pack(rows, 10_000)
    assert sorted(batch.lengths_S) == [4, 4, 4, 4, 4, 35, 39]
