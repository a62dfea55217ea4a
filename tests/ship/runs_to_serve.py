"""Runs as `pronk run` leaves them, without training: a recipe and an adapter with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

LABELS = {"negative": 0, "positive": 1}


def make_run(
    folder: Path, base: Path, rank: int = 4, prompt: str = "alpaca", instruction: str | None = "Good or bad?",
    system: str | None = None, data_format: str = "classify", quantize: str = "none", width: int = 64,
) -> Path:  # fmt: skip
    """A run over q_proj of a tiny base. width: of q_proj, both ways."""
    (folder / "adapter").mkdir(parents=True)
    data = {"source": "rows.jsonl", "format": data_format, "instruction": instruction, "system": system}
    if data_format == "classify":
        data["labels"] = LABELS
    recipe = {"base": str(base), "data": {key: value for key, value in data.items() if value is not None},
              "prompt": prompt, "quantize": quantize, "adapter": {"rank": rank, "targets": ["q_proj"]}}  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": rank,
              "lora_alpha": rank, "target_modules": ["q_proj"], "bias": "none"}  # fmt: skip
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    drawn = torch.Generator().manual_seed(rank)
    weights = {}
    for layer in range(2):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(rank, width, generator=drawn)
        weights[f"{name}.lora_B.weight"] = torch.randn(width, rank, generator=drawn) / 10
    save_file(weights, folder / "adapter" / "adapter_model.safetensors")
    return folder
