"""While a base is quantized, one dense layer at a time; and whatever moves its weights leaves them as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from counted import Counter
from transformers import LlamaConfig

import pronk.model.random_model as subject
from pronk.model.adapter import linear_layers
from pronk.model.load import close_up
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


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("quantize", ["int8", "nf4", "fp8"])
def test_closing_up_changes_no_weight(quantize: Quantize, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pronk.model.load.SMALL", 0)
    model = random_model(CONFIG, 2, torch.float32, CPU, quantize)
    before = {name: one.quantized.dequantize().clone() for name, one in linear_layers(model).items()}
    close_up(model)
    after = {name: one.quantized.dequantize() for name, one in linear_layers(model).items()}
    assert all(torch.equal(before[name], after[name]) for name in before)
