"""Labels with probabilities for a file of rows: pronk against transformers and PEFT in padded batches.

    python benchmarks/prediction_speed.py RUN ROWS.jsonl RESULT.json [--batch 128] [--one-by-one 64]

RUN has labels. Both sides score every label of every row in full; ours also tokenizes, and writes what it keeps of a
window. Theirs has its rows as ids and sorted by length, which is the best that batches can do, and once more one row
at a time, on the first rows alone, as most scripts do. Each side is timed after a warm-up.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import serial_study
import torch
from rich.console import Console


def main(run: str, rows: Path, batch: int, alone: int) -> dict[str, Any]:
    """Rows a second of all sides, their ratios, and how many labels differ."""
    from pronk.doctor.environment import device_name
    from pronk.model.load import resolve_device

    ours, records, items, answering = _ours(run, rows)
    device = resolve_device(answering.weights.reader.model.recipe.train.device)
    answering.weights._loaded = None  # its memory is the other side's now
    examples = SimpleNamespace(
        test=[SimpleNamespace(prompt_ids=torch.tensor(item.ids)) for item in items],
        prompt=answering.weights.reader.prompt, label_ids=lambda: answering.ids,
    )  # fmt: skip
    model = _peft(answering.weights.reader, device)
    scores, padded = _timed(model, examples, batch)
    first = SimpleNamespace(**{**vars(examples), "test": examples.test[:alone]})
    _, single = _timed(model, first, 1)
    theirs = [answering.names[row.index(max(row))] for row in scores]
    differ = sum(record["label"] != label for record, label in zip(records, theirs, strict=True))
    return {
        "rows": len(items), "device": device_name(device), "batch": batch,
        "rows a second": {"pronk": ours, "padded batches": padded, "one by one": single},
        "ratio to padded batches": ours / padded, "ratio to one by one": ours / single,
        "labels that differ": differ,
    }  # fmt: skip


def _ours(run: str, file: Path) -> tuple[float, list[Any], list[Any], Any]:
    """Rows a second of a second pass, its records and items, and what made them."""
    from pronk.ask.asking import open_reader
    from pronk.ship.predict.answers import Labels, Weights, records_of
    from pronk.ship.predict.journal import Journal
    from pronk.ship.predict.model import asking_of, labels_of, one_model
    from pronk.ship.predict.rows import Prompts, opened, windows
    from pronk.train.interrupt import Interruption

    model = one_model(run, None, [])
    weights = Weights(open_reader(0, model, print, {}), Console(stderr=True))
    labels = Labels(weights, labels_of(model))
    prompts = Prompts(weights.reader, asking_of(model, labels.names, None), labels.longest_prompt, weights.context)
    with opened(str(file)) as source, tempfile.TemporaryDirectory() as folder:
        for name in ("warm-up", "timed"):
            items, records = [], []
            begun = time.perf_counter()
            with Journal(Path(folder) / name, {}) as journal:
                journal.begin({"token_budget": weights.budget, "window_tokens": weights.window_tokens})
                for window in windows(prompts.items(source.rows()), labels.size, weights.window_tokens):
                    made = list(records_of(labels, window, Interruption(), lambda _: None))
                    journal.add(made)
                    items, records = items + window, records + made
            seconds = time.perf_counter() - begun
    return len(items) / seconds, records, items, labels


def _peft(reader: Any, device: torch.device) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from pronk.model.load import resolve_dtype

    dtype = resolve_dtype(reader.model.recipe.train.dtype, device)
    model = AutoModelForCausalLM.from_pretrained(reader.base.location, dtype=dtype).to(device)
    return PeftModel.from_pretrained(model, str(reader.model.adapter.folder)).eval()


def _timed(model: Any, examples: Any, batch: int) -> tuple[list[list[float]], float]:
    """The scores, and rows a second, after a warm-up on the first batches."""
    warm = SimpleNamespace(**{**vars(examples), "test": examples.test[: 2 * batch]})
    with torch.inference_mode():
        serial_study.label_scores(model, warm, batch)
        _wait()
        begun = time.perf_counter()
        found = serial_study.label_scores(model, examples, batch)
        _wait()
    return found, len(examples.test) / (time.perf_counter() - begun)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("rows", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--batch", type=int, default=serial_study.BATCH)
    parser.add_argument("--one-by-one", type=int, default=64, help="rows that are scored one at a time")
    given = parser.parse_args()
    result = main(given.run, given.rows, given.batch, given.one_by_one)
    given.result.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps(result, indent=1))
