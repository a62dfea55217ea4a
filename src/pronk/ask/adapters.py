"""Adapters in PEFT's format, pronk's own or others', checked before they meet a model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pronk.errors import StudyError

CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
SIDES = ("lora_A", "lora_B")
# What PEFT can do with LoRA that the wide adapter cannot.
FOREIGN = (
    "use_dora", "use_qalora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias", "target_parameters",
    "trainable_token_indices", "layer_replication", "alora_invocation_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """An adapter found, its weights not yet read. base: as its configuration names it.

    rank, alpha: with α / r as its scaling, also where it was trained with rsLoRA's α / √r. sizes: rank, input and
    output features of each adapted layer.
    """

    folder: Path
    base: str | None
    rank: int
    alpha: float
    sizes: dict[str, tuple[int, int, int]]

    def check_fits(self, layers: Mapping[str, tuple[int, int]]) -> None:
        """Check against a base's linear layers (input and output features). Raises StudyError."""
        for name, (_, inputs, outputs) in self.sizes.items():
            if name not in layers:
                raise refused(self.folder, f"it adapts {name}, which this base does not have; it is of another base")
            if layers[name] != (inputs, outputs):
                found = f"{name} is {outputs} × {inputs} for it, {layers[name][1]} × {layers[name][0]} in this base"
                raise refused(self.folder, f"{found}; it is of another base")


def read_adapter(folder: Path) -> SavedAdapter:
    """Read what an adapter is from its configuration and the header of its weights.

    Raises StudyError that says why it is none that pronk can attach.
    """
    config = _config(folder)
    sizes = _sizes(folder)
    try:
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (KeyError, TypeError, ValueError):
        raise refused(folder, f"its {CONFIG} has no numbers r and lora_alpha") from None
    if strange := [name for name, (found, *_) in sizes.items() if found != rank]:
        raise refused(folder, f"{strange[0]} has rank {sizes[strange[0]][0]}, but its {CONFIG} says {rank}")
    if config.get("use_rslora"):
        alpha *= math.sqrt(rank)  # α / √r, which is α·√r / r
    base = config.get("base_model_name_or_path")
    return SavedAdapter(folder, base if isinstance(base, str) and base else None, rank, alpha, sizes)


def refused(folder: Path, why: str) -> StudyError:
    """One message about an adapter."""
    return StudyError(f"{folder}: this adapter cannot be used: {why}")


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise refused(folder, f"its {CONFIG} cannot be read ({error})") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise refused(folder, f"its peft_type is {kind!r}; pronk knows LORA only")
    if foreign := [key for key in FOREIGN if config.get(key)]:
        raise refused(folder, f"its {CONFIG} sets {foreign[0]}, which pronk does not do")
    if config.get("bias", "none") != "none":
        raise refused(folder, f"its {CONFIG} says bias: {config['bias']}; pronk trains no biases")
    return config


def _sizes(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Rank, input and output features of each layer, from the header of the weights."""
    from safetensors import SafetensorError, safe_open

    file = folder / WEIGHTS
    if not file.is_file():
        pickled = any(folder.glob("*.bin"))
        why = "its weights are pickled (.bin), which pronk never opens" if pickled else f"it has no {WEIGHTS}"
        raise refused(folder, f"{why}; save it again as safetensors")
    try:
        with safe_open(file, framework="np") as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise refused(folder, f"its {WEIGHTS} cannot be read ({error}); copy it again") from None
    layers = {name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in shapes}
    wanted = {f"{PREFIX}{layer}.{side}.weight" for layer in layers for side in SIDES}
    strange = sorted(wanted ^ shapes.keys())
    if strange or not shapes or any(len(shape) != 2 for shape in shapes.values()):
        named = f" ({strange[0]})" if strange else ""
        raise refused(folder, f"its {WEIGHTS} is not that of a LoRA adapter of linear layers{named}")
    sides = {layer: [shapes[f"{PREFIX}{layer}.{side}.weight"] for side in SIDES] for layer in sorted(layers)}
    for layer, ((rank, _), (_, rank_of_b)) in sides.items():
        if rank != rank_of_b:
            raise refused(folder, f"A and B of {layer} do not fit together ({rank} and {rank_of_b} rows)")
    return {layer: (a[0], a[1], b[0]) for layer, (a, b) in sides.items()}
