"""Dropout masks from a counter: run seed, step, example, module, position and feature fix each bit.

An ordinary generator hands out bits in the order of asking, so that a run's masks would depend on
its company and on how a step was cut into micro-batches. Here each bit is the hash of its own
coordinates, the same on every device.

Words of 32 bits are held as int32, whose sums and products wrap around: a mask is as large as what it is laid over, and
int64 took five times as long. On a CPU NumPy computes them, with the same lines: what is small costs it a quarter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_SIGN = -(2**31)  # turned over, words compare as int32 as they do without a sign


@dataclass(frozen=True)
class DropoutKeys:
    """keys_T: int64 in 32 bits, one per token, from `token_keys`. share_T: float32, what is dropped."""

    keys_T: Tensor
    share_T: Tensor
    _features: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def words_T(self) -> Any:
        """The keys as `_mix` takes them."""
        return _words(self.keys_T)

    @cached_property
    def least_T1(self) -> Tensor:
        """The smallest word that is kept, its sign turned over."""
        return ((self.share_T.double() * 2.0**32).long() + _SIGN).int()[:, None]

    @cached_property
    def scale_T1(self) -> Tensor:
        """What is kept is multiplied by this, fp32."""
        return 1 / (1 - self.share_T[:, None])

    def features(self, count: int) -> Any:
        """The hash of each feature; the same for all modules that read so many."""
        if count not in self._features:
            self._features[count] = _mix(_words(torch.arange(count, device=self.keys_T.device)))
        return self._features[count]


def token_keys(seed_T: Tensor, step_T: Tensor, example_T: Tensor, position_T: Tensor) -> Tensor:
    """One 32-bit key for each token, as int64 (T)."""
    key_T = torch.zeros_like(seed_T, dtype=torch.int32)
    for part_T in (seed_T, step_T, example_T, position_T):
        # seeds may exceed one word: both halves count
        key_T = _mix(_mix(key_T ^ part_T.int()) + (part_T >> 32).int())
    return key_T.long() & _WORD


def keep_mask(keys: DropoutKeys, module: int, features: int, dtype: torch.dtype) -> Tensor:
    """1 / (1 - p) where a feature is kept and 0 where it is dropped, (T × features) in dtype."""
    key_T = _mix(keys.words_T ^ _signed(module))
    bits_TI = _mix(key_T[:, None] ^ keys.features(features)) ^ _SIGN
    return torch.where(torch.as_tensor(bits_TI) >= keys.least_T1, keys.scale_T1.to(dtype), 0)


def _words(key_N: Tensor) -> Any:
    """The lower 32 bits of int64, as an array of NumPy on a CPU and else as a tensor."""
    return key_N.int() if key_N.device.type != "cpu" else key_N.numpy().astype(np.int32)


def _signed(word: int) -> int:
    """The same 32 bits as a number with a sign."""
    return (word ^ 2**31) + _SIGN


def _mix(word: Any) -> Any:
    """A bijective 32-bit hash held in int32, of a tensor or of an array: two rounds of xor-shift and multiply.

    The constants are those of Chris Wellons' `lowbias32` (public domain), found by a search for
    low avalanche bias. A shift brings copies of the sign along, which are masked.
    """
    word = word + _signed(0x9E3779B9)
    word ^= (word >> 16) & 0xFFFF
    word *= 0x7FEB352D
    word ^= (word >> 15) & 0x1FFFF
    word *= _signed(0x846CA68B)
    word ^= (word >> 16) & 0xFFFF
    return word
