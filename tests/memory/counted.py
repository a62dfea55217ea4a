"""Memory counted on a CPU: bytes of all storages that are alive, told by PyTorch's dispatcher.

An oracle that knows nothing of the planner: what a GPU's allocator would have in use, without its rounding.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pronk.doctor.calibration import Meter


class Counter(TorchDispatchMode):
    """Counts the storages that operations make while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.most = 0, 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu":
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(key)
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self._gone, key, size).atexit = False

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


class CountedMeter(Meter):
    """What calibration asks of a GPU, asked of the counter. Reserved is what was most in use."""

    def __init__(self, counter: Counter) -> None:
        super().__init__(torch.device("cpu"))
        self.counter, self._reserved = counter, 0

    def settle(self) -> int:
        start = super().settle()
        self._reserved = 0
        return start

    def begin(self) -> int:
        self._reserved = max(self._reserved, self.counter.most)
        self.counter.most = self.counter.alive
        return self.counter.alive

    def peaks(self) -> tuple[int, int]:
        return self.counter.most, max(self._reserved, self.counter.most)

    def in_use(self) -> int:
        return self.counter.alive

    def seconds(self, work: Any) -> float:
        work()
        return 1.0
