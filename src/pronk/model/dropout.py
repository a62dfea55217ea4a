"""Dropout masks from a counter: run seed, step, example, module, position and feature fix each bit.

An ordinary generator hands out bits in the order of asking, so that a run's masks would depend on
its company and on how a step was cut into micro-batches. Here each bit is the hash of its own
coordinates, the same on every device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class DropoutKeys:
    """keys_T: int64 in 32 bits, one per token, from `token_keys`. share_T: float32, what is dropped."""

    keys_T: Tensor
    share_T: Tensor


def token_keys(seed_T: Tensor, step_T: Tensor, example_T: Tensor, position_T: Tensor) -> Tensor:
    """One 32-bit key for each token, as int64 (T)."""
    key_T = torch.zeros_like(seed_T)
    for part_T in (seed_T, step_T, example_T, position_T):
        # seeds may exceed one word: both halves count
        key_T = _mix(_mix(key_T ^ (part_T & _WORD)) + (part_T >> 32))
    return key_T


def keep_mask(keys: DropoutKeys, module: int, features: int, dtype: torch.dtype) -> Tensor:
    """1 / (1 - p) where a feature is kept and 0 where it is dropped, (T × features) in dtype."""
    feature_I = torch.arange(features, device=keys.keys_T.device)
    key_T = _mix(keys.keys_T ^ module)
    bits_TI = _mix(key_T[:, None] ^ _mix(feature_I)[None])
    threshold_T = (keys.share_T.double() * 2.0**32).long()
    scale_T = 1 / (1 - keys.share_T)
    return torch.where(bits_TI >= threshold_T[:, None], scale_T[:, None], 0).to(dtype)


def _mix(word: Tensor) -> Tensor:
    """A bijective 32-bit hash held in int64: two rounds of xor-shift and multiply.

    The constants are those of Chris Wellons' `lowbias32` (public domain), found by a search for
    low avalanche bias.
    """
    word = (word + 0x9E3779B9) & _WORD
    word = word ^ (word >> 16)
    word = (word * 0x7FEB352D) & _WORD
    word = word ^ (word >> 15)
    word = (word * 0x846CA68B) & _WORD
    return word ^ (word >> 16)
