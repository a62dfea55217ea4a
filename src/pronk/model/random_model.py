"""A model of a base's shape with random weights and as many layers as wanted: what can be measured in its place."""

from __future__ import annotations

import copy
from typing import Any

import torch

from pronk.model.adapter import linear_layers
from pronk.model.hub import quiet
from pronk.model.load import ready_model
from pronk.model.quantize import quantize_linear
from pronk.recipe import Quantize

SPREAD = 0.02  # standard deviation of weights, as models are initialized


def random_model(
    config: Any, layers: int, dtype: torch.dtype, device: torch.device,
    quantize: Quantize = "none", double: bool = True, fp8_products: bool = False,
) -> Any:  # fmt: skip
    """What `load_model` gives for a base with this configuration, but for layers and weights.

    Linear layers are filled and quantized one by one, so that no two are dense at once. The generators of random
    numbers are left as they were.
    """
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(config)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    config.num_hidden_layers = layers
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), quiet():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        for name in list(linear_layers(model)):  # names alone: whoever holds the layers keeps all of them dense
            linear = model.get_submodule(name)
            assert isinstance(linear, torch.nn.Linear), "nothing is quantized before it is filled"
            filled = linear.to_empty(device=device)
            for weight in filled.parameters():
                weight.data.normal_(0, SPREAD)
            model.set_submodule(name, quantize_linear(filled, quantize, double, fp8_products))
            del linear, filled, weight
        head = model.get_output_embeddings() if config.tie_word_embeddings else None
        for name, module in list(model.named_modules()):
            if module is not head:  # which is the embedding: a second one would be there for a moment
                _fill(model, name, module, device)
        model.tie_weights()
    return ready_model(model)


def _fill(model: Any, name: str, module: Any, device: torch.device) -> None:
    """Weights for a module that is still on the meta device; the rotary embedding is computed anew."""
    if any("inv_freq" in key and buffer.is_meta for key, buffer in module.named_buffers(recurse=False)):
        with torch.device(device):
            model.set_submodule(name, type(module)(model.config))
        return
    for key, buffer in list(module.named_buffers(recurse=False)):
        if buffer.is_meta:  # a scale, as Gemma's embedding has one
            setattr(module, key, torch.ones_like(buffer, device=device))
    for key, weight in list(module.named_parameters(recurse=False)):
        if weight.is_meta:
            filled = torch.empty_like(weight, device=device)
            filled.normal_(1.0 if weight.dim() == 1 else 0.0, SPREAD)  # vectors are the norms' scales
            setattr(module, key, torch.nn.Parameter(filled, requires_grad=False))
