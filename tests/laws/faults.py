"""Faults to plant, one for each way in which trainers have gone wrong; a law's test must see them.

Each takes pytest's monkeypatch, and lasts as long as the test does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

import pronk.model.attention
import pronk.model.forward
import pronk.tokens.prompt
import pronk.train.fleet
from pronk.model.wide import WideLinear
from pronk.tokens.example import Turn, make_example
from pronk.tokens.pack import Member, MicroBatch, pack
from pronk.tokens.prompt import Example
from pronk.train.optimizer import FleetOptimizer, FusedRun

Fault = Callable[[pytest.MonkeyPatch], None]


def _repack(patch: pytest.MonkeyPatch, change: Callable[[list[MicroBatch]], list[MicroBatch]]) -> None:
    def faulty(members: Sequence[Member], budget: int) -> list[MicroBatch]:
        return change(pack(members, budget))

    patch.setattr(pronk.train.fleet, "pack", faulty)


def _remember(patch: pytest.MonkeyPatch, change: Callable[[Member], Member]) -> None:
    def faulty(members: Sequence[Member], budget: int) -> list[MicroBatch]:
        return pack([change(member) for member in members], budget)

    patch.setattr(pronk.train.fleet, "pack", faulty)


def targets_shifted(patch: pytest.MonkeyPatch) -> None:
    """The loss mask lies one token too early: the prompt's last is learned, the end token is not."""

    def change(member: Member) -> Member:
        shifted = Example(member.example.ids, np.roll(member.example.target, -1))
        return dataclasses.replace(member, example=shifted)

    _remember(patch, change)


def end_token_unsupervised(patch: pytest.MonkeyPatch) -> None:
    """The end token is masked, as where padding is the end token; the model never learns to stop."""

    def change(member: Member) -> Member:
        target = member.example.target & (np.arange(len(member.example.ids)) < len(member.example.ids) - 1)
        weight = member.weight
        return dataclasses.replace(member, example=Example(member.example.ids, target), weight=weight)

    _remember(patch, change)


def columns_shifted(patch: pytest.MonkeyPatch) -> None:
    """The adapter mask lies one column to the side: the first rank of each run serves its neighbour."""
    original = WideLinear.__init__

    def faulty(self: WideLinear, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.owners_R.copy_(self.owners_R.roll(1))

    patch.setattr(WideLinear, "__init__", faulty)


def mean_of_micro_batches(patch: pytest.MonkeyPatch) -> None:
    """Each micro-batch's mean loss, averaged: transformers' gradient accumulation before 4.46."""

    def change(batches: list[MicroBatch]) -> list[MicroBatch]:
        slots = [batch.slots_T[batch.rows_N] for batch in batches]
        parts = {slot: sum(slot in set(found.tolist()) for found in slots) for slot in set(np.concatenate(slots))}
        weights = [np.array([1 / (parts[s] * np.sum(found == s)) for s in found]) for found in slots]
        return [dataclasses.replace(b, weights_N=w) for b, w in zip(batches, weights, strict=True)]

    _repack(patch, change)


def mean_of_examples(patch: pytest.MonkeyPatch) -> None:
    """Each example's mean loss, averaged: long answers count less."""

    def faulty(members: Sequence[Member], budget: int) -> list[MicroBatch]:
        sizes = {slot: sum(m.slot == slot for m in members) for slot in {m.slot for m in members}}
        weights = [1 / (sizes[member.slot] * member.example.target.sum()) for member in members]
        return pack([dataclasses.replace(m, weight=w) for m, w in zip(members, weights, strict=True)], budget)

    patch.setattr(pronk.train.fleet, "pack", faulty)


def one_clip_for_all(patch: pytest.MonkeyPatch) -> None:
    """Every run is clipped by the norm of all gradients together."""

    def faulty(self: FleetOptimizer) -> torch.Tensor:
        return self.gradients.norm().double().expand(len(self.runs)).contiguous()

    patch.setattr(FleetOptimizer, "norms", faulty)


def shared_adam_step(patch: pytest.MonkeyPatch) -> None:
    """One step counter for all runs: each update of any run moves everybody's bias correction on."""
    original, updates = FusedRun.rule, [0]

    def faulty(self: FusedRun, factor: float) -> Any:
        self.updates = updates[0]
        updates[0] += 1
        return original(self, factor)

    patch.setattr(FusedRun, "rule", faulty)


def positions_not_restarted(patch: pytest.MonkeyPatch) -> None:
    """Positions run on through the pack."""
    _repack(patch, lambda batches: [dataclasses.replace(b, positions_T=np.arange(len(b.ids_T))) for b in batches])


def attention_across(patch: pytest.MonkeyPatch) -> None:
    """Each sequence sees those before it in its pack."""
    _repack(
        patch, lambda batches: [dataclasses.replace(b, lengths_S=(len(b.ids_T),), parents_S=(-1,)) for b in batches]
    )


def beginnings_unseen(patch: pytest.MonkeyPatch) -> None:
    """A beginning that is laid down once is seen by no sequence."""
    _repack(patch, lambda batches: [dataclasses.replace(b, parents_S=(-1,) * len(b.parents_S)) for b in batches])


def beginnings_unlearned(patch: pytest.MonkeyPatch) -> None:
    """The gradient stops where a sequence looks back at its beginning: losses are right, updates are not."""
    original = torch.cat

    def faulty(tensors: Any, dim: int = 0) -> torch.Tensor:
        # keys and values (1, H, T, D) are the only tensors of four dimensions put together along the tokens
        looks_back = dim == 2 and tensors[0].dim() == 4
        return original([tensors[0].detach(), *tensors[1:]] if looks_back else tensors, dim=dim)

    patch.setattr(pronk.model.attention.torch, "cat", faulty)


def dropout_by_place(patch: pytest.MonkeyPatch) -> None:
    """Dropout hangs on where a token lies in its micro-batch, as with an ordinary generator."""
    original = pronk.model.forward.token_keys

    def faulty(seed: Any, step: Any, example: Any, position: Any) -> Any:
        return original(seed, step, torch.zeros_like(example), torch.arange(len(position)))

    patch.setattr(pronk.model.forward, "token_keys", faulty)


def order_changed(patch: pytest.MonkeyPatch) -> None:
    """Batches hold other examples than they should."""
    original = pronk.train.fleet.batch_indices
    patch.setattr(
        pronk.train.fleet,
        "batch_indices",
        lambda examples, size, seed, step: original(examples, size, seed + 1, step),
    )


def _remade(patch: pytest.MonkeyPatch, change: Callable[[Sequence[Turn], Example], Example]) -> None:
    def faulty(turns: Sequence[Turn], max_length: int) -> Example:
        return change(turns, make_example(turns, max_length))

    patch.setattr(pronk.tokens.prompt, "make_example", faulty)


def mask_shifted(patch: pytest.MonkeyPatch) -> None:
    """The mask of a conversation lies one token too early."""
    _remade(patch, lambda _, example: dataclasses.replace(example, target=np.roll(example.target, -1)))


def end_unsupervised(patch: pytest.MonkeyPatch) -> None:
    """The last id of each answer is not learned."""

    def change(_: Sequence[Turn], example: Example) -> Example:
        return dataclasses.replace(example, target=example.target & np.append(example.target[1:], False))

    _remade(patch, change)


def user_turn_supervised(patch: pytest.MonkeyPatch) -> None:
    """The last question is learned as well, as where a mask is cut at the first answer."""

    def change(turns: Sequence[Turn], example: Example) -> Example:
        last = len(turns[-1].question) + len(turns[-1].answer)
        where = np.arange(len(example.ids)) >= max(1, len(example.ids) - last)
        return dataclasses.replace(example, target=example.target | where)

    _remade(patch, change)


def double_bos(patch: pytest.MonkeyPatch) -> None:
    """A BOS before a prompt whose form wrote one already, in training alone."""

    def change(_: Sequence[Turn], example: Example) -> Example:
        ids = np.insert(example.ids, 0, example.ids[0])
        return dataclasses.replace(example, ids=ids, target=np.insert(example.target, 0, False))

    _remade(patch, change)
