"""Label scores and answers, both from one reading of each prompt.

Rows of different adapters share a batch: the base model and every run answer side by side.
Prompts are read packed, without padding; their keys and values are then laid out in rows, to which
the tokens of labels or of the growing answer are added.
Shapes: N rows, S new tokens of a row, L columns of keys and values, C continuations, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pronk.model.adapter import WideAdapter
from pronk.model.attention_kernels import Heads
from pronk.model.forward import MicroBatch, loss_precision, output_head, to_device
from pronk.model.loss import target_losses
from pronk.model.one_token import OneToken
from pronk.model.sampling import Choose, likeliest

# Told of every token as it is written: (members, their new tokens) → which of these rows end here.
Watch = Callable[[list[int], list[int]], Sequence[bool]]


@dataclass(frozen=True, slots=True)
class Answers:
    """scores_NC: log-probability in nats of each continuation in full. ids: answers, the end
    token left out. ended: whether a row's answer reached its end token."""

    scores_NC: Tensor
    ids: list[list[int]]
    ended: list[bool]


class PromptCache:
    """Keys and values of prompts, a row each, with room for new tokens behind the longest.

    What transformers calls a cache: its layers hand their new keys and values to `update` and
    attend to what that returns. Those of all layers are one tensor, made before prompts are read: made layer by
    layer, they would lie in the gaps that a layer's reading leaves, and the next would find no place in what remains.
    """

    def __init__(self, reading: MicroBatch, room: int, config: Any, head_VD: Tensor) -> None:
        """room: columns behind the longest prompt. config, head_VD: of the model, for the sizes."""
        device = head_VD.device
        ends_S = np.cumsum(reading.lengths_S)
        lengths_S = np.asarray(reading.lengths_S)
        segment_N = np.searchsorted(ends_S, reading.rows_N, side="right")
        parent_N = np.asarray(reading.parents_S)[segment_N]
        begun_N = np.where(parent_N < 0, 0, lengths_S[parent_N])  # columns that another segment holds
        lengths_N = begun_N + lengths_S[segment_N]
        self.longest, self.room = int(lengths_N.max()), room
        self.end = 0  # column behind the newest token
        self._column: Tensor | None = None  # of the newest token, while a step is recorded
        self.before = 0  # columns before the tokens that are being read
        heads = Heads.of(config)
        shape = (config.num_hidden_layers, 2, len(lengths_N), heads.keys, self.longest + room, heads.size)
        # of each layer keys and values (2, N, G, longest + room, D)
        self._layers = dict(enumerate(head_VD.new_zeros(shape)))
        self._read: set[int] = set()  # layers whose prompts are there
        column_L = np.arange(self.longest)
        starts_S = ends_S - lengths_S
        own_NL = starts_S[segment_N][:, None] + np.minimum(column_L, lengths_N[:, None] - 1) - begun_N[:, None]
        source_NL = np.where(column_L < begun_N[:, None], starts_S[parent_N][:, None] + column_L, own_NL)
        # where in the pack a row's column comes from; beyond its end any token serves, it is masked
        self._source_NL = torch.from_numpy(source_NL).to(device)
        self.lengths_N = torch.from_numpy(lengths_N).to(device)
        self.filled_NL = torch.from_numpy(column_L < lengths_N[:, None]).to(device)

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values and return all that its queries may look at."""
        if layer not in self._read:
            self._read.add(layer)
            shape = (2, len(self.lengths_N), keys.shape[1], self.longest + self.room, keys.shape[3])
            if layer not in self._layers or self._layers[layer].shape != shape:  # layers that are not alike
                self._layers[layer] = keys.new_zeros(shape)
            for whole, packed in zip(self._layers[layer], (keys, values), strict=True):
                whole[:, :, : self.longest] = packed[0][:, self._source_NL].transpose(0, 1)
            return keys, values
        start = self.end - keys.shape[2]
        for whole, new in zip(self._layers[layer], (keys, values), strict=True):
            if self._column is None:
                whole[:, :, start : self.end] = new
            else:
                whole.index_copy_(2, self._column, new)
        stored_keys, stored_values = self._layers[layer]
        return stored_keys[:, :, : self.end], stored_values[:, :, : self.end]

    @contextmanager
    def recorded(self, column: Tensor, end: int) -> Iterator[None]:
        """While a step of one token is recorded: its column is what the tensor (1) says when it is played, and its
        queries look at all columns up to `end`, as far as their mask lets them."""
        self._column, self.end = column, end
        try:
            yield
        finally:
            self._column = None

    def get_seq_length(self, *_: Any) -> int:
        """Columns before the tokens that are being read; OPT and its like ask, though positions are handed to them."""
        return self.before

    def keep(self, chosen_N: Tensor) -> None:
        """Keep only the chosen rows (bool, N), in place of the first ones."""
        self.lengths_N, self.filled_NL = self.lengths_N[chosen_N], self.filled_NL[chosen_N]
        count = len(self.lengths_N)
        for layer, stored in self._layers.items():
            for part in stored:
                part[:count] = part[chosen_N]
            self._layers[layer] = stored[:, :count]

    def take_in(self, filled_NS: Tensor) -> None:
        """Count the newest columns as read. filled_NS: which of them hold a token of the row."""
        self.filled_NL = torch.cat([self.filled_NL, filled_NS], dim=1)
        self.lengths_N = self.lengths_N + filled_NS.sum(1)
        self.longest, self.room = self.longest + filled_NS.shape[1], self.room - filled_NS.shape[1]

    def cut_back(self, lengths_N: Tensor, room: int) -> None:
        """Keep the first tokens of each row, moved together, with new room behind the longest. lengths_N: how many."""
        column_NL = (~self.filled_NL).long().argsort(dim=1, stable=True)  # those that hold a token, in their order
        self.longest, self.room = int(lengths_N.max()), room
        index_NL = column_NL[:, : self.longest]
        for layer, stored in self._layers.items():
            rows, heads, _, size = stored.shape[1:]
            index = index_NL[None, :, None, :, None].expand(2, -1, heads, -1, size)
            moved = stored.new_zeros(2, rows, heads, self.longest + room, size)
            moved[:, :, :, : self.longest] = stored.gather(3, index)
            self._layers[layer] = moved  # layer by layer: old and new never stand side by side
        self.lengths_N = lengths_N
        self.filled_NL = torch.arange(self.longest, device=lengths_N.device) < lengths_N[:, None]


@torch.no_grad()
def score_and_answer(
    model: Any,
    adapter: WideAdapter,
    reading: MicroBatch,
    continuations: Sequence[Sequence[int]] = (),
    max_new_tokens: int = 0,
    end_id: int = -1,
    choose: Choose = likeliest,
    watch: Watch | None = None,
) -> Answers:
    """Score every continuation after every prompt, and answer every prompt, greedily unless `choose` draws.

    reading: N prompts, each with one target, whatever token is behind it (tokens.pack.pack_prompts); its
    slots say which adapter a prompt has (BASE_SLOT for the base model). Results are in the members' order.
    """
    head_VD = output_head(model)
    device = head_VD.device
    cache = PromptCache(reading, columns_behind(max_new_tokens, continuations), model.config, head_VD)
    slots_N = torch.from_numpy(reading.slots_T[reading.rows_N]).to(device)
    last_ND = read_prompts(model, adapter, reading, cache)
    scores_NC = _score(model, adapter, cache, slots_N, last_ND, continuations)
    rows = Rows(slots_N, torch.from_numpy(reading.members_N).to(device), max_new_tokens, end_id)
    for _ in write(model, adapter, cache, rows, last_ND, choose, watch):
        pass
    ids, ended = rows.answers()
    given = np.argsort(reading.members_N)
    return Answers(scores_NC[torch.from_numpy(given).to(device)], [ids[n] for n in given], [ended[n] for n in given])


def columns_behind(max_new_tokens: int, continuations: Sequence[Sequence[int]]) -> int:
    """Columns of keys and values that a row keeps behind its prompt: for an answer, or for all continuations side by
    side."""
    return max(max_new_tokens, sum(len(ids) - 1 for ids in continuations))


def read_prompts(model: Any, adapter: WideAdapter, reading: MicroBatch, cache: PromptCache) -> Tensor:
    """The hidden state of each prompt's last token (N × D); keys and values go to the cache."""
    batch = to_device(reading, output_head(model).device, loss_precision(model))
    adapter.routing.set(batch.slots_T)
    hidden = model.base_model(
        input_ids=batch.ids_T[None],
        position_ids=batch.positions_T[None],
        past_key_values=cache,
        use_cache=True,
        packing=batch.packing,
    ).last_hidden_state
    cache.end = cache.longest
    last: Tensor = hidden[0][batch.rows_N]
    return last


def extend(
    model: Any, adapter: WideAdapter, cache: PromptCache, slots_N: Tensor,
    ids_NS: Tensor, positions_NS: Tensor, seen_SS: Tensor,
) -> Tensor:  # fmt: skip
    """Hidden states (N, S, D) of new tokens. seen_SS: which of the new and earlier new columns each may see."""
    rows, new = ids_NS.shape
    cache.end = cache.longest + seen_SS.shape[1]
    cache.before = cache.end - new
    mask = torch.cat([cache.filled_NL[:, None].expand(-1, new, -1), seen_SS.expand(rows, -1, -1)], dim=2)
    adapter.routing.set(slots_N.repeat_interleave(new, output_size=rows * new))
    hidden: Tensor = model.base_model(
        input_ids=ids_NS,
        position_ids=positions_NS,
        attention_mask=mask[:, None],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return hidden


def _score(
    model: Any, adapter: WideAdapter, cache: PromptCache, slots_N: Tensor,
    last_ND: Tensor, continuations: Sequence[Sequence[int]],
) -> Tensor:  # fmt: skip
    """All continuations of all rows in one step: each is a branch that sees the prompt and itself."""
    rows, head = len(slots_N), output_head(model)
    if not continuations:
        return last_ND.new_zeros(rows, 0)
    branch: list[int] = []
    place: list[int] = []
    inputs: list[int] = []
    for number, ids in enumerate(continuations):
        branch += [number] * (len(ids) - 1)
        place += range(len(ids) - 1)
        inputs += ids[:-1]
    states = [last_ND[:, None].expand(-1, len(continuations), -1)]
    if inputs:
        device = slots_N.device
        branch_S, place_S, ids_S = (torch.tensor(part, device=device) for part in (branch, place, inputs))
        seen_SS = (branch_S[:, None] == branch_S) & (place_S[:, None] >= place_S)
        positions_NS = cache.lengths_N[:, None] + place_S
        states.append(extend(model, adapter, cache, slots_N, ids_S.expand(rows, -1), positions_NS, seen_SS))
    hidden_NMD = torch.cat(states, dim=1)
    targets = [ids[0] for ids in continuations] + [token for ids in continuations for token in ids[1:]]
    owners = torch.tensor([*range(len(continuations)), *branch], device=hidden_NMD.device)
    targets_NM = torch.tensor(targets, device=hidden_NMD.device).expand(rows, -1)
    losses_NM = target_losses(hidden_NMD.flatten(0, 1), head, targets_NM.flatten()).view(rows, -1)
    return -losses_NM.new_zeros(rows, len(continuations)).index_add_(1, owners, losses_NM)


class Rows:
    """Answers as they grow, a row for each prompt; `row_N` are those still in the batch."""

    def __init__(self, slots_N: Tensor, members_N: Tensor, max_new_tokens: int, end_id: int) -> None:
        self.slots_N, self.members_N, self.end_id = slots_N, members_N, end_id
        self.written_NM = torch.full((len(slots_N), max_new_tokens), end_id, device=slots_N.device)
        self.ended_N = torch.zeros_like(slots_N, dtype=torch.bool)  # at the end token
        self.stopped_N = torch.zeros_like(self.ended_N)  # by the watch
        self.row_N = torch.arange(len(slots_N), device=slots_N.device)
        self.step = 0

    @property
    def going_N(self) -> Tensor:
        """Of the rows in the batch, those whose answer goes on."""
        return ~(self.ended_N | self.stopped_N)[self.row_N]

    def write(self, token_N: Tensor, watch: Watch | None) -> None:
        """Add a token to each answer that goes on."""
        going_N = self.going_N
        self.written_NM[self.row_N, self.step] = token_N.masked_fill(~going_N, self.end_id)
        self.ended_N[self.row_N] |= going_N & (token_N == self.end_id)
        self.step += 1
        if watch is None:  # finding the rows that go on makes a GPU wait
            return
        row_N = self.row_N[self.going_N]
        if len(row_N):
            ends = watch(self.members_N[row_N].tolist(), self.written_NM[row_N, self.step - 1].tolist())
            self.stopped_N[row_N] = torch.tensor(ends, device=row_N.device)

    def answers(self) -> tuple[list[list[int]], list[bool]]:
        """Ids without the end token, and whether there was one, in the order of the reading."""
        end, table = self.end_id, self.written_NM.tolist()
        return [row[: row.index(end)] if end in row else row for row in table], self.ended_N.tolist()


@torch.no_grad()
def write(
    model: Any, adapter: WideAdapter, cache: PromptCache, rows: Rows, last_ND: Tensor, choose: Choose,
    watch: Watch | None, drop: bool = True,
) -> Iterator[None]:  # fmt: skip
    """Write the answers of all rows, and stop after every step for whoever shows them as they grow.

    last_ND: the hidden state of each prompt's last token. drop: rows that have ended make room; the cache then holds
    the others only.
    """
    head, hidden_ND = output_head(model), last_ND
    next_token = OneToken(model, adapter, cache, extend)
    most = rows.written_NM.shape[1]
    while rows.step < most:
        token_N = choose(hidden_ND @ head.T, rows.members_N[rows.row_N], rows.step)
        rows.write(token_N, watch)
        yield
        going_N = rows.going_N
        left = int(going_N.sum())
        if rows.step == most or not left:
            break
        if drop and 2 * left <= len(going_N):  # rows are copied, so not for every one that ends
            rows.row_N, token_N = rows.row_N[going_N], token_N[going_N]
            cache.keep(going_N)
        hidden_ND = next_token(rows.slots_N[rows.row_N], token_N, rows.step, most - rows.step)
