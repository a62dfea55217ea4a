"""Law 1: a run in a fleet equals the same run alone."""

from collections.abc import Sequence

import pytest
import torch
from faults import (
    Fault,
    attention_across,
    beginnings_unlearned,
    beginnings_unseen,
    columns_shifted,
    dropout_by_place,
    mean_of_micro_batches,
    one_clip_for_all,
    positions_not_restarted,
    shared_adam_step,
    targets_shifted,
)
from tiny import TIGHT, State, farthest, five_plans, packed_model, shorter, start_fleet, train, train_plans

from pronk.train.fleet import RunPlan, Step

# Single precision: roundings of 1e-7 of weights around 0.1, carried through 50 Adam steps; 7e-8 seen.
# The faults below move weights by 3e-3 and more.
SINGLE = 1e-5
FEW = 12  # steps in which every planted fault shows


def alone(plans: Sequence[RunPlan], dtype: torch.dtype = torch.float64) -> dict[str, State]:
    """Every run on a model of its own, in micro-batches of hardly two sequences."""
    return {plan.name: train_plans([plan], 20, dtype)[plan.name] for plan in plans}


@pytest.fixture(scope="module")
def lonely() -> dict[str, State]:
    """In the form of the product that comes first: the others have to agree with it too."""
    return alone(five_plans())


@pytest.fixture(scope="module")
def steps_alone() -> dict[str, tuple[State, list[Step]]]:
    """The same for the first steps, with what each step reports."""
    found = {}
    for plan in shorter(five_plans(), FEW):
        states, steps = train(start_fleet(packed_model(), [plan], 1))
        found[plan.name] = states[plan.name], steps[plan.name]
    return found


@pytest.fixture(scope="module")
def lonely_few(steps_alone: dict[str, tuple[State, list[Step]]]) -> dict[str, State]:
    return {name: state for name, (state, _) in steps_alone.items()}


@pytest.fixture(scope="module")
def lonely_single() -> dict[str, State]:
    """The same in single precision."""
    return alone(five_plans(), torch.float32)


def test_a_run_in_a_fleet_equals_the_same_run_alone(lonely: dict[str, State]) -> None:
    assert farthest(train_plans(five_plans(), 40), lonely)[0] < TIGHT


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 2, 0, 3, 1), (3, 1)])
@pytest.mark.parametrize("token_budget", [40, 100_000])
def test_whatever_the_company_and_its_order(
    lonely_few: dict[str, State], order: tuple[int, ...], token_budget: int
) -> None:
    plans = [shorter(five_plans(), FEW)[i] for i in order]
    together = train_plans(plans, token_budget)
    difference, _ = farthest(together, {plan.name: lonely_few[plan.name] for plan in plans})
    assert difference < TIGHT


def test_steps_report_the_same_in_company(steps_alone: dict[str, tuple[State, list[Step]]]) -> None:
    plans = shorter(five_plans(), FEW)
    _, together = train(start_fleet(packed_model(), plans, 100))
    for plan in plans:
        for a, b in zip(together[plan.name], steps_alone[plan.name][1], strict=True):
            assert (a.number, a.tokens, a.learning_rate) == (b.number, b.tokens, b.learning_rate)
            assert (a.loss, a.gradient_norm) == pytest.approx((b.loss, b.gradient_norm), rel=1e-8)


def test_a_run_in_a_fleet_equals_the_same_run_alone_in_single_precision(lonely_single: dict[str, State]) -> None:
    assert farthest(train_plans(five_plans(), 60, torch.float32), lonely_single)[0] < SINGLE


def test_training_moves_the_weights_far_more_than_the_tolerances(lonely: dict[str, State]) -> None:
    fleet = start_fleet(packed_model(), five_plans(), 100)
    for slot, plan in enumerate(five_plans()):
        start = fleet.adapter.state(slot)
        assert min((lonely[plan.name][key] - start[key]).abs().max() for key in start) > 100 * SINGLE


@pytest.mark.parametrize(
    "fault",
    [columns_shifted, mean_of_micro_batches, one_clip_for_all, shared_adam_step, positions_not_restarted,
     attention_across, beginnings_unseen, beginnings_unlearned, dropout_by_place],
    ids=lambda fault: fault.__name__,
)  # fmt: skip
def test_a_fault_shows(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is in pronk for good: in the fleet and in the single runs alike."""
    fault(monkeypatch)
    plans = shorter(five_plans(), FEW)
    assert farthest(train_plans(plans, 100_000), alone(plans))[0] > 100 * TIGHT


def test_a_fault_of_the_fleet_alone_shows(lonely_few: dict[str, State], monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss mask that is wrong everywhere is law 2's to find; here it is wrong in company only."""
    targets_shifted(monkeypatch)
    assert farthest(train_plans(shorter(five_plans(), FEW), 100_000), lonely_few)[0] > 100 * TIGHT
