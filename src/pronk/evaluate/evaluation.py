"""All evaluations of a fleet at once: the base model and every run on the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pronk.evaluate import answers, choice, exact, similarity
from pronk.evaluate.answers import FreeAnswer, answer_rooms, free_answers
from pronk.evaluate.choice import ChosenItem, choice_tokens, choose, chosen_items
from pronk.evaluate.classify import ClassifiedItem, classify, label_losses
from pronk.evaluate.classify import records as classify_records
from pronk.evaluate.exact import ExactItem, exact_items
from pronk.evaluate.forgetting import PassageLosses, passage_losses
from pronk.evaluate.likelihood import ItemLosses, answer_bytes, answer_losses, text_bytes
from pronk.evaluate.similarity import ComparedItem
from pronk.model.adapter import AdapterShape, WideAdapter, attach
from pronk.model.attention_kernels import Heads
from pronk.model.memory.sizes import give_back
from pronk.recipe import ANSWERING, Exact
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
    chosen: list[ChosenItem] | None = None
    exact: list[ExactItem] | None = None
    answered: list[FreeAnswer] | None = None
    forgotten: PassageLosses | None = None  # on passages of its own, not on the items

    def part(self, items: slice) -> Evaluated:
        """The results on some of the items."""
        return Evaluated(
            self.losses and self.losses.part(items), self.classified and self.classified[items],
            self.compared and self.compared[items], self.chosen and self.chosen[items],
            self.exact and self.exact[items], self.answered and self.answered[items],
        )  # fmt: skip

    def write_items(self, folder: RunFolder, ids: Sequence[str]) -> None:
        """Write what was measured into a run's folder, a record an item."""
        if self.losses is not None:
            folder.write_items("likelihood", self.losses.records(ids))
        if self.classified is not None:
            folder.write_items("classify", classify_records(self.classified, ids))
        if self.chosen is not None:
            folder.write_items("choice", choice.records(self.chosen, ids))
        if self.exact is not None:
            folder.write_items("exact", exact.records(self.exact, ids))
        if self.answered is not None:
            folder.write_items("answers", answers.records(self.answered, ids))
        if self.compared is not None:
            folder.write_items("similarity", similarity.records(self.compared, ids))
        if self.forgotten is not None:
            folder.write_items("forgetting", self.forgotten.records())


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
    heads = Heads.of(config)
    per_token = 2 * config.num_hidden_layers * heads.keys * heads.size * weight.element_size()
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
        general = sum(len(one.ids) for _, one in examples.general()) if "forgetting" in evaluations else 0
        return len(self.slots) * (tokens_to_read(examples.test, evaluations, examples) + general)

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
        found = {slot: Evaluated(None, None) for slot in asked.slots}

        def add(part: str, values: Mapping[int, Any]) -> None:
            for slot, value in values.items():
                found[slot] = replace(found[slot], **{part: value})

        if "classify" in evaluations:
            classified = self._classified(asked, progress)
            add("classified", classified)
            if "likelihood" in evaluations:
                add("losses", self._label_losses(asked, classified))
        elif "likelihood" in evaluations:
            add("losses", self._losses(asked, progress))
        if "choice" in evaluations:
            add("chosen", self._chosen(asked, progress))
        if {*ANSWERING} & {*evaluations}:  # of the same answers
            answered, settings = self._answered(asked, progress), asked.examples.exact
            if settings is None and "exact" in evaluations:
                raise ValueError("exact: these examples do not say what of an answer is compared")
            for kind, part, measure in (
                ("exact", "exact", lambda one: exact_items(one, asked.truths, settings or Exact())),
                ("answers", "answered", lambda one: one),
                ("similarity", "compared", lambda one: similarity.compared(one, asked.truths)),
            ):
                if kind in evaluations:
                    add(part, {slot: measure(one) for slot, one in answered.items()})
        if "forgetting" in evaluations and asked.families is None:  # examples in a prompt have nothing to do with it
            general = asked.examples.general()
            if not general:
                raise ValueError("forgetting: these examples have no general text")
            add("forgotten", passage_losses(
                self.model, self.adapter, general, asked.slots, self.token_budget, progress
            ))  # fmt: skip
        return [found[slot] for slot in asked.slots]

    def _losses(self, asked: _Asked, progress: Any) -> dict[int, ItemLosses]:
        tests = dict.fromkeys(asked.slots, asked.tests)
        losses = answer_losses(self.model, self.adapter, tests, self.token_budget, progress, asked.families)
        rows, tokenizer = asked.examples.splits.test, asked.examples.prompt.tokenizer
        times = len(asked.tests) // max(len(rows), 1)
        sizes = answer_bytes([*rows] * times, asked.tests, tokenizer)
        return {slot: replace(one, bytes=sizes) for slot, one in losses.items()}

    def _label_losses(self, asked: _Asked, classified: Mapping[int, list[ClassifiedItem]]) -> dict[int, ItemLosses]:
        labels, label_ids = asked.examples.labels, asked.examples.label_ids()
        sizes = text_bytes(asked.truths)
        return {
            slot: replace(label_losses(items, labels, label_ids), bytes=sizes) for slot, items in classified.items()
        }

    def _classified(self, asked: _Asked, progress: Any) -> dict[int, list[ClassifiedItem]]:
        examples = asked.examples
        return classify(
            self.model, self.adapter, asked.prompts, asked.truths, examples.labels, asked.slots,
            examples.prompt.tokenizer, examples.label_ids(), self.token_budget, progress, asked.families,
        )  # fmt: skip

    def _chosen(self, asked: _Asked, progress: Any) -> dict[int, list[ChosenItem]]:
        rows, ids = asked.examples.splits.test, asked.examples.choice_ids()
        times = len(asked.tests) // max(len(rows), 1)
        scores = choose(
            self.model, self.adapter, asked.prompts, ids * times, asked.slots, self.token_budget, progress,
            asked.families,
        )  # fmt: skip
        choices = [row.choices for row in rows] * times
        return {slot: chosen_items(found, asked.truths, choices) for slot, found in scores.items()}

    def _answered(self, asked: _Asked, progress: Any) -> dict[int, list[FreeAnswer]]:
        prompt, prompts = asked.examples.prompt, asked.prompts
        sizes = [len(ids) for ids in prompt.answer_ids(asked.truths)]
        rooms = answer_rooms(prompts, sizes, asked.examples.context, asked.max_new_tokens)
        return free_answers(
            self.model, self.adapter, prompts, asked.slots, prompt.tokenizer, prompt.end_id, rooms,
            self.token_budget, progress, asked.families,
        )  # fmt: skip

    def close(self) -> None:
        """Take the adapters off the model again."""
        self.adapter.detach()


def tokens_to_read(
    tests: Sequence[Example], evaluations: Sequence[str], examples: Examples | None = None
) -> int:  # fmt: skip
    """How many tokens one model has to read for these evaluations, as `progress` counts them. examples: where choices
    are scored, whose they are."""
    wanted = {*evaluations}
    prompts = sum(len(example.prompt_ids) for example in tests)
    tokens = sum(len(example.ids) for example in tests) if {"likelihood", "classify"} & wanted else 0
    tokens += prompts if {*ANSWERING} & wanted else 0
    if "choice" in wanted:
        ids = examples.choice_ids() if examples is not None else []
        tokens += prompts + sum(choice_tokens((), choices) for choices in ids)
    return tokens


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
