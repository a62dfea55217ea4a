"""While a base is quantized, one dense layer at a time; and whatever moves its weights leaves them as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from counted import Counter
from torch import Tensor
from transformers import LlamaConfig

import pronk.model.close_up as closing
import pronk.model.random_model as subject
from pronk.model.adapter import AdapterShape, attach, linear_layers
from pronk.model.close_up import close_up
from pronk.model.fused import multiplied_together
from pronk.model.products import lay_side_by_side
from pronk.model.random_model import random_model
from pronk.recipe import Quantize

CPU = torch.device("cpu")
CONFIG = LlamaConfig(
    vocab_size=64, hidden_size=128, intermediate_size=512, num_hidden_layers=8, num_attention_heads=4,
    num_key_value_heads=2,
)  # fmt: skip
DENSE = 4 * 128 * 512  # bytes of the largest layer


def beyond(quantize: Quantize, then: Callable[[], None] = lambda: None) -> int:
    """Most bytes while the model is made, beyond those that it keeps. then: done when it is made."""
    counter = Counter()
    with counter:
        model = random_model(CONFIG, 8, torch.float32, CPU, quantize)
        then()
        most, kept = counter.most, counter.alive
    del model
    return most - kept


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("quantize", ["int8", "nf4", "fp8"])
def test_one_layer_is_dense_at_a_time(quantize: Quantize) -> None:
    """In fp32, with what its quantization needs: a few layers' worth, of 56."""
    assert beyond(quantize) < 5 * DENSE


@pytest.mark.usefixtures("one_thread")
def test_layers_that_somebody_holds_stay_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a dict of all layers, alive until the last is quantized."""
    held: list[Any] = []

    def holding(model: Any) -> Any:
        held.append(found := linear_layers(model))
        return found

    monkeypatch.setattr(subject, "linear_layers", holding)
    assert beyond("nf4", held.clear) > 20 * DENSE


def kept(model: Any) -> dict[str, Tensor]:
    """All tensors of quantized weights."""
    layers = linear_layers(model)
    return {
        f"{name} {key}": tensor
        for name, layer in layers.items()
        for key, tensor in [*layer.quantized.named_parameters(), *layer.quantized.named_buffers()]
    }


KINDS: list[tuple[Quantize, bool]] = [("int8", False), ("nf4", False), ("nf4", True), ("fp8", False)]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("quantize", "fp8_products"), KINDS)
@pytest.mark.parametrize("stretch", [1, 100_000, 2**40])
def test_closing_up_changes_no_weight(
    quantize: Quantize, fp8_products: bool, stretch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "STRETCH", stretch)
    monkeypatch.setattr(closing, "PART", 1)
    model = random_model(CONFIG, 2, torch.float32, CPU, quantize, fp8_products=fp8_products)
    dense = {name: layer.quantized.dequantize().clone() for name, layer in linear_layers(model).items()}
    before = {name: tensor.clone() for name, tensor in kept(model).items()}
    held = [tensor.data for tensor in kept(model).values()]  # so that no place is given twice
    close_up(model)
    after = kept(model)
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name]), name
        assert tensor.data_ptr() % (16 if tensor.nbytes >= 16 else 4) == 0
    for name, layer in linear_layers(model).items():
        assert torch.equal(layer.quantized.dequantize(), dense[name])
    shared = {tensor.untyped_storage().data_ptr() for tensor in after.values()}
    assert not shared & {tensor.untyped_storage().data_ptr() for tensor in held}, "all have moved"
    assert (len(shared) == 1) == (stretch == 2**40)


def places_before_and_after_attaching(quantize: Quantize, fp8_products: bool) -> tuple[dict[str, int], dict[str, int]]:
    """Where weights lie that were closed up; and once two fleets, one after another, were attached to them."""
    model = random_model(CONFIG, 2, torch.float32, CPU, quantize, fp8_products=fp8_products)
    close_up(model)
    before = {name: tensor.data_ptr() for name, tensor in kept(model).items()}
    for rank in (4, 8):
        attach(model, [AdapterShape(rank, 8)]).detach()
    return before, {name: tensor.data_ptr() for name, tensor in kept(model).items()}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("quantize", "fp8_products"), KINDS)
def test_what_was_closed_up_does_not_move_when_fleets_are_attached(quantize: Quantize, fp8_products: bool) -> None:
    before, after = places_before_and_after_attaching(quantize, fp8_products)
    assert before == after


@pytest.mark.usefixtures("one_thread")
def test_weights_closed_up_without_their_groups_move_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault, which is what once left holes in FP8 bases."""
    monkeypatch.setattr(closing, "multiplied_together", lambda _: [])
    before, after = places_before_and_after_attaching("fp8", False)
    moved = {name.rpartition(".")[2] for name in before if before[name] != after[name]}
    assert {name.partition(" ")[0] for name in moved} >= {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}


@pytest.mark.usefixtures("one_thread")
def test_groups_that_lie_side_by_side_move_once() -> None:
    model = random_model(CONFIG, 1, torch.float32, CPU, "fp8")
    groups = multiplied_together(model)
    assert [len(group) for group in groups] == [3, 2]
    assert [lay_side_by_side(group) for group in groups] == [True, True]
    assert [lay_side_by_side(group) for group in groups] == [False, False]
