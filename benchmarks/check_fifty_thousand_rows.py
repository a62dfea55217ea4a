"""50,000 rows checked: seconds of each part, those that a core worked, and the most memory held.

    python benchmarks/check_fifty_thousand_rows.py $PRONK_TEST_DATA/data/alpaca/alpaca_cleaned_5000.jsonl

The file has Alpaca's columns; its rows are repeated with other numbers and words, so that none is a duplicate.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from pronk.data.checks import data_findings
from pronk.data.split import read_splits
from pronk.doctor.checking import ready_findings
from pronk.doctor.ready import prepare
from pronk.model.load import find_base, load_tokenizer
from pronk.recipe import read_recipe
from pronk.study import plan_study

ROWS = 50_000
NOUNS = (
    "a letter",
    "a poster",
    "a lesson",
    "a speech",
    "a blog",
    "a report",
    "a manual",
    "a story",
    "a talk",
    "a page",
)
RECIPE = "data: {source: rows.jsonl, format: alpaca, split: {validation: 0.05, test: 0.05}}\nprompt: alpaca\n"


@dataclass
class Clock:
    """Time of a wall clock and of all cores, lap by lap."""

    wall: float = field(default_factory=time.perf_counter)
    cores: float = field(default_factory=time.process_time)

    def lap(self, what: str) -> Clock:
        """Print a lap; a clock that begins now."""
        now, peak = Clock(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds = f"{now.wall - self.wall:6.1f} s  ({now.cores - self.cores:5.1f} s of cores)"
        print(f"{seconds}  {peak:6,.0f} MiB  {what}")
        return now


def main() -> None:
    """Print a line for each part."""
    with tempfile.TemporaryDirectory() as folder:
        recipe_file = Path(folder) / "recipe.yaml"
        recipe_file.write_text(RECIPE, encoding="utf-8")
        _write_rows(Path(sys.argv[1]), recipe_file.with_name("rows.jsonl"))
        clock = Clock()
        load_tokenizer(find_base("smollm2"))
        clock = clock.lap("loading: libraries, the base's tokenizer")
        recipe = read_recipe(recipe_file)
        splits, labels = read_splits(recipe.data)
        start = clock = clock.lap(f"loading: reading and dividing {splits.counts()}")
        found = data_findings(splits, labels)
        clock = clock.lap("looking at the rows")
        ready = prepare(plan_study(recipe), splits, labels, lambda _: None, elsewhere=True, leave_out=True)
        tokens = sum(len(one.ids) for one in ready[0].examples.train(None))
        clock = clock.lap(f"tokenizing: {tokens:,} tokens to train on")
        found += ready_findings(ready)
        clock.lap("looking at prompts and tokens")
        start.lap(f"checking in all; found {', '.join(sorted(one.name for one in found))}")


def _write_rows(source: Path, target: Path) -> None:
    lines = source.read_text(encoding="utf-8").splitlines()
    with target.open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            row = json.loads(lines[number % len(lines)])
            turn = number // len(lines)
            if turn:
                row["instruction"] = f"For {NOUNS[turn % len(NOUNS)]}, number {number}: {row['instruction']}"
                row["output"] = f"{row['output']} ({number})"
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
