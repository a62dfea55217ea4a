"""fp16, whose smallest number is 6e-8: losses are scaled so that gradients keep their digits, the scale leaves no
trace, and an overflow halves it before any run is blamed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import five_plans, make_examples, packed_model, random_state, shorter, start_fleet, train

from pronk.model.adapter import AdapterShape
from pronk.model.load import resolve_dtype
from pronk.model.step import FP16_LOSS_SCALE, GradientStep
from pronk.train.fleet import Fleet, RunPlan

LARGE_BATCH = RunPlan("large batch", make_examples(48, 3), AdapterShape(4, 8), 2, 48, 1e-4, clip=None)


def gradients(dtype: torch.dtype, scale: float | None = None) -> torch.Tensor:
    """Of a large batch and a small output head, so that they are tiny. The numbers are those of fp16 in both types."""
    model = packed_model(torch.float16).to(dtype)
    model.lm_head.weight.data *= 2.0**-7
    fleet = start_fleet(model, [LARGE_BATCH], 100_000)
    if scale is not None:
        fleet._accumulate.loss_scale = scale
    fleet._compute_gradients(fleet._packed({0: 0}))
    return fleet._optimizer.gradients.clone()


def test_scaled_gradients_keep_their_digits() -> None:
    exact = gradients(torch.float32)
    scaled, plain = ((gradients(torch.float16, scale) - exact).norm() / exact.norm() for scale in (None, 1.0))
    assert scaled < 0.01
    assert plain > 5 * scaled


def trained(scale: float) -> Any:
    fleet = start_fleet(packed_model(torch.float32), shorter(five_plans(), 6), 60)
    fleet._accumulate.loss_scale = scale
    return train(fleet)


def test_the_scale_leaves_no_trace() -> None:
    """In fp32, where both ways are exact: weights, losses and norms bit for bit."""
    (states, steps), (scaled_states, scaled_steps) = trained(1.0), trained(FP16_LOSS_SCALE)
    assert steps == scaled_steps
    assert all(torch.equal(states[name][key], scaled_states[name][key]) for name in states for key in states[name])


def test_a_scale_that_is_not_taken_out_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = trained(1.0)
    monkeypatch.setattr(GradientStep, "take_out_scale", lambda *_: None)
    scaled, _ = trained(FP16_LOSS_SCALE)
    assert any(not torch.equal(plain[name][key], scaled[name][key]) for name in plain for key in plain[name])


def half_fleet(plans: list[RunPlan]) -> Fleet:
    return start_fleet(packed_model(torch.float16), plans, 100_000)


def test_training_in_fp16_is_near_training_in_fp32() -> None:
    plans = shorter(five_plans(), 10)
    _, half = train(half_fleet(plans))
    _, single = train(start_fleet(packed_model(torch.float16).float(), plans, 100_000))
    for name, steps in single.items():
        assert [step.loss for step in half[name]] == pytest.approx([step.loss for step in steps], rel=0.01)


def test_an_overflow_halves_the_scale_and_blames_nobody() -> None:
    fleet = half_fleet(shorter(five_plans(), 4))
    fleet._accumulate.loss_scale = 2.0**30
    _, steps = train(fleet)
    assert 1 < fleet._accumulate.loss_scale < 2.0**30
    assert not any(run.error for run in fleet.runs)
    _, sound = train(half_fleet(shorter(five_plans(), 4)))
    for name, expected in sound.items():
        assert [step.loss for step in steps[name]] == pytest.approx([step.loss for step in expected], rel=0.01)


def test_a_run_that_breaks_by_itself_leaves_the_scale_to_the_others() -> None:
    plans = shorter(five_plans(), 4)
    fleet = half_fleet(plans)
    broken = random_state(fleet.adapter.state(2), "broken", 1e4)
    fleet.adapter.load(2, broken)
    _, steps = train(fleet)
    assert [bool(run.error) for run in fleet.runs] == [False, False, True, False, False]
    assert fleet._accumulate.loss_scale == FP16_LOSS_SCALE
    assert all(len(steps[plan.name]) == plan.steps for place, plan in enumerate(plans) if place != 2)


def test_auto_is_fp16_on_a_gpu_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return including_emulation  # as on a T4, where bf16 is emulated

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert resolve_dtype("auto", torch.device("cuda")) is torch.float16
    assert asked == [False]
    assert resolve_dtype("auto", torch.device("cpu")) is torch.float32
    assert resolve_dtype("fp16", torch.device("cpu")) is torch.float16
