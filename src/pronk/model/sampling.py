"""Drawing the next token: temperature, top-k, top-p (nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751).

Filters and draws are in fp32 or better. The number that a draw hangs on is a hash of the row's key and of the
place in its answer, so that an answer does not depend on the rows beside it.
Shapes: N rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pronk.model.dropout import token_keys

# (logits (N × V) in the model's type, members (N), step) → a token for each row (N). members: whose row each is,
# in the order in which the prompts were given. step: the place in the answer.
Choose = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True, slots=True)
class Filter:
    """What may be drawn. top_k: so many of the likeliest tokens; None for all. top_p: the likeliest tokens that
    together have this probability."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __call__(self, logits_NV: Tensor) -> Tensor:
        """Logits divided by the temperature, and -inf for what may not be drawn: first top_k, then top_p of
        what that leaves, as transformers does it. The likeliest token always stays."""
        scores_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)) / self.temperature
        if self.top_k is not None:
            least_N1 = scores_NV.topk(min(self.top_k, scores_NV.shape[-1])).values[:, -1:]
            scores_NV = scores_NV.masked_fill(scores_NV < least_N1, -torch.inf)
        if self.top_p < 1:
            rising_NV, token_NV = scores_NV.sort(dim=-1, stable=True)  # stable: the same of equals go on every device
            beyond_NV = rising_NV.softmax(dim=-1).cumsum(dim=-1) <= 1 - self.top_p
            beyond_NV[:, -1] = False
            scores_NV = scores_NV.masked_fill(beyond_NV.scatter(1, token_NV, beyond_NV), -torch.inf)
        return scores_NV


def likeliest(logits_NV: Tensor, _members_N: Tensor, _step: int) -> Tensor:
    """Greedy: the likeliest token of each row (N)."""
    return logits_NV.argmax(dim=-1)


class Sampler:
    """Draws tokens of the filtered distribution. keys: a whole number for each member; equal keys draw alike."""

    def __init__(self, allowed: Filter, seed: int, keys: Sequence[int]) -> None:
        self.allowed, self.seed = allowed, seed
        self.keys = torch.tensor(keys, dtype=torch.int64)

    def __call__(self, logits_NV: Tensor, members_N: Tensor, step: int) -> Tensor:
        """See Choose."""
        probability_NV = self.allowed(logits_NV).softmax(dim=-1)
        upto_NV = probability_NV.double().cumsum(dim=-1)
        wanted_N1 = self.uniform(members_N, step)[:, None] * upto_NV[:, -1:]
        # the first token whose sum is above what is wanted: never one of probability zero
        token_N = torch.searchsorted(upto_NV, wanted_N1, right=True)[:, 0]
        return token_N.clamp(max=logits_NV.shape[-1] - 1)  # for logits that are not finite

    def uniform(self, members_N: Tensor, step: int) -> Tensor:
        """A number between 0 and 1, both left out, for each row: float64 (N) with 32 random bits."""
        key_N = self.keys.to(members_N.device)[members_N]
        seed_N, step_N = torch.full_like(key_N, self.seed), torch.full_like(key_N, step)
        return (token_keys(seed_N, torch.zeros_like(key_N), key_N, step_N).double() + 0.5) / 2**32
