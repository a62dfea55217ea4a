"""Conversations that open alike stay on one side of the split."""

import random
from collections import Counter

import pytest
from reading import read, real

from pronk.data import split as split_module
from pronk.data.conversation import Conversation, Message
from pronk.data.split import Splits, split_conversations
from pronk.errors import DataError
from pronk.recipe import Split


def dialogue(opening: str, number: int, system: str = "") -> Conversation:
    """A conversation of two turns, the second of which tells it from the others of its family."""
    head = (Message("system", system),) if system else ()
    turns = (opening, "Well?", f"and number {number}?", f"{number}.")
    roles = ("user", "assistant", "user", "assistant")
    return Conversation((*head, *(Message(*turn) for turn in zip(roles, turns, strict=True))), f"{opening}/{number}")


def families(seed: int) -> list[Conversation]:
    """150 openings, most of them alone, some of up to nine; in a random order, openings written in various ways."""
    generator = random.Random(seed)
    sizes = [generator.choice((1, 1, 1, 2, 3, 9)) for _ in range(150)]
    made = [
        dialogue(generator.choice(("Opening {}", " opening   {}", "OPENING {}")).format(number), row)
        for number, size in enumerate(sizes)
        for row in range(size)
    ]
    generator.shuffle(made)
    return made


def openings(rows: tuple[Conversation, ...]) -> set[str]:
    return {" ".join(next(m for m in row.messages if m.role == "user").content.casefold().split()) for row in rows}


def crossing(splits: Splits) -> set[str]:
    parts = [openings(part) for part in (splits.train, splits.validation, splits.test)]
    return {one for number, part in enumerate(parts) for other in parts[number + 1 :] for one in part & other}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("train", [None, 120])
def test_no_opening_is_in_two_parts(seed: int, shuffle: bool, train: int | None) -> None:
    rows = families(seed)
    splits = split_conversations(rows, (), Split(train=train, validation=0.1, test=60, seed=seed, shuffle=shuffle))
    assert crossing(splits) == set()
    parts = [*splits.train, *splits.validation, *splits.test]
    assert len(set(map(id, parts))) == len(parts)
    assert len(splits.test) == 60  # single rows fill what families leave
    assert len(parts) == (len(rows) if train is None else 60 + train)
    counts = Counter(one for row in rows for one in openings((row,)))
    assert splits.same_opening == sum(size for size in counts.values() if size > 1)
    assert splits.counts()["same_opening"] == splits.same_opening
    if not shuffle:
        places = [row.place for row in rows]
        for part in (splits.train, splits.validation, splits.test):
            assert [row.place for row in part] == [place for place in places if place in {row.place for row in part}]


def test_rows_that_are_divided_one_by_one_show() -> None:
    """The planted fault: each row a family of its own, as it was before."""
    splits = split_conversations(families(0), (), Split(test=60, keep_openings=False))
    assert crossing(splits)
    assert splits.same_opening == 0
    assert "same_opening" not in splits.counts()


def test_an_opening_that_counts_case_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "_opening", lambda row: (("user", row.messages[0].content, ""),))
    assert crossing(split_conversations(families(0), (), Split(test=60)))


def test_the_system_message_makes_no_other_opening() -> None:
    rows = [dialogue("Who are you?", number, f"You are bot {number}.") for number in range(6)]
    rows += [dialogue(f"Question {number}", 0) for number in range(30)]
    for seed in range(20):
        assert crossing(split_conversations(rows, (), Split(test=10, seed=seed))) == set()


def test_a_greeting_that_all_share_is_one_message_that_says_what_to_do() -> None:
    rows = [dialogue("Hi there!", number) for number in range(40)]
    with pytest.raises(DataError) as caught:
        split_conversations(rows, (), Split(test=10))
    assert str(caught.value) == (
        "data.split.test: 40 of 40 conversations open with 'Hi there!' and stay in one part, which is more than the "
        "10 rows of test; if it is a mere greeting, set data.split.keep_openings to false"
    )
    splits = split_conversations(rows, (), Split(test=10, keep_openings=False))
    assert len(splits.test) == 10


def test_a_validation_that_no_family_fits_is_named() -> None:
    rows = [dialogue(f"Opening {number % 8}", number) for number in range(40)]
    with pytest.raises(DataError, match=r"data.split.validation: 5 of 40 conversations open with"):
        split_conversations(rows, (), Split(test=10, validation=3))


def test_oasst1() -> None:
    """953 conversations, 517 openings: of 95 test rows divided one by one, 72 open as some row of train does."""
    rows, _ = read(real("chat/oasst1_messages.jsonl"), "messages")
    kept = split_conversations(rows, (), Split(test=95))
    assert crossing(kept) == set()
    assert (len(kept.train), len(kept.validation), len(kept.test)) == (771, 86, 95)
    assert kept.same_opening == 722
    assert len(crossing(split_conversations(rows, (), Split(test=95, keep_openings=False)))) == 126
