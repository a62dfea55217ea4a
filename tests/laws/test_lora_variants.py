"""rsLoRA and LoRA+ against PEFT: 50 steps in float64, in company, give the same losses and weights."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from oracle_plain import train_plainly
from peft.optimizers import create_loraplus_optimizer
from tiny import (
    PEFT_WARNS,
    TIGHT,
    State,
    apart,
    five_plans,
    make_examples,
    packed_model,
    peft_model,
    plain_model,
    read_state,
    shorter,
    start_fleet,
    train,
)

from pronk.model.adapter import AdapterShape
from pronk.train.fleet import RunPlan, Step

pytestmark = pytest.mark.filterwarnings(PEFT_WARNS)

PLAN = RunPlan(
    "variant", make_examples(13, 1), AdapterShape(5, 4, ("q_proj", "down_proj"), use_rslora=True), 50, 3, 1e-3,
    schedule="linear", warmup_steps=4, lora_plus_ratio=8.0, weight_decay=0.1, clip=0.5,
)  # fmt: skip


def by_pronk(plan: RunPlan) -> tuple[State, list[Step]]:
    """The run between two others."""
    before, *_, after = shorter(five_plans(), plan.steps)
    weights, steps = train(start_fleet(packed_model(), [before, plan, after], 60))
    return weights[plan.name], steps[plan.name]


def by_peft(plan: RunPlan) -> tuple[State, list[float]]:
    fleet = start_fleet(packed_model(), [plan], 60)
    model = peft_model(plain_model(), plan.shape, fleet.adapter.state(0))
    optimizer = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=plan.learning_rate, loraplus_lr_ratio=plan.lora_plus_ratio,
        loraplus_weight_decay=plan.weight_decay, fused=True,
    )  # fmt: skip
    losses = train_plainly(model, optimizer, plan)
    return read_state(model), losses


@pytest.fixture(scope="module")
def theirs() -> tuple[State, list[float]]:
    return by_peft(PLAN)


def test_a_run_equals_pefts(theirs: tuple[State, list[float]]) -> None:
    weights, steps = by_pronk(PLAN)
    assert apart(weights, theirs[0]) < TIGHT
    assert [step.loss for step in steps] == pytest.approx(theirs[1], abs=TIGHT)
    assert theirs[1][-1] < theirs[1][0]


FAULTS: dict[str, Callable[[RunPlan], RunPlan]] = {
    "alpha over rank": lambda plan: replace(plan, shape=replace(plan.shape, use_rslora=False)),
    "one rate for A and B": lambda plan: replace(plan, lora_plus_ratio=1.0),
    "A faster, not B": lambda plan: replace(plan, learning_rate=8e-3, lora_plus_ratio=1 / 8),
    "no decay": lambda plan: replace(plan, weight_decay=0.0),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_shows(fault: str, theirs: tuple[State, list[float]]) -> None:
    assert apart(by_pronk(FAULTS[fault](PLAN))[0], theirs[0]) > 1e4 * TIGHT
