"""What the tests of shipping share: rows, random adapters, and what a call of the command line came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

LABELS = ("negative", "neutral", "positive")


@dataclass(frozen=True)
class Ran:
    """What a call of the command line came to."""

    code: int
    out: str
    err: str


def rows(count: int) -> list[dict[str, str]]:
    words = ("fell", "stayed", "rose")
    return [{"text": f"Item {i}: sales {words[i % 3]} by {7 * i % 100}", "label": LABELS[i % 3]} for i in range(count)]


def random_adapter(folder: Path, base: Path, rank: int = 4, alpha: float = 8) -> None:
    """An adapter on all linear layers whose update is about half as large as the weights."""
    from pronk.model.adapter import AdapterShape
    from pronk.train.checkpoint import save_adapter

    generator = torch.Generator().manual_seed(5)
    state = {}
    for name, weight in load_file(base / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            outputs, inputs = weight.shape
            size = float((0.5 * weight.std() * rank / alpha / rank**0.5) ** 0.5)
            layer = f"base_model.model.{name.removesuffix('.weight')}"
            state[f"{layer}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * size
            state[f"{layer}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * size
    folder.mkdir()
    save_adapter(folder, state, AdapterShape(rank, alpha), str(base))


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits (T, V) of a transformers model, in its own type."""
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return found
