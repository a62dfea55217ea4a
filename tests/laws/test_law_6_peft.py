"""Law 6: an adapter that pronk saved gives the same logits in PEFT."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny import (
    PEFT_WARNS,
    TIGHT,
    five_plans,
    make_examples,
    packed_model,
    plain_model,
    random_state,
    shorter,
    start_fleet,
    train,
)
from torch import Tensor
from transformers import AutoModelForCausalLM

from pronk.errors import BaseModelError
from pronk.model.adapter import AdapterShape, WideAdapter, attach
from pronk.model.attention import packing
from pronk.model.load import find_base, load_model, load_tokenizer
from pronk.train.checkpoint import load_adapter, save_adapter

pytestmark = pytest.mark.filterwarnings(PEFT_WARNS)

SHAPES = [
    AdapterShape(4, 8, ("q_proj", "v_proj")),
    AdapterShape(3, 5),
    AdapterShape(1, 2.5, ("down_proj",)),
    AdapterShape(16, 16, ("k_proj", "gate_proj", "o_proj")),
    AdapterShape(9, 4, ("q_proj", "up_proj"), use_rslora=True),
]


def our_logits(model: Any, adapter: WideAdapter, slot: int, ids: Tensor) -> Tensor:
    """Logits of one sequence under one slot, by pronk's model."""
    adapter.routing.set(torch.full((len(ids),), slot))
    positions = torch.arange(len(ids))
    with torch.no_grad():
        hidden = model.base_model(
            input_ids=ids[None], position_ids=positions[None], use_cache=False,
            packing=packing((len(ids),), (-1,), torch.device("cpu")),
        ).last_hidden_state  # fmt: skip
        return model.get_output_embeddings()(hidden)[0]


def peft_logits(base: Any, folder: Path, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return PeftModel.from_pretrained(base, str(folder)).eval()(input_ids=ids[None]).logits[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, TIGHT), (torch.float32, 1e-4)])
@pytest.mark.parametrize("slot", range(len(SHAPES)))
def test_peft_gives_the_same_logits(slot: int, dtype: torch.dtype, tolerance: float, tmp_path: Path) -> None:
    """fp32: logits of size 5 to 10, rounded at 1e-7 in each of some twenty products."""
    model = packed_model(dtype)
    adapter = attach(model, SHAPES)
    for other in range(len(SHAPES)):
        adapter.load(other, random_state(adapter.state(other), f"run {other}", 0.2))
    save_adapter(tmp_path, adapter.state(slot), SHAPES[slot], "tiny", dropout=0.1)
    ids = torch.from_numpy(make_examples(1, 21, 15, 16)[0].ids)
    ours, theirs = our_logits(model, adapter, slot, ids), peft_logits(plain_model(dtype), tmp_path, ids)
    assert (ours - theirs).abs().max() < tolerance
    # neither the base model nor a neighbour would pass
    assert (plain_model(dtype)(input_ids=ids[None]).logits[0] - theirs).abs().max() > 0.01
    assert (our_logits(model, adapter, (slot + 1) % len(SHAPES), ids) - theirs).abs().max() > 0.01


def test_what_was_trained_is_what_peft_loads(tmp_path: Path) -> None:
    fleet = start_fleet(packed_model(), shorter(five_plans(), 5), 100)
    train(fleet)
    ids = torch.from_numpy(make_examples(1, 22, 15, 16)[0].ids)
    for slot, run in enumerate(fleet.runs):
        folder = tmp_path / run.plan.name
        folder.mkdir()
        save_adapter(folder, fleet.adapter.state(slot), run.plan.shape, "tiny")
        theirs = peft_logits(plain_model(), folder, ids)
        assert (our_logits(fleet.model, fleet.adapter, slot, ids) - theirs).abs().max() < TIGHT


def test_an_adapter_of_one_layer_stays_one_of_one_layer(tmp_path: Path) -> None:
    """A target may be the full name of a layer. PEFT then must not adapt its namesakes."""
    shape = AdapterShape(2, 4, ("model.layers.1.self_attn.q_proj", "model.layers.0.mlp.down_proj"))
    model = packed_model()
    adapter = attach(model, [shape])
    adapter.load(0, random_state(adapter.state(0), "one layer", 0.2))
    assert len(adapter.layers) == 2
    save_adapter(tmp_path, adapter.state(0), shape, "tiny")
    loaded = PeftModel.from_pretrained(plain_model(), str(tmp_path))
    adapted = {name.split(".lora_")[0] for name, _ in loaded.named_parameters() if ".lora_" in name}
    assert adapted == {f"base_model.model.{name}" for name in adapter.layers}
    ids = torch.from_numpy(make_examples(1, 23, 15, 16)[0].ids)
    ours, theirs = our_logits(model, adapter, 0, ids), peft_logits(plain_model(), tmp_path, ids)
    assert (ours - theirs).abs().max() < TIGHT


def test_saving_and_loading_is_exact(tmp_path: Path) -> None:
    adapter = attach(packed_model(torch.float32), SHAPES)
    state = random_state(adapter.state(1), "saved")
    save_adapter(tmp_path, state, SHAPES[1], "tiny")
    adapter.load(1, load_adapter(tmp_path))
    assert all(torch.equal(adapter.state(1)[key], value) for key, value in state.items())


@pytest.mark.parametrize("fault", ["alpha", "rslora", "transposed rank", "A of a neighbour"])
def test_a_fault_shows(fault: str, tmp_path: Path) -> None:
    model = packed_model()
    adapter = attach(model, SHAPES)
    adapter.load(1, random_state(adapter.state(1), "run 1", 0.2))
    state, shape = adapter.state(1), SHAPES[1]
    if fault == "alpha":
        shape = AdapterShape(shape.rank, shape.rank, shape.targets)
    elif fault == "rslora":
        shape = replace(shape, use_rslora=True)
    elif fault == "transposed rank":
        state = {key: value.flip(0) if "lora_A" in key else value for key, value in state.items()}
    else:
        state = random_state(state, "run 2", 0.2)
    save_adapter(tmp_path, state, shape, "tiny")
    ids = torch.from_numpy(make_examples(1, 21, 15, 16)[0].ids)
    difference = our_logits(model, adapter, 1, ids) - peft_logits(plain_model(), tmp_path, ids)
    assert difference.abs().max() > 1e5 * TIGHT


@pytest.mark.slow
def test_smollm2_gives_the_same_logits_in_peft(tmp_path: Path) -> None:
    """fp32, thirty layers: logits of size 20, and 1e-3 is what summation order leaves."""
    try:
        base = find_base("smollm2")
    except BaseModelError as error:
        pytest.skip(str(error))
    shapes = [AdapterShape(4, 8, ("q_proj", "v_proj")), AdapterShape(8, 16)]
    model = load_model(base, torch.float32, torch.device("cpu"))
    adapter = attach(model, shapes)
    for slot in (0, 1):
        adapter.load(slot, random_state(adapter.state(slot), f"run {slot}", 0.02))
    ids = torch.tensor(load_tokenizer(base)("The plant will close in May. 공장이 문을 닫는다.").input_ids)
    for slot in (0, 1):
        save_adapter(tmp_path, adapter.state(slot), shapes[slot], base.location)
        plain = AutoModelForCausalLM.from_pretrained(base.location, dtype=torch.float32)
        theirs = peft_logits(plain, tmp_path, ids)
        assert (our_logits(model, adapter, slot, ids) - theirs).abs().max() < 1e-3
        assert (our_logits(model, adapter, 1 - slot, ids) - theirs).abs().max() > 0.1
