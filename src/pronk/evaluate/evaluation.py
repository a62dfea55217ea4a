"""All evaluations of a fleet at once: the base model and every run on the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pronk.evaluate.classify import ClassifiedItem, classify, label_losses
from pronk.evaluate.likelihood import ItemLosses, answer_losses
from pronk.evaluate.similarity import ComparedItem, answer_rooms, compare_answers
from pronk.model.adapter import AdapterShape, WideAdapter, attach
from pronk.model.memory.sizes import give_back
from pronk.tokens.examples import Examples
from pronk.tokens.pack import BASE_SLOT
from pronk.tokens.prompt import Example


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model's results on all test items, by evaluation; None where it was not asked for."""

    losses: ItemLosses | None
    classified: list[ClassifiedItem] | None
    compared: list[ComparedItem] | None = None


# On a GPU a batch takes this share of the free memory for keys and values, and at most so many tokens.
CACHE_SHARE, LARGEST_BATCH = 0.25, 262_144
CPU_BATCH = 8192


def evaluation_budget(model: Any) -> int:
    """Tokens of prompts and answers in one evaluation batch. The larger, the fewer steps of generation."""
    weight = next(model.parameters())
    if weight.device.type != "cuda":
        return CPU_BATCH
    config = model.config
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_size * weight.element_size()
    free, _ = torch.cuda.mem_get_info(weight.device)
    return int(min(LARGEST_BATCH, max(CPU_BATCH, CACHE_SHARE * free / per_token)))


class Evaluation:
    """The base model in slot BASE_SLOT and the given adapters behind it.

    token_budget: tokens of a batch; as many as the free memory holds when absent.
    """

    def __init__(
        self, model: Any, adapters: Sequence[tuple[AdapterShape, Mapping[str, Any]]], token_budget: int | None = None
    ) -> None:
        self.model, self.token_budget = model, token_budget or evaluation_budget(model)
        self.adapter = attach(model, [shape for shape, _ in adapters])
        for slot, (_, state) in enumerate(adapters):
            self.adapter.load(slot, state)
        self.slots = [BASE_SLOT, *range(len(adapters))]

    def work(self, examples: Examples, evaluations: Sequence[str]) -> int:
        """How many tokens there are to read; what `progress` counts."""
        items = sum(len(example.ids) for example in examples.test) if {"likelihood", "classify"} & {*evaluations} else 0
        asked = sum(len(example.prompt_ids) for example in examples.test) if "similarity" in evaluations else 0
        return len(self.slots) * (items + asked)

    def run(
        self, examples: Examples, truths: Sequence[str], evaluations: Sequence[str], progress: Any,
        max_new_tokens: int | None = None,
    ) -> list[Evaluated]:  # fmt: skip
        """Results for the base and for each adapter, in this order. max_new_tokens: see answer_rooms."""
        prompts = [example.prompt_ids.tolist() for example in examples.test]
        losses: Mapping[int, ItemLosses] = {}
        classified: Mapping[int, list[ClassifiedItem]] = {}
        compared: Mapping[int, list[ComparedItem]] = {}
        if "classify" in evaluations:
            classified = self._classified(examples, prompts, truths, progress)
            if "likelihood" in evaluations:
                labels, label_ids = examples.labels, examples.label_ids()
                losses = {slot: label_losses(items, labels, label_ids) for slot, items in classified.items()}
        elif "likelihood" in evaluations:
            tests = dict.fromkeys(self.slots, examples.test)
            losses = answer_losses(self.model, self.adapter, tests, self.token_budget, progress)
        if "similarity" in evaluations:
            compared = self._compared(examples, prompts, truths, max_new_tokens, progress)
        return [Evaluated(losses.get(slot), classified.get(slot), compared.get(slot)) for slot in self.slots]

    def _classified(
        self, examples: Examples, prompts: Sequence[Sequence[int]], truths: Sequence[str], progress: Any
    ) -> dict[int, list[ClassifiedItem]]:
        return classify(
            self.model, self.adapter, prompts, truths, examples.labels, self.slots, examples.prompt.tokenizer,
            examples.label_ids(), self.token_budget, progress,
        )  # fmt: skip

    def _compared(
        self, examples: Examples, prompts: Sequence[Sequence[int]], truths: Sequence[str],
        max_new_tokens: int | None, progress: Any,
    ) -> dict[int, list[ComparedItem]]:  # fmt: skip
        sizes = [len(ids) for ids in examples.prompt.answer_ids(truths)]
        rooms = answer_rooms(prompts, sizes, examples.context, max_new_tokens)
        return compare_answers(
            self.model, self.adapter, prompts, truths, self.slots, examples.prompt.tokenizer,
            examples.prompt.end_id, rooms, self.token_budget, progress,
        )  # fmt: skip

    def close(self) -> None:
        """Take the adapters off the model again."""
        self.adapter.detach()


def validation_losses(
    model: Any,
    adapter: WideAdapter,
    slots: Sequence[int],
    examples: Mapping[int, Sequence[Example]],
    token_budget: int,
) -> dict[int, ItemLosses]:
    """The losses of each slot's validation examples, example by example. Memory that training has reserved, but does
    not use now, is given back before and after: the other would find no place in its gaps."""
    device = next(model.parameters()).device
    give_back(device)
    losses = answer_losses(model, adapter, {slot: examples[slot] for slot in slots}, token_budget)
    give_back(device)
    return losses
