"""Which examples a step sees, and with which learning rate."""

from __future__ import annotations

import itertools

import pytest
import torch
from transformers import get_scheduler

from pronk.train.order import _epoch_order, batch_indices, steps_per_epoch
from pronk.train.schedule import rate_factor

RECORDED = [[1, 2, 5, 7], [6, 0, 3, 4], [4, 0, 7, 1]]


@pytest.mark.parametrize(("examples", "batch"), [(1, 1), (1, 16), (10, 3), (12, 4), (100, 7), (5, 5), (4, 9)])
@pytest.mark.parametrize("seed", [0, 42])
def test_an_epoch_shows_every_example_once(examples: int, batch: int, seed: int) -> None:
    steps = steps_per_epoch(examples, batch)
    orders = []
    for epoch in range(4):
        batches = [batch_indices(examples, batch, seed, epoch * steps + step) for step in range(steps)]
        assert sorted(itertools.chain(*batches)) == list(range(examples))
        assert all(len(one) == batch for one in batches[:-1])
        assert 1 <= len(batches[-1]) <= batch
        orders.append([*itertools.chain(*batches)])
    if examples >= 10:
        assert len({tuple(order) for order in orders}) == 4
        assert orders[0] != list(range(examples))


def test_a_step_is_the_same_wherever_one_resumes() -> None:
    straight = [batch_indices(50, 8, 7, step) for step in range(40)]
    _epoch_order.cache_clear()
    backwards = [batch_indices(50, 8, 7, step) for step in reversed(range(40))][::-1]
    assert straight == backwards
    assert straight != [batch_indices(50, 8, 8, step) for step in range(40)]


def test_the_order_is_that_of_every_machine() -> None:
    """Recorded on CPython 3.11; a run that is resumed elsewhere must see the same examples."""
    assert [batch_indices(8, 4, 42, step) for step in range(3)] == RECORDED


def test_callers_cannot_change_the_order() -> None:
    batch_indices(6, 6, 1, 0).clear()
    assert len(batch_indices(6, 6, 1, 0)) == 6


@pytest.mark.parametrize("schedule", ["constant", "constant_with_warmup", "linear", "cosine"])
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (20, 0), (20, 1), (20, 7), (20, 20), (20, 30), (137, 13)])
def test_rates_are_those_of_transformers(schedule: str, total: int, warmup: int) -> None:
    # "constant" takes no warm-up there; here it is the same as constant_with_warmup
    name = "constant_with_warmup" if schedule == "constant" else schedule
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    for step in range(total):
        assert rate_factor(schedule, step, total, warmup) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="polynomial"):
        rate_factor("polynomial", 5, 10, 0)
