"""What becomes of conversations of several turns: cutting, what is asked, and learning the prompt as well."""

from __future__ import annotations

from typing import Any

import pytest

from pronk.data.conversation import Conversation, Message
from pronk.data.split import Splits
from pronk.errors import DataError
from pronk.tokens.example import Turn, learned_whole, make_example
from pronk.tokens.examples import Examples, make_examples

TURNS = [Turn([1, 5], [6, 7, 2]), Turn([1, 8, 9], [10, 2])]


def test_turns_lie_end_to_end() -> None:
    example = make_example(TURNS, 100)
    assert example.ids.tolist() == [1, 5, 6, 7, 2, 1, 8, 9, 10, 2]
    assert example.ids[example.target].tolist() == [6, 7, 2, 10, 2]
    assert example.prompt_ids.tolist() == [1, 5, 6, 7, 2, 1, 8, 9]
    assert (example.cut, example.cut_answers) == (0, 0)


# max_length → ids kept, answer tokens lost, answers that lost some, ids before the last answer that is left
CUTS = {10: (10, 0, 0, 8), 9: (9, 1, 1, 8), 8: (5, 2, 1, 2), 6: (5, 2, 1, 2), 5: (5, 2, 1, 2), 4: (4, 3, 2, 2)}


@pytest.mark.parametrize("max_length", CUTS)
def test_later_turns_are_cut_and_counted(max_length: int) -> None:
    """A question whose answer is gone goes too."""
    whole, example = make_example(TURNS, 100), make_example(TURNS, max_length)
    kept, cut, cut_answers, asked = CUTS[max_length]
    assert example.ids.tolist() == whole.ids[:kept].tolist()
    assert example.target.tolist() == whole.target[:kept].tolist()
    assert (example.cut, example.cut_answers, len(example.prompt_ids)) == (cut, cut_answers, asked)


def test_learning_the_prompt_too_leaves_out_what_begins_a_text() -> None:
    example = make_example(TURNS, 100)
    assert learned_whole(example, 1).ids[learned_whole(example, 1).target].tolist() == [5, 6, 7, 2, 8, 9, 10, 2]
    without = learned_whole(example, None)
    assert without.target.tolist() == [False] + [True] * 9
    assert without.prompt_ids.tolist() == example.prompt_ids.tolist()


def talk(turns: int, words: int, place: str) -> Conversation:
    one = (Message("user", "why " * words), Message("assistant", "so " * words))
    return Conversation(one * turns, place)


@pytest.fixture
def tokenizer(smollm2: Any) -> Any:
    from pronk.model.load import load_tokenizer

    return load_tokenizer(smollm2)


def splits(train: list[Conversation], test: list[Conversation]) -> Splits:
    return Splits(train=tuple(train), validation=(), test=tuple(test), duplicates_removed=0, contradictory_removed=0)


def test_examples_of_a_study(tokenizer: Any) -> None:
    examples = make_examples(
        "chat", tokenizer, 500, 49152, splits([talk(3, 20, "a:1")], [talk(2, 5, "a:2")]), (), [100]
    )
    (example,) = examples.train(100)
    assert len(example.ids) <= 100
    assert examples.truncated() == example.cut_answers == 2
    (whole,) = examples.train(100, on_prompt=True)
    assert whole.ids is example.ids
    assert whole.target.tolist() == [False] + [True] * (len(example.ids) - 1)
    assert examples.truncated() == 2


def test_a_first_answer_that_is_cut_off_entirely_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"a:1: the prompt alone takes all 20 tokens of train\.max_length"):
        make_examples("chat", tokenizer, 500, 49152, splits([talk(3, 20, "a:1")], []), (), [20])


def test_no_advice_that_cannot_be_followed(tokenizer: Any) -> None:
    """What the base cannot read is not cured by max_length, and max_length is never to exceed what it reads."""
    long, longer = [talk(3, 20, "a:1")], [talk(3, 20, "a:1"), talk(1, 200, "a:2"), talk(1, 210, "a:3")]
    with pytest.raises(DataError, match=r"a:1: .* train\.max_length, .*set it to 60, or leave such rows out"):
        make_examples("chat", tokenizer, 60, 49152, splits(long, []), (), [20])
    with pytest.raises(DataError, match=r"a:3 and 1 more row: .* tokens, and the base model reads 100 at most"):
        make_examples("chat", tokenizer, 100, 49152, splits(longer, []), (), [20])


def test_a_test_row_is_never_cut_off(tokenizer: Any) -> None:
    """Its last answer is what is measured."""
    with pytest.raises(
        DataError,
        match=r"a:2: the prompt alone takes \d+ tokens, and the base model reads 100 at most.*leave such rows out",
    ):
        make_examples("chat", tokenizer, 100, 49152, splits([], [talk(3, 20, "a:2")]), (), [])


def test_test_rows_count_answers_alone(tokenizer: Any) -> None:
    from pronk.tokens.prompt import Prompt

    examples = Examples(Prompt("chat", tokenizer), splits([], [talk(2, 3, "a:2")]), 500, 49152)
    assert examples.test[0].target.sum() == 2 * len(examples.prompt.answer_ids(["so so so "])[0])
