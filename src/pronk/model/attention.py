"""Packed attention, registered with transformers by name: a segment of a pack sees itself and its beginning.

On a GPU in half precision the whole pack is one `varlen_attn` call; elsewhere each segment is one
call of scaled_dot_product_attention. With a mask instead of a packing (generation), the mask rules.
Shapes: H query heads, G key/value heads, T tokens, S segments, D head size, N rows, L keys seen.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "pronk_packed"


@dataclass(frozen=True, slots=True)
class Lookback:
    """Keys and values as the segments of a pack see them: a segment's beginning in front of its own.

    source_L: int64, the token that each comes from; what is no token's (padding) comes from one behind
    the last. borders: int32 (S + 1). longest: no segment sees more.
    """

    source_L: Tensor
    borders: Tensor
    longest: int


@dataclass(frozen=True, slots=True)
class Packing:
    """Where segments lie in a pack, and which segment (parents_S, -1 for none) holds the beginning of each.

    On a GPU only: borders, int32 (S + 1); lookback, where some segment has a parent. longest: no segment is longer.
    """

    lengths_S: tuple[int, ...]
    parents_S: tuple[int, ...]
    longest: int
    borders: Tensor | None = None
    lookback: Lookback | None = None


def packing(lengths_S: tuple[int, ...], parents_S: tuple[int, ...], device: torch.device) -> Packing:
    """A packing for segments of these lengths, laid end to end, for use on the device; what tensors it has are on
    the CPU, to be moved with the rest of a micro-batch."""
    longest = max(lengths_S)
    if device.type != "cuda":
        return Packing(lengths_S, parents_S, longest)
    looks = max(parents_S) >= 0
    return Packing(
        lengths_S, parents_S, longest, borders(lengths_S), _lookback(lengths_S, parents_S) if looks else None
    )


def borders(lengths_S: Sequence[int]) -> Tensor:
    """Where segments begin, and where the last one ends: int32 (S + 1)."""
    return torch.tensor([0, *lengths_S], dtype=torch.int32).cumsum(0, dtype=torch.int32)


def _lookback(lengths_S: tuple[int, ...], parents_S: tuple[int, ...]) -> Lookback:
    """What each segment sees is two stretches of tokens, of which the first may be empty: its beginning, and itself."""
    lengths, parents = torch.tensor(lengths_S), torch.tensor(parents_S)
    starts, looks = lengths.cumsum(0) - lengths, parents >= 0
    counts = torch.stack([lengths[parents] * looks, lengths], dim=1)
    begins = torch.stack([starts[parents], starts], dim=1).flatten()
    stretches = counts.flatten()
    before = stretches.cumsum(0) - stretches
    source_L = torch.arange(int(stretches.sum())) + (begins - before).repeat_interleave(stretches)
    seen = counts.sum(1).tolist()
    return Lookback(source_L, borders(seen), max(seen))


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
    return _call_per_segment(query, key, value, scaling, packing), None


def _call_per_segment(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, packing: Packing) -> Tensor:
    key, value = _repeat(key, query.shape[1]), _repeat(value, query.shape[1])
    lengths = packing.lengths_S
    queries, keys, values = query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2)
    mixed = []
    for q, k, v, parent in zip(queries, keys, values, packing.parents_S, strict=True):
        if parent < 0:
            part = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
        else:
            seen_k, seen_v = torch.cat([keys[parent], k], dim=2), torch.cat([values[parent], v], dim=2)
            begun, new = keys[parent].shape[2], q.shape[2]
            seen_TL = torch.ones(new, begun + new, dtype=torch.bool, device=q.device).tril(begun)
            part = scaled_dot_product_attention(q, seen_k, seen_v, attn_mask=seen_TL, scale=scaling)
        mixed.append(part.transpose(1, 2))
    return torch.cat(mixed, dim=1)


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
    q_THD, k_LGD, v_LGD = (part[0].transpose(0, 1) for part in (query, key, value))
    assert packing.borders is not None, "a packing for a GPU has borders"
    key_borders, longest_key = packing.borders, packing.longest
    if look := packing.lookback:
        k_LGD, v_LGD = (_Seen.apply(part, look.source_L) for part in (k_LGD, v_LGD))
        key_borders, longest_key = look.borders, look.longest
    mixed = varlen_attn(q_THD, k_LGD, v_LGD, packing.borders, key_borders, packing.longest, longest_key, **options)
    return torch.as_tensor(mixed)[None]


class _Seen(torch.autograd.Function):
    """Keys or values (T, G, D) as the segments see them (L, G, D). Many segments look back at one beginning:
    its gradients are summed in fp32, since in half precision a sum of many loses what each adds."""

    @staticmethod
    def forward(ctx: Any, heads_TGD: Tensor, source_L: Tensor) -> Tensor:
        ctx.save_for_backward(source_L)
        ctx.tokens = len(heads_TGD)
        return heads_TGD.index_select(0, source_L.clamp(max=ctx.tokens - 1))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad_LGD,) = grads
        (source_L,) = ctx.saved_tensors
        # the last row gathers what belongs to no token
        total = torch.zeros(ctx.tokens + 1, *grad_LGD.shape[1:], dtype=torch.float32, device=grad_LGD.device)
        total.index_add_(0, source_L, grad_LGD.float())
        return total[:-1].to(grad_LGD.dtype), None


def _repeat(heads: Tensor, count: int) -> Tensor:
    """Repeat key/value heads until every query head has one of its own."""
    times = count // heads.shape[1]
    if times == 1:
        return heads
    return heads[:, :, None].expand(-1, -1, times, -1, -1).flatten(1, 2)
