"""Reading as the tests ask for it, and where the real data lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pronk.data.conversation import Conversation
from pronk.data.sources import read_conversations
from pronk.errors import DataError
from pronk.recipe import Data

REAL_DATA = Path(os.environ.get("PRONK_TEST_DATA", Path(__file__).parents[3] / "shared")) / "data"
ROWS = [{"text": "Sales rose.", "label": "positive"}, {"text": "Sales fell.", "label": "negative"}]


def read(source: Any, format: str | None = "classify", **keys: Any) -> tuple[list[Conversation], tuple[str, ...]]:
    return read_conversations(Data(source=source, format=format, **keys))


def told(source: Any, format: str | None = "classify", **keys: Any) -> tuple[list[Conversation], list[str]]:
    """The conversations, and the lines that the user is told."""
    lines: list[str] = []
    return read_conversations(Data(source=source, format=format, **keys), lines.append)[0], lines


def message_of(source: Any, format: str | None = "classify", **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(source, format, **keys)
    return str(caught.value)


def real(name: str) -> str:
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"the data is not here: {path}")
    return str(path)
