"""An author behind a server, and a folder with seeds for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_author import Author, Place

import pronk.evaluate.served_call as served_call
from scripted_server import KEY, Scripted, scripted


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PRONK_API_KEY", KEY)
    monkeypatch.setattr(served_call, "DELAYS", (0.01, 0.01))


@pytest.fixture
def place(tmp_path: Path, tiny_base: Path, quick: None) -> Place:  # noqa: ARG001
    return Place(tmp_path, tiny_base)


@pytest.fixture
def author() -> Author:
    return Author()


@pytest.fixture
def server(author: Author) -> Iterator[Scripted]:
    with scripted(author) as running:
        yield running
