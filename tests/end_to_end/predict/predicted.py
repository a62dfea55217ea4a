"""What the tests of predicting share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def lines(file: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write(file: Path, rows: Sequence[Mapping[str, Any] | str]) -> Path:
    """Rows, and lines as they are, to a .jsonl file."""
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def texts(count: int) -> list[dict[str, Any]]:
    """Rows of many lengths without labels."""
    return [
        {"n": i, "text": f"Item {i}: sales rose by {i * 7919 % 1000}" + " and rose" * (i % 11)} for i in range(count)
    ]
