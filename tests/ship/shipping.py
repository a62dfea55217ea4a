"""What the tests of shipping share: rows, random adapters, and what a call of the command line came to."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
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


def place_run(folder: Path, base: Path, name: str = "tuned", **keys: Any) -> Path:
    """A run of a study in a folder, over a base: recipe keys over the usual ones → the run's folder."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(32)), encoding="utf-8")
    recipe = {
        "base": str(base),
        "data": {"source": str(folder / "rows.jsonl"), "format": "classify",
                 "split": {"train": 20, "validation": 4, "test": 8, "balanced": False}},
        "adapter": {"rank": 4, "alpha": 8},
        "train": {"epochs": 1, "max_length": 128},
        **keys,
    }  # fmt: skip
    if recipe.get("full"):
        del recipe["adapter"]
    run = folder / "study" / "runs" / name
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    study = {"runs": [{"name": name, "baseline": False}], "labels": list(LABELS), "comparisons": []}
    (folder / "study" / "study.json").write_text(json.dumps(study), encoding="utf-8")
    if recipe.get("full"):
        shutil.copytree(base, run / "model", ignore=lambda *_: ["LICENSE"])
    else:
        random_adapter(run / "adapter", base)
    return run


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
