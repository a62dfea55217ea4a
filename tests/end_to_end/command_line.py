"""A user's folder, and what a call of the command line came to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LABELS = ("negative", "neutral", "positive")


@dataclass(frozen=True)
class Told:
    """What a call of the command line came to."""

    code: int
    out: str
    err: str


class Workplace:
    """A user's folder: rows.jsonl, a recipe, and where studies go."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder, self.out = folder, folder / "study"
        self.recipe: dict[str, Any] = {
            "base": str(base),
            "data": {
                "source": "rows.jsonl",
                "format": "classify",
                "split": {"validation": 6, "test": 12, "balanced": True},
            },
            "adapter": {"rank": 4},
            "train": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-2, "max_length": 128},
        }
        self.write_rows(labelled_rows(60))

    def write_rows(self, rows: list[Any], name: str = "rows.jsonl") -> None:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (self.folder / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def arguments(self, *more: str) -> list[str]:
        """`pronk run RECIPE --out DIR`, the recipe written anew."""
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(self.recipe, sort_keys=False), encoding="utf-8")
        return ["run", str(path), "--out", str(self.out), *more]

    def study(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "study.json").read_text(encoding="utf-8"))
        return found


def labelled_rows(count: int) -> list[dict[str, str]]:
    words = ("fell", "stayed", "rose")
    return [{"text": f"Item {i}: sales {words[i % 3]} by {7 * i % 100}", "label": LABELS[i % 3]} for i in range(count)]
