"""50,000 conversations read, rendered, masked and packed: seconds of each part, and the most memory held.

    python benchmarks/fifty_thousand_rows.py CONVERSATIONS.jsonl

The file has one conversation a line, {"messages": [{"role": ..., "content": ...}, ...]}; its rows are repeated
with a number in the first question, so that none is a duplicate.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from pronk.data.detect import with_found_formats
from pronk.data.split import read_splits
from pronk.model.load import find_base
from pronk.recipe import read_recipe
from pronk.tokens.pack import TOKEN_BUDGET, Member, pack
from pronk.train.session import load_examples

ROWS = 50_000
STEP = 1_000
RECIPE = """\
data: {source: rows.jsonl, format: messages, split: {validation: 0.01, test: 0.01}}
prompt: chat
train: {max_length: 4096}
"""


def main() -> None:
    """Print a line for each part."""
    with tempfile.TemporaryDirectory() as folder:
        recipe_file = Path(folder) / "recipe.yaml"
        recipe_file.write_text(RECIPE, encoding="utf-8")
        _write_rows(Path(sys.argv[1]), recipe_file.with_name("rows.jsonl"))
        base = find_base("smollm2")
        start = _lap("libraries loaded", time.perf_counter())
        recipe = with_found_formats(read_recipe(recipe_file), lambda _: None)
        splits, labels = read_splits(recipe.data)
        lap = _lap(f"read and divided: {splits.counts()}", start)
        examples = load_examples(base, [recipe], splits, labels).train(4096)
        lap = _lap(f"rendered, tokenized, masked: {sum(len(one.ids) for one in examples):,} tokens", lap)
        tokens = batches = 0
        for first in range(0, len(examples), STEP):  # as training does it, step by step
            packed = pack([Member(one, slot=0) for one in examples[first : first + STEP]], TOKEN_BUDGET["cuda"])
            tokens, batches = tokens + sum(len(batch.ids_T) for batch in packed), batches + len(packed)
        lap = _lap(f"packed: {batches:,} micro-batches, {tokens / (batches * TOKEN_BUDGET['cuda']):.1%} full", lap)
        print(f"{lap - start:6.1f} s in all")


def _write_rows(source: Path, target: Path) -> None:
    lines = source.read_text(encoding="utf-8").splitlines()
    with target.open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            row = json.loads(lines[number % len(lines)])
            first = next(message for message in row["messages"] if message["role"] == "user")
            first["content"] = f"{number}. {first['content']}"
            file.write(json.dumps({"messages": row["messages"]}, ensure_ascii=False) + "\n")


def _lap(what: str, since: float) -> float:
    now = time.perf_counter()
    print(f"{now - since:6.1f} s  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:6,.0f} MiB  {what}")
    return now


if __name__ == "__main__":
    main()
