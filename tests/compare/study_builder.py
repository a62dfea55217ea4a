"""Writes synthetic but realistic study folders, without torch; for the tests of every room that reads them.

A latent "ease" per item makes the runs' answers correlate, as those of real fine-tunes do.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

LABELS = ["negative", "neutral", "positive"]
HEADLINES = [
    "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn in the corresponding period a year ago",
    "The company said that it will lay off 120 people at its plant in Oulu",
    "The contract covers the delivery of four elevators and their maintenance for ten years",
    "Net sales fell by 12 % to EUR 41.2 mn, and the order book shrank for the third quarter in a row",
    "The annual general meeting will be held in Helsinki on 14 April",
    "Analysts had expected a loss; instead the group posted its best second quarter since 2007",
]
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></svg><svg onload=alert(1)>",
    "{{ 7 * 7 }} ${x^{2}} & é漢",
]
LAYERS = {"qv": ["q_proj", "v_proj"], "all": "all-linear"}
RUNS = {  # name: (settings, share of items it knows, unparsable share, final loss)
    "qv-2": ({"adapter.targets": ["q_proj", "v_proj"], "train.epochs": 2}, 0.74, 0.05, 0.62),
    "qv-3": ({"adapter.targets": ["q_proj", "v_proj"], "train.epochs": 3}, 0.77, 0.03, 0.55),
    "all-linear-2": ({"adapter.targets": "all-linear", "train.epochs": 2}, 0.80, 0.01, 0.45),
    "all-linear-3": ({"adapter.targets": "all-linear", "train.epochs": 3}, 0.84, 0.0, 0.41),
    "all-linear-5": ({"adapter.targets": "all-linear", "train.epochs": 5}, 0.84, 0.0, 0.46),
}
SWEEP = {  # two settings: three learning rates, two choices of layers
    f"lr-{rate}-{targets}": (
        {"train.learning_rate": rate, "adapter.targets": LAYERS[targets]},
        0.45 + 0.18 * step + 0.08 * (targets == "all"), 0.02, 0.9 - 0.1 * step,
    )
    for step, rate in enumerate((5e-05, 0.0002, 0.001))
    for targets in LAYERS
}  # fmt: skip
SEEDS = {  # one setting, two seeds each
    f"rank-{rank}-seed-{seed}": ({"adapter.rank": rank, "train.seed": seed}, 0.5 + 0.02 * rank, 0.02, 0.5)
    for rank in (4, 16)
    for seed in (1, 2)
}
KNOWN = {**RUNS, **SWEEP, **SEEDS}


def build_study(
    folder: Path,
    items: int = 120,
    runs: tuple[str, ...] = tuple(RUNS),
    classify: bool = True,
    baseline: bool = True,
    failed: bool = False,
    hostile: bool = False,
    seed: int = 0,
    similarity: bool = False,
    validation: bool = False,
) -> Path:
    """Write a study without comparisons into `folder` and return it.

    `hostile` puts markup into texts, answers, settings, messages and, as far as a folder name can hold it,
    the runs' names.
    """
    random = np.random.default_rng(seed)
    labels = [LABELS[k] for k in random.integers(0, 3, items)]
    tokens, ease = random.integers(2, 6, items), random.random(items)
    _write_lines(folder / "items.jsonl", [_item(k, labels[k], classify, hostile) for k in range(items)])
    written = []
    for position, name in enumerate((["smollm2"] if baseline else []) + list(runs)):
        losses = np.round(random.gamma(2.0, _known(name)[3] / 2.0, items) * tokens, 4)
        shown = f'{name}"><img src=x onerror=alert({position})><script>alert(1)' if hostile else name
        rows = [{"id": str(k), "loss": float(losses[k]), "tokens": int(tokens[k])} for k in range(items)]
        _write_lines(folder / "runs" / shown / "items" / "likelihood.jsonl", rows)
        nll = float(losses.sum() / tokens.sum())
        metrics = {"nll": nll, "perplexity": math.exp(nll)}
        if classify:
            right = ease + random.normal(0.0, 0.12, items) < _known(name)[1]
            answers = [_answer(k, labels[k], right[k], _known(name)[2], hostile, random) for k in range(items)]
            _write_lines(folder / "runs" / shown / "items" / "classify.jsonl", answers)
            metrics |= _metrics(answers)
        if similarity:
            near = np.clip(ease / 2 + _known(name)[1] / 2 + random.normal(0.0, 0.05, items), 0.0, 1.0)
            compared = [_compared(k, float(near[k]), hostile) for k in range(items)]
            _write_lines(folder / "runs" / shown / "items" / "similarity.jsonl", compared)
            metrics |= {"rouge_l": float(near.mean()), "chrf": float(near.mean()) / 2, "unended": 1}
        run = _run(name, shown, metrics, position, hostile)
        if not run["baseline"]:
            curve = _curve(_known(name)[0].get("train.epochs", 1), _known(name)[3], random)
            _write_lines(folder / "runs" / shown / "metrics.jsonl", curve)
        if not run["baseline"] and validation:
            _write_lines(folder / "runs" / shown / "validation.jsonl", _validations(_known(name)[3], random))
        written.append(run)
    if failed:
        message = HOSTILE[0] if hostile else "the loss was not finite at step 31; a lower learning rate may help"
        broken = {"name": "all-linear-hot", "base": "smollm2", "baseline": False, "status": "failed"}
        written.append({**broken, "settings": {"train.learning_rate": 0.1}, "message": message})
    _write_study(folder, written, items, classify, hostile)
    return folder


def _known(name: str) -> tuple[dict[str, Any], float, float, float]:
    """A run's settings, share of right answers, share of unparsable ones, and loss; default: the base."""
    return KNOWN.get(name, ({}, 0.43, 0.7, 2.3))


def _run(name: str, shown: str, metrics: dict[str, Any], position: int, hostile: bool) -> dict[str, Any]:
    settings = _known(name)[0]
    run = {"name": shown, "base": "smollm2", "baseline": name not in KNOWN, "status": "finished"}
    run |= {"metrics": metrics, "settings": dict.fromkeys(settings, HOSTILE[1]) if hostile else settings}
    if name in KNOWN:
        run |= _cost(position, settings.get("train.epochs", 1))
    if settings.get("train.epochs", 2) > 2 and not hostile:
        run["shared_with"] = [f"{name.rsplit('-', 1)[0]}-2"]
    return run


def _item(key: int, label: str, classify: bool, hostile: bool) -> dict[str, Any]:
    text = HOSTILE[key % len(HOSTILE)] if hostile else f"{HEADLINES[key % len(HEADLINES)]} ({key})"
    return {"id": str(key), "input": text, "reference": label, "label": label if classify else None}


def _answer(
    key: int, label: str, right: bool, unparsable: float, hostile: bool, random: np.random.Generator
) -> dict[str, Any]:
    chosen = label if right else LABELS[(LABELS.index(label) + int(random.integers(1, 3))) % 3]
    lost = bool(random.random() < unparsable)
    generated = HOSTILE[(key + 1) % len(HOSTILE)] if hostile else "The headline says that" if lost else chosen
    scores = {name: -0.2 if name == chosen else -2.0 for name in LABELS}
    return {
        "id": str(key),
        "label": label,
        "scores": scores,
        "predicted": chosen,
        "generated": generated,
        "generated_label": None if lost else chosen,
    }


def _compared(key: int, near: float, hostile: bool) -> dict[str, Any]:
    answer = HOSTILE[key % len(HOSTILE)] if hostile else f"A summary of {key}"
    return {"id": str(key), "answer": answer, "rouge_l": near, "chrf": near / 2, "ended": key > 0}


def _metrics(answers: list[dict[str, Any]]) -> dict[str, float]:
    right = sum(row["predicted"] == row["label"] for row in answers)
    said = sum(row["generated_label"] == row["label"] for row in answers)
    return {
        "accuracy": right / len(answers),
        "macro_f1": right / len(answers) - 0.004,
        "weighted_f1": right / len(answers) - 0.002,
        "generated_accuracy": said / len(answers),
        "generated_macro_f1": said / len(answers) - 0.004,
        "unparsable": sum(row["generated_label"] is None for row in answers),
    }


def _cost(position: int, epochs: int) -> dict[str, Any]:
    return {
        "trainable_parameters": 4_884_480 if position > 2 else 921_600,
        "train_tokens": 57_000 * epochs,
        "train_seconds": 4.9 * epochs,
        "tokens_per_second": 11_632.0,
        "peak_memory_bytes": 2_400_000_000,
        "steps": 57 * epochs,
    }


def _curve(epochs: int, final: float, random: np.random.Generator) -> list[dict[str, Any]]:
    lines = []
    for step in range(1, 57 * epochs + 1):
        level = final + (2.6 - final) * math.exp(-step / 25)
        loss = level * (0.75 if step > 114 else 1.0) + float(random.normal(0, 0.12))
        lines.append({"kind": "train", "step": step, "epoch": step / 57, "loss": loss, "learning_rate": 1e-4})
        if step % 57 == 0:
            worse = 0.03 * max(0, step // 57 - 3)
            lines.append({"kind": "validation", "step": step, "epoch": step / 57, "loss": level * 1.1 + worse})
    return lines


def _validations(final: float, random: np.random.Generator, rows: int = 24) -> list[dict[str, Any]]:
    """Two validations of the same rows: summed nats and target tokens of each."""
    tokens = random.integers(2, 6, rows)
    return [
        {"step": step, "epoch": step / 57, "tokens": tokens.tolist(),
         "losses": np.round(random.gamma(4.0, level * final / 4.0, rows) * tokens, 4).tolist()}
        for step, level in ((28, 1.4), (57, 1.1))
    ]  # fmt: skip


def _write_study(folder: Path, runs: list[dict[str, Any]], items: int, classify: bool, hostile: bool) -> None:
    study = {
        "name": HOSTILE[0] if hostile else "Headline sentiment",
        "created": "2026-10-20T09:30:00+00:00",
        **({"labels": LABELS} if classify else {}),
        "data": {
            "train": 900,
            "validation": 90,
            "test": items,
            "duplicates_removed": 14,
            "contradictory_removed": 2,
        },
        "runs": runs,
        "environment": {
            "python": "3.11.9",
            "torch": "2.11.0",
            "transformers": "5.17.0",
            "device": "NVIDIA H200",
        },
        "total_seconds": 145.2,
    }
    (folder / "study.json").write_text(json.dumps(study), encoding="utf-8")


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
