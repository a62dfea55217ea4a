"""A conversation of several turns: keys and values of what was read and written stay for the next one.

Shapes: N rows, S new tokens of a row, L columns of keys and values, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pronk.model.adapter import WideAdapter
from pronk.model.forward import MicroBatch, output_head
from pronk.model.generate import PromptCache, Rows, Watch, extend, read_prompts, write
from pronk.model.sampling import Choose

# Prompts and their slots → a reading of them (tokens.pack.pack_prompts).
LayOut = Callable[[Sequence[Sequence[int]], Sequence[int]], MicroBatch]


@dataclass(frozen=True)
class _Turn:
    """What a turn leaves behind. members: whose prompt each row of the cache holds."""

    cache: PromptCache
    rows: Rows
    prompts: list[list[int]]
    members: list[int]

    def held(self) -> list[list[int]]:
        """The ids behind each row's keys and values: its prompt, and of its answer what was read again."""
        fed = max(self.rows.step - 1, 0)  # the newest token was written, and not yet read
        written, ended = self.rows.written_NM.tolist(), self.rows.ended_N.tolist()
        return [
            self.prompts[member] + _answered(row[:fed], self.rows.end_id, at_end)
            for member, row, at_end in zip(self.members, written, ended, strict=True)
        ]


class Turns:
    """Rows that are asked again and again, one for each model. slots: the adapter of each.

    What a turn's prompt has in common with the row's last prompt and answer is not read again, as long as that is
    most of it. Everything else, also a turn that broke off with an error, begins anew.
    """

    def __init__(self, model: Any, adapter: WideAdapter, slots: Sequence[int], lay_out: LayOut) -> None:
        self.model, self.adapter, self.slots, self.lay_out = model, adapter, list(slots), lay_out
        self.read = 0  # tokens of prompts that the last turn read
        self._last: _Turn | None = None

    @torch.no_grad()
    def answer(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, end_id: int, choose: Choose, watch: Watch
    ) -> Iterator[None]:
        """Answer a prompt of each row; stops after every step, and may be left there.

        choose, watch: as of `score_and_answer`; members are places in `prompts`.
        """
        given = [list(prompt) for prompt in prompts]
        last, self._last = self._last, None
        cache, members, last_ND = self._read(last, given, max_new_tokens)
        member_N = torch.tensor(members, device=last_ND.device)
        slots_N = torch.tensor(self.slots, device=last_ND.device)[member_N]
        rows = Rows(slots_N, member_N, max_new_tokens, end_id)
        for _ in write(self.model, self.adapter, cache, rows, last_ND, choose, watch, drop=False):
            self._last = _Turn(cache, rows, given, members)
            yield
            self._last = None
        self._last = _Turn(cache, rows, given, members)

    def _read(self, last: _Turn | None, prompts: list[list[int]], room: int) -> tuple[PromptCache, list[int], Tensor]:
        """The cache, whose prompt each of its rows holds, and the hidden state of each prompt's last token (N × D)."""
        if last is not None:
            asked = [prompts[member] for member in last.members]
            # the last token is always read: what follows is predicted from it
            common = [_common(held, prompt[:-1]) for held, prompt in zip(last.held(), asked, strict=True)]
            self.read = sum(len(prompt) for prompt in asked) - sum(common)
            if self.read <= sum(common):
                return last.cache, last.members, self._go_on(last, asked, common, room)
        reading = self.lay_out(prompts, self.slots)
        self.read = len(reading.ids_T)
        cache = PromptCache(reading, room, self.model.config, output_head(self.model))
        return cache, reading.members_N.tolist(), read_prompts(self.model, self.adapter, reading, cache)

    def _go_on(self, last: _Turn, asked: Sequence[Sequence[int]], common: Sequence[int], room: int) -> Tensor:
        """Read what follows the common beginning of each row (its length in `common`)."""
        cache, slots_N = last.cache, last.rows.slots_N
        device = slots_N.device
        new = [list(prompt[count:]) for prompt, count in zip(asked, common, strict=True)]
        longest = max(map(len, new))
        ids_NS = torch.tensor([ids + [0] * (longest - len(ids)) for ids in new], device=device)
        counts_N = torch.tensor([len(ids) for ids in new], device=device)
        place_S = torch.arange(longest, device=device)
        _hold(last)
        cache.cut_back(torch.tensor(common, device=device), longest + room)
        seen_SS = place_S[:, None] >= place_S  # what fills a shorter row up stands behind all of its tokens
        hidden_NSD = extend(
            self.model, self.adapter, cache, slots_N, ids_NS, cache.lengths_N[:, None] + place_S, seen_SS
        )
        cache.take_in(place_S < counts_N[:, None])
        return hidden_NSD[torch.arange(len(new), device=device), counts_N - 1]


def _hold(last: _Turn) -> None:
    """Count the columns of a turn's answers as read."""
    lengths = [len(held) for held in last.held()]
    device = last.cache.lengths_N.device
    answered_N = torch.tensor(lengths, device=device) - last.cache.lengths_N
    columns_M = torch.arange(max(last.rows.step - 1, 0), device=device)
    last.cache.take_in(columns_M < answered_N[:, None])


def _answered(fed: list[int], end_id: int, at_end: bool) -> list[int]:
    """Of the tokens that a row was fed, those of its answer: behind its end there are fillers."""
    if end_id not in fed:
        return fed
    return fed[: fed.index(end_id) + at_end]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two rows begin with alike."""
    both = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in both if a != b), min(len(one), len(other)))
