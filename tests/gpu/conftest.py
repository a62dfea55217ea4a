"""Bases of random weights with a tokenizer of sixty words: nothing has to be downloaded or converted."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2's shape."""
    return _base(tmp_path_factory, "smollm2-135m")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers; in the place of the base that other tests make with SmolLM2's tokenizer."""
    return _base(tmp_path_factory, "tiny")


def _base(tmp_path_factory: pytest.TempPathFactory, shape: str) -> Path:
    from pronk.doctor.shapes import write_base

    folder = tmp_path_factory.mktemp("bases") / shape
    write_base(shape, folder)
    return folder


@pytest.fixture
def worded(tmp_path: Path) -> Path:
    """rows.jsonl: 200 texts of the sixty words, of unlike lengths, with three labels. What else a prompt says is
    unknown to the tokenizer: `allow: [unknown-tokens]`."""
    draw = random.Random(0)
    texts = [" ".join(f"w{draw.randrange(20, 60)}" for _ in range(4 * (1 + n % 5))) for n in range(200)]
    rows = [json.dumps({"text": text, "label": f"w{8 + n % 3}"}) + "\n" for n, text in enumerate(texts)]
    (tmp_path / "rows.jsonl").write_text("".join(rows), encoding="utf-8")
    return tmp_path
