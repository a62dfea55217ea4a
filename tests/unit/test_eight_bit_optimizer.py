"""8-bit AdamW over rows of the wide adapter against bitsandbytes on tensors of their own: the same bits."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.optim import AdamW8bit
from safetensors.torch import load, save
from torch import nn

from pronk.model.adapter import AdapterShape, WideAdapter, attach
from pronk.train.optimizer import RunOptimizer, Settings

# ranks such that no run's rows begin or end with a block of 256; "0" is large enough for 8 bits, "2" is not
SHAPES = [AdapterShape(37, 4.0), AdapterShape(41, 16.0, ("0",)), AdapterShape(39, 1.0, ("1",))]
FACTORS = [0.0, 0.5, 1.0, 1.0, 0.7, 0.1, 1.0, 1.0]
RATES = [1e-2, 3e-3, 1e-1]


@pytest.fixture
def adapter() -> WideAdapter:
    torch.manual_seed(0)
    made = attach(nn.Sequential(nn.Linear(131, 150), nn.Linear(150, 133), nn.Linear(133, 6)), SHAPES)
    for slot in range(len(SHAPES)):
        made.initialize({slot: slot})
    return made


def fill(gradients: torch.Tensor, step: int) -> None:
    """Of very different sizes from row to row, so that it matters which values share a scale."""
    generator = torch.Generator().manual_seed(step)
    sizes = torch.rand(gradients.shape, generator=generator) ** 8
    gradients.copy_(torch.randn(gradients.shape, generator=generator) * sizes)


def optimizer(adapter: WideAdapter, slot: int, clip: float | None = None) -> RunOptimizer:
    return RunOptimizer(adapter, slot, Settings(RATES[slot], 0.1, clip, 2.0, "adamw_8bit"))


def own_tensors(adapter: WideAdapter, slot: int) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(wide.data[rows].clone()) for name, wide, rows in adapter.rows(slot)}


def by_bitsandbytes(plain: dict[str, nn.Parameter], slot: int) -> AdamW8bit:
    groups = [
        {"params": [value for name, value in plain.items() if name.endswith(letter)], "lr": RATES[slot] * ratio}
        for letter, ratio in (("A", 1.0), ("B", 2.0))
    ]
    return AdamW8bit(groups, weight_decay=0.1)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_steps_are_those_of_bitsandbytes_bit_for_bit(adapter: WideAdapter, clip: float | None) -> None:
    gradients = adapter.allocate_gradients()
    ours = [optimizer(adapter, slot, clip) for slot in range(3)]
    plain = [own_tensors(adapter, slot) for slot in range(3)]
    theirs = [by_bitsandbytes(plain[slot], slot) for slot in range(3)]
    for step, factor in enumerate(FACTORS):
        fill(gradients, step)
        for slot in range(3):
            for name, wide, rows in adapter.rows(slot):
                assert wide.grad is not None
                plain[slot][name].grad = wide.grad[rows].clone()
            if clip is not None:
                nn.utils.clip_grad_norm_(list(plain[slot].values()), clip)
            for group, ratio in zip(theirs[slot].param_groups, (1.0, 2.0), strict=True):
                group["lr"] = RATES[slot] * ratio * factor
            theirs[slot].step()
            ours[slot].step(factor, ours[slot].gradient_norm())
        for slot in range(3):
            assert all(torch.equal(wide.data[rows], plain[slot][name]) for name, wide, rows in adapter.rows(slot))


def test_moments_take_a_byte_each(adapter: WideAdapter) -> None:
    fill(adapter.allocate_gradients(), 0)
    one = optimizer(adapter, 0)
    one.step(1.0, one.gradient_norm())
    moments = {key: value for key, value in one.state().items() if key.endswith(("state1", "state2"))}
    kinds = {key.removesuffix("1").removesuffix("2"): value.dtype for key, value in moments.items()}
    assert kinds["0.A.state"] == kinds["1.B.state"] == torch.uint8
    assert kinds["2.B.state"] == torch.float32, "bitsandbytes keeps small tensors in 32 bits"


def test_a_block_that_holds_two_runs_shows(adapter: WideAdapter) -> None:
    """The fault: one optimizer over the whole wide tensors."""
    gradients = adapter.allocate_gradients()
    plain = own_tensors(adapter, 1)
    theirs = AdamW8bit(plain.values(), lr=1e-2)
    whole = AdamW8bit(adapter.parameters, lr=1e-2)
    for step in range(8):
        fill(gradients, step)
        for name, wide, rows in adapter.rows(1):
            assert wide.grad is not None
            plain[name].grad = wide.grad[rows].clone()
        theirs.step()
        whole.step()
    apart = [(wide.data[rows] - plain[name].data).abs().max() for name, wide, rows in adapter.rows(1)]
    assert max(apart) > 1e-4


def test_a_step_touches_no_other_run(adapter: WideAdapter) -> None:
    fill(adapter.allocate_gradients(), 0)
    before = [adapter.state(slot) for slot in range(3)]
    one = optimizer(adapter, 1)
    one.step(1.0, one.gradient_norm())
    for slot, state in enumerate(before):
        same = [torch.equal(state[key], value) for key, value in adapter.state(slot).items()]
        assert not any(same) if slot == 1 else all(same)


@pytest.mark.parametrize("forgotten", ["", "absmax1", "state2", "step"])
def test_state_goes_out_and_in_again(adapter: WideAdapter, forgotten: str) -> None:
    """Three steps, saved as safetensors, three more; and the three again from what was saved: the same bits,
    but not where a part of the state is not what was saved."""
    gradients = adapter.allocate_gradients()

    def play(one: RunOptimizer, steps: range) -> None:
        for step in steps:
            fill(gradients, step)
            one.step(1.0, one.gradient_norm())

    first = optimizer(adapter, 0)
    play(first, range(3))
    weights, moments = adapter.state(0), load(save(first.state()))
    play(first, range(3, 6))
    wanted, wanted_moments = adapter.state(0), first.state()
    adapter.load(0, weights)
    second = optimizer(adapter, 0)
    second.load({key: value * 0 if forgotten and key.endswith(forgotten) else value for key, value in moments.items()})
    play(second, range(3, 6))
    found, found_moments = adapter.state(0), second.state()
    same = all(torch.equal(wanted[key], found[key]) for key in wanted)
    assert same == (not forgotten)
    if not forgotten:
        assert found_moments.keys() == wanted_moments.keys()
        assert all(torch.equal(found_moments[key], value) for key, value in wanted_moments.items())
