"""Which label an answer names, and when it names none."""

from __future__ import annotations

import pytest

from pronk.evaluate.classify import parse_label

MOODS = ("negative", "neutral", "positive")
NESTED = ("positive", "very positive", "not positive")
ODD = ("C++", "C", "a.b", "7", "부정", "긍정")

CASES: list[tuple[tuple[str, ...], str, str | None]] = [
    (MOODS, "positive", "positive"),
    (MOODS, "Positive", "positive"),
    (MOODS, "POSITIVE.", "positive"),
    (MOODS, "  positive  ", "positive"),
    (MOODS, "\n\npositive\n", "positive"),
    (MOODS, "positive\nnegative", "positive"),
    (MOODS, "positive sentiment", "positive"),
    (MOODS, "**positive**", "positive"),
    (MOODS, '"neutral"', "neutral"),
    (MOODS, "- neutral", "neutral"),
    (MOODS, "positive, positive", "positive"),
    (MOODS, "positive, not negative", None),
    (MOODS, "positive or negative", None),
    (MOODS, "The sentiment is positive", None),
    (MOODS, "not positive", None),
    (MOODS, "1. positive", None),
    (MOODS, "positively", None),
    (MOODS, "nonpositive", None),
    (MOODS, "positive_", None),
    (MOODS, "non-positive", None),
    (MOODS, "positive-ish", "positive"),
    (MOODS, "", None),
    (MOODS, " \n \t", None),
    (MOODS, "...", None),
    (MOODS, "I do not know", None),
    (NESTED, "positive", "positive"),
    (NESTED, "very positive", "very positive"),
    (NESTED, "Very Positive!", "very positive"),
    (NESTED, "not positive", "not positive"),
    (NESTED, "very negative", None),
    (NESTED, "positive, very positive", None),
    (ODD, "C++", "C++"),
    (ODD, "C", "C"),
    (ODD, "C#", "C"),
    (ODD, "a.b", "a.b"),
    (ODD, "axb", None),
    (ODD, "7", "7"),
    (ODD, "77", None),
    (ODD, "긍정", "긍정"),
    (ODD, "긍정.", "긍정"),
    (ODD, "긍정적", None),
]


@pytest.mark.parametrize(("labels", "text", "label"), CASES)
def test_parse_label(labels: tuple[str, ...], text: str, label: str | None) -> None:
    assert parse_label(text, labels) == label


@pytest.mark.parametrize("labels", [MOODS, NESTED, ODD])
def test_every_label_names_itself_in_any_order_of_labels(labels: tuple[str, ...]) -> None:
    for order in (labels, labels[::-1]):
        assert [parse_label(label, order) for label in labels] == list(labels)


def test_no_more_than_one_label_is_ever_read() -> None:
    """A first word that is a label, and then another label: the answer is not clear."""
    for one in MOODS:
        for other in MOODS:
            if one != other:
                assert parse_label(f"{one} {other}", MOODS) is None
                assert parse_label(f"{one}/{other}", MOODS) is None
