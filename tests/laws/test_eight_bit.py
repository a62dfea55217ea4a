"""8-bit AdamW in whole fleets: a run equals itself alone (law 1) and TRL's `adamw_bnb_8bit` (law 2), in fp32.

Where a moment lies between two of its 256 codes, a rounding of 1e-7 decides which it gets, and a code is
worth some hundredths of the moment. So weights that went through 8 bits agree in the mean, not one by one;
`tests/unit/test_eight_bit_optimizer.py` has the same gradients on both sides and asks for the same bits.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from faults import Fault, columns_shifted, mean_of_micro_batches, one_clip_for_all
from oracle_trl import train_with_trl, word_tokenizer
from tiny import (
    State,
    apart,
    five_plans,
    make_examples,
    packed_model,
    plain_model,
    shorter,
    start_fleet,
    train,
    train_plans,
)

from pronk.model.adapter import AdapterShape
from pronk.train.fleet import RunPlan

LARGE = 129  # rank from which every tensor of the tiny model has 4,096 values and goes to 8 bits
STEPS = 20
NEAR = 0.01  # of the way that training took; below 0.005 seen

# transformers 5.23 warns of its own arguments, which TRL 1.16 uses
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")


def plans() -> list[RunPlan]:
    return [
        replace(plan, shape=replace(plan.shape, rank=LARGE + 7 * slot), optimizer="adamw_8bit", weight_decay=0.1)
        for slot, plan in enumerate(shorter(five_plans(), STEPS))
    ]


def error(ours: Mapping[str, State], theirs: Mapping[str, State], starts: Mapping[str, State]) -> float:
    """The largest of all runs: root mean square of how far ours are from theirs, as a share of the way from
    the start."""

    def size(one: State, other: State) -> float:
        return float(torch.cat([(one[key] - other[key]).flatten() for key in one]).square().mean().sqrt())

    return max(size(ours[name], theirs[name]) / size(theirs[name], starts[name]) for name in theirs)


def starts(runs: list[RunPlan]) -> dict[str, State]:
    fleet = start_fleet(packed_model(torch.float32), runs, 60)
    return {run.name: fleet.adapter.state(slot) for slot, run in enumerate(runs)}


def alone(runs: list[RunPlan]) -> dict[str, State]:
    return {run.name: train_plans([run], 20, torch.float32)[run.name] for run in runs}


def test_a_run_in_a_fleet_equals_the_same_run_alone() -> None:
    together = train_plans(plans(), 60, torch.float32)
    assert error(together, alone(plans()), starts(plans())) < NEAR


@pytest.mark.parametrize(
    "fault", [columns_shifted, mean_of_micro_batches, one_clip_for_all], ids=lambda fault: fault.__name__
)
def test_a_fault_shows(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    together = train_plans(plans(), 100_000, torch.float32)
    assert error(together, alone(plans()), starts(plans())) > 5 * NEAR


def test_small_tensors_equal_trls(tmp_path: Path) -> None:
    """bitsandbytes keeps them in 32 bits, so here every weight agrees."""
    plan = RunPlan("small", make_examples(16, 2), AdapterShape(6, 3), 30, 4, 1e-3, optimizer="adamw_8bit", clip=0.5)
    fleet = start_fleet(packed_model(torch.float32), [plan], 40)
    start = fleet.adapter.state(0)
    theirs, _ = train_with_trl(plain_model(torch.float32), plan, start, tmp_path, word_tokenizer())
    assert apart(train(fleet)[0]["small"], theirs) < 2e-5
    assert apart(start, theirs) > 1e-2


def test_large_tensors_equal_trls(tmp_path: Path) -> None:
    """A's blocks are the same; B lies transposed in PEFT, so other moments share a scale there."""
    plan = RunPlan(
        "large", make_examples(16, 2), AdapterShape(LARGE, 20.0, ("q_proj", "up_proj")), STEPS, 4, 1e-3,
        optimizer="adamw_8bit", weight_decay=0.1, schedule="linear",
    )  # fmt: skip
    fleet = start_fleet(packed_model(torch.float32), [plan], 40)
    start = fleet.adapter.state(0)
    theirs, _ = train_with_trl(plain_model(torch.float32), plan, start, tmp_path, word_tokenizer())
    ours = train(fleet)[0]["large"]
    in_32_bits = train(start_fleet(packed_model(torch.float32), [replace(plan, optimizer="adamw")], 40))[0]["large"]

    def distance(one: State, letter: str) -> float:
        return error(*({"large": {k: v for k, v in s.items() if f"lora_{letter}" in k}} for s in (one, theirs, start)))

    assert distance(ours, "A") < NEAR / 2  # 0.002 seen
    assert distance(in_32_bits, "A") > NEAR  # 0.012 seen: moments in 32 bits would show
    assert distance(ours, "B") < 4 * NEAR  # 0.020 seen
