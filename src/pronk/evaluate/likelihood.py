"""Loss of the reference answers, item by item, for the base model and all runs in the same batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pronk.data.conversation import Conversation
from pronk.model.adapter import WideAdapter
from pronk.model.forward import evaluation_losses
from pronk.tokens.pack import Member, pack
from pronk.tokens.prompt import Example


@dataclass(frozen=True, slots=True)
class ItemLosses:
    """loss: summed nats of each item's target tokens, float64 (items); tokens: how many those are; bytes: how many
    their text has in UTF-8, where that was counted."""

    loss: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64] | None = None

    def part(self, items: slice) -> ItemLosses:
        """The losses of some of the items."""
        return ItemLosses(self.loss[items], self.tokens[items], None if self.bytes is None else self.bytes[items])

    def metrics(self) -> dict[str, float]:
        """Token-weighted mean loss (nats per target token) and its perplexity, e to the loss."""
        mean = float(self.loss.sum() / self.tokens.sum())
        return {"nll": mean, "perplexity": math.exp(min(mean, 700.0))}

    def records(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """One record an item, for the run folder."""
        sizes = [{}] * len(ids) if self.bytes is None else [{"bytes": int(size)} for size in self.bytes]
        return [
            {"id": item, "loss": float(loss), "tokens": int(tokens), **size}
            for item, loss, tokens, size in zip(ids, self.loss, self.tokens, sizes, strict=True)
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
    loss = member_losses(model, adapter, members, token_budget, progress)
    tokens = np.array([int(member.example.target.sum()) for member in members])
    results, start = {}, 0
    for slot, items in examples.items():
        part = slice(start, start + len(items))
        results[slot] = ItemLosses(loss[part], tokens[part])
        start += len(items)
    return results


def text_bytes(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """How many bytes each text has in UTF-8."""
    return np.array([len(text.encode()) for text in texts], dtype=np.int64)


def answer_bytes(
    rows: Sequence[Conversation], examples: Sequence[Example], tokenizer: Any
) -> npt.NDArray[np.int64]:  # fmt: skip
    """Bytes of what is learned of each row: the texts of its answers, their end tokens for nothing. Of answers that
    were cut, the bytes of the tokens that are left."""
    sizes = text_bytes(["".join(one.content for one in row.messages if one.role == "assistant") for row in rows])
    for place, example in enumerate(examples):
        if example.cut:
            left = tokenizer.decode(example.ids[example.target].tolist(), skip_special_tokens=True)
            sizes[place] = len(left.encode())
    return sizes


def member_losses(
    model: Any,
    adapter: WideAdapter,
    members: Sequence[Member],
    token_budget: int,
    progress: Callable[[int], None] = lambda _: None,
) -> npt.NDArray[np.float64]:
    """The summed loss of each member's targets, in nats (members)."""
    loss = np.zeros(len(members))
    for batch in pack(members, token_budget):
        losses_N = evaluation_losses(model, adapter, batch).double().cpu().numpy()
        np.add.at(loss, batch.members_N, losses_N)
        progress(len(batch.ids_T))
    return loss
