"""All evaluations of a fleet at once: the base model and every run on the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pronk.evaluate.classify import ClassifiedItem, classify, label_losses
from pronk.evaluate.classify import records as classify_records
from pronk.evaluate.likelihood import ItemLosses, answer_losses
from pronk.evaluate.similarity import ComparedItem, answer_rooms, compare_answers
from pronk.evaluate.similarity import records as similarity_records
from pronk.model.adapter import AdapterShape, WideAdapter, attach
from pronk.model.memory.sizes import give_back
from pronk.runs import RunFolder
from pronk.tokens.examples import Examples
from pronk.tokens.pack import BASE_SLOT
from pronk.tokens.prompt import Example


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model's results on all test items, by evaluation; None where it was not asked for."""

    losses: ItemLosses | None
    classified: list[ClassifiedItem] | None
    compared: list[ComparedItem] | None = None

    def part(self, items: slice) -> Evaluated:
        """The results on some of the items."""
        losses = self.losses and ItemLosses(self.losses.loss[items], self.losses.tokens[items])
        return Evaluated(losses, self.classified and self.classified[items], self.compared and self.compared[items])

    def write_items(self, folder: RunFolder, ids: Sequence[str]) -> None:
        """Write what was measured into a run's folder, a record an item."""
        if self.losses is not None:
            folder.write_items("likelihood", self.losses.records(ids))
        if self.classified is not None:
            folder.write_items("classify", classify_records(self.classified, ids))
        if self.compared is not None:
            folder.write_items("similarity", similarity_records(self.compared, ids))


@dataclass(frozen=True, slots=True)
class _Asked:
    """Whom to ask what. tests: what is read; families: of the tests, see tokens.pack.Member."""

    examples: Examples
    tests: Sequence[Example]
    truths: Sequence[str]
    slots: Sequence[int]
    families: Sequence[int] | None
    max_new_tokens: int | None

    @property
    def prompts(self) -> list[list[int]]:
        return [example.prompt_ids.tolist() for example in self.tests]


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
        return len(self.slots) * tokens_to_read(examples.test, evaluations)

    def run(
        self, examples: Examples, truths: Sequence[str], evaluations: Sequence[str], progress: Any,
        max_new_tokens: int | None = None,
    ) -> list[Evaluated]:  # fmt: skip
        """Results for the base and for each adapter, in this order. max_new_tokens: see answer_rooms."""
        asked = _Asked(examples, examples.test, truths, self.slots, None, max_new_tokens)
        return self._measured(asked, evaluations, progress)

    def with_shots(
        self, examples: Examples, prompts: Mapping[int, Sequence[Example]], truths: Sequence[str],
        evaluations: Sequence[str], progress: Any, max_new_tokens: int | None = None,
    ) -> dict[int, Evaluated]:  # fmt: skip
        """Results for the base alone, by the number of examples in its prompt.

        prompts: the test rows with so many examples before them (tokens.shots). All are read in the same batches,
        the examples before them once for each number and batch.
        """
        tests = [example for rows in prompts.values() for example in rows]
        families = [count for count, rows in prompts.items() for _ in rows]
        asked = _Asked(examples, tests, [*truths] * len(prompts), [BASE_SLOT], families, max_new_tokens)
        (whole,) = self._measured(asked, evaluations, progress)
        size = len(truths)
        return {count: whole.part(slice(k * size, (k + 1) * size)) for k, count in enumerate(prompts)}

    def _measured(self, asked: _Asked, evaluations: Sequence[str], progress: Any) -> list[Evaluated]:
        losses: Mapping[int, ItemLosses] = {}
        classified: Mapping[int, list[ClassifiedItem]] = {}
        compared: Mapping[int, list[ComparedItem]] = {}
        if "classify" in evaluations:
            classified = self._classified(asked, progress)
            if "likelihood" in evaluations:
                labels, label_ids = asked.examples.labels, asked.examples.label_ids()
                losses = {slot: label_losses(items, labels, label_ids) for slot, items in classified.items()}
        elif "likelihood" in evaluations:
            tests = dict.fromkeys(asked.slots, asked.tests)
            losses = answer_losses(self.model, self.adapter, tests, self.token_budget, progress, asked.families)
        if "similarity" in evaluations:
            compared = self._compared(asked, progress)
        return [Evaluated(losses.get(slot), classified.get(slot), compared.get(slot)) for slot in asked.slots]

    def _classified(self, asked: _Asked, progress: Any) -> dict[int, list[ClassifiedItem]]:
        examples = asked.examples
        return classify(
            self.model, self.adapter, asked.prompts, asked.truths, examples.labels, asked.slots,
            examples.prompt.tokenizer, examples.label_ids(), self.token_budget, progress, asked.families,
        )  # fmt: skip

    def _compared(self, asked: _Asked, progress: Any) -> dict[int, list[ComparedItem]]:
        prompt, prompts = asked.examples.prompt, asked.prompts
        sizes = [len(ids) for ids in prompt.answer_ids(asked.truths)]
        rooms = answer_rooms(prompts, sizes, asked.examples.context, asked.max_new_tokens)
        return compare_answers(
            self.model, self.adapter, prompts, asked.truths, asked.slots, prompt.tokenizer, prompt.end_id, rooms,
            self.token_budget, progress, asked.families,
        )  # fmt: skip

    def close(self) -> None:
        """Take the adapters off the model again."""
        self.adapter.detach()


def tokens_to_read(tests: Sequence[Example], evaluations: Sequence[str]) -> int:
    """How many tokens one model has to read for these evaluations, as `progress` counts them."""
    items = sum(len(example.ids) for example in tests) if {"likelihood", "classify"} & {*evaluations} else 0
    return items + (sum(len(example.prompt_ids) for example in tests) if "similarity" in evaluations else 0)


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
