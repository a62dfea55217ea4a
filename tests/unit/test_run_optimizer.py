"""A run's optimizer over its rows of the wide adapter against torch.optim.AdamW on plain copies."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pronk.model.adapter import AdapterShape, WideAdapter, attach
from pronk.train.optimizer import RunOptimizer

SHAPES = [AdapterShape(2, 4.0), AdapterShape(5, 16.0, ("0",)), AdapterShape(3, 1.0, ("1",))]
FACTORS = [0.0, 0.5, 1.0, 1.0, 0.7, 0.1]


@pytest.fixture
def adapter() -> WideAdapter:
    torch.manual_seed(0)
    made = attach(nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 6)), SHAPES)
    for slot in range(len(SHAPES)):
        made.initialize(slot, seed=slot)
    return made


def fill(gradients: torch.Tensor, seed: int, scale: float) -> None:
    gradients.copy_(torch.randn(gradients.shape, generator=torch.Generator().manual_seed(seed)) * scale)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_steps_are_those_of_adamw_and_clipping(adapter: WideAdapter, clip: float | None, decay: float) -> None:
    gradients = adapter.allocate_gradients()
    rates = [1e-2, 3e-3, 1e-1]
    ours = [RunOptimizer(adapter, slot, rates[slot], decay, clip) for slot in range(3)]
    plain = [[nn.Parameter(wide.data[rows].clone()) for _, wide, rows in adapter.rows(slot)] for slot in range(3)]
    theirs = [torch.optim.AdamW(plain[slot], lr=rates[slot], weight_decay=decay) for slot in range(3)]
    for step, factor in enumerate(FACTORS):
        # large gradients are clipped, small ones are not
        fill(gradients, step, 10.0 if step % 2 else 0.01)
        for slot in range(3):
            for copy, (_, wide, rows) in zip(plain[slot], adapter.rows(slot), strict=True):
                assert wide.grad is not None
                copy.grad = wide.grad[rows].clone()
            norm = torch.linalg.vector_norm(
                torch.cat([copy.grad.flatten() for copy in plain[slot] if copy.grad is not None])
            )
            torch.testing.assert_close(ours[slot].gradient_norm(), norm)
            if clip is not None:
                nn.utils.clip_grad_norm_(plain[slot], clip)
            theirs[slot].param_groups[0]["lr"] = rates[slot] * factor
            theirs[slot].step()
            ours[slot].step(factor, ours[slot].gradient_norm())
        for slot in range(3):
            for copy, (name, wide, rows) in zip(plain[slot], adapter.rows(slot), strict=True):
                torch.testing.assert_close(wide.data[rows], copy.data, rtol=1e-6, atol=1e-7, msg=name)


def test_a_step_touches_no_other_run(adapter: WideAdapter) -> None:
    fill(adapter.allocate_gradients(), 0, 1.0)
    before = [adapter.state(slot) for slot in range(3)]
    optimizer = RunOptimizer(adapter, 1, 0.1, 0.1, 1.0)
    optimizer.step(1.0, optimizer.gradient_norm())
    after = [adapter.state(slot) for slot in range(3)]
    for slot in range(3):
        same = [torch.equal(before[slot][key], after[slot][key]) for key in before[slot]]
        assert not any(same) if slot == 1 else all(same)


def test_gradients_of_all_layers_are_parts_of_one_tensor(adapter: WideAdapter) -> None:
    flat = adapter.allocate_gradients()
    assert len(flat) >= sum(adapter.size(slot) for slot in range(3))
    flat.fill_(3.0)
    assert all(parameter.grad is not None and bool((parameter.grad == 3).all()) for parameter in adapter.parameters)


def test_norm_and_largest_weight_tell_what_is_not_finite(adapter: WideAdapter) -> None:
    gradients = adapter.allocate_gradients()
    optimizer = RunOptimizer(adapter, 0, 0.1, 0.0, None)
    assert torch.isfinite(optimizer.gradient_norm())
    gradients.fill_(float("nan"))
    assert not torch.isfinite(optimizer.gradient_norm())
    assert torch.isfinite(optimizer.largest_weight())
    optimizer.views[0].data[0, 0] = float("inf")
    assert not torch.isfinite(optimizer.largest_weight())


def test_state_goes_out_and_in_again(adapter: WideAdapter) -> None:
    """Two steps, saved, three more; and the three again from what was saved: the same bits."""
    gradients = adapter.allocate_gradients()

    def play(optimizer: RunOptimizer, steps: range) -> None:
        for step in steps:
            fill(gradients, step, 1.0)
            optimizer.step(1.0, optimizer.gradient_norm())

    first = RunOptimizer(adapter, 0, 1e-2, 0.01, 1.0)
    play(first, range(2))
    weights, moments = adapter.state(0), first.state()
    assert {key.rsplit(".", 1)[-1] for key in moments} == {"step", "exp_avg", "exp_avg_sq"}
    play(first, range(2, 5))
    wanted_weights, wanted_moments = adapter.state(0), first.state()
    assert all(float(value) == 2 for key, value in moments.items() if key.endswith(".step")), "state() is a copy"
    adapter.load(0, weights)
    second = RunOptimizer(adapter, 0, 1e-2, 0.01, 1.0)
    second.load(moments)
    play(second, range(2, 5))
    for wanted, found in ((wanted_weights, adapter.state(0)), (wanted_moments, second.state())):
        assert wanted.keys() == found.keys()
        assert all(torch.equal(wanted[key], found[key]) for key in wanted)
