"""Weights are asked for as a whole, once, and only where the system can hold them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import pronk.model.read_ahead as ahead
from pronk.model.hub import INDEX, WHOLE, Base


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[int, int]]]:
    """Which stretches of which files the system was asked to read."""
    found: dict[str, list[tuple[int, int]]] = {}

    def note(descriptor: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        found.setdefault(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, []).append((start, length))

    monkeypatch.setattr(os, "posix_fadvise", note)
    monkeypatch.setattr(ahead, "CHUNK", 100)
    return found


def base(folder: Path, **sizes: int) -> Base:
    for name, size in sizes.items():
        (folder / name).write_bytes(b"x" * size)
    return Base("base", str(folder), local=True)


def read(base: Base) -> bool:
    thread = ahead.read_ahead(base)
    if thread is not None:
        thread.join()
    return thread is not None


def test_one_file_is_read_to_its_end(tmp_path: Path, asked: dict[str, list[tuple[int, int]]]) -> None:
    assert read(base(tmp_path, **{WHOLE: 250, "other.safetensors": 10}))
    assert asked == {WHOLE: [(0, 100), (100, 100), (200, 100)]}


def test_all_shards_are_read(tmp_path: Path, asked: dict[str, list[tuple[int, int]]]) -> None:
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}}
    (tmp_path / INDEX).write_text(json.dumps(index), encoding="utf-8")
    assert read(base(tmp_path, **{"1.safetensors": 50, "2.safetensors": 150}))
    assert asked == {"1.safetensors": [(0, 100)], "2.safetensors": [(0, 100), (100, 100)]}


def test_what_memory_cannot_hold_is_left_alone(
    tmp_path: Path, asked: dict[str, list[tuple[int, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = base(tmp_path, **{WHOLE: 250})
    for free, expected in ((500, True), (499, False), (None, False)):
        monkeypatch.setattr(ahead, "machine_memory", lambda free=free: (10**9, free))
        asked.clear()
        assert read(one) == expected == bool(asked)


def test_what_is_not_here_yet_is_left_alone(tmp_path: Path, asked: dict[str, list[tuple[int, int]]]) -> None:
    assert not read(Base("no/such", "no/such", local=False))
    assert not read(base(tmp_path))
    assert not asked


def test_a_system_without_it_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fadvise")
    assert not read(base(tmp_path, **{WHOLE: 250}))
