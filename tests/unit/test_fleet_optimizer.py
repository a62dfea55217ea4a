"""The update of all runs over their rows of the wide adapter against torch.optim.AdamW on plain copies."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from pronk.model.adapter import AdapterShape, WideAdapter, attach
from pronk.train.optimizer import FleetOptimizer, FusedRun, RunOptimizer, Settings

SHAPES = [AdapterShape(2, 4.0), AdapterShape(5, 16.0, ("0",)), AdapterShape(3, 1.0, ("1",))]
FACTORS = [0.0, 0.5, 1.0, 1.0, 0.7, 0.1]
RATES = [1e-2, 3e-3, 1e-1]


@pytest.fixture
def adapter() -> WideAdapter:
    torch.manual_seed(0)
    made = attach(nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 6)), SHAPES)
    for slot in range(len(SHAPES)):
        made.initialize({slot: slot})
    return made


def optimizer(
    adapter: WideAdapter, decay: float = 0.0, clip: float | None = None, kinds: Sequence[str] = ("adamw",) * 3
) -> FleetOptimizer:
    return FleetOptimizer(adapter, [Settings(RATES[k], decay, clip, 1.0 + k, kinds[k]) for k in range(3)])


def fill(gradients: torch.Tensor, seed: int, scale: float) -> None:
    gradients.copy_(torch.randn(gradients.shape, generator=torch.Generator().manual_seed(seed)) * scale)


def step(one: FleetOptimizer, slots: Sequence[int], factor: float = 1.0, loss: float = 1.0) -> Tensor:
    losses_K = torch.full((3,), loss, dtype=torch.float64)
    largest_K = one.update(dict.fromkeys(slots, factor), losses_K, one.norms())
    one.confirm(slots)
    return largest_K


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_steps_are_those_of_adamw_and_clipping(adapter: WideAdapter, clip: float | None, decay: float) -> None:
    ours = optimizer(adapter, decay, clip)
    plain = [
        {name: nn.Parameter(wide.data[rows].clone()) for name, wide, rows in adapter.rows(slot)} for slot in range(3)
    ]
    theirs = []
    for slot, own in enumerate(plain):
        groups = [
            {"params": [value for name, value in own.items() if name.endswith(letter)], "peak": RATES[slot] * ratio}
            for letter, ratio in (("A", 1.0), ("B", 1.0 + slot))
        ]
        theirs.append(torch.optim.AdamW(groups, weight_decay=decay))
    for number, factor in enumerate(FACTORS):
        # large gradients are clipped, small ones are not
        fill(ours.gradients, number, 10.0 if number % 2 else 0.01)
        for slot, own in enumerate(plain):
            for name, wide, rows in adapter.rows(slot):
                assert wide.grad is not None
                own[name].grad = wide.grad[rows].clone()
            norm = nn.utils.clip_grad_norm_(own.values(), clip or torch.inf)
            torch.testing.assert_close(ours.norms()[slot].float(), norm)
            for group in theirs[slot].param_groups:
                group["lr"] = group["peak"] * factor
            theirs[slot].step()
        largest_K = step(ours, range(3), factor)
        for slot, own in enumerate(plain):
            for name, wide, rows in adapter.rows(slot):
                torch.testing.assert_close(wide.data[rows], own[name].data, rtol=1e-6, atol=1e-7, msg=name)
            torch.testing.assert_close(
                largest_K[slot].float(), max(value.detach().abs().max() for value in own.values())
            )


@pytest.mark.parametrize("kinds", [("adamw",) * 3, ("adamw_8bit",) * 3, ("adamw", "adamw_8bit", "adamw")])
def test_a_step_touches_no_other_run(adapter: WideAdapter, kinds: tuple[str, ...]) -> None:
    one = optimizer(adapter, 0.1, 1.0, kinds)
    fill(one.gradients, 0, 1.0)
    before = [adapter.state(slot) for slot in range(3)]
    step(one, [1])
    for slot, state in enumerate(before):
        same = [torch.equal(state[key], value) for key, value in adapter.state(slot).items()]
        assert not any(same) if slot == 1 else all(same)


@pytest.mark.parametrize("kinds", [("adamw",) * 3, ("adamw", "adamw_8bit", "adamw")])
@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_nobody_steps_where_something_is_not_finite(adapter: WideAdapter, broken: str, kinds: tuple[str, ...]) -> None:
    one = optimizer(adapter, 0.1, 1.0, kinds)
    fill(one.gradients, 0, 1.0)
    if broken == "gradient":
        next(iter(adapter.views(1, one.gradients)))[1][0, 0] = torch.nan
    before = [adapter.state(slot) for slot in range(3)]
    step(one, range(3), loss=torch.inf if broken == "loss" else 1.0)
    assert all(
        torch.equal(state[key], value)
        for slot, state in enumerate(before)
        for key, value in adapter.state(slot).items()
    )


def test_eight_bits_take_no_moments_in_32() -> None:
    adapter = attach(nn.Sequential(nn.Linear(8, 12)), SHAPES[:1])
    one = FleetOptimizer(adapter, [Settings(0.1, 0.0, None, 1.0, "adamw_8bit")])
    assert isinstance(one.runs[0], RunOptimizer)
    assert one._fused is not None
    assert one._fused.moments is None


def test_gradients_of_all_layers_are_parts_of_one_tensor(adapter: WideAdapter) -> None:
    flat = optimizer(adapter).gradients
    assert len(flat) >= sum(adapter.size(slot) for slot in range(3))
    flat.fill_(3.0)
    assert all(parameter.grad is not None and bool((parameter.grad == 3).all()) for parameter in adapter.parameters)


def test_norm_and_largest_weight_tell_what_is_not_finite(adapter: WideAdapter) -> None:
    one = optimizer(adapter)
    assert one.norms().isfinite().all()
    one.gradients.fill_(float("nan"))
    assert not one.norms().isfinite().any()
    one.gradients.zero_()
    assert step(one, range(3)).isfinite().all()
    adapter.layers["0"].A_RI.data[0, 0] = float("inf")  # run 0's
    assert step(one, range(3)).isfinite().tolist() == [False, True, True]


def test_state_goes_out_and_in_again(adapter: WideAdapter) -> None:
    """Two steps, saved, three more; and the three again from what was saved: the same bits."""

    def play(one: FleetOptimizer, steps: range) -> None:
        for number in steps:
            fill(one.gradients, number, 1.0)
            step(one, range(3))

    first = optimizer(adapter, 0.01, 1.0)
    play(first, range(2))
    weights, moments = adapter.state(0), load(save(first.runs[0].state()))
    assert {key.rsplit(".", 1)[-1] for key in moments} == {"step", "exp_avg", "exp_avg_sq"}
    play(first, range(2, 5))
    wanted_weights, wanted_moments = adapter.state(0), first.runs[0].state()
    adapter.load(0, weights)
    second = optimizer(adapter, 0.01, 1.0)
    second.runs[0].load(moments)
    play(second, range(2, 5))
    for wanted, found in ((wanted_weights, adapter.state(0)), (wanted_moments, second.runs[0].state())):
        assert wanted.keys() == found.keys()
        assert all(torch.equal(wanted[key], found[key]) for key in wanted)


def test_the_state_is_that_of_pytorchs_adamw(adapter: WideAdapter) -> None:
    """The same names, shapes, types and, after the same steps, values: checkpoints of either are the other's."""
    start, ours = [adapter.state(slot) for slot in range(3)], optimizer(adapter, 0.1, 0.5)
    theirs = RunOptimizer(adapter, 0, Settings(RATES[0], 0.1, 0.5, 1.0, "adamw"))
    for number in range(3):
        fill(ours.gradients, number, 1.0)
        step(ours, [0])
    found = ours.runs[0].state()
    adapter.load(0, start[0])
    for number in range(3):
        fill(ours.gradients, number, 1.0)
        theirs.step(1.0, ours.norms()[0].float())
    expected = theirs.state()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-8)
    assert isinstance(ours.runs[0], FusedRun)
    ours.runs[0].load(expected)
    assert all(torch.equal(ours.runs[0].state()[key], value) for key, value in expected.items())
