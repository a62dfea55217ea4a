"""The split: properties over many seeds and sizes, and one message for each way to ask for too much."""

import os
import random
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from pronk.data.conversation import Conversation, Message
from pronk.data.sources import read_conversations
from pronk.data.split import Splits, question_key, split_conversations
from pronk.errors import DataError
from pronk.recipe import Data, Split

REAL_DATA = Path(os.environ.get("PRONK_TEST_DATA", Path(__file__).parents[3] / "shared")) / "data"
LABELS = ("negative", "neutral", "positive")


def example(text, label=None, place="", content="Classify.", system=None):
    head = (Message("system", system),) if system else ()
    answer = Message("assistant", label or "yes")
    return Conversation((*head, Message("user", content, text), answer), place or text, label)


def examples(**counts):
    """Rows by label, all different, one label after another."""
    return [example(f"{label} {n}", label) for label, count in counts.items() for n in range(count)]


def plain(count):
    return [example(f"text {n}") for n in range(count)]


def sizes(splits: Splits):
    return len(splits.train), len(splits.validation), len(splits.test)


def places(rows):
    return [row.place for row in rows]


def count_of(rows):
    counted = Counter(row.label for row in rows)
    return tuple(counted[label] for label in LABELS)


def message_of(rows, labels=(), **keys):
    with pytest.raises(DataError) as caught:
        split_conversations(rows, labels, Split(**keys))
    return str(caught.value)


# --- properties -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("balanced", [False, True])
def test_no_question_crosses_and_every_row_is_from_the_data(seed, balanced):
    generator = random.Random(seed)
    rows = examples(**{label: generator.randint(60, 200) for label in LABELS})
    rows += [example(row.subject.upper() + " ", row.label, "copy") for row in generator.sample(rows, 40)]
    generator.shuffle(rows)
    split = Split(train=generator.randint(3, 90), test=generator.randint(0, 60), seed=seed, balanced=balanced)
    splits = split_conversations(rows, LABELS, split)
    parts = [splits.train, splits.validation, splits.test]
    keys = [question_key(row) for part in parts for row in part]
    assert len(set(keys)) == len(keys) == split.train + split.test
    assert set(map(id, (row for part in parts for row in part))) <= set(map(id, rows))
    assert (splits.duplicates_removed, splits.contradictory_removed) == (40, 0)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("train", "validation", "test"), [(900, 0.1, 900), (10, 3, 7), (4, 2, 0), (101, 0, 50)])
def test_balance_with_remainders_to_the_first_labels(seed, train, validation, test):
    rows = examples(negative=610, neutral=1400, positive=800)
    split = Split(train=train, validation=validation, test=test, balanced=True, seed=seed)
    splits = split_conversations(rows, LABELS, split)

    def equal(size):
        return tuple(size // 3 + (position < size % 3) for position in range(3))

    watched = round(validation * train) if validation < 1 else validation
    assert sizes(splits) == (train - watched, watched, test)
    assert count_of(splits.test) == equal(test)
    assert count_of(splits.validation) == equal(watched)
    assert count_of(splits.train + splits.validation) == equal(train)


def test_remainders_follow_the_order_of_the_labels():
    rows = examples(negative=50, neutral=50, positive=50)
    split = Split(train=10, validation=0, test=5, balanced=True)
    splits = split_conversations(rows, LABELS[::-1], split)
    assert (count_of(splits.train), count_of(splits.test)) == ((3, 3, 4), (1, 2, 2))


def test_balanced_without_a_number_takes_the_most_that_all_labels_give():
    rows = examples(negative=100, neutral=500, positive=200)
    splits = split_conversations(rows, LABELS, Split(validation=0, test=90, balanced=True))
    assert count_of(splits.test) == (30, 30, 30)
    assert count_of(splits.train) == (70, 70, 70)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_parts_are_shuffled_even_where_one_label_is_scarce(seed, part):
    rows = examples(negative=600, neutral=3000, positive=1400)
    split = Split(train=900, validation=0.3, test=900, balanced=True, seed=seed)
    labels = [row.label for row in getattr(split_conversations(rows, LABELS, split), part)]
    for label in LABELS:  # about the same in both halves: five standard deviations are under a sixth
        first = labels[: len(labels) // 2].count(label) / labels.count(label)
        assert 1 / 3 < first < 2 / 3


def test_train_does_not_begin_with_one_label_where_validation_is_large():
    rows, alike = examples(negative=400, neutral=400, positive=400), 0
    for seed in range(40):
        split = Split(train=900, validation=0.5, test=0, balanced=True, seed=seed)
        alike += len({row.label for row in split_conversations(rows, LABELS, split).train[:4]}) == 1
    assert alike < 8  # one in 27 by chance


@pytest.mark.parametrize("balanced", [False, True])
def test_the_same_arguments_give_the_same_parts_and_another_seed_others(balanced):
    rows = examples(negative=200, neutral=200, positive=200)
    split = {"train": 300, "test": 150, "balanced": balanced}
    first = split_conversations(rows, LABELS, Split(**split, seed=1))
    assert first == split_conversations(list(rows), list(LABELS), Split(**split, seed=1))
    assert first != split_conversations(rows, LABELS, Split(**split, seed=2))


def test_the_shuffle_is_that_of_python_and_does_not_change_between_versions():
    splits = split_conversations(plain(10), (), Split(train=5, validation=1, test=3, seed=42))
    assert places(splits.test) == ["text 7", "text 3", "text 2"]


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("train", [200, None])
def test_validation_has_no_influence_on_test_or_on_what_train_is_drawn_from(balanced, train):
    rows = examples(negative=150, neutral=400, positive=250)
    tests, pools = set(), set()
    for validation in (0, 1, 0.1, 0.5, 100):
        split = Split(train=train, validation=validation, test=0.2, balanced=balanced)
        splits = split_conversations(rows, LABELS, split)
        tests.add(tuple(places(splits.test)))
        pools.add(frozenset(places(splits.train + splits.validation)))
    assert (len(tests), len(pools)) == (1, 1)


def test_train_has_no_influence_on_test():
    tests = [split_conversations(plain(500), (), Split(train=train, test=100)).test for train in (10, 0.5, None)]
    assert tests[0] == tests[1] == tests[2]


# --- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "keys", "expected"),
    [
        (100, {}, (81, 9, 10)),
        (1000, {"train": 900, "test": 100}, (810, 90, 100)),
        (1000, {"train": 0.5, "validation": 0.2, "test": 0.25}, (400, 100, 250)),
        (995, {"train": 0.9, "validation": 0, "test": 0.1}, (895, 0, 100)),  # 895.5 and 99.5
        (10, {"validation": 0.25, "test": 2}, (6, 2, 2)),
        (10, {"validation": 0.01, "test": 0.01}, (8, 1, 1)),  # at least one row
        (3, {"validation": 0.99, "test": 0.99}, (1, 0, 2)),  # at least one row for train
        (2, {}, (1, 0, 1)),
        (1, {}, (1, 0, 0)),
        (10, {"validation": 0, "test": 0}, (10, 0, 0)),
        (10, {"train": 1, "test": 9}, (1, 0, 9)),
        (10, {"train": 4, "validation": 3, "test": 6}, (1, 3, 6)),
    ],
)
def test_sizes(count, keys, expected):
    assert sizes(split_conversations(plain(count), (), Split(**keys))) == expected


def test_shares_are_of_the_rows_that_duplicates_leave():
    splits = split_conversations(plain(100) * 3, (), Split())
    assert sizes(splits) == (81, 9, 10)
    assert splits.duplicates_removed == 200


# --- duplicates -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        "Caf\u00e9  au lait",
        " caf\u00e9 au\tlait\n",
        "CAF\u00c9 AU LAIT",
        unicodedata.normalize("NFD", "Caf\u00e9 au lait"),
        unicodedata.normalize("NFD", "CAF\u00c9 au\u00a0lait"),
    ],
)
def test_spaces_case_and_unicode_form_make_no_difference(other):
    rows = [example("Caf\u00e9 au lait", place="first"), example("tea"), example(other, place="second")]
    splits = split_conversations(rows, (), Split(validation=0, test=0))
    assert sorted(places(splits.train)) == ["first", "tea"]
    assert splits.duplicates_removed == 1


@pytest.mark.parametrize(
    "other", [example("tea", content="Translate."), example("tea", system="Be brief."), example("tea time")]
)
def test_another_instruction_system_message_or_text_is_another_question(other):
    splits = split_conversations([example("tea"), other], (), Split(validation=0, test=0))
    assert (sizes(splits), splits.duplicates_removed) == ((2, 0, 0), 0)


def test_words_do_not_move_between_instruction_and_context():
    rows = [example("b c", content="a"), example("c", content="a b")]
    assert split_conversations(rows, (), Split(validation=0, test=0)).duplicates_removed == 0


def test_contradictory_rows_go_and_are_counted_apart():
    rows = [
        *examples(negative=3, positive=3),
        example("tea", "negative"),
        example("Tea", "positive"),
        example("tea ", "negative"),
        example("negative 0", "negative"),
    ]
    splits = split_conversations(rows, LABELS, Split(validation=0, test=0))
    assert sorted(places(splits.train)) == places(rows[:6])
    assert (splits.duplicates_removed, splits.contradictory_removed) == (1, 3)


def test_without_labels_another_answer_is_a_duplicate():
    rows = [
        example("tea"),
        Conversation((Message("user", "Classify.", "tea"), Message("assistant", "no")), "2"),
    ]
    splits = split_conversations(rows, (), Split(validation=0, test=0))
    assert (places(splits.train), splits.duplicates_removed) == (["tea"], 1)


# --- errors -----------------------------------------------------------------------------------------


def test_too_few_rows_of_a_label():
    rows = examples(negative=412, neutral=1000, positive=590)
    rows += rows[:3]
    assert message_of(rows, LABELS, train=900, test=900, balanced=True) == (
        "data.split asks for 300 rows of 'negative' in train and 300 in test, 600 in all, "
        "but the data has 412 after 3 duplicates were removed"
    )


def test_a_label_without_a_row():
    assert message_of(examples(negative=9, positive=9), LABELS, train=3, test=3, balanced=True) == (
        "data.split asks for 1 row of 'neutral' in train and 1 in test, 2 in all, but the data has 0"
    )


def test_too_few_rows():
    rows = [
        *examples(negative=5),
        example("tea", "negative"),
        example("tea", "neutral"),
        example("negative 0", "negative"),
    ]
    assert message_of(rows, LABELS, train=4, test=2) == (
        "data.split asks for 4 rows in train and 2 in test, 6 in all, "
        "but the data has 5 after 1 duplicate and 2 rows with contradictory labels were removed"
    )


def test_one_duplicate_was_removed():
    assert message_of([*plain(3), *plain(1)], test=4) == (
        "data.split asks for 4 rows in test, but the data has 3 after 1 duplicate was removed"
    )


def test_too_few_rows_for_test_alone():
    assert message_of(examples(negative=9, neutral=90, positive=90), LABELS, test=30, balanced=True) == (
        "data.split asks for 10 rows of 'negative' in test, but the data has 9"
    )


def test_a_share_and_a_number_that_do_not_fit():
    assert message_of(plain(100), train=0.9, test=20) == (
        "data.split asks for 90 rows in train and 20 in test, 110 in all, but the data has 100"
    )


def test_shares_of_more_than_all():
    assert message_of(plain(100), train=0.9, test=0.2) == (
        "data.split asks for 90 rows in train and 20 in test, 110 in all, but the data has 100"
    )


@pytest.mark.parametrize("validation", [80, 81])
def test_validation_takes_all_of_train(validation):
    assert message_of(plain(100), train=80, validation=validation, test=20) == (
        f"data.split.validation: {validation} rows are to be taken out of train, which has 80; ask for fewer, or for 0"
    )


def test_nothing_left_for_train():
    assert message_of([*plain(10), *plain(2)], test=10) == (
        "data.split: nothing is left for train: test takes 10 of the 10 rows that the data has "
        "after 2 duplicates were removed"
    )
    assert message_of(examples(negative=3, neutral=9, positive=9), LABELS, test=9, balanced=True) == (
        "data.split: nothing is left for train: test takes 3 of the 3 rows of 'negative' that the data has"
    )


def test_no_rows_at_all():
    assert message_of([]).startswith("data.split: nothing is left for train: test takes 0 of the 0 rows")


def test_balance_needs_labels():
    assert message_of(plain(10), balanced=True) == "data.split.balanced: these examples have no labels"


# --- real data --------------------------------------------------------------------------------------


def real(name, format, **keys):
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"the data is not here: {path}")
    return read_conversations(Data(source=str(path), format=format, **keys))


def test_financial_phrasebank_as_in_the_example_recipe():
    rows, labels = real("fpb/Sentences_50Agree.jsonl", "classify", columns={"text": "sentence"})
    splits = split_conversations(rows, labels, Split(train=900, validation=0.1, test=900, balanced=True))
    assert sizes(splits) == (810, 90, 900)
    assert [count_of(part) for part in (splits.train, splits.validation, splits.test)] == [
        (270, 270, 270),
        (30, 30, 30),
        (300, 300, 300),
    ]
    assert (splits.duplicates_removed, splits.contradictory_removed) == (6, 4)


def test_financial_phrasebank_has_604_negative_rows():
    rows, labels = real("fpb/Sentences_50Agree.jsonl", "classify", columns={"text": "sentence"})
    assert message_of(rows, labels, train=1800, test=900, balanced=True) == (
        "data.split asks for 600 rows of 'negative' in train and 300 in test, 900 in all, but the data has "
        "604 after 6 duplicates and 4 rows with contradictory labels were removed"
    )


def test_alpaca_rows_split_by_the_defaults():
    rows, labels = real("alpaca/rasbt_instruction_1100.jsonl", "alpaca")
    splits = split_conversations(rows, labels, Split())
    assert sum(sizes(splits)) + splits.duplicates_removed == 1100
    assert splits.contradictory_removed == 0
