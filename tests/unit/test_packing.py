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
        for place in range(length):
            row = len(wanted["ids_T"])
            wanted["ids_T"].append(int(member.example.ids[place]))
            wanted["positions_T"].append(place)
            wanted["slots_T"].append(member.slot)
            wanted["keys_T"].append(member.key)
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
