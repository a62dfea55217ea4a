"""Loss of the reference answers, item by item, for the base model and all runs in the same batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pronk.model.adapter import WideAdapter
from pronk.model.forward import evaluation_losses
from pronk.tokens.pack import Member, pack
from pronk.tokens.prompt import Example


@dataclass(frozen=True, slots=True)
class ItemLosses:
    """loss: summed nats of each item's target tokens, float64 (items); tokens: how many those are."""

    loss: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]

    def metrics(self) -> dict[str, float]:
        """Token-weighted mean loss (nats per target token) and its perplexity, e to the loss."""
        mean = float(self.loss.sum() / self.tokens.sum())
        return {"nll": mean, "perplexity": math.exp(min(mean, 700.0))}

    def records(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """One record an item, for the run folder."""
        return [
            {"id": item, "loss": float(loss), "tokens": int(tokens)}
            for item, loss, tokens in zip(ids, self.loss, self.tokens, strict=True)
        ]


def answer_losses(
    model: Any,
    adapter: WideAdapter,
    examples: Mapping[int, Sequence[Example]],
    token_budget: int,
    progress: Callable[[int], None] = lambda _: None,
    families: Sequence[int] | None = None,
) -> dict[int, ItemLosses]:
    """Losses of each slot's examples. progress is told the tokens of each batch when it is done. families: of each
    slot's examples, see tokens.pack.Member."""
    members = [
        Member(example, slot, family=family)
        for slot, items in examples.items()
        for example, family in zip(items, families or [0] * len(items), strict=True)
    ]
    loss = np.zeros(len(members))
    for batch in pack(members, token_budget):
        losses_N = evaluation_losses(model, adapter, batch).double().cpu().numpy()
        np.add.at(loss, batch.members_N, losses_N)
        progress(len(batch.ids_T))
    tokens = np.array([int(member.example.target.sum()) for member in members])
    results, start = {}, 0
    for slot, items in examples.items():
        part = slice(start, start + len(items))
        results[slot] = ItemLosses(loss[part], tokens[part])
        start += len(items)
    return results
