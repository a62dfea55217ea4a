"""Adapters in PEFT's format, models in transformers', and with them what a run needs to go on; nothing is
ever pickled."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import load_file, save_file
from torch import Tensor

from pronk.model.adapter import AdapterShape
from pronk.model.saved import CONFIG, WEIGHTS

OPTIMIZER = "optimizer.safetensors"


class WeightFiles(Protocol):
    """How a run's weights are written and read. place: their folder in the run's. beside_training: whether they can be
    written while training goes on."""

    @property
    def place(self) -> str: ...
    @property
    def beside_training(self) -> bool: ...
    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None: ...
    def load(self, folder: Path) -> dict[str, Tensor]: ...


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter in PEFT's format."""

    shape: AdapterShape
    base: str
    dropout: float = 0.0
    place = "adapter"
    beside_training = True

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write WideAdapter.state of a run."""
        save_adapter(folder, state, self.shape, self.base, self.dropout)

    def load(self, folder: Path) -> dict[str, Tensor]:
        """The inverse of save."""
        return load_adapter(folder)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A whole model as transformers saves it, to be named as `base:`."""

    model: Any
    place = "model"
    beside_training = False  # transformers saves through the model itself

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write WholeModel.state with the model's configuration."""
        self.model.save_pretrained(folder, state_dict=dict(state))

    def load(self, folder: Path) -> dict[str, Tensor]:
        """The inverse of save, several shards included."""
        return {name: tensor for file in folder.glob("model*.safetensors") for name, tensor in load_file(file).items()}


class TokenizerFiles:
    """A tokenizer's files, made once for all runs: transformers takes a good part of a second for them, in which
    nothing else of Python runs."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._contents = tokenizer, dict[Path, bytes]()

    def write(self, folder: Path) -> None:
        """Write them into a folder that is there."""
        self._contents = self._contents or self._made(folder)
        for name, content in self._contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def _made(self, folder: Path) -> dict[Path, bytes]:
        with tempfile.TemporaryDirectory(dir=folder) as made:  # on the disk that is spoken of when it is full
            self._tokenizer.save_pretrained(made)
            files = [file for file in Path(made).rglob("*") if file.is_file()]
            return {file.relative_to(made): file.read_bytes() for file in files}


def save_adapter(
    folder: Path, state: Mapping[str, Tensor], shape: AdapterShape, base: str, dropout: float = 0.0
) -> None:
    """Write a run's adapter so that PEFT and vLLM load it without pronk. state: `WideAdapter.state`."""
    save_file(dict(state), folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": shape.rank,
        "lora_alpha": shape.alpha,
        "use_rslora": shape.use_rslora,
        "lora_dropout": dropout,
        "target_modules": _target_modules(state, shape.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def save_checkpoint(
    folder: Path, files: WeightFiles, state: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]
) -> None:
    """A run's weights, its optimizer's moments, and the counters that its randomness hangs on."""
    files.save(folder, state)
    save_file(dict(optimizer), folder / OPTIMIZER, metadata={"format": "pt"})


def load_adapter(folder: Path) -> dict[str, Tensor]:
    """The inverse of save_adapter: tensors by PEFT's names."""
    return load_file(folder / WEIGHTS)


def load_optimizer(folder: Path) -> dict[str, Tensor]:
    """The optimizer tensors of a checkpoint."""
    return load_file(folder / OPTIMIZER)


def _target_modules(state: Mapping[str, Tensor], targets: str | tuple[str, ...]) -> list[str]:
    """The recipe's names, which PEFT matches as we do; for all-linear, which PEFT reads as another set on
    quantized models, the last part of each adapted layer's name."""
    if targets != "all-linear":
        return sorted(targets)
    names = [name.removesuffix(".lora_A.weight") for name in state if name.endswith(".lora_A.weight")]
    return sorted({name.rsplit(".", 1)[-1] for name in names})
