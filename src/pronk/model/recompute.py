"""Layers whose activations are not kept for the backward pass but computed again (Chen et al. 2016, arXiv:1604.06174).

transformers does this in its own layers, in every 5.x version at another place, but always on the same two
conditions: the layer's flag `gradient_checkpointing`, and that the layer is in training mode. Models here stay in
evaluation mode, as dropout in the base would make runs depend on one another. So a layer's own mode, not that of
the modules in it, is switched while gradients are computed, and back before anything is evaluated: with the flag
and the mode both on, transformers takes a layer's cache away and generation would go wrong. Our own layers
(fused.py) have one switch, `recompute`.
"""

from __future__ import annotations

from typing import Any

from pronk.errors import RecipeError
from pronk.model.fused import FusedLayer


class Recompute:
    """A context for forward and backward passes in which a model's first layers are recomputed.

    how_many: layers, or none or all; auto, where nobody has planned, is none. The first layers, because by the time
    that they are recomputed the backward pass has released what the later ones kept. Raises RecipeError for more
    layers than there are.
    """

    def __init__(self, model: Any, how_many: int | str) -> None:
        layers = [] if how_many in (0, "none", "auto") else _layers(model)
        if isinstance(how_many, int) and how_many > len(layers):
            raise RecipeError(
                f"train.recompute: {how_many}, but this base has {len(layers)} layers; write at most that many, or all"
            )
        self.layers = layers if how_many == "all" else layers[: int(how_many)] if layers else []
        if self.layers and not isinstance(self.layers[0], FusedLayer):
            _enable(model)
            for layer in layers:
                layer.gradient_checkpointing = any(layer is chosen for chosen in self.layers)

    def __enter__(self) -> None:
        self._switch(True)

    def __exit__(self, *_: Any) -> None:
        self._switch(False)

    def _switch(self, on: bool) -> None:
        for layer in self.layers:
            if isinstance(layer, FusedLayer):
                layer.recompute = on
            else:
                layer.training = on


def _layers(model: Any) -> list[Any]:
    """A model's layers, the first first. Raises RecipeError where transformers cannot recompute them."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    if fused := [module for module in model.modules() if isinstance(module, FusedLayer)]:
        return fused
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers or not model.supports_gradient_checkpointing:
        raise RecipeError("train.recompute: transformers cannot recompute the layers of this base; leave the key out")
    return layers


def _enable(model: Any) -> None:
    # the newer name; 5.17 has the older one only, which 5.23 warns of
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    # all randomness is a function of counters, so there is no generator to be set back
    enable({"use_reentrant": False, "preserve_rng_state": False})
    model.disable_input_require_grads()  # needed by the reentrant form only
