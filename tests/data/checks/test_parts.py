"""Leakage between parts that were divided by other means, what the split left out, and where errors begin."""

import dataclasses
import time

import pytest
from rows import FACTS, check, split_of

from pronk.data.checks import data_findings, repeats
from pronk.data.checks.repeats import exact_leakage, find_repeats
from pronk.data.conversation import Conversation, Message
from pronk.data.split import Splits


def talk(*turns, place="a.jsonl:1"):
    roles = ("user", "assistant") * len(turns)
    return Conversation(tuple(Message(role, turn) for role, turn in zip(roles, turns, strict=False)), place)


def parts(train, validation=(), test=()):
    return Splits(tuple(train), tuple(validation), tuple(test), 0, 0)


def found(splits, labels=()):
    return {finding.name: finding for finding in find_repeats(splits, labels)}


SEEN = talk("Who was here?", "Ann.", "And who  else?", "Bob.", place="a.jsonl:7")


@pytest.mark.parametrize(
    "row",
    [
        talk("Who was here?", "Nobody."),
        talk("WHO was here?", "Ann.", "and who else?", "Carl."),
    ],
    ids=["its beginning", "all of it"],
)
def test_what_was_asked_at_any_turn_has_leaked(row):
    finding = exact_leakage(parts([SEEN], test=[row, talk("What?", "That.")]), "test")
    assert (finding.name, finding.severity, finding.count, finding.total) == ("exact-leakage", "error", 1, 2)
    assert "1 test row asks the same as a row of train or validation" in finding.message
    assert [shown.place for shown in finding.rows] == [row.place, "a.jsonl:7"]


def test_another_turn_has_not_leaked():
    assert exact_leakage(parts([SEEN], test=[talk("And who else?", "Bob.")]), "test") is None


def test_only_the_last_turn_compared_would_be_seen(monkeypatch):
    monkeypatch.setattr(repeats, "_asked", lambda row: [repeats.question_key(row)])
    assert exact_leakage(parts([SEEN], test=[talk("Who was here?", "Nobody.")]), "test") is None


def test_validation_rows_are_compared_with_train_alone():
    splits = parts([talk("Why?", "So.")], [talk("Why?", "No.")], [talk("When?", "Now.")])
    assert exact_leakage(splits, "validation").message.startswith("1 validation row asks the same as a row of train:")
    assert exact_leakage(splits, "test") is None


@pytest.mark.parametrize(("count", "severity"), [(5, "error"), (6, "warning")])
def test_near_leakage_is_an_error_where_it_is_surely_above_one_percent_of_the_test(count, severity):
    train = [talk("Where does the old road to the harbour begin?", "Here.", place="a.jsonl:1")]
    twin = talk("Where does the old road to the harbor begin", "There.", place="a.jsonl:2")
    others = [talk(f"How much is {number} and {number}?", "Much.", place=f"b:{number}") for number in range(count - 1)]
    finding = found(parts(train, test=[twin, *others]))["near-leakage"]
    assert (finding.severity, finding.count, finding.total) == (severity, 1, count)
    assert {row.place for row in finding.rows} == {"a.jsonl:1", "a.jsonl:2"}


def test_a_twin_of_a_twin_has_leaked_too():
    """Those that say the same hang together by their first: the test row's first may be in the test as well."""
    same = [f"Where does the old road to the harbour begin{end}" for end in ("?", "!", "...")]
    rows = [talk(text, f"Answer {at}.", place=f"a.jsonl:{at}") for at, text in enumerate(same)]
    for train, *test in (rows, [rows[1], rows[0], rows[2]], [rows[2], rows[0], rows[1]]):
        assert found(parts([train], test=test))["near-leakage"].count == 2


def test_conversations_that_open_alike_are_no_near_duplicates():
    rows = [
        talk("Tell me of the old harbour.", "It is old.", f"And what {thing}?", "None.") for thing in ("else", "more")
    ]
    rows.append(talk("Tell me of the old harbour.", "It is old."))
    assert "near-duplicates" not in found(parts(rows))


def test_what_was_left_out_is_told_with_both_rows(write):
    splits, _ = split_of(write, [*FACTS, FACTS[4], (FACTS[2][0], "Other.")])
    assert [[row.place for row in rows] for rows in splits.repeated] == [
        ["rows.jsonl:3", "rows.jsonl:42"], ["rows.jsonl:5", "rows.jsonl:41"],
    ]  # fmt: skip
    assert sum(len(rows) - 1 for rows in splits.repeated) == splits.duplicates_removed == 2
    exact = found(splits)["exact-duplicates"]
    assert (exact.count, exact.total, exact.severity) == (2, 42, "warning")


def test_few_duplicates_are_a_note(write):
    rows = [(f"How much is {number} and {number}?", f"It is {2 * number}.") for number in range(200)]
    finding = next(one for one in check(write, [*rows, rows[7]]) if one.name == "exact-duplicates")
    assert (finding.severity, finding.share) == ("note", pytest.approx(1 / 201))


def test_splits_of_other_code_have_nothing_left_out():
    splits = parts([talk("Why?", "So.")])
    assert find_repeats(dataclasses.replace(splits, duplicates_removed=3), ())[0].rows == ()


def test_instructions_that_all_rows_share_do_not_make_them_alike(write):
    long = "Say whether the following sentence about the weather of the day is good or bad news for a farmer: "
    rows = [
        (f"Sentence {at}: {word} came.", "good" if at % 2 else "bad") for at, word in enumerate(["Rain", "Hail", "Sun"])
    ]
    assert [one.name for one in check(write, rows, format="classify", instruction=long)] == []


HOSTILE = {
    "nothing": "",
    "half a character": "a \ud800 half",
    "links without end": "www." * 5_000 + " and",
    "digits": "1 2-3 " * 20_000,
    "an address without end": "a." * 20_000 + "@" + "b." * 20_000,
    "a key without end": "-----BEGIN PRIVATE KEY-----" * 500 + "- " * 5_000,
    "marks": "<a " + "b=c " * 20_000 + "' \" " * 5_000,
    "tokens": "eyJaaaaaaaa." * 3_000 + "sk-" * 5_000 + "password=" * 3_000,
    "colons": "a:b:c::" * 5_000,
    "one word": "가" * 50_000,
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_texts_take_no_time(case):
    text, start = HOSTILE[case], time.perf_counter()
    rows = [talk(f"{text} {at}", text) for at in range(3)]
    for finding in data_findings(parts(rows, test=[talk(text, text + "!")]), ()):
        assert all(len(row.text) < 200 and row.text.isprintable() for row in finding.rows)
        assert len(finding.message) < 500
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("total", [1, 20, 484, 5000, 50_000])
def test_a_share_is_surely_more_than_a_hundredth_as_the_binomial_distribution_says(total: int) -> None:
    from scipy.stats import binom

    for count in {0, 1, 2, 5, 10, total // 90, total // 70, total}:
        if count <= total:
            assert repeats.surely_more_than_few(count, total) == bool(binom.sf(count - 1, total, repeats.FEW) < 0.05)
