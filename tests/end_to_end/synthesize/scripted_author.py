"""Seeds, the model that writes rows after them, and a user's folder to ask it from."""

from __future__ import annotations

import json
import random
import re
import threading
from pathlib import Path
from typing import Any

import yaml
from command_line import Workplace

from pronk.data.split import read_splits
from pronk.recipe import read_recipe
from scripted_server import Scripted

LABELS = ("down", "up")
SYLLABLES = [a + b for a in ("ba", "ke", "lo", "mi", "nu", "ro", "sa", "ti", "vu", "ze") for b in ("n", "r", "sk", "t")]


def sentence(generator: random.Random) -> str:
    """Ten made-up words; two such sentences have hardly one in common."""
    words = ["".join(generator.choices(SYLLABLES, k=2)) for _ in range(10)]
    return " ".join(words).capitalize() + "."


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    generator = random.Random(seed)
    return [{"text": sentence(generator), "label": LABELS[k % 2]} for k in range(count)]


class Author:
    """The model behind the server: writes what is asked for, and plants copies. plants: texts to copy, changed."""

    def __init__(self, plants: list[str] | None = None, every: int = 2) -> None:
        self.generator, self.plants, self.every = random.Random(7), plants or [], every
        self.planted, self.asked, self.lock = list[str](), 0, threading.Lock()

    def __call__(self, body: dict[str, Any]) -> str:
        question = body["messages"][-1]["content"]
        with self.lock:
            if question.endswith("Label:"):
                return self.label(question)
            (count,) = re.findall(r"Write (\d+) new example", question)
            found = re.findall(r"with the label (\w+):", question)
            return json.dumps([self.example(found[0] if found else None) for _ in range(int(count))])

    def label(self, _: str) -> str:
        return "up"

    def example(self, label: str | None) -> dict[str, str]:
        self.asked += 1
        text = sentence(self.generator)
        if self.plants and self.asked % self.every == 0:
            text = self.changed(self.generator.choice(self.plants))
            self.planted.append(text)
        if label is None:
            return {"instruction": text, "input": "", "output": sentence(self.generator)}
        return {"text": text, "label": label}

    def changed(self, text: str) -> str:
        words = text.split()
        words[self.generator.randrange(len(words))] = "another"
        kinds = [text, text.upper(), text.lower(), "  ".join(text.split()), f" {text}\n", " ".join(words)]
        return self.generator.choice(kinds)


class Place(Workplace):
    """A folder with seeds and a recipe over them; `arguments` asks a server for rows after them."""

    def __init__(self, folder: Path, base: Path) -> None:
        super().__init__(folder, base)
        self.rows = folder / "made.jsonl"
        self.write_rows(rows(40))
        self.recipe["data"]["split"] = {"validation": 6, "test": 10, "balanced": True}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(self.recipe, sort_keys=False), encoding="utf-8")

    def asking(self, server: Scripted, *more: str, source: str = "--seeds") -> list[str]:
        named = self.folder / ("rows.jsonl" if source == "--seeds" else "recipe.yaml")
        return [
            "synthesize", source, str(named), "--url", server.url, "--model", "author", "--out", str(self.rows),
            "--count", "20", *more,
        ]  # fmt: skip

    def made(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.rows.read_text(encoding="utf-8").splitlines()]

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "made.jsonl.summary.json").read_text(encoding="utf-8"))
        return found

    def kept_out(self) -> list[str]:
        splits, _ = read_splits(read_recipe(self.folder / "recipe.yaml").data)
        return [row.subject for row in (*splits.validation, *splits.test)]
