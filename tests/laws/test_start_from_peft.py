"""`adapter.from`: going on with an adapter that PEFT saved, or pronk did, is going on with the same function."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle_plain import train_plainly
from peft import LoraConfig, PeftModel, get_peft_model
from test_law_6_peft import our_logits, peft_logits
from tiny import (
    PEFT_WARNS,
    TIGHT,
    State,
    apart,
    make_examples,
    packed_model,
    plain_model,
    random_state,
    read_state,
    shorter,
)
from tiny import five_plans as neighbours

from pronk.model.adapter import linear_layers
from pronk.recipe import Adapter
from pronk.train.checkpoint import save_adapter
from pronk.train.fleet import Fleet, RunPlan
from pronk.train.start import check_start, read_start, start_weights

pytestmark = pytest.mark.filterwarnings(PEFT_WARNS)

# how PEFT may say which layers it adapts, and how many of the tiny model's they are
TARGETS: dict[str, tuple[dict[str, Any], int]] = {
    "names": ({"target_modules": ["q_proj", "down_proj"]}, 4),
    "a name of no layer": ({"target_modules": ["v_proj", "c_attn"]}, 2),
    "a pattern": ({"target_modules": r".*layers\.1\..*(k|up)_proj"}, 2),
    "all-linear": ({"target_modules": "all-linear"}, 14),
    "some layers": ({"target_modules": ["o_proj", "gate_proj"], "layers_to_transform": [1]}, 2),
    "all but some": ({"target_modules": ["o_proj", "up_proj"], "exclude_modules": ["model.layers.0.mlp.up_proj"]}, 3),
}


def saved_by_peft(folder: Path, **targets: Any) -> None:
    """A PEFT adapter with A and B both non-zero."""
    config = LoraConfig(r=5, lora_alpha=7, use_rslora=True, task_type="CAUSAL_LM", **targets)
    model = get_peft_model(plain_model(), config)
    drawn = random_state(read_state(model), "foreign", 0.2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(drawn[name.replace(".default", "")])
    model.save_pretrained(str(folder))


def going_on(folder: Path, steps: int = 10) -> tuple[Fleet, RunPlan]:
    """A fleet whose second run goes on with the adapter in a folder."""
    sizes = {name: (one.in_features, one.out_features) for name, one in linear_layers(plain_model()).items()}
    check_start(Adapter.model_validate({"from": str(folder)}), sizes)
    plan = RunPlan(
        "on", make_examples(13, 1), read_start(str(folder)).shape, steps, 3, 1e-3, start=start_weights(str(folder))
    )
    return Fleet(packed_model(), [shorter(neighbours(), steps)[0], plan], 60), plan


@pytest.mark.parametrize("named", list(TARGETS))
def test_an_adapter_of_pefts_gives_the_same_logits_and_trains_the_same(named: str, tmp_path: Path) -> None:
    targets, layers = TARGETS[named]
    saved_by_peft(tmp_path / "theirs", **targets)
    fleet, plan = going_on(tmp_path / "theirs")
    assert len(fleet.adapter.state(1)) == 2 * layers
    ids = torch.from_numpy(make_examples(1, 21, 15, 16)[0].ids)
    theirs = peft_logits(plain_model(), tmp_path / "theirs", ids)
    assert (our_logits(fleet.model, fleet.adapter, 1, ids) - theirs).abs().max() < TIGHT
    assert (our_logits(fleet.model, fleet.adapter, -1, ids) - theirs).abs().max() > 0.01, "B is not zero"

    fleet.train()
    model = PeftModel.from_pretrained(plain_model(), str(tmp_path / "theirs"), is_trainable=True)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    train_plainly(model, torch.optim.AdamW(weights, lr=plan.learning_rate, weight_decay=0.0), plan)
    assert apart(fleet.adapter.state(1), read_state(model)) < TIGHT

    # and what is saved then is an adapter of the same layers to PEFT
    (tmp_path / "ours").mkdir()
    save_adapter(tmp_path / "ours", fleet.adapter.state(1), plan.shape, "tiny")
    theirs = peft_logits(plain_model(), tmp_path / "ours", ids)
    assert (our_logits(fleet.model, fleet.adapter, 1, ids) - theirs).abs().max() < TIGHT


def test_no_more_steps_leave_the_adapter_as_it_is(tmp_path: Path) -> None:
    saved_by_peft(tmp_path, target_modules=["q_proj"])
    fleet, _ = going_on(tmp_path, steps=0)
    fleet.train()
    assert apart(fleet.adapter.state(1), start_weights(str(tmp_path))) == 0


@pytest.mark.parametrize("fault", ["begun anew", "alpha over rank", "transposed"])
def test_a_fault_shows(fault: str, tmp_path: Path) -> None:
    saved_by_peft(tmp_path, target_modules=["q_proj"])
    fleet, plan = going_on(tmp_path)
    start: State | None = dict(plan.start or {})
    if fault == "begun anew":
        start = None
    elif fault == "transposed":
        start = {key: value.flip(1) for key, value in (plan.start or {}).items()}
    else:
        plan = replace(plan, shape=replace(plan.shape, use_rslora=False))
    fleet = Fleet(packed_model(), [replace(plan, start=start)], 60)
    ids = torch.from_numpy(make_examples(1, 21, 15, 16)[0].ids)
    theirs = peft_logits(plain_model(), tmp_path, ids)
    assert (our_logits(fleet.model, fleet.adapter, 0, ids) - theirs).abs().max() > 1e4 * TIGHT
