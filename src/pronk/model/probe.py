"""Whether a base of an unfamiliar architecture reads here as it does in transformers.

pronk lays many texts in one row, lets them share a beginning, and adds tokens behind what was read. A model whose
layers do not take part (attention of their own, states instead of keys and values, a scaled or biased output head)
would be trained and measured wrongly without a word: so a few tokens are read both ways before anything is done.
Shapes: T tokens, N rows, S new tokens of a row, D hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pronk.errors import BaseModelError
from pronk.model.adapter import attach
from pronk.model.attention import use_packed_attention
from pronk.model.forward import output_head
from pronk.model.generate import PromptCache, extend, read_prompts
from pronk.model.hub import Base, quiet
from pronk.model.quantize import QuantizedLinear
from pronk.model.step import BASE_SLOT

# Types whose tiny models the tests hold to transformers' losses, scores and answers: they are taken at their word.
FAMILIAR = frozenset({
    "gemma", "gemma3_text", "glm4", "gpt2", "gpt_neox", "granite", "llama", "mistral", "mixtral", "olmo2", "opt",
    "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3", "starcoder2",
})  # fmt: skip
KNOWN_TO_WORK = "Llama, Mistral, Qwen 2 and 3, Gemma 1 and 3, Phi-3, OLMo 2, OPT or GPT-NeoX"
# How far logits may be apart, as a share of their spread: sums in another order, in 24 bits or in 8 to 11.
NEAR, NEAR_IN_HALF = 0.01, 0.1


def check_reads_alike(model: Any, base: Base) -> None:
    """Refuse a model that reads otherwise here than in transformers; takes a few passes over a dozen tokens.

    Raises BaseModelError.
    """
    kind = model.config.model_type
    if kind in FAMILIAR:
        return
    try:
        with quiet(), torch.no_grad():
            apart = _apart(model)
    except (BaseModelError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what a foreign layer does with a packed row is not listed anywhere
        raise BaseModelError(
            f"base: {base.name} is a {kind} model, whose layers cannot read several texts in one row, as pronk trains "
            f"and asks ({type(error).__name__}); choose another base: {KNOWN_TO_WORK}"
        ) from error
    near = NEAR if output_head(model).dtype.itemsize > 2 and not _is_quantized(model) else NEAR_IN_HALF
    if not math.isfinite(apart):
        raise BaseModelError(
            f"base: {base.name} is a {kind} model that gives no finite numbers in {output_head(model).dtype}; try "
            "train.dtype: fp32 or bf16"
        )
    if apart > near:
        raise BaseModelError(
            f"base: {base.name} is a {kind} model, which reads several texts in one row otherwise than each alone "
            f"(its logits are {apart:.0%} of their spread apart): pronk would train and measure it wrongly; choose "
            f"another base: {KNOWN_TO_WORK}"
        )


@dataclass(frozen=True)
class _Reading:
    """Two prompts of 8 and 7 tokens behind one beginning of 3, packed as a model.forward.MicroBatch."""

    ids_T: npt.NDArray[np.int64]
    lengths_S: tuple[int, ...] = (3, 5, 4)
    parents_S: tuple[int, ...] = (-1, 0, 0)
    positions_T: npt.NDArray[np.int64] = field(default_factory=lambda: np.array([0, 1, 2, *range(3, 8), *range(3, 7)]))
    slots_T: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(12, BASE_SLOT))
    keys_T: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(12, np.int64))
    rows_N: npt.NDArray[np.int64] = field(default_factory=lambda: np.array([7, 11]))
    targets_N: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    weights_N: npt.NDArray[np.float64] = field(default_factory=lambda: np.ones(2))
    members_N: npt.NDArray[np.int64] = field(default_factory=lambda: np.arange(2))


def _apart(model: Any) -> float:
    """The distance of our logits from transformers', for the last token of each prompt and two behind it."""
    vocabulary = len(output_head(model))
    ids = (np.arange(14) * 97 + 13) % vocabulary
    prompts, new = (ids[:8].tolist(), ids[[0, 1, 2, 8, 9, 10, 11]].tolist()), ids[12:].tolist()
    ours_NSV = _ours(model, _Reading(ids[:12]), new)
    model.set_attn_implementation("eager")
    try:
        theirs_NSV = torch.stack([_theirs(model, prompt + new)[-len(new) - 1 :] for prompt in prompts])
    finally:
        use_packed_attention(model)
    centred_NSV = theirs_NSV - theirs_NSV.mean(-1, keepdim=True)
    difference_NSV = ours_NSV - ours_NSV.mean(-1, keepdim=True) - centred_NSV
    return float((difference_NSV.norm(dim=-1) / centred_NSV.norm(dim=-1)).mean())


def _ours(model: Any, reading: _Reading, new: list[int]) -> Tensor:
    """Logits (N, 1 + S, V) in fp32: prompts packed, new tokens behind them."""
    head_VD, count = output_head(model), len(new)
    cache = PromptCache(reading, count, model.config, head_VD)
    device, adapter = head_VD.device, attach(model, [])
    last_ND = read_prompts(model, adapter, reading, cache)
    slots_N = torch.full((2,), BASE_SLOT, device=device)
    ids_NS, place_S = torch.tensor([new, new], device=device), torch.arange(count, device=device)
    seen_SS = place_S[:, None] >= place_S
    more_NSD = extend(model, adapter, cache, slots_N, ids_NS, cache.lengths_N[:, None] + place_S, seen_SS)
    hidden_NSD = torch.cat([last_ND[:, None], more_NSD], dim=1)
    return (hidden_NSD @ head_VD.T).float()


def _theirs(model: Any, ids: list[int]) -> Tensor:
    """Logits (T, V) in fp32 of one text alone, as the model itself gives them."""
    given = torch.tensor([ids], device=output_head(model).device)
    logits: Tensor = model(input_ids=given, use_cache=False).logits
    return logits[0].float()


def _is_quantized(model: Any) -> bool:
    return any(isinstance(module, QuantizedLinear) for module in model.modules())
