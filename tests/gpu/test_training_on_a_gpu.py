"""Ways of training that a GPU does differently: 8-bit kernels on rows, recomputed layers, whole models recorded."""

from dataclasses import replace

import pytest
import torch
from test_on_a_gpu import _model, _plans
from torch.nn.attention import SDPBackend, sdpa_kernel

from pronk.train.fleet import Fleet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]


def _played(plans, dtype=torch.bfloat16, record=True, recompute="none"):
    fleet = Fleet(_model(dtype), plans, 1024, recompute)
    if not record:
        fleet._accumulate.records = False
    torch.cuda.reset_peak_memory_stats()
    before, losses = torch.cuda.memory_allocated(), []
    fleet.train(lambda steps: losses.append([step.loss for step in steps]))
    assert not any(run.error for run in fleet.runs), [run.error for run in fleet.runs]
    return fleet, torch.tensor(losses), torch.cuda.max_memory_allocated() - before


def test_rows_in_8_bits_step_as_tensors_of_their_own():
    from bitsandbytes.optim import AdamW8bit

    plans = [replace(plan, optimizer="adamw_8bit", clip=None, steps=5) for plan in _plans()]
    fleet = Fleet(_model(torch.float32), plans, 1024)
    plain = [
        {name: torch.nn.Parameter(wide.data[rows].clone()) for name, wide, rows in fleet.adapter.rows(slot)}
        for slot in range(len(plans))
    ]
    theirs = [AdamW8bit(list(own.values()), lr=1e-3, weight_decay=0.0) for own in plain]
    for _ in range(5):
        fleet.play_round()
        for slot, own in enumerate(plain):
            for name, wide, rows in fleet.adapter.rows(slot):
                own[name].grad = wide.grad[rows].clone()
            theirs[slot].step()
    kinds = {value.dtype for run in fleet.runs for key, value in run.optimizer.state().items() if "state1" in key}
    assert torch.uint8 in kinds
    for slot, own in enumerate(plain):
        assert all(torch.equal(wide.data[rows], own[name]) for name, wide, rows in fleet.adapter.rows(slot))


def test_recomputing_gives_the_same_losses():
    """fp32 and plain attention: in half precision the backward of flash attention sums in any order."""
    with sdpa_kernel(SDPBackend.MATH):
        plans = _plans(dropout=0.1)
        _, plain, _ = _played(plans, torch.float32)
        _, again, _ = _played(plans, torch.float32)
        _, losses, _ = _played(plans, torch.float32, recompute="all")
    assert torch.equal(plain, again), "this GPU repeats nothing exactly, so nothing was tested"
    assert torch.equal(losses, plain)


def test_recomputing_takes_less_memory_in_half_precision():
    _, plain, peak = _played(_plans(dropout=0.1), record=False)
    fleet, losses, smaller = _played(_plans(dropout=0.1), recompute="all")
    assert not fleet._accumulate.records
    torch.testing.assert_close(losses, plain, rtol=2e-2, atol=2e-2)
    assert smaller < 0.8 * peak


def test_a_whole_model_learns_in_a_recording_as_without():
    plan = replace(_plans(1)[0], shape=None, learning_rate=1e-4)
    recorded, losses, _ = _played([plan])
    assert recorded._accumulate._recordings
    direct, plain, _ = _played([plan], record=False)
    torch.testing.assert_close(losses, plain, rtol=2e-2, atol=2e-2)
    assert losses[-1] < losses[0]
    gradients = {parameter.grad.dtype for parameter in direct.adapter.parameters}
    assert gradients == {torch.float32}
