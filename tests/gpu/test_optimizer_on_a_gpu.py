"""The fused AdamW on a GPU: against torch.optim.AdamW, in a fleet whose steps are recorded, and how often it waits."""

from dataclasses import replace

import pytest
import torch
from test_on_a_gpu import _model, _plans
from torch import nn

from pronk.model.adapter import AdapterShape, attach
from pronk.train.fleet import Fleet
from pronk.train.optimizer import FleetOptimizer, Settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]

RATES, DECAYS, CLIPS, RATIOS = [1e-2, 3e-3, 1e-1], [0.0, 0.1, 0.3], [None, 0.5, 2.0], [1.0, 4.0, 16.0]
ROUNDS = [range(7), range(4), range(2, 7)]
FACTORS = [0.0, 0.5, 1.0, 1.0, 0.7, 0.1, 1.0]


def _attached(dtype, width=192):
    """Three runs of odd ranks over layers that some of them adapt; 192 is a multiple of 64, 131 of nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, 150), nn.Linear(150, width)).to("cuda", dtype)
    adapter = attach(model, [AdapterShape(7, 4.0), AdapterShape(5, 16.0, ("0",)), AdapterShape(33, 1.0, ("1",))])
    for slot in range(3):
        adapter.initialize({slot: slot})
    return adapter


@pytest.mark.parametrize("width", [192, 131])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 5e-6), (torch.bfloat16, 5e-6)]
)
def test_steps_are_those_of_adamw_and_clipping(dtype, tolerance, width):
    adapter = _attached(dtype, width)
    ours = FleetOptimizer(adapter, [Settings(RATES[k], DECAYS[k], CLIPS[k], RATIOS[k], "adamw") for k in range(3)])
    plain = [{name: nn.Parameter(w.data[rows].clone()) for name, w, rows in adapter.rows(slot)} for slot in range(3)]
    theirs = [
        torch.optim.AdamW(
            [
                {"params": [value for name, value in own.items() if name.endswith(letter)], "peak": RATES[k] * ratio}
                for letter, ratio in (("A", 1.0), ("B", RATIOS[k]))
            ],
            weight_decay=DECAYS[k],
        )
        for k, own in enumerate(plain)
    ]
    for number, factor in enumerate(FACTORS):
        torch.manual_seed(number)
        ours.gradients.normal_(0, 10.0 if number % 2 else 1e-3)
        norms_K = ours.norms()
        active = [slot for slot in range(3) if number in ROUNDS[slot]]
        for slot, own in enumerate(plain):
            for name, wide, rows in adapter.rows(slot):
                own[name].grad = wide.grad[rows].clone()
            norm = nn.utils.clip_grad_norm_(own.values(), CLIPS[slot] or torch.inf)
            torch.testing.assert_close(
                norms_K[slot].to(norm.dtype), norm, rtol=max(tolerance, 1e-5 * (norm.dtype != torch.float64)), atol=0
            )
            for group in theirs[slot].param_groups:
                group["lr"] = group["peak"] * factor
            if slot in active:
                theirs[slot].step()
        largest_K = ours.update(dict.fromkeys(active, factor), torch.ones_like(norms_K), norms_K)
        ours.confirm(active)
        for slot in active:
            most = max(value.detach().abs().max() for value in plain[slot].values())
            torch.testing.assert_close(largest_K[slot].to(most.dtype), most, rtol=max(tolerance, 1e-12), atol=0)
    for slot, own in enumerate(plain):
        for name, wide, rows in adapter.rows(slot):
            assert (wide.data[rows] - own[name]).abs().max() <= tolerance * (1 + own[name].abs().max()), name


def test_the_same_bits_every_time():
    found = []
    for _ in range(2):
        adapter = _attached(torch.float32)
        one = FleetOptimizer(adapter, [Settings(1e-2, 0.1, 1.0, 1.0, "adamw")] * 3)
        for number in range(5):
            torch.manual_seed(number)
            one.gradients.normal_()
            norms_K = one.norms()
            one.update(dict.fromkeys(range(3), 1.0), torch.ones_like(norms_K), norms_K)
            one.confirm(range(3))
        found.append(adapter.storage.weights_N.clone())
    assert torch.equal(*found)


def _played(plans, record=True, dtype=torch.bfloat16):
    fleet = Fleet(_model(dtype), plans, 1024)
    if not record:
        fleet._accumulate.records = False
    steps = []
    fleet.train(steps.extend)
    return fleet, steps


def test_a_replay_adds_to_the_flat_gradient_as_a_direct_call_does():
    """Two micro-batches and more in a round; the first of a shape is recorded, its like are replayed."""
    plans = [replace(plan, learning_rate=0.0, steps=4) for plan in _plans()]
    gradients = {}
    for record in (True, False):
        fleet, _ = _played(plans, record)
        for run in fleet.runs:
            run.step = 0
        work = fleet._packed(fleet._running())
        assert len(work.batches) > 1
        fleet._compute_gradients(work)
        gradients[record] = fleet._optimizer.gradients.clone(), fleet._accumulate.losses_K.clone()
        assert bool(fleet._accumulate._recordings) == record
    for recorded, direct in zip(*gradients.values(), strict=True):
        assert (recorded - direct).norm() < 2e-2 * direct.norm()
        assert direct.norm() > 0


def test_what_is_recorded_leaves_gradients_and_losses_as_they_were():
    """The warm-up before a recording runs the step once more: nothing of it may stay."""
    fleet, _ = _played(_plans(), True)
    work = fleet._packed(dict.fromkeys(range(3), 0))
    found = []
    for _ in range(2):
        fleet._accumulate._recordings.clear()
        fleet._accumulate._pool = None
        fleet._compute_gradients(work)
        found.append((fleet._optimizer.gradients.clone(), fleet._accumulate.losses_K.clone()))
        fleet._compute_gradients(work)  # replayed, all of it
        found.append((fleet._optimizer.gradients.clone(), fleet._accumulate.losses_K.clone()))
    for gradients, losses_K in found[1:]:
        assert (gradients - found[0][0]).norm() < 1e-2 * gradients.norm()
        torch.testing.assert_close(losses_K, found[0][1], rtol=1e-2, atol=1e-2)


def test_rounded_copies_follow_every_update():
    fleet, _ = _played(_plans())
    for layer in fleet.adapter.layers.values():
        assert layer.A_product.dtype == torch.bfloat16
        assert torch.equal(layer.A_product, layer.A_RI.bfloat16())
        assert torch.equal(layer.B_product, layer.B_RO.bfloat16())


def test_a_round_waits_for_the_device_once():
    """Counted by the profiler, in a round that records nothing new."""
    from torch.profiler import ProfilerActivity, profile

    fleet = Fleet(_model(torch.bfloat16), [replace(plan, steps=40) for plan in _plans()], 100_000)
    for _ in range(20):
        known = len(fleet._accumulate._recordings)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            fleet.play_round()
        if fleet.runs[0].step > 2 and len(fleet._accumulate._recordings) == known:
            break
    waits = [event.name for event in seen.events() if event.name in ("cudaStreamSynchronize", "cudaEventSynchronize")]
    assert len(waits) == 1, waits


def test_a_run_that_breaks_leaves_the_others_as_they_were():
    """fp32 called directly: the others' numbers are the same but for the order of sums, to a tenth of a step."""
    plans = _plans()
    broken = replace(plans[0], name="bad", learning_rate=1e39, clip=None, seed=9)
    fleet, _ = _played([*plans, broken], False, torch.float32)
    alone, _ = _played(plans, False, torch.float32)
    assert "the weights became" in fleet.runs[3].error
    assert not any(value.any() for value in fleet.adapter.state(3).values())
    for slot in range(3):
        assert not fleet.runs[slot].error
        for name, value in alone.adapter.state(slot).items():
            torch.testing.assert_close(
                fleet.adapter.state(slot)[name], value, rtol=1e-3, atol=1e-4
            )  # a tenth of one step
