"""Packed attention, registered with transformers by name: a segment of a pack sees itself and its beginning.

On a GPU in half precision the whole pack is one call of the fastest kernel (attention_kernels.py), in fp32
a few calls, padded by length (attention_padded.py); on a CPU each segment is one call. With a mask instead
of a packing (generation), the mask rules.
Shapes: H query heads, G key/value heads, T tokens, S segments, D head size, N rows, L keys seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from pronk.errors import BaseModelError
from pronk.model.attention_kernels import (
    EVEN_LENGTH,
    EVEN_SEGMENTS,
    FLASH_2,
    HALF,
    Choice,
    Heads,
    Kernel,
    Segments,
    choose,
)
from pronk.model.attention_padded import attend_padded, repeat_heads
from pronk.model.kernels.occurrences import sum_copies

NAME = "pronk_packed"


@dataclass(frozen=True, slots=True)
class Lookback:
    """Keys and values as the segments of a pack see them: a segment's beginning in front of its own.

    source_L: int64, the token that each comes from; what is no token's (padding) comes from one behind
    the last. borders: int32 (S + 1). order_L, starts_T: the way back, see kernels/occurrences.py. longest: no segment
    sees more.
    """

    source_L: Tensor
    borders: Tensor
    order_L: Tensor
    starts_T: Tensor
    longest: int

    @classmethod
    def of(cls, source_L: Tensor, borders: Tensor, longest: int, tokens: int) -> Lookback:
        """With the way back to so many tokens, where gradients will take it."""
        if not torch.is_grad_enabled():
            none = torch.empty(0, dtype=torch.int32)
            return cls(source_L, borders, none, none, longest)
        sorted_L, order_L = source_L.sort(stable=True)
        starts_T = torch.searchsorted(sorted_L, torch.arange(tokens + 1), out_int32=True)
        return cls(source_L, borders, order_L.to(torch.int32), starts_T, longest)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All tensors, in the order of the fields."""
        return self.source_L, self.borders, self.order_L, self.starts_T

    def replaced(self, tensors: Iterable[Tensor]) -> Lookback:
        """The same with other tensors, in the order of `tensors`."""
        source_L, borders, order_L, starts_T = tensors
        return Lookback(source_L, borders, order_L, starts_T, self.longest)


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
    """A packing for segments of these lengths, laid end to end, on the device."""
    made = packing_on_host(lengths_S, parents_S, device)
    if (look := made.lookback) is not None:
        look = look.replaced(tensor.to(device) for tensor in look.tensors)
    return replace(made, borders=None if made.borders is None else made.borders.to(device), lookback=look)


def packing_on_host(lengths_S: tuple[int, ...], parents_S: tuple[int, ...], device: torch.device) -> Packing:
    """A packing for use on the device; what tensors it has are on the CPU, to be moved with a whole micro-batch."""
    longest = max(lengths_S)
    if device.type != "cuda":
        return Packing(lengths_S, parents_S, longest)
    looks = max(parents_S) >= 0
    lookback = _lookback(lengths_S, parents_S) if looks else None
    return Packing(lengths_S, parents_S, longest, borders(lengths_S), lookback)


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
    return Lookback.of(source_L, borders(seen), max(seen), int(lengths.sum()))


def use_packed_attention(model: Any) -> None:
    """Make a transformers model use the attention of this module."""
    AttentionInterface.register(NAME, attend)
    model.set_attn_implementation(NAME)


def attend(
    _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, packing: Packing | None = None, softcap: float | None = None,
    s_aux: Tensor | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """query (N, H, T, D), key and value (N, G, L, D) → (N, T, H, D), as transformers hands and expects them.

    Raises BaseModelError for capped scores and for sinks (s_aux), which would otherwise go without a word.
    """
    if softcap is not None or s_aux is not None:
        what = "caps its scores (softcap)" if softcap is not None else "has sinks"
        raise BaseModelError(f"base: the attention of this model {what}, which pronk does not do; choose another base")
    if packing is None:
        assert attention_mask is not None, "attention without a packing needs a mask (N, 1, T, L)"
        return _attend_in_rows(query, key, value, attention_mask, scaling), None
    q_THD, k_TGD, v_TGD = (part[0].transpose(0, 1) for part in (query, key, value))
    return packed_attention(q_THD, k_TGD, v_TGD, packing, scaling)[None], None


def _attend_in_rows(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None) -> Tensor:
    """Rows of one length with their keys and values so far: (N, T, H, D). mask: (N, 1, T, L), true where seen.

    Heads that share keys and values are further queries to them: nothing is copied, and a step of generation reads
    little else than keys and values.
    """
    rows, heads, new, size = query.shape
    sharing = heads // key.shape[1]
    if sharing > 1:
        query = query.reshape(rows, key.shape[1], sharing * new, size)
        mask = mask.repeat(1, 1, sharing, 1)
    mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    return mixed.reshape(rows, heads, new, size).transpose(1, 2)


def packed_attention(
    q_THD: Tensor, k_TGD: Tensor, v_TGD: Tensor, packing: Packing, scale: float | None = None
) -> Tensor:
    """Causal attention within each segment and to the beginning that it looks back at: (T, H, D), differentiable.

    H is a multiple of G. The inputs may be slices of one tensor, as long as their last dimension has stride 1; they
    are not copied. scale: of the scores, 1/√D when None.
    """
    if not q_THD.is_cuda:
        return _call_per_segment(q_THD, k_TGD, v_TGD, scale, packing)
    kernels = choose(q_THD.device, q_THD.dtype, Heads(q_THD.shape[1], *k_TGD.shape[1:]))
    if kernels.ragged is None:
        return attend_padded(q_THD, k_TGD, v_TGD, packing.lengths_S, packing.parents_S, scale)
    kernel = kernels.even if kernels.even and _is_even(packing) else kernels.ragged
    return _by_kernel(kernel, q_THD, k_TGD, v_TGD, scale, packing)


def _by_kernel(
    kernel: Kernel, q_THD: Tensor, k_TGD: Tensor, v_TGD: Tensor, scale: float | None, packing: Packing
) -> Tensor:
    assert packing.borders is not None, "a packing for a GPU has borders"
    segments = Segments(packing.borders, packing.borders, packing.longest, packing.longest)
    if look := packing.lookback:
        k_TGD, v_TGD = (_Seen.apply(part, look) for part in (k_TGD, v_TGD))
        segments = Segments(packing.borders, look.borders, packing.longest, look.longest)
    return kernel.attend(q_THD, k_TGD, v_TGD, segments, scale)


def describe(model: Any) -> str:
    """What a model attends to a pack with, for people: kernels by name, whether they are deterministic, and why
    others that are installed are not used."""
    kernels = kernels_of(model)
    if kernels is None:
        return "PyTorch's own, a call for each sequence"
    sure = "yes" if torch.are_deterministic_algorithms_enabled() else "no"
    others = "".join(f"; {name} is installed but not used: {why}" for name, why in kernels.passed_over)
    return f"{kernels}, deterministic: {sure}{others}"


def kernels_of(model: Any) -> Choice | None:
    """The kernels that a model on a GPU attends to a pack with; None on a CPU, which has one way only."""
    head = model.get_output_embeddings().weight
    return kernels_for(model.config, head.device, head.dtype)


def kernels_for(config: Any, device: torch.device, dtype: torch.dtype) -> Choice | None:
    """As `kernels_of`, of a model that need not be there. A GPU that is not there is taken for one with
    FlashAttention, if the type is one of FlashAttention's."""
    if device.type != "cuda":
        return None
    if not torch.cuda.is_available():
        return Choice(FLASH_2 if dtype in HALF else None, None)
    return choose(device, dtype, Heads.of(config))


def _is_even(packing: Packing) -> bool:
    """Whether all segments have one length, and one that is likely to come again, and none looks back."""
    lengths = packing.lengths_S  # a recording has none
    worth = len(lengths) >= EVEN_SEGMENTS and packing.longest >= EVEN_LENGTH
    return worth and packing.lookback is None and len(set(lengths)) == 1


def _call_per_segment(q_THD: Tensor, k_TGD: Tensor, v_TGD: Tensor, scale: float | None, packing: Packing) -> Tensor:
    query, key, value = (part.transpose(0, 1)[None] for part in (q_THD, k_TGD, v_TGD))
    key, value = repeat_heads(key, query.shape[1]), repeat_heads(value, query.shape[1])
    lengths = packing.lengths_S
    queries, keys, values = query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2)
    mixed = []
    for q, k, v, parent in zip(queries, keys, values, packing.parents_S, strict=True):
        if parent < 0:
            part = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        else:
            seen_k, seen_v = torch.cat([keys[parent], k], dim=2), torch.cat([values[parent], v], dim=2)
            begun, new = keys[parent].shape[2], q.shape[2]
            seen_TL = torch.ones(new, begun + new, dtype=torch.bool, device=q.device).tril(begun)
            part = scaled_dot_product_attention(q, seen_k, seen_v, attn_mask=seen_TL, scale=scale)
        mixed.append(part.transpose(1, 2))
    return torch.cat(mixed, dim=1)[0]


class _Seen(torch.autograd.Function):
    """Keys or values (T, G, D) as the segments see them (L, G, D). Many segments look back at one beginning:
    its gradients are summed in fp32, since in half precision a sum of many loses what each adds."""

    @staticmethod
    def forward(ctx: Any, heads_TGD: Tensor, look: Lookback) -> Tensor:
        ctx.look = look
        return heads_TGD.index_select(0, look.source_L.clamp(max=len(heads_TGD) - 1))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad_LGD,) = grads
        total_TC = sum_copies(grad_LGD.flatten(1), ctx.look.order_L, ctx.look.starts_T)
        return total_TC.unflatten(1, grad_LGD.shape[1:]), None
