"""With a shuffle the order of the files does not show; without one each part keeps it."""

import itertools

from test_split import LABELS, count_of, examples, places, plain, sizes

from pronk.data.conversation import Conversation, Message
from pronk.data.split import split_conversations
from pronk.recipe import Split


def in_order(count, **keys):
    return split_conversations(plain(count), (), Split(shuffle=False, **keys))


def test_without_a_shuffle_train_comes_first_and_test_last():
    splits = in_order(10, train=6, validation=2, test=3)
    rows = [f"text {n}" for n in range(10)]
    assert places(splits.train) == rows[:4]
    assert places(splits.validation) == rows[4:6]
    assert places(splits.test) == rows[7:]
    assert in_order(10, train=6, validation=2, test=3, seed=1) == splits


def test_without_a_shuffle_nothing_is_left_out_by_default():
    splits = in_order(100)
    assert sizes(splits) == (81, 9, 10)
    assert places(splits.train + splits.validation + splits.test) == [f"text {n}" for n in range(100)]


def test_without_a_shuffle_labels_are_balanced_and_in_order():
    rows = examples(negative=20, neutral=30, positive=40)
    splits = split_conversations(rows, LABELS, Split(train=30, validation=3, test=15, balanced=True, shuffle=False))
    assert (count_of(splits.train), count_of(splits.test)) == ((9, 9, 9), (5, 5, 5))
    assert places(splits.test) == [f"{label} {n}" for label, c in (("negative", 20), ("neutral", 30), ("positive", 40))
                                   for n in range(c - 5, c)]  # fmt: skip


def shows_the_order():
    """Parts whose rows come from one region of the file, or rise in it."""
    position = {row.place: number for number, row in enumerate(plain(3000))}
    splits = split_conversations(plain(3000), (), Split(test=0.2, validation=0.2))
    shown = []
    for part in (splits.train, splits.validation, splits.test):
        numbers = [position[row.place] for row in part]
        mean = sum(numbers) / len(numbers)
        rising = sum(a < b for a, b in itertools.pairwise(numbers)) / len(numbers)
        five_standard_errors = 5 * 866 / len(numbers) ** 0.5
        if abs(mean - 1500) > five_standard_errors or not 0.4 < rising < 0.6:
            shown.append((mean, rising))
    return shown


def test_with_a_shuffle_the_order_of_the_file_does_not_show():
    assert shows_the_order() == []


def test_a_shuffle_that_does_nothing_would_be_seen(monkeypatch):
    monkeypatch.setattr("random.Random.shuffle", lambda *_: None)
    assert len(shows_the_order()) == 3


def test_plain_texts_are_duplicates_when_they_are_the_same():
    rows = [Conversation((Message("assistant", text),), text) for text in ("One.", "one. ", "Two.", "Three.")]
    splits = split_conversations(rows, (), Split(validation=0, test=1))
    assert (sizes(splits), splits.duplicates_removed) == ((2, 0, 1), 1)
