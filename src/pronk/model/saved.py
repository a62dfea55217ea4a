"""An adapter on disk in PEFT's format, from pronk or from elsewhere.

Everything about it that could go wrong is found before its weights are read: from its configuration and the header
of its weights. What pronk cannot do exactly is refused, never approximated. Importing this loads no PyTorch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.errors import StudyError

if TYPE_CHECKING:
    from torch import Tensor

    from pronk.model.adapter import AdapterShape

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX, SIDES = "base_model.model.", ("lora_A", "lora_B")
# What PEFT can do with LoRA that the wide adapter cannot: the settings' names, and in words.
FOREIGN = {
    "use_dora": "is a DoRA adapter",
    "use_qalora": "is a QALoRA adapter",
    "use_bdlora": "is a block-diagonal adapter",
    "kasa_config": "is a KaSA adapter",
    "monteclora_config": "is a MonteCLoRA adapter",
    "arrow_config": "chooses between adapters for each token",
    "rank_pattern": "has layers of different ranks",
    "alpha_pattern": "has layers of different alphas",
    "modules_to_save": "comes with whole layers that were trained beside it",
    "lora_bias": "has biases",
    "target_parameters": "adapts parameters that are no linear layers",
    "trainable_token_indices": "comes with token embeddings that were trained beside it",
    "layer_replication": "belongs to a base with repeated layers",
    "alora_invocation_tokens": "is an activated LoRA adapter",
}
# Initializations that also change the base model's weights, by the first word of their names.
BASE_CHANGERS = ("pissa", "olora", "corda", "loftq", "lora_ga")
PICKLED = """its weights are pickled ({0}), and opening a pickle can run anything; if you trust its author, convert it \
once: python -c "import torch, safetensors.torch as s; s.save_file({{k: v.contiguous() for k, v in \
torch.load('{1}/{0}', weights_only=True).items()}}, '{1}/{2}')\""""


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """An adapter found, its weights not yet read. base: as its configuration names it, if it does.

    sizes: input and output features of each layer that it adapts, by the base model's names.
    """

    folder: Path
    base: str | None
    shape: AdapterShape
    sizes: dict[str, tuple[int, int]]

    def check_fits(self, layers: Mapping[str, tuple[int, int]]) -> None:
        """Check against a base's linear layers (input and output features). Raises StudyError."""
        from pronk.model.adapter import chosen_layers

        for name, (inputs, outputs) in self.sizes.items():
            if name not in layers:
                raise _refused(self.folder, f"it adapts {name}, which this base does not have; it is of another base")
            if layers[name] != (inputs, outputs):
                found = f"{name} is {outputs} × {inputs} for it, {layers[name][1]} × {layers[name][0]} in this base"
                raise _refused(self.folder, f"{found}; it is of another base")
        named = chosen_layers(list(layers), self.shape.targets)
        if missing := named - self.sizes.keys():
            raise _refused(self.folder, f"it has no weights for {min(missing)}, which its {CONFIG} names")
        if unnamed := self.sizes.keys() - named:
            raise _refused(self.folder, f"it has weights for {min(unnamed)}, which its {CONFIG} does not name")

    def weights(self) -> dict[str, Tensor]:
        """Its tensors by PEFT's names, lora_A (rank × I) and lora_B (O × rank), on the CPU, in the saved type.

        Raises StudyError where they are not finite.
        """
        from safetensors.torch import load_file

        state = load_file(self.folder / WEIGHTS)
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise _refused(self.folder, "it holds weights that are not finite numbers; its training went wrong")
        return state


def read_adapter(folder: Path) -> SavedAdapter:
    """Read what the adapter in a folder is. Raises StudyError that says why pronk cannot use it."""
    from pronk.model.adapter import AdapterShape

    config = _config(folder)
    shapes = _shapes(folder)
    try:
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        if rank < 1 or not math.isfinite(alpha):
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _refused(folder, f"its {CONFIG} has no numbers r and lora_alpha") from None
    sizes = _sizes(folder, shapes, rank)
    base = config.get("base_model_name_or_path")
    shape = AdapterShape(rank, alpha, _targets(config, list(sizes)), bool(config.get("use_rslora")))
    return SavedAdapter(folder, base if isinstance(base, str) and base else None, shape, sizes)


def _config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of an adapter that pronk can use."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refused(folder, f"its {CONFIG} cannot be read ({error})") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise _refused(folder, f"its peft_type is {kind!r}; pronk knows LORA only")
    for key, words in FOREIGN.items():
        if config.get(key):
            raise _refused(folder, f"it {words} ({key}), which pronk does not do")
    if config.get("bias", "none") != "none":
        raise _refused(folder, f"it comes with biases of the base that were trained beside it (bias: {config['bias']})")
    begun = str(config.get("init_lora_weights", True)).lower()
    if begun.startswith(BASE_CHANGERS):
        raise _refused(folder, f"it belongs to a base whose weights were changed first (init_lora_weights: {begun})")
    return config


def _targets(config: Mapping[str, Any], layers: list[str]) -> tuple[str, ...]:
    """The configuration's names where they say which layers are adapted, else the layers' full names."""
    names = config.get("target_modules")
    if not isinstance(names, list) or config.get("layers_to_transform") or config.get("exclude_modules"):
        return tuple(layers)
    # PEFT takes names that no layer has, as long as some name has one
    return tuple(str(name) for name in names if any(f".{layer}".endswith(f".{name}") for layer in layers))


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors by name, from the header of the weights."""
    from safetensors import SafetensorError, safe_open

    file = folder / WEIGHTS
    if not file.is_file():
        if pickled := sorted(path.name for path in folder.glob("*.bin")):
            raise _refused(folder, PICKLED.format(pickled[0], folder, WEIGHTS))
        raise _refused(folder, f"it has no {WEIGHTS}; copy it again")
    try:
        with safe_open(file, framework="np") as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _refused(folder, f"its {WEIGHTS} cannot be read ({error}); copy it again") from None
    if not shapes:
        raise _refused(folder, f"its {WEIGHTS} is empty")
    return shapes


def _sizes(folder: Path, shapes: Mapping[str, tuple[int, ...]], rank: int) -> dict[str, tuple[int, int]]:
    """Input and output features of each adapted layer."""
    layers = sorted({name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in shapes})
    wanted = {f"{PREFIX}{layer}.{side}.weight" for layer in layers for side in SIDES}
    if strange := sorted(shapes.keys() - wanted) or sorted(wanted - shapes.keys()):
        found = "has" if strange[0] in shapes else "lacks"
        raise _refused(folder, f"its {WEIGHTS} {found} {strange[0]}, unlike a LoRA adapter of linear layers")
    sizes = {}
    for layer in layers:
        a, b = (shapes[f"{PREFIX}{layer}.{side}.weight"] for side in SIDES)
        if len(a) != 2 or len(b) != 2 or a[0] != rank or b[1] != rank:
            found = f"lora_A and lora_B of {layer} are {a} and {b}, but its {CONFIG} says r: {rank}"
            raise _refused(folder, f"{found}; one of the two files is of another adapter")
        sizes[layer] = (a[1], b[0])
    return sizes


def _refused(folder: Path, why: str) -> StudyError:
    return StudyError(f"{folder}: this adapter cannot be used: {why}")
