"""Full fine-tuning: all weights of a model against a plain PyTorch loop and against TRL, tied head or not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import Fault, attention_across, mean_of_micro_batches, order_changed, targets_shifted
from oracle_plain import train_plainly
from oracle_trl import train_with_trl, word_tokenizer
from safetensors.torch import load, save
from tiny import TIGHT, State, apart, make_examples, packed_model, plain_model, train
from torch import nn
from transformers import AutoModelForCausalLM

import pronk.model.forward
from pronk.errors import RecipeError, StudyError
from pronk.model.whole import WholeModel, put_weights
from pronk.tokens.pack import BASE_SLOT
from pronk.train.checkpoint import ModelFiles
from pronk.train.fleet import Fleet, RunPlan, Step, optimizer_tensors

PLAN = RunPlan(
    "full", make_examples(16, 2), None, 20, 4, 1e-3, schedule="linear", warmup_steps=3, weight_decay=0.1, clip=0.5
)
BUDGET = 30  # several micro-batches a step

# transformers 5.23 warns of its own arguments, which TRL 1.16 uses
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")


def by_pronk(
    plan: RunPlan = PLAN, dtype: torch.dtype = torch.float64, tied: bool = False, **options: Any
) -> tuple[State, list[Step]]:
    fleet = Fleet(packed_model(dtype, tied=tied), [plan], BUDGET, **options)
    weights, steps = train(fleet)
    assert not fleet.runs[0].error
    return weights[plan.name], steps[plan.name]


def by_torch(tied: bool, decay_vectors: bool = False) -> tuple[State, list[float]]:
    """AdamW over all weights; norms do not decay."""
    model = plain_model(tied=tied).requires_grad_(True)
    weights = list(model.parameters())
    groups = [
        {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": 0.1},
        {"params": [weight for weight in weights if weight.dim() == 1], "weight_decay": 0.1 * decay_vectors},
    ]
    losses = train_plainly(model, torch.optim.AdamW(groups, lr=PLAN.learning_rate), PLAN)
    return {name: weight.detach() for name, weight in model.named_parameters()}, losses


@pytest.mark.parametrize("tied", [False, True])
def test_a_run_equals_a_plain_loop(tied: bool) -> None:
    (ours, steps), (theirs, losses) = by_pronk(tied=tied), by_torch(tied)
    assert ("lm_head.weight" in ours) == (not tied)
    assert apart(ours, theirs) < TIGHT
    assert [step.loss for step in steps] == pytest.approx(losses, abs=TIGHT)
    start = dict(plain_model(tied=tied).named_parameters())
    assert min((ours[name] - start[name]).abs().max() for name in ours) > 1e-3, "every weight was trained"


def test_a_run_equals_trl(tmp_path: Path) -> None:
    """Single precision, as AdamW of transformers' Trainer; 3e-6 seen."""
    ours, steps = by_pronk(dtype=torch.float32, tied=True)
    theirs, logged = train_with_trl(plain_model(torch.float32, tied=True), PLAN, {}, tmp_path, word_tokenizer())
    assert apart(ours, theirs) < 2e-5
    assert [step.loss for step in steps] == pytest.approx([step["loss"] for step in logged], abs=1e-5)
    assert [step.gradient_norm for step in steps] == pytest.approx([s["gradient_norm"] for s in logged], rel=1e-4)


@pytest.mark.parametrize(
    "fault",
    [targets_shifted, mean_of_micro_batches, attention_across, order_changed],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_shows(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert apart(by_pronk()[0], by_torch(False)[0]) > 1e4 * TIGHT


@pytest.mark.parametrize("tied", [False, True])
def test_a_fault_in_which_the_head_learns_nothing_shows(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    original = pronk.model.forward.output_head
    monkeypatch.setattr(pronk.model.forward, "output_head", lambda model: original(model).detach())
    assert apart(by_pronk(tied=tied)[0], by_torch(tied)[0]) > 1e4 * TIGHT


def test_a_fault_in_which_norms_decay_shows() -> None:
    assert apart(by_pronk()[0], by_torch(False, decay_vectors=True)[0]) > 1e4 * TIGHT


def test_recomputing_layers_changes_no_bit() -> None:
    (ours, steps), (plain, plain_steps) = by_pronk(recompute="all"), by_pronk()
    assert steps == plain_steps
    assert apart(ours, plain) == 0


# --- bf16: rounded copies ---------------------------------------------------------------------------


def bf16_fleet(learning_rate: float = 1e-5, **changes: Any) -> Fleet:
    plan = replace(PLAN, learning_rate=learning_rate, weight_decay=0.0, schedule="constant", warmup_steps=0, **changes)
    return Fleet(packed_model(torch.bfloat16, tied=True), [plan], BUDGET)


def trained_weights(fleet: Fleet) -> State:
    return {name: weight.detach().clone() for name, weight, _ in fleet.adapter.rows(0)}


def test_small_updates_add_up_in_bf16() -> None:
    """A weight of 0.2 moves in steps of 1/1024 in bf16; twenty steps of 1e-5 are less than that."""
    fleet = bf16_fleet()
    assert {parameter.dtype for parameter in fleet.adapter.parameters} == {torch.bfloat16}
    assert {parameter.grad.dtype for parameter in fleet.adapter.parameters if parameter.grad is not None} == {
        torch.float32
    }
    start, used = trained_weights(fleet), fleet.adapter.state(0)
    fleet.train()
    end = trained_weights(fleet)
    assert {weight.dtype for weight in end.values()} == {torch.float32}
    name = "model.layers.1.mlp.up_proj.weight"
    moved = (end[name] - start[name]).abs()
    assert moved.median() > 1e-5, "more than one step's worth"
    large = used[name].abs() > 0.2
    assert (fleet.adapter.state(0)[name] == used[name])[large].float().mean() > 0.5, "bf16 alone would have lost them"
    assert all(torch.equal(fleet.adapter.state(0)[key], value.bfloat16()) for key, value in end.items())


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize("fault", [False, True])
def test_a_run_goes_on_from_its_checkpoint_as_if_it_had_never_stopped(kind: str, fault: bool, tmp_path: Path) -> None:
    """The fault: from the rounded weights that were saved as a model, not from those that are trained."""
    fleet = bf16_fleet(optimizer=kind)
    for _ in range(5):
        fleet.play_round()
    ModelFiles(fleet.model).save(tmp_path, fleet.adapter.state(0))
    tensors = load(save(optimizer_tensors(fleet.runs[0])))
    losses = [fleet.play_round()[0].loss for _ in range(5)]

    again = bf16_fleet(optimizer=kind)
    again.adapter.load(0, ModelFiles(again.model).load(tmp_path))
    if fault:
        tensors |= {f"{key}.weight": value for key, value in trained_weights(again).items()}
    again.runs[0].optimizer.load(tensors)  # type: ignore[union-attr]
    again.runs[0].step = int(tensors["random.step"])
    same = [again.play_round()[0].loss for _ in range(5)] == losses
    assert same == (not fault)
    ends = trained_weights(again), trained_weights(fleet)
    assert (apart(*ends) == 0) == (not fault)


def test_eight_bit_moments_of_all_weights() -> None:
    fleet = bf16_fleet(optimizer="adamw_8bit")
    fleet.train()
    tensors = optimizer_tensors(fleet.runs[0])
    moments = [value for key, value in tensors.items() if key.endswith((".state1", ".state2")) and value.dim() > 1]
    assert {value.dtype for value in moments if value.numel() >= 4096} <= {torch.uint8}
    assert not fleet.runs[0].error


# --- files, failures --------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_saved_is_a_model_to_transformers(dtype: torch.dtype, tied: bool, tmp_path: Path) -> None:
    plan = replace(PLAN, steps=3)
    fleet = Fleet(packed_model(dtype, tied=tied), [plan], BUDGET)
    fleet.train()
    state = fleet.adapter.state(0)
    ModelFiles(fleet.model).save(tmp_path, state)
    assert all(torch.equal(state[key], value) for key, value in ModelFiles(fleet.model).load(tmp_path).items())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == dtype
    found = dict(loaded.named_parameters())
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], value) for key, value in state.items())
    assert "pronk" not in (tmp_path / "config.json").read_text()
    if dtype == torch.bfloat16:
        return  # the tiny model rounds its rotary frequencies too, transformers does not
    other = plain_model(dtype, tied=tied)
    put_weights(other, state)
    ids = torch.from_numpy(make_examples(1, 21, 15, 16)[0].ids)[None]
    with torch.no_grad():
        assert torch.equal(loaded.eval()(input_ids=ids).logits, other(input_ids=ids).logits)


@pytest.mark.parametrize("learning_rate", [1e200, 1e30])
def test_a_run_that_breaks_ends_with_its_reason(learning_rate: float) -> None:
    fleet = Fleet(packed_model(), [replace(PLAN, learning_rate=learning_rate, clip=None)], BUDGET)
    fleet.train()
    assert "lower learning rate" in fleet.runs[0].error
    assert fleet.runs[0].optimizer is None


def test_weights_that_are_not_finite_are_not_loaded() -> None:
    fleet = Fleet(packed_model(), [PLAN], BUDGET)
    state = fleet.adapter.state(0)
    state["model.norm.weight"][3] = float("nan")
    with pytest.raises(StudyError, match="not finite"):
        fleet.adapter.load(0, state)


def test_a_quantized_model_is_refused() -> None:
    model = packed_model()
    weight = model.model.layers[0].mlp.up_proj.weight
    model.model.layers[0].mlp.up_proj.weight = nn.Parameter(weight.to(torch.int8), requires_grad=False)
    with pytest.raises(RecipeError, match=r"full: true .* quantized"):
        WholeModel(model)


def test_afterwards_the_model_is_frozen_and_holds_what_was_trained() -> None:
    fleet = bf16_fleet(1e-3)
    fleet.train()
    state = fleet.adapter.state(0)
    fleet.adapter.detach()
    assert all(not weight.requires_grad and weight.grad is None for weight in fleet.model.parameters())
    assert all(torch.equal(dict(fleet.model.named_parameters())[key], value) for key, value in state.items())
    assert BASE_SLOT not in range(len(fleet.runs))
