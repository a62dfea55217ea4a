"""Sizes as people write them, and the allocator's settings."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from pronk.errors import OptionError, OutOfMemoryError
from pronk.model.memory import sizes
from pronk.model.memory.guard import memory_guard


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GB", 24 * 10**9), ("24GiB", 24 * 2**30), ("16", 16 * 10**9), ("24 gb", 24 * 10**9), (" 8Gib ", 8 * 2**30),
        ("11.5GB", 11_500_000_000), ("12000MB", 12 * 10**9), ("81920MiB", 80 * 2**30), ("24g", 24 * 10**9),
    ],
)  # fmt: skip
def test_a_size_is_read(text: str, size: int) -> None:
    assert sizes.read_size(text) == size


@pytest.mark.parametrize("text", ["", "big", "24 bananas", "-8GB", "GB", "1e3", "24TB", "8,5GB", "0", "500MB"])
def test_nonsense_is_one_message(text: str) -> None:
    with pytest.raises(OptionError, match=r"--gpu: .*24GB"):
        sizes.read_size(text)


def test_a_card_sold_by_gb_has_room_for_the_context() -> None:
    """An RTX 4090 shows 24,564 MiB, a T4 15,109, an A100 81,920: each holds what its name promises."""
    for sold, shown in ((24, 24_564), (16, 15_109), (80, 81_920)):
        assert sizes.usable(sold * 10**9) < shown * 2**20


def test_bytes_are_told_as_gib() -> None:
    assert [sizes.gib(size * 2**30) for size in (0.04, 21.44, 99.94, 99.96, 139.8)] == [
        "0.0", "21.4", "99.9", "100", "140",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_what_the_user_set_of_the_allocator_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for each in sizes.ALLOCATOR_NAMES:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "max_split_size_mb:64")
    sizes.steady_allocator()
    assert [os.environ.get(each) for each in sizes.ALLOCATOR_NAMES].count("max_split_size_mb:64") == 1
    assert "expandable" not in str([os.environ.get(each) for each in sizes.ALLOCATOR_NAMES])


@pytest.mark.parametrize(("system", "expected"), [("linux", sizes.ALLOCATION), ("win32", None)])
def test_segments_grow_in_place_where_that_is_known(
    monkeypatch: pytest.MonkeyPatch, system: str, expected: str | None
) -> None:
    for each in sizes.ALLOCATOR_NAMES:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setattr(sizes.sys, "platform", system)
    sizes.steady_allocator()
    assert os.environ.get(sizes.ALLOCATOR) == expected


def test_there_is_no_gpu_to_be_limited() -> None:
    with pytest.raises(OptionError, match="runs on the CPU"):
        sizes.limit_gpu(24 * 10**9, torch.device("cpu"))


def test_what_was_not_enough_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    shares, card = [1.0], 80 * 2**30
    for name, stand_in in {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "get_device_properties": lambda _: SimpleNamespace(total_memory=card),
        "mem_get_info": lambda: (0, card),
        "set_per_process_memory_fraction": lambda share, _: shares.append(share),
        "get_per_process_memory_fraction": lambda: shares[-1],
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    limited, whole = r"what --gpu allows of the GPU's memory \(22\.4 GiB\)", r"the GPU's memory \(80\.0 GiB\)"
    for size, told in ((sizes.read_size("24GB"), limited), (None, whole)):
        sizes.limit_gpu(size, torch.device("cuda"))
        with pytest.raises(OutOfMemoryError, match=f"^training: {told} is not enough"), memory_guard("training"):
            raise torch.OutOfMemoryError("CUDA out of memory")
