"""What a fine-tune forgets: the loss on general text that it was not trained on, of the base and of every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pronk.data.conversation import shortened
from pronk.data.general import Passage
from pronk.evaluate.likelihood import ItemLosses, answer_losses
from pronk.model.adapter import WideAdapter
from pronk.tokens.prompt import Example


@dataclass(frozen=True, slots=True)
class PassageLosses:
    """The loss of each passage, all of its tokens being targets."""

    passages: Sequence[Passage]
    losses: ItemLosses

    def records(self) -> list[dict[str, Any]]:
        """One record a passage, named by its file and line."""
        rows = self.losses.records([one.place for one in self.passages])
        return [{**row, "text": shortened(one.text)} for row, one in zip(rows, self.passages, strict=True)]


def passage_losses(
    model: Any,
    adapter: WideAdapter,
    general: Sequence[tuple[Passage, Example]],
    slots: Sequence[int],
    token_budget: int,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[int, PassageLosses]:
    """The losses of all passages under every slot, in nats (tokens.examples.Examples.general)."""
    passages, examples = [one for one, _ in general], [one for _, one in general]
    losses = answer_losses(model, adapter, dict.fromkeys(slots, examples), token_budget, progress)
    return {slot: PassageLosses(passages, found) for slot, found in losses.items()}
