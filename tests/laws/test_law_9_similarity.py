"""Law 9 for whole evaluations: the answers that `similarity` compares are those of transformers' `generate`,
prompt by prompt, each up to its own longest length, whatever else is in its batch."""

import numpy as np
import pytest
import torch
from oracle_trl import word_tokenizer
from test_law_9_transformers import PEFT_WARNS, plain_answer, rows, tiny_models

from pronk.evaluate import answers
from pronk.evaluate.answers import answer_rooms
from pronk.evaluate.overlap import chrf, rouge_l
from pronk.evaluate.similarity import compared
from pronk.tokens.pack import BASE_SLOT, pack_prompts

pytestmark = pytest.mark.filterwarnings(PEFT_WARNS)

SLOTS = (BASE_SLOT, 0, 1, 2)
CONTEXT, LONGEST = 35, 9  # the longest prompts leave room for five tokens


def prompts() -> list[list[int]]:
    return [list(one) for one in dict.fromkeys(map(tuple, rows()[0]))]


def check_answers(token_budget: int) -> None:
    """Asserts that every answer and its figures are those of the plain models; some end, some are cut."""
    model, adapter, models = tiny_models(torch.float64)
    tokenizer, asked = word_tokenizer(), prompts()
    free = [plain_answer(models[slot], prompt, LONGEST, -1) for prompt in asked for slot in SLOTS]
    tokens = [token for answer in free for token in answer]
    end = max(set(tokens), key=lambda token: len({answer.index(token) for answer in free if token in answer}))
    references = [tokenizer.decode(np.random.default_rng(k).integers(3, 30, 6).tolist()) for k in range(len(asked))]
    rooms = answers.answer_rooms(asked, [4, LONGEST, 2], CONTEXT, None)
    expected_rooms = [min(LONGEST, CONTEXT - len(prompt)) for prompt in asked]
    assert min(expected_rooms) < max(expected_rooms) == LONGEST
    told: list[int] = []
    written = answers.free_answers(model, adapter, asked, SLOTS, tokenizer, end, rooms, token_budget, told.append)
    found = {slot: compared(given, references) for slot, given in written.items()}
    ends = set()
    for slot in SLOTS:
        for prompt, room, reference, item in zip(asked, expected_rooms, references, found[slot], strict=True):
            ids = plain_answer(models[slot], prompt, room, end)
            text = tokenizer.decode(ids, skip_special_tokens=True)
            assert item.answer == text
            assert item.ended == (len(ids) < room)
            assert (item.rouge_l, item.chrf) == (rouge_l(text, reference), chrf(text, reference))
            ends.add(item.ended)
    assert ends == {True, False}
    assert sum(told) == len(SLOTS) * sum(map(len, asked))


@pytest.mark.parametrize("token_budget", [40, 120, 100_000])
def test_answers_are_those_of_generate(token_budget: int) -> None:
    check_answers(token_budget)


def test_every_answer_asked_of_one_adapter_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "pack_prompts", lambda asked, slots, *_: pack_prompts(asked, [0] * len(slots)))
    with pytest.raises(AssertionError):
        check_answers(120)


def test_answers_beyond_what_the_base_can_read_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "answer_rooms", lambda asked, *_: [LONGEST] * len(asked))
    with pytest.raises(AssertionError):
        check_answers(120)


def test_room_is_the_longest_reference_the_key_or_what_the_base_can_read() -> None:
    asked = [[1] * 10, [1] * 28]
    assert answer_rooms(asked, [5, 12], 30, None) == [12, 2]
    assert answer_rooms(asked, [5, 12], 30, 7) == [7, 2]
    assert answer_rooms([], [], 30, None) == []
