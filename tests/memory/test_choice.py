"""What is chosen: the fastest that fits, whatever the figures; laws over random models of memory and work."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from pronk.model.memory.choice import BUDGETS, Setting, Work, Workload, alternatives, best, fitting, settings, smallest
from pronk.model.memory.costs import Costs, EvaluationLoad, Footprint, Load, Times

GIB = 2**30


def random_costs(seed: int, measured: bool = True) -> Costs:
    draw = np.random.default_rng(seed)

    def some(most: float) -> float:
        return float(draw.uniform(0, most))

    kept, gradients = Footprint(some(1e5), some(1e4)), Footprint(some(1e5), some(1e4), some(1e8))
    return Costs(
        layers=int(draw.integers(1, 40)), outside=some(2e9), layer=some(3e8), trained=some(1e9), adapters=some(1e8),
        kept=kept, backward=gradients,
        again=Footprint(kept.token + gradients.token, kept.seen + gradients.seen, gradients.constant),
        checkpoint=some(1e4), ends_token=some(3e4), ends_again=some(4e4), ends_target=some(2e4), loss_target=some(1e6),
        chunk=2048, reading_token=some(1e5), reading_target=some(1e6), cell=some(4e3), generating_cell=some(2e4),
        row=some(5e5),
        times=Times(measured, some(1e-2), some(1e-6), some(1e-3), some(1e-6), 0.0, some(1e-3), some(1e-6), some(1e-2)),
        slack=some(0.05), recorded=bool(draw.integers(2)), calibrated=measured,
    )  # fmt: skip


def some_work(seed: int) -> Work:
    draw = np.random.default_rng(seed)
    tokens, share = 1e6, draw.uniform(0.01, 1)
    trainings = [
        Workload(budget, (Load(budget, int(budget * share)),), tokens / budget, tokens)
        for budget in BUDGETS[int(draw.integers(len(BUDGETS))) :]
    ]
    evaluations = [(size, (EvaluationLoad(size, 100, size // 50, size),)) for size in (2048, 8192, 32768, 131072)]
    return Work(tuple(trainings), tuple(evaluations) if seed % 3 else (), 100, tokens)


def offered(seed: int, limit: int, recompute: str | int = "auto") -> list[Setting]:
    kinds = ("none", "int8", "nf4")[: 1 + seed % 3]
    return settings(
        {kind: random_costs(3 * seed + n) for n, kind in enumerate(kinds)}, some_work(seed), recompute, limit
    )


LIMITS = [int(gib * GIB) for gib in (0.5, 2, 4, 8, 16, 24, 40, 80, 140)]


@pytest.mark.parametrize("seed", range(25))
def test_more_memory_never_gives_a_slower_choice(seed: int) -> None:
    chosen = [best(offered(seed, limit), limit) for limit in LIMITS]
    for small, large in itertools.pairwise(chosen):
        if small is not None:
            assert large is not None
            assert large.cost <= small.cost


@pytest.mark.parametrize("seed", range(25))
def test_what_fits_is_never_refused_and_what_is_refused_does_not_fit(seed: int) -> None:
    """Every setting by itself, predicted directly, against what is chosen of all."""
    for limit in LIMITS:
        found = offered(seed, limit)
        chosen = best(found, limit)
        assert (chosen is None) == (not fitting(found, limit)) == all(one.peak > limit for one in found)
        if chosen is None:
            assert smallest(found).peak > limit
        else:
            assert chosen.peak <= limit
            assert chosen.cost == min(one.cost for one in found if one.peak <= limit)


@pytest.mark.parametrize("seed", range(25))
def test_what_is_chosen_fits_in_every_phase(seed: int) -> None:
    """Loading, training and evaluation, each predicted directly."""
    limit, work = LIMITS[-2], some_work(seed)
    found = best(offered(seed, limit), limit)
    if found is None:
        return
    costs = random_costs(3 * seed + ("none", "int8", "nf4").index(found.quantize))
    (workload,) = (one for one in work.trainings if one.budget == found.budget)
    peaks = [costs.loading_peak(), costs.training_peak(workload.largest, found.recompute)]
    if found.evaluation_tokens is not None:
        loads = dict(work.evaluations)[found.evaluation_tokens]
        peaks.append(max(map(costs.evaluation_peak, loads)))
    assert found.peak == max(peaks) <= limit


@pytest.mark.parametrize("seed", range(10))
def test_each_recomputed_layer_takes_time(seed: int) -> None:
    costs = random_costs(seed)
    times = [costs.batch_cost(10, 10_000, 0, layers) for layers in range(costs.layers + 1)]
    assert times == sorted(times)


def test_with_room_nothing_is_recomputed() -> None:
    for seed in range(10):
        chosen = best(offered(seed, 10**15), 10**15)
        assert chosen is not None
        assert chosen.recompute == 0


@pytest.mark.parametrize(("asked", "tried"), [("none", {0}), ("all", {40}), (7, {7}), ("auto", set(range(41)))])
def test_the_recipe_s_number_of_layers_is_kept(asked: str | int, tried: set[int]) -> None:
    costs = {"nf4": replace(random_costs(1), layers=40)}
    assert {one.recompute for one in settings(costs, some_work(1), asked, GIB)} == tried


def test_of_equal_speed_the_more_exact_is_taken() -> None:
    costs = replace(random_costs(2, measured=False), recorded=False)
    smaller = replace(costs, layer=costs.layer / 4)
    chosen = best(settings({"nf4": smaller, "none": costs}, some_work(2), "auto", 10**15), 10**15)
    assert chosen is not None
    assert chosen.quantize == "none"


def test_an_evaluation_takes_large_batches_where_there_is_room_and_small_ones_where_there_is_not() -> None:
    found = {}
    for limit in LIMITS:
        if chosen := best(offered(4, limit), limit):
            assert chosen.evaluation_tokens is not None
            found[limit] = chosen.evaluation_tokens
    assert sorted(found.values()) == list(found.values())
    assert len(set(found.values())) > 1, "nothing was tested"


def test_alternatives_are_the_best_of_each_kind_and_budget() -> None:
    found, limit = offered(2, LIMITS[3]), LIMITS[3]
    shown = alternatives(found, limit)
    assert len(shown) == len({(one.quantize, one.budget) for one in found})
    chosen = best(found, limit)
    assert chosen is None or chosen in shown
