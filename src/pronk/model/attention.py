"""Packed attention, registered with transformers by name: no sequence of a pack sees another.

On a GPU in half precision the whole pack is one `varlen_attn` call; elsewhere each sequence is one
call of scaled_dot_product_attention. With a mask instead of a packing (generation), the mask rules.
Shapes: H query heads, G key/value heads, T tokens, S sequences, D head size, N rows, L columns.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "pronk_packed"


@dataclass(frozen=True, slots=True)
class Packing:
    """Where sequences lie in a pack. borders: int32 (S + 1), on a GPU only; longest: no sequence is longer."""

    lengths_S: tuple[int, ...]
    longest: int
    borders: Tensor | None = None


def packing(lengths_S: tuple[int, ...], device: torch.device) -> Packing:
    """A packing for sequences of these lengths, laid end to end."""
    if device.type != "cuda":
        return Packing(lengths_S, max(lengths_S))
    borders = torch.tensor([0, *lengths_S], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return Packing(lengths_S, max(lengths_S), borders.to(device, non_blocking=True))


def use_packed_attention(model: Any) -> None:
    """Make a transformers model use the attention of this module."""
    AttentionInterface.register(NAME, _attend)
    model.set_attn_implementation(NAME)


def _attend(
    _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, packing: Packing | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """query (N, H, T, D), key and value (N, G, L, D) → (N, T, H, D), as transformers hands and expects them."""
    if packing is None:
        assert attention_mask is not None, "attention without a packing needs a mask (N, 1, T, L)"
        key, value = _repeat(key, query.shape[1]), _repeat(value, query.shape[1])
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
        return mixed.transpose(1, 2), None
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return _one_call(query, key, value, scaling, packing), None
    return _call_per_sequence(query, key, value, scaling, packing), None


def _call_per_sequence(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, packing: Packing) -> Tensor:
    key, value = _repeat(key, query.shape[1]), _repeat(value, query.shape[1])
    lengths = packing.lengths_S
    parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    mixed = [scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling) for q, k, v in parts]
    return torch.cat([part.transpose(1, 2) for part in mixed], dim=1)


def _one_call(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, packing: Packing) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    # PyTorch 2.11 to 2.13 name causality and shared key heads differently
    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if "enable_gqa" in known:
        options["enable_gqa"] = query.shape[1] != key.shape[1]
    else:
        key, value = _repeat(key, query.shape[1]), _repeat(value, query.shape[1])
    if "scale" in known:
        options["scale"] = scaling
    q_THD, k_TGD, v_TGD = (part[0].transpose(0, 1) for part in (query, key, value))
    assert packing.borders is not None, "a packing for a GPU has borders"
    mixed = varlen_attn(
        q_THD, k_TGD, v_TGD, packing.borders, packing.borders, packing.longest, packing.longest, **options
    )
    return torch.as_tensor(mixed)[None]


def _repeat(heads: Tensor, count: int) -> Tensor:
    """Repeat key/value heads until every query head has one of its own."""
    times = count // heads.shape[1]
    if times == 1:
        return heads
    return heads[:, :, None].expand(-1, -1, times, -1, -1).flatten(1, 2)
