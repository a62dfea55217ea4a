"""Law 9 in conversations: a later turn's answers agree with transformers, which reads the whole of it anew.

The oracle gets the same ids in one piece, through transformers' own model and attention, with PEFT for the adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from test_law_9_transformers import plain_answer, tiny_models
from tiny import PEFT_WARNS, VOCAB
from torch import Tensor

import pronk.model.turns
from pronk.model.generate import PromptCache
from pronk.model.sampling import likeliest
from pronk.model.turns import Turns
from pronk.tokens.pack import BASE_SLOT, pack_prompts

pytestmark = pytest.mark.filterwarnings(PEFT_WARNS)

SLOTS = [1, BASE_SLOT, 0, 2]
NEW, END = 7, 2


class Written:
    """A watch: what was written to each prompt, and rows that end early. limits: tokens, by place."""

    def __init__(self, limits: dict[int, int] | None = None) -> None:
        self.ids: list[list[int]] = [[] for _ in SLOTS]
        self.limits = limits or {}

    def __call__(self, members: list[int], tokens: list[int]) -> list[bool]:
        for member, token in zip(members, tokens, strict=True):
            self.ids[member].append(token)
        return [len(self.ids[member]) >= self.limits.get(member, NEW) for member in members]

    @property
    def answers(self) -> list[list[int]]:
        return [ids[: ids.index(END)] if END in ids else ids for ids in self.ids]


def said(turns: Turns, prompts: Sequence[list[int]], steps: int = NEW, **limits: Any) -> list[list[int]]:
    """The answers to a turn, left after so many steps."""
    watch = Written(**limits)
    writing = turns.answer(prompts, NEW, END, likeliest, watch)
    for _ in range(steps):
        if next(writing, "over") == "over":
            break
    writing.close()
    return watch.answers


class Talk:
    """Prompts of turns, as they grow by answers and further questions; a question's length differs by row."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(11)
        beginning = self.ask(12)
        self.prompts = [[*beginning, *self.ask(3 + row)] for row in range(len(SLOTS))]

    def ask(self, length: int) -> list[int]:
        drawn: list[int] = self.rng.integers(3, VOCAB, length).tolist()
        return drawn

    def go_on(self, answers: Sequence[list[int]]) -> None:
        self.prompts = [
            [*prompt, *answer, END, *self.ask(1 + row % 3)]
            for row, (prompt, answer) in enumerate(zip(self.prompts, answers, strict=True))
        ]


def models() -> tuple[Turns, dict[int, Any]]:
    model, adapter, plain = tiny_models(torch.float64)
    return Turns(model, adapter, SLOTS, pack_prompts), plain


def theirs(plain: dict[int, Any], prompts: Sequence[list[int]], new: int = NEW) -> list[list[int]]:
    return [plain_answer(plain[slot], prompt, new, END) for slot, prompt in zip(SLOTS, prompts, strict=True)]


def wrong_turns(turns: Turns, plain: dict[int, Any], count: int = 4) -> int:
    """How many turns of a conversation differ from transformers'; all but the first go on from what was read."""
    talk, wrong = Talk(), 0
    for turn in range(count):
        # one row is cut at two tokens, the whole turn at five: fillers of unlike lengths lie behind the answers
        answers = said(turns, talk.prompts, steps=5, limits={turn % len(SLOTS): 2})
        expected = theirs(plain, talk.prompts, 5)
        expected[turn % len(SLOTS)] = expected[turn % len(SLOTS)][:2]
        wrong += answers != expected
        talk.go_on(answers)
    return wrong


def test_later_turns_are_those_of_transformers() -> None:
    turns, plain = models()
    assert wrong_turns(turns, plain, count=6) == 0


def test_only_what_is_new_is_read() -> None:
    turns, _ = models()
    talk = Talk()
    answers = said(turns, talk.prompts)
    assert turns.read == sum(map(len, talk.prompts))
    before = talk.prompts
    talk.go_on(answers)
    said(turns, talk.prompts)
    added = sum(len(after) - len(prompt) for after, prompt in zip(talk.prompts, before, strict=True))
    assert turns.read <= added
    assert turns.read >= added - sum(len(answer) + 1 for answer in answers)


def test_taken_back_and_asked_anew() -> None:
    """A shorter prompt, the same one again, and another one: each as if nothing had been said before."""
    turns, plain = models()
    talk = Talk()
    first = talk.prompts
    talk.go_on(said(turns, first))
    said(turns, talk.prompts)
    for prompts in (first, first, [prompt[::-1] for prompt in first], [prompt[:-2] for prompt in first]):
        assert said(turns, prompts) == theirs(plain, prompts)


def test_an_error_leaves_nothing_half() -> None:
    turns, plain = models()
    talk = Talk()

    def fails(*_: Any) -> Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        for _ in turns.answer(talk.prompts, NEW, END, fails, Written()):
            pass
    assert said(turns, talk.prompts) == theirs(plain, talk.prompts)
    assert turns.read == sum(map(len, talk.prompts))


def test_a_model_answers_in_company_as_alone() -> None:
    """Four turns long, each model with its own answers."""
    model, adapter, _ = tiny_models(torch.float64)
    together, talk = Turns(model, adapter, SLOTS, pack_prompts), Talk()
    alone = [Turns(model, adapter, [slot], pack_prompts) for slot in SLOTS]
    for _ in range(4):
        answers = said(together, talk.prompts)
        for turns, prompt, answer in zip(alone, talk.prompts, answers, strict=True):
            assert said(turns, [prompt])[0] == answer
        talk.go_on(answers)


# --- planted faults ----------------------------------------------------------------------------


def fillers_count_as_read(patch: pytest.MonkeyPatch) -> None:
    original = PromptCache.take_in
    patch.setattr(PromptCache, "take_in", lambda self, filled: original(self, torch.ones_like(filled)))


def columns_not_moved_together(patch: pytest.MonkeyPatch) -> None:
    original = PromptCache.cut_back

    def faulty(self: PromptCache, *args: Any) -> None:
        self.filled_NL = torch.ones_like(self.filled_NL)
        original(self, *args)

    patch.setattr(PromptCache, "cut_back", faulty)


def positions_restart(patch: pytest.MonkeyPatch) -> None:
    original = pronk.model.turns.extend

    def faulty(model: Any, adapter: Any, cache: Any, slots: Any, ids: Any, positions: Tensor, seen: Any) -> Tensor:
        return original(model, adapter, cache, slots, ids, positions - positions[:, :1], seen)

    patch.setattr(pronk.model.turns, "extend", faulty)


def new_tokens_see_ahead(patch: pytest.MonkeyPatch) -> None:
    original = pronk.model.turns.extend
    patch.setattr(pronk.model.turns, "extend", lambda *args: original(*args[:-1], torch.ones_like(args[-1])))


def rows_by_place(patch: pytest.MonkeyPatch) -> None:
    """As if rows of a cache lay in the order in which they were given."""
    original = pronk.model.turns._Turn
    patch.setattr(pronk.model.turns, "_Turn", lambda *args: original(*args[:-1], sorted(args[-1])))


def newest_token_taken_for_read(patch: pytest.MonkeyPatch) -> None:
    original = pronk.model.turns._answered
    patch.setattr(pronk.model.turns, "_answered", lambda fed, end, at_end: [*original(fed, end, at_end), END])


FAULTS = [
    fillers_count_as_read, columns_not_moved_together, positions_restart, new_tokens_see_ahead, rows_by_place,
    newest_token_taken_for_read,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    turns, plain = models()
    fault(monkeypatch)
    try:
        wrong = wrong_turns(turns, plain)
    except (IndexError, RuntimeError):  # rows longer than what is there
        wrong = 1
    assert wrong
