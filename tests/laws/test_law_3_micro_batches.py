"""Law 3: any split of a step into micro-batches gives the same update."""

import pytest
import torch
from faults import Fault, attention_across, dropout_by_place, mean_of_micro_batches, positions_not_restarted
from tiny import TIGHT, State, farthest, five_plans, packed_model, shorter, start_fleet, train, train_plans

from pronk.train.fleet import Step

Trained = tuple[dict[str, State], dict[str, list[Step]]]
WHOLE = 1_000_000  # every round in one micro-batch
FEW = 12  # steps in which every planted fault shows
SINGLE = 1e-5  # single precision: roundings of 1e-7 of weights around 0.1, through 50 Adam steps


@pytest.fixture(scope="module")
def whole() -> dict[str, State]:
    """In the form of the product that comes first: the others have to agree with it too."""
    return train_plans(five_plans(), WHOLE)


@pytest.fixture(scope="module")
def whole_few() -> Trained:
    """The same for the first steps, with what each of them reports."""
    return train(start_fleet(packed_model(), shorter(five_plans(), FEW), WHOLE))


@pytest.fixture(scope="module")
def whole_single() -> dict[str, State]:
    """The same in single precision."""
    return train_plans(five_plans(), WHOLE, torch.float32)


def test_a_split_gives_the_same_weights(whole: dict[str, State]) -> None:
    assert farthest(train_plans(five_plans(), 31), whole)[0] < TIGHT


@pytest.mark.parametrize("token_budget", [1, 31, 64, 150])
def test_any_split_gives_the_same_weights_and_steps(whole_few: Trained, token_budget: int) -> None:
    plans = shorter(five_plans(), FEW)
    weights, split = train(start_fleet(packed_model(), plans, token_budget))
    joined_weights, joined = whole_few
    assert farthest(weights, joined_weights)[0] < TIGHT
    for plan in plans:
        assert len(split[plan.name]) == plan.steps
        for a, b in zip(split[plan.name], joined[plan.name], strict=True):
            assert (a.number, a.tokens) == (b.number, b.tokens)
            assert (a.loss, a.gradient_norm) == pytest.approx((b.loss, b.gradient_norm), rel=1e-9)


def test_any_split_gives_the_same_weights_in_single_precision(whole_single: dict[str, State]) -> None:
    assert farthest(train_plans(five_plans(), 31, torch.float32), whole_single)[0] < SINGLE


@pytest.mark.parametrize(
    "fault",
    [mean_of_micro_batches, attention_across, positions_not_restarted, dropout_by_place],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_shows(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    plans = shorter(five_plans(), FEW)
    assert farthest(train_plans(plans, 31), train_plans(plans, WHOLE))[0] > 100 * TIGHT
