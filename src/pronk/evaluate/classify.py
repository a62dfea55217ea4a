"""Classification, in both ways people mean: the likeliest label, and the label that is answered.

By likelihood each label is scored in full, end token included, so that a label that begins another
is not favoured. By generation the answer must say a label; what does not is counted as unparsable
and belongs to no class.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pronk.evaluate.batches import prompt_batches
from pronk.evaluate.likelihood import ItemLosses
from pronk.model.adapter import WideAdapter
from pronk.model.generate import columns_behind, score_and_answer
from pronk.tokens.pack import pack_prompts

EXTRA_TOKENS = 8  # room for an answer beyond the longest label, so that "positive sentiment" is seen


@dataclass(frozen=True, slots=True)
class ClassifiedItem:
    """scores: log-probability in nats of each label in full. generated_label: None if unparsable."""

    label: str
    scores: dict[str, float]
    generated: str
    generated_label: str | None

    @property
    def predicted(self) -> str:
        return max(self.scores, key=lambda label: self.scores[label])


def classify(
    model: Any,
    adapter: WideAdapter,
    prompts: Sequence[Sequence[int]],
    truths: Sequence[str],
    labels: Sequence[str],
    slots: Sequence[int],
    tokenizer: Any,
    answer_ids: Sequence[Sequence[int]],
    token_budget: int,
    progress: Callable[[int], None] = lambda _: None,
    families: Sequence[int] | None = None,
) -> dict[int, list[ClassifiedItem]]:
    """Classify every prompt under every slot. answer_ids: each label as ids, end token included. families: of the
    prompts, see tokens.pack.Member."""
    end_id = answer_ids[0][-1]
    longest = max(len(ids) for ids in answer_ids) + EXTRA_TOKENS
    items: dict[int, list[ClassifiedItem | None]] = {slot: [None] * len(prompts) for slot in slots}
    for batch in prompt_batches(prompts, slots, token_budget, columns_behind(longest, answer_ids)):
        kin = families and [families[item] for item, _ in batch]
        reading = pack_prompts([prompts[item] for item, _ in batch], [slot for _, slot in batch], kin)
        answers = score_and_answer(model, adapter, reading, answer_ids, longest, end_id)
        texts = tokenizer.batch_decode(answers.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        scores = answers.scores_NC.double().tolist()
        for (item, slot), row, text in zip(batch, scores, texts, strict=True):
            named = dict(zip(labels, row, strict=True))
            items[slot][item] = ClassifiedItem(truths[item], named, text, parse_label(text, labels))
        progress(sum(len(prompts[item]) for item, _ in batch))
    return {slot: [item for item in found if item is not None] for slot, found in items.items()}


def label_losses(
    items: Sequence[ClassifiedItem], labels: Sequence[str], answer_ids: Sequence[Sequence[int]]
) -> ItemLosses:
    """The loss of each item's true answer: its label's score was that already."""
    sizes = {label: len(ids) for label, ids in zip(labels, answer_ids, strict=True)}
    loss = np.array([-item.scores[item.label] for item in items])
    return ItemLosses(loss, np.array([sizes[item.label] for item in items]))


def parse_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that an answer gives: its first line begins with the label, as a whole word, and
    names no other. Case and marks before it do not matter."""
    first_line = text.strip().partition("\n")[0]
    named = {label: re.search(rf"(?<!\w){re.escape(label)}(?!\w)", first_line, re.IGNORECASE) for label in labels}
    # a label may be part of a longer one ("positive", "very positive"): the longer is meant
    found = {label: match for label, match in named.items() if match}
    meant = [
        label for label, match in found.items()
        if not any(other != label and _covers(whole, match) for other, whole in found.items())
    ]  # fmt: skip
    if len(meant) != 1 or re.search(r"\w", first_line[: found[meant[0]].start()]):
        return None
    return meant[0]


def _covers(outer: re.Match[str], inner: re.Match[str]) -> bool:
    return outer.start() <= inner.start() and inner.end() <= outer.end() and outer.span() != inner.span()


def records(items: Sequence[ClassifiedItem], ids: Sequence[str]) -> list[dict[str, Any]]:
    """One record an item, for the run folder."""
    return [
        {
            "id": name,
            "label": item.label,
            "scores": item.scores,
            "predicted": item.predicted,
            "generated": item.generated,
            "generated_label": item.generated_label,
        }
        for name, item in zip(ids, items, strict=True)
    ]
