"""An adapter → a .gguf file, for llama.cpp's --lora over the .gguf file of its base."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.errors import StudyError
from pronk.model.saved import PREFIX, SavedAdapter
from pronk.ship.gguf.writer import Labels, Planned, label, llama_cpp_names, rotary_heads, stored_as, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

SIDES = {"lora_A": "lora_a", "lora_B": "lora_b"}  # PEFT's names, llama.cpp's


def write_adapter(
    adapter: SavedAdapter, config: Any, target: Path, quantization: str, labels: Labels
) -> dict[str, int]:
    """Write an adapter to a .gguf file, whole or not at all; returns how many tensors have which type.

    config: of its base, a Llama or Mistral model. quantization: as for write_model. Raises as write_model does, and
    StudyError for layers that llama.cpp does not adapt.
    """

    def describe(writer: Any) -> None:
        from gguf import Keys

        label(writer, "adapter", labels, quantization)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        # llama.cpp divides this by the rank, whatever the run divided by (rsLoRA: by its root)
        writer.add_float32(Keys.Adapter.LORA_ALPHA, adapter.shape.scaling * adapter.shape.rank)

    return write_tensors(target, list(_planned(adapter, config, quantization)), describe)


def _planned(adapter: SavedAdapter, config: Any, quantization: str) -> Iterator[Planned]:
    """A and B of each layer, side by side; rows of q's and k's B in llama.cpp's order, as those of q and k are."""
    weights, heads = adapter.weights(), rotary_heads(config)
    names = llama_cpp_names(config.num_hidden_layers)
    for layer in adapter.sizes:
        if layer not in names:
            raise StudyError(
                f"{adapter.folder}: cannot be written to a .gguf file: it adapts {layer}, which no Llama model has"
            )
        for ours, theirs in SIDES.items():
            values = weights[f"{PREFIX}{layer}.{ours}.weight"]
            count = heads.get(layer.rpartition(".")[2]) if ours == "lora_B" else None
            shape = tuple(values.shape)
            read = partial(_in_their_order, values, count)
            yield Planned(f"{names[layer]}.weight.{theirs}", shape, stored_as(shape, quantization), read)


def _in_their_order(values: Tensor, heads: int | None) -> Tensor:
    from pronk.model.gguf import rotary_pairs

    return rotary_pairs(values, heads) if heads else values
