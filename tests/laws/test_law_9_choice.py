"""Law 9 for choices and general text: their scores are those of transformers' own forward, item by item.

The oracle reads one prompt with one choice at a time, unpacked, with PEFT for the adapters; for general text it is
the loss that transformers' model itself returns for given labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_law_9_transformers import PEFT_WARNS, plain_score, tiny_models
from tiny import VOCAB

from pronk.data.general import Passage
from pronk.evaluate import choice
from pronk.evaluate.choice import choose
from pronk.evaluate.forgetting import passage_losses
from pronk.model.forward import MicroBatch
from pronk.tokens.example import Example
from pronk.tokens.pack import BASE_SLOT, Member

pytestmark = pytest.mark.filterwarnings(PEFT_WARNS)

SLOTS = (BASE_SLOT, 0, 1, 2)
Questions = tuple[list[list[int]], list[list[list[int]]]]


def questions() -> Questions:
    """Prompts of 2 to 40 ids, several with the same first 12; of each two to five choices of one to six ids, one of
    them the beginning of another."""
    rng = np.random.default_rng(5)
    common = rng.integers(3, VOCAB, 12).tolist()
    prompts = [rng.integers(3, VOCAB, length).tolist() for length in (2, 40, 9)]
    prompts += [[*common, *rng.integers(3, VOCAB, length).tolist()] for length in (1, 14, 20)]
    choices = [[rng.integers(3, VOCAB, rng.integers(1, 7)).tolist() for _ in range(k)] for k in (2, 5, 3, 4, 4, 2)]
    choices[1][1] = choices[1][0][:1]
    return prompts, choices


def difference(token_budget: int, families: list[int] | None = None) -> float:
    """The farthest that a choice's score is from the plain model's."""
    model, adapter, models = tiny_models(torch.float64)
    prompts, choices = questions()
    told: list[int] = []
    found = choose(model, adapter, prompts, choices, SLOTS, token_budget, told.append, families)
    assert sum(told) > 0
    return max(
        abs(score - plain_score(models[slot], prompt, ids))
        for slot in SLOTS
        for prompt, of_one, scores in zip(prompts, choices, found[slot], strict=True)
        for ids, score in zip(of_one, scores, strict=True)
    )


@pytest.mark.parametrize("token_budget", [45, 120, 100_000])
@pytest.mark.parametrize("families", [None, [0, 0, 0, 1, 1, 1]])
def test_scores_are_those_of_a_plain_forward(token_budget: int, families: list[int] | None) -> None:
    assert difference(token_budget, families) < 1e-10


@pytest.mark.parametrize("portion", [1, 7, 11])
def test_portions_change_nothing(portion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "PORTION", portion)
    assert difference(120) < 1e-10


def test_a_question_is_read_once_for_all_of_its_choices() -> None:
    model, adapter, _ = tiny_models(torch.float64)
    prompts, choices = questions()
    told: list[int] = []
    choose(model, adapter, prompts[1:2], choices[1:2], (BASE_SLOT,), 10_000, told.append)
    assert sum(told) == len(prompts[1]) - 1 + sum(map(len, choices[1]))


def mask_one_late(patch: pytest.MonkeyPatch) -> None:
    def faulty(prompt: list[int], ids: list[int]) -> Example:
        whole = np.array([*prompt, *ids, ids[-1]], dtype=np.int64)
        return Example(whole, np.arange(len(whole)) > len(prompt))

    patch.setattr(choice, "choice_example", faulty)


def end_token_counted(patch: pytest.MonkeyPatch) -> None:
    original = choice.choice_example
    patch.setattr(choice, "choice_example", lambda prompt, ids: original(prompt, [*ids, 2]))


def all_asked_of_one_adapter(patch: pytest.MonkeyPatch) -> None:
    original = choice.member_losses

    def faulty(model: Any, adapter: Any, members: list[Member], *rest: Any) -> Any:
        return original(model, adapter, [replace(one, slot=0) for one in members], *rest)

    patch.setattr(choice, "member_losses", faulty)


def scores_given_to_the_next(patch: pytest.MonkeyPatch) -> None:
    original = choice.member_losses
    patch.setattr(choice, "member_losses", lambda *given: np.roll(original(*given), 1))


def choices_see_one_another(patch: pytest.MonkeyPatch) -> None:
    """Every segment looks back at the one before it, as if that were its question."""
    import pronk.evaluate.likelihood as likelihood

    original = likelihood.evaluation_losses

    def faulty(model: Any, adapter: Any, batch: MicroBatch) -> Any:
        parents = tuple(parent if parent < 0 else place - 1 for place, parent in enumerate(batch.parents_S))
        return original(model, adapter, replace(batch, parents_S=parents))  # type: ignore[type-var]

    patch.setattr(likelihood, "evaluation_losses", faulty)


FAULTS = [
    mask_one_late, end_token_counted, all_asked_of_one_adapter, scores_given_to_the_next, choices_see_one_another,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert difference(100_000) > 1e-3


# --- general text ------------------------------------------------------------------------------


def passages() -> list[tuple[Passage, Example]]:
    """Texts of 2 to 50 ids, every one but the first a target."""
    rng = np.random.default_rng(6)
    made = []
    for number, length in enumerate((2, 50, 17, 17, 31)):
        ids = rng.integers(3, VOCAB, length).astype(np.int64)
        made.append((Passage(f"text {number}", f"general.txt:{number}"), Example(ids, np.arange(length) > 0)))
    return made


@torch.no_grad()
def plain_loss(model: Any, ids: np.ndarray[Any, Any]) -> float:
    """transformers' loss of a text, a mean over all tokens but the first."""
    batch = torch.from_numpy(ids)[None]
    return float(model(input_ids=batch, labels=batch, use_cache=False).loss)


def farthest_loss(given: list[tuple[Passage, Example]]) -> float:
    model, adapter, models = tiny_models(torch.float64)
    found = passage_losses(model, adapter, given, SLOTS, 60)
    return max(
        abs(loss / tokens - plain_loss(models[slot], example.ids))
        for slot in SLOTS
        for (_, example), loss, tokens in zip(
            passages(), found[slot].losses.loss, found[slot].losses.tokens, strict=True
        )
    )


def test_the_loss_of_general_text_is_transformers_own() -> None:
    assert farthest_loss(passages()) < 1e-5  # transformers takes its loss in fp32


def test_a_token_left_out_shows() -> None:
    late = [(one, replace(example, target=np.arange(len(example.ids)) > 1)) for one, example in passages()[1:]]
    assert farthest_loss([passages()[0], *late]) > 1e-3


def test_passages_are_named_by_their_place() -> None:
    model, adapter, _ = tiny_models(torch.float64)
    rows = passage_losses(model, adapter, passages(), (0,), 60)[0].records()
    assert [list(row) for row in rows] == [["id", "loss", "tokens", "text"]] * 5
    assert [row["id"] for row in rows] == [f"general.txt:{number}" for number in range(5)]
    assert [row["tokens"] for row in rows] == [1, 49, 16, 16, 30]
