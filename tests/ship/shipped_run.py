"""A finished study of two runs over the tiny base, written by hand: weights that matter, items, study.json.

The adapter is random and large, so that what is asked in another form, or without it, gives another answer.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

LABELS = ["negative", "neutral", "positive"]
RUN, OTHER = "rank-4", "rank-2"
WORDS = ("fell", "stayed", "rose")


def make_study(folder: Path, base: Path, run: str = RUN, **recipe: Any) -> Path:
    """A study, and the folder of one of its runs. recipe: keys of the recipe in place of the usual ones."""
    rows = [{"text": f"Item {i}: sales {WORDS[i % 3]} by {7 * i % 100}", "label": LABELS[i % 3]} for i in range(60)]
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    place, names = folder / "study", {run: 4, OTHER: 2}
    usual = {"base": str(base), "prompt": "chat", "adapter": {"rank": 4}, "train": {"max_length": 128}, **recipe}
    split = {"validation": 6, "test": 12, "balanced": True}
    data = {"source": str(folder / "rows.jsonl"), "format": "classify", "split": split}
    for name, rank in names.items():
        written = {**usual, "data": {**data, **recipe.get("data", {})}, "adapter": {"rank": rank}}
        (place / "runs" / name).mkdir(parents=True)
        text = yaml.safe_dump(written, sort_keys=False, allow_unicode=True)
        (place / "runs" / name / "recipe.yaml").write_text(text, encoding="utf-8")
        _write_adapter(place / "runs" / name / "adapter", base, rank)
    _write_results(place, str(base), names)
    return place / "runs" / run


def _write_adapter(folder: Path, base: Path, rank: int) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    draw = torch.Generator().manual_seed(rank)
    state = {}
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name.endswith(("q_proj", "v_proj", "down_proj")):
            for side, shape in (("A", (rank, layer.in_features)), ("B", (layer.out_features, rank))):
                weight = torch.randn(shape, generator=draw) * 0.3
                state[f"base_model.model.{name}.lora_{side}.weight"] = weight
    save_file(state, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": rank,
        "lora_alpha": 2.0 * rank, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj", "down_proj"],
        "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def _write_results(place: Path, base: str, names: dict[str, int]) -> None:
    """Items whose figures are known: of 12 the base has 4 right, the runs 10 and 8."""
    items = [
        {"id": str(i), "input": f"the price of the house {WORDS[i % 3]} and that is good", "label": LABELS[i % 3],
         "reference": LABELS[i % 3], "place": f"rows.jsonl:{i + 1}"} for i in range(12)
    ]  # fmt: skip
    _lines(place / "items.jsonl", items)
    runs: list[dict[str, Any]] = []
    for name, right in {"base": 4, **{name: 6 + rank for name, rank in names.items()}}.items():
        draw = random.Random(right)
        answers = [_answer(item, number < right, draw) for number, item in enumerate(items)]
        _lines(place / "runs" / name / "items" / "classify.jsonl", answers)
        losses = [
            {"id": item["id"], "loss": round(draw.uniform(0.5, 1.5) * (13 - right), 3), "tokens": 2} for item in items
        ]
        _lines(place / "runs" / name / "items" / "likelihood.jsonl", losses)
        run = {"name": name, "base": base, "baseline": name == "base", "settings": {}, "status": "finished"}
        runs.append({**run, **({"settings": {"adapter.rank": names[name]}} if name in names else {})})
    study = {"name": "study", "labels": LABELS, "data": {"train": 42, "validation": 6, "test": 12}, "runs": runs}
    _compare(place, study)


def _compare(place: Path, study: dict[str, Any]) -> None:
    from pronk.compare.items import read_item_files
    from pronk.compare.pairs import compare_study
    from pronk.compare.summary import run_metrics

    for run in study["runs"]:
        run["metrics"] = run_metrics(read_item_files(place / "runs" / run["name"] / "items", run["name"]))
    (place / "study.json").write_text(json.dumps({**study, "comparisons": []}), encoding="utf-8")
    whole = {**study, "comparisons": compare_study(place)}
    (place / "study.json").write_text(json.dumps(whole), encoding="utf-8")


def _answer(item: dict[str, Any], right: bool, draw: random.Random) -> dict[str, Any]:
    said = item["label"] if right else draw.choice([label for label in LABELS if label != item["label"]])
    scores = {label: 0.0 if label == said else -3.0 for label in LABELS}
    found = {"id": item["id"], "label": item["label"], "scores": scores, "predicted": said}
    return {**found, "generated": said, "generated_label": said}


def _lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
