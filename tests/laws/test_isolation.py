"""One run cannot hurt another, and what belongs to no run sees the base model."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import (
    State,
    farthest,
    five_plans,
    make_examples,
    packed_model,
    plain_model,
    random_state,
    shorter,
    start_fleet,
    train_plans,
)

import pronk.train.optimizer
from pronk.errors import StudyError
from pronk.model.adapter import AdapterShape, attach
from pronk.model.forward import evaluation_losses
from pronk.model.kernels.adamw import Rule, rule_table
from pronk.tokens.pack import BASE_SLOT, Member, pack
from pronk.train.fleet import Fleet, RunPlan, Step
from pronk.train.optimizer import FleetOptimizer

EXACT = 1e-12
STEPS = 8
AFTER = 3  # rounds before a run is spoilt


def victims() -> list[RunPlan]:
    return shorter(five_plans(), STEPS)


def culprit(**changes: object) -> RunPlan:
    plain = RunPlan("bad", make_examples(8, 31), AdapterShape(3, 6), STEPS, 2, 1e-3, seed=8)
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def peaceful() -> dict[str, State]:
    """The others, in a fleet of their own."""
    return train_plans(victims(), 60)


Spoil = Callable[[Fleet, int], None]


def nothing(_: Fleet, __: int) -> None:
    """The run breaks by itself."""


def set_weights(part: str, value: float) -> Spoil:
    def spoil(fleet: Fleet, slot: int) -> None:
        for name, wide, rows in fleet.adapter.rows(slot):
            if name.endswith(f"layers.0.mlp.up_proj.{part}"):
                wide.data[rows][0, 1] = value

    return spoil


def steep(fleet: Fleet, slot: int) -> None:
    """A = 0 hides B from the loss; the gradient of A, through B and alpha, overflows, and 0 · inf gives
    the layers below, where all runs meet, a NaN."""
    for name, wide, rows in fleet.adapter.rows(slot):
        wide.data[rows] = 0.0 if name.endswith(".A") else 1.7e308


def play(spoil: Spoil, bad: RunPlan, place: int, token_budget: int) -> tuple[Fleet, list[Step]]:
    """A fleet with one more run, spoilt after some rounds."""
    plans = victims()
    plans.insert(place, bad)
    fleet = start_fleet(packed_model(), plans, token_budget)
    steps: list[Step] = []
    for _ in range(AFTER):
        steps += fleet.play_round()
    if not fleet.runs[place].error:
        spoil(fleet, place)
    fleet.train(steps.extend)
    return fleet, steps


def check(fleet: Fleet, steps: Sequence[Step], place: int, peaceful: dict[str, State]) -> None:
    """The others are as they were without it; it is out, with a reason; nothing is left of it."""
    others = [slot for slot in range(len(fleet.runs)) if slot != place]
    assert [fleet.runs[slot].error for slot in others] == [""] * len(others)
    difference, _ = farthest({fleet.runs[slot].plan.name: fleet.adapter.state(slot) for slot in others}, peaceful)
    assert difference < EXACT
    for slot in others:
        assert [step.number for step in steps if step.slot == slot] == list(range(1, fleet.runs[slot].plan.steps + 1))
    bad = fleet.runs[place]
    assert bad.error
    assert bad.optimizer is None
    assert not bad.running
    assert not any(value.any() for value in fleet.adapter.state(place).values())
    assert all(parameter.isfinite().all() for parameter in fleet.adapter.parameters)
    for slot in others:
        optimizer = fleet.runs[slot].optimizer
        assert optimizer is not None
        assert all(value.isfinite().all() for value in optimizer.state().values())
    assert all(math.isfinite(step.loss) and math.isfinite(step.gradient_norm) for step in steps)


CASES = {
    "learning rate": (nothing, culprit(learning_rate=1e200, clip=None), "step"),
    "learning rate, clipped": (nothing, culprit(learning_rate=1e200, clip=1.0), "step"),
    "steep below all, 8 bits": (  # no gradient but its own is spoilt
        steep,
        culprit(shape=AdapterShape(1, 600, ("layers.0.self_attn.q_proj",)), optimizer="adamw_8bit"),
        "the gradient norm became",
    ),
    "infinite step": (nothing, culprit(learning_rate=1e308, weight_decay=1e10, clip=None), "weights"),
    "NaN in A": (set_weights("A", math.nan), culprit(), "loss became nan at step 4"),
    "infinity in A": (set_weights("A", math.inf), culprit(), "at step 4"),
    "steep": (
        steep,
        culprit(shape=AdapterShape(1, 600, ("q_proj", "up_proj"))),
        "the gradient norm became nan at step 4",
    ),
}


@pytest.mark.parametrize("token_budget", [30, 100_000])
@pytest.mark.parametrize("name", list(CASES))
def test_a_run_that_breaks_leaves_the_others_as_they_were(
    name: str, token_budget: int, peaceful: dict[str, State]
) -> None:
    spoil, bad, reason = CASES[name]
    fleet, steps = play(spoil, bad, 2, token_budget)
    assert reason in fleet.runs[2].error
    check(fleet, steps, 2, peaceful)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("letter", ["A", "B"])
def test_weights_that_are_not_finite_are_not_loaded(value: float, letter: str) -> None:
    """0 · NaN in h B would reach all tokens: training cannot make such a B, so only loading could."""
    fleet = start_fleet(packed_model(), victims(), 60)
    state = fleet.adapter.state(0)
    name = next(name for name in state if f"lora_{letter}" in name)
    state[name][0, 0] = value
    with pytest.raises(StudyError, match="not finite"):
        fleet.adapter.load(0, state)


def test_two_runs_that_break_together(peaceful: dict[str, State]) -> None:
    bad = [CASES["learning rate"][1], replace(CASES["steep"][1], name="worse")]
    fleet = start_fleet(packed_model(), [bad[0], *victims(), bad[1]], 60)
    steep(fleet, len(fleet.runs) - 1)
    fleet.train()
    assert all(fleet.runs[slot].error for slot in (0, len(fleet.runs) - 1))
    rest = {run.plan.name: fleet.adapter.state(slot) for slot, run in enumerate(fleet.runs) if not run.error}
    assert farthest(rest, peaceful)[0] < EXACT


def test_a_fleet_of_one_bad_run_ends() -> None:
    fleet = start_fleet(packed_model(), [CASES["learning rate"][1]], 60)
    fleet.train()
    assert fleet.runs[0].error
    assert all(not parameter.any() for parameter in fleet.adapter.parameters)


def _no_check(patch: pytest.MonkeyPatch) -> None:
    """The loop updates whatever comes."""
    patch.setattr(Fleet, "_broken", lambda *_: {})


def _norm_blind(patch: pytest.MonkeyPatch) -> None:
    """Gradient norms look finite."""
    original = FleetOptimizer.norms
    patch.setattr(FleetOptimizer, "norms", lambda self: original(self).nan_to_num(1.0, 1.0))


def _not_cleared(patch: pytest.MonkeyPatch) -> None:
    """A run that is out keeps its weights."""
    from pronk.model.adapter import WideAdapter

    patch.setattr(WideAdapter, "clear", lambda *_: None)


def _blind_update(patch: pytest.MonkeyPatch) -> None:
    """The update, which happens before the host knows anything, looks at no loss and at no norm."""
    original = FleetOptimizer.update

    def faulty(self: FleetOptimizer, factors: Mapping[int, float], *told: torch.Tensor) -> torch.Tensor:
        return original(self, factors, *(torch.ones_like(numbers) for numbers in told))

    patch.setattr(FleetOptimizer, "update", faulty)


def _eight_bits_unseen(patch: pytest.MonkeyPatch) -> None:
    """The update of all looks only at the runs that it updates itself."""
    patch.setattr(
        pronk.train.optimizer,
        "rule_table",
        lambda rules: rule_table([rule if rule.active else Rule() for rule in rules]),
    )


@pytest.mark.parametrize(
    ("fault", "name"),
    [(_no_check, "NaN in A"), (_norm_blind, "steep"), (_not_cleared, "NaN in A"), (_blind_update, "NaN in A"),
     (_eight_bits_unseen, "steep below all, 8 bits")],
)  # fmt: skip
def test_a_fault_shows(
    fault: Callable[[pytest.MonkeyPatch], None], name: str, peaceful: dict[str, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    spoil, bad, _ = CASES[name]
    fleet, steps = play(spoil, bad, 2, 100_000)
    with pytest.raises(AssertionError):
        check(fleet, steps, 2, peaceful)


@pytest.mark.parametrize("garbage", [1.0, 1e150, math.nan])
def test_the_base_slot_sees_the_base_model(garbage: float) -> None:
    """Losses and hidden states of BASE_SLOT beside adapters full of rubbish, in one pack."""
    base, model = plain_model(), packed_model()
    adapter = attach(model, [AdapterShape(4, 8), AdapterShape(2, 2, ("q_proj", "down_proj"))])
    for slot in (0, 1):
        size = 1.0 if math.isnan(garbage) else garbage
        adapter.load(slot, random_state(adapter.state(slot), "garbage", size))
        if math.isnan(garbage):
            for name, wide, rows in adapter.rows(slot):
                if name.endswith(".A"):
                    wide.data[rows] = math.nan
    seen: list[torch.Tensor] = []
    model.base_model.register_forward_hook(lambda _m, _a, out: seen.append(out.last_hidden_state[0]))
    examples = make_examples(6, 41)
    members = [Member(example, slot) for example, slot in zip(examples, (0, -1, 1, -1, 0, -1), strict=True)]
    (batch,) = pack(members, 10_000)
    losses_N = evaluation_losses(model, adapter, batch)
    ours = seen[0][torch.from_numpy(batch.slots_T == BASE_SLOT)]
    with torch.no_grad():
        theirs = torch.cat(
            [base.model(input_ids=torch.from_numpy(m.example.ids[None, :-1]), use_cache=False).last_hidden_state[0]
             for m in members if m.slot == BASE_SLOT]
        )  # fmt: skip
    assert (ours - theirs).abs().max() < EXACT
    mine = losses_N[torch.from_numpy(np.isin(batch.members_N, [1, 3, 5]))]
    assert mine.isfinite().all()
    touched = losses_N[torch.from_numpy(np.isin(batch.members_N, [0, 4]))]
    untouched = evaluation_losses(model, adapter, pack([replace(m, slot=BASE_SLOT) for m in members], 10_000)[0])
    changed = untouched[torch.from_numpy(np.isin(batch.members_N, [0, 4]))]
    assert len(touched) == len(changed)
    assert not torch.allclose(touched, changed)


def test_an_adapter_too_large_for_the_type_of_its_base_is_refused() -> None:
    """Finite in fp32, infinite in the products: 0 · inf is NaN, for every run of the fleet."""
    from pronk.errors import StudyError
    from pronk.model.adapter import AdapterShape, attach

    adapter = attach(packed_model(torch.float16), [AdapterShape(2, 4)])
    state = adapter.state(0)
    name = next(key for key in state if "lora_B" in key)
    state[name][0, 0] = 7e4
    with pytest.raises(StudyError, match="not finite numbers in its base's type"):
        adapter.load(0, state)
