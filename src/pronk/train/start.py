"""`adapter.from`: an adapter in PEFT's format to go on with, from pronk or from elsewhere.

Everything about it that could go wrong is found before a base model is loaded: from its configuration and
the header of its weights. What pronk cannot go on with exactly is refused, never approximated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pronk.errors import RecipeError
from pronk.model.adapter import AdapterShape, chosen_layers
from pronk.recipe import Adapter
from pronk.train.checkpoint import CONFIG, WEIGHTS, load_adapter

PREFIX, SIDES = "base_model.model.", ("lora_A", "lora_B")
# What PEFT can do with LoRA that the wide adapter cannot: the settings' names, and in words.
FOREIGN = {
    "use_dora": "is a DoRA adapter",
    "use_qalora": "is a QALoRA adapter",
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
class Start:
    """An adapter found, not yet loaded. shapes: of its tensors, by PEFT's names. base: as its configuration
    names it, if it does."""

    folder: Path
    shape: AdapterShape
    shapes: dict[str, tuple[int, ...]]
    base: str | None = None

    @property
    def layers(self) -> list[str]:
        """The layers that it adapts, by the base model's names."""
        return [name.removeprefix(PREFIX).removesuffix(".lora_A.weight") for name in self.shapes if "lora_A" in name]


def read_start(path: str) -> Start:
    """Find an adapter and read what it is. Raises RecipeError that says why it is none to go on with."""
    folder = _folder(Path(path))
    config = _config(folder)
    shapes = _shapes(folder)
    try:
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (KeyError, TypeError, ValueError):
        raise _refused(folder, f"its {CONFIG} has no numbers r and lora_alpha") from None
    layers = Start(folder, AdapterShape(rank, alpha), shapes).layers
    shape = AdapterShape(rank, alpha, _targets(config, layers), bool(config.get("use_rslora")))
    base = config.get("base_model_name_or_path")
    return Start(folder, shape, shapes, base if isinstance(base, str) and base else None)


def check_start(wanted: Adapter, layers: Mapping[str, tuple[int, int]]) -> None:
    """Check the adapter that a recipe names against the rest of the recipe and against its base.

    layers: input and output features of the base's linear layers. Raises RecipeError for what does not fit.
    """
    if wanted.from_ is None:
        return
    start = read_start(wanted.from_)
    check_base(start, layers)
    for key in ("rank", "alpha", "use_rslora"):
        asked, has = getattr(wanted, key), getattr(start.shape, key)
        if key in wanted.model_fields_set and asked != has:
            raise _contradicted(start, key, asked, has)
    if "targets" in wanted.model_fields_set:
        targets = wanted.targets if isinstance(wanted.targets, str) else tuple(wanted.targets)
        if chosen_layers(list(layers), targets) != set(start.layers):
            raise _contradicted(start, "targets", wanted.targets, list(start.shape.targets))


def start_weights(path: str) -> dict[str, Tensor]:
    """The weights of an adapter by PEFT's names. Raises RecipeError where they are not finite."""
    start = read_start(path)
    state = load_adapter(start.folder)
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise _refused(start.folder, "it holds weights that are not finite numbers; its training went wrong")
    return state


def _folder(path: Path) -> Path:
    if not path.exists():
        raise RecipeError(f"adapter.from: there is no folder {path}")
    if not path.is_dir():
        raise RecipeError(f"adapter.from: {path} is a file; name the folder that holds {CONFIG}")
    for folder in (path, path / "adapter"):  # the latter in a run's folder
        if (folder / CONFIG).is_file():
            return folder
    if (path / "study.json").is_file():
        runs = ", ".join(sorted(str(run.parent) for run in path.glob("runs/*/adapter"))) or "none has an adapter"
        raise RecipeError(f"adapter.from: {path} is a whole study; name one of its runs: {runs}")
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            raise RecipeError(f"adapter.from: {folder} is a whole model, no adapter; write `base: {folder}` instead")
    raise RecipeError(f"adapter.from: {path} is no adapter in PEFT's format: it has no {CONFIG}")


def _config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of an adapter that pronk can go on with."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refused(folder, f"its {CONFIG} cannot be read ({error})") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise _refused(folder, f"its peft_type is {kind!r}; pronk goes on with LORA only")
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
    file = folder / WEIGHTS
    if not file.is_file():
        if pickled := sorted(path.name for path in folder.glob("*.bin")):
            raise _refused(folder, PICKLED.format(pickled[0], folder, WEIGHTS))
        raise _refused(folder, f"it has no {WEIGHTS}; copy it again")
    try:
        with safe_open(file, framework="pt") as tensors:
            shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _refused(folder, f"its {WEIGHTS} cannot be read ({error}); copy it again") from None
    layers = {name.rpartition(".lora_")[0] for name in shapes}
    wanted = {f"{layer}.{side}.weight" for layer in layers for side in SIDES}
    foreign = sorted(name for name in shapes if name not in wanted or not name.startswith(PREFIX))
    if strange := foreign or sorted(wanted - shapes.keys()):
        found = "has" if strange[0] in shapes else "lacks"
        raise _refused(folder, f"its {WEIGHTS} {found} {strange[0]}, unlike a LoRA adapter of linear layers")
    if not shapes:
        raise _refused(folder, f"its {WEIGHTS} is empty")
    return shapes


def check_base(start: Start, layers: Mapping[str, tuple[int, int]]) -> None:
    """Check an adapter against a base's linear layers: input and output features. Raises RecipeError."""
    rank = start.shape.rank
    for name in start.layers:
        if name not in layers:
            raise _refused(start.folder, f"it adapts {name}, which this base does not have; it is of another base")
        inputs, outputs = layers[name]
        for side, wanted in zip(SIDES, ((rank, inputs), (outputs, rank)), strict=True):
            key = f"{PREFIX}{name}.{side}.weight"
            if start.shapes[key] != wanted:
                found = f"{key} is {start.shapes[key]}, and rank {rank} on this base needs {wanted}"
                raise _refused(start.folder, f"{found}; it is of another base, or its {CONFIG} of another adapter")
    missing = chosen_layers(list(layers), start.shape.targets) - set(start.layers)
    if missing:
        raise _refused(start.folder, f"it has no weights for {min(missing)}, which its {CONFIG} names")


def _refused(folder: Path, why: str) -> RecipeError:
    return RecipeError(f"adapter.from: {folder}: {why}")


def _contradicted(start: Start, key: str, asked: Any, has: Any) -> RecipeError:
    return RecipeError(
        f"adapter.{key}: {asked}, but the adapter to go on with has {has} ({start.folder}, adapter.from); "
        f"leave adapter.{key} out"
    )
