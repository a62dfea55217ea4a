"""Packed attention where no kernel takes segments of any lengths (fp32 on a GPU, older GPUs): padded by length.

Segments of about one length, within a factor of two, are padded to the longest of them and attended to
in one call of scaled_dot_product_attention, which has kernels for every type. What padding computes is
left where it is: a query sees nothing behind itself, and nobody reads the queries behind a segment's end.
Shapes: T tokens, H query heads, G key/value heads, D head size; in a bucket B segments, Q queries, K keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Which tokens are the queries (B·Q) and the keys (B·K) of segments of about one length.

    seen_B1QK: which keys a query sees; None where each sees those up to itself.
    """

    segments: int
    queries: Tensor
    keys: Tensor
    seen_B1QK: Tensor | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """place_T: where each token's row lies among the rows of all buckets."""

    buckets: tuple[_Bucket, ...]
    place_T: Tensor


def attend_padded(
    q_THD: Tensor, k_TGD: Tensor, v_TGD: Tensor, lengths_S: tuple[int, ...], parents_S: tuple[int, ...],
    scale: float | None,
) -> Tensor:  # fmt: skip
    """Attention of segments to themselves and the beginning that parents_S names (-1 for none): (T, H, D)."""
    plan = _plan(lengths_S, parents_S, q_THD.device)
    rows = []
    for bucket in plan.buckets:
        queries, keys, values = (
            part.index_select(0, index).unflatten(0, (bucket.segments, -1)).transpose(1, 2)
            for part, index in ((q_THD, bucket.queries), (k_TGD, bucket.keys), (v_TGD, bucket.keys))
        )
        mixed = scaled_dot_product_attention(
            queries, repeat_heads(keys, queries.shape[1]), repeat_heads(values, queries.shape[1]),
            attn_mask=bucket.seen_B1QK, is_causal=bucket.seen_B1QK is None, scale=scale,
        )  # fmt: skip
        rows.append(mixed.transpose(1, 2).flatten(0, 1))
    return torch.cat(rows).index_select(0, plan.place_T)


def repeat_heads(heads: Tensor, count: int) -> Tensor:
    """Repeat key/value heads (…, G, T, D) until every one of `count` query heads has one of its own."""
    times = count // heads.shape[1]
    if times == 1:
        return heads
    return heads[:, :, None].expand(-1, -1, times, -1, -1).flatten(1, 2)


@lru_cache(maxsize=4)  # all layers of a model attend to one pack, forwards and again when they are recomputed
@torch.inference_mode(False)  # what an evaluation lays out serves training too
def _plan(lengths_S: tuple[int, ...], parents_S: tuple[int, ...], device: torch.device) -> _Plan:
    starts = torch.tensor([0, *lengths_S]).cumsum(0)
    begun = [0 if parent < 0 else lengths_S[parent] for parent in parents_S]
    alike: dict[tuple[int, int], list[int]] = {}
    for segment, (length, before) in enumerate(zip(lengths_S, begun, strict=True)):
        if length:
            alike.setdefault((length.bit_length(), before.bit_length()), []).append(segment)
    place_T = torch.empty(sum(lengths_S), dtype=torch.int64)
    buckets, rows = [], 0
    for members in alike.values():
        own_B1, before_B1 = (torch.tensor([of[s] for s in members])[:, None] for of in (lengths_S, begun))
        start_B1, parent_B1 = starts[members][:, None], starts[[max(parents_S[s], 0) for s in members]][:, None]
        query_1Q = torch.arange(int(own_B1.max()))[None]
        key_1K = torch.arange(int((own_B1 + before_B1).max()))[None]
        # what is behind a segment's end stands for its last token, so that no one token's gradient is asked for often
        queries_BQ = start_B1 + torch.minimum(query_1Q, own_B1 - 1)
        own_key_BK = start_B1 + torch.minimum(key_1K - before_B1, own_B1 - 1)
        keys_BK = torch.where(key_1K < before_B1, parent_B1 + key_1K, own_key_BK)
        seen = None
        if before_B1.any():
            seen = (key_1K[:, None] <= (before_B1 + query_1Q)[:, :, None])[:, None].to(device)
        real_BQ = query_1Q < own_B1
        place_T[queries_BQ[real_BQ]] = rows + torch.arange(queries_BQ.numel()).view_as(queries_BQ)[real_BQ]
        rows += queries_BQ.numel()
        buckets.append(_Bucket(len(members), queries_BQ.flatten().to(device), keys_BK.flatten().to(device), seen))
    return _Plan(tuple(buckets), place_T.to(device))
