"""Each reason to drop an example is found, by its name, and what is right passes."""

from __future__ import annotations

import pytest

import pronk.synthesize.sieve as subject
from pronk.synthesize.samples import Material, Sample
from pronk.synthesize.sieve import REASONS, Sieve

SEEDS = (
    Sample("The bank said that profits of the group rose by a tenth in the spring", "", "up", "s:1"),
    Sample("Sales of the company fell and the shares are lower than they were", "", "down", "s:2"),
)
TEST = "Orders for the new ferry were cancelled by the owner in the last week"
GOOD = "A dairy in the hills is to be reopened with help of the county"


def sieve() -> Sieve:
    return Sieve(Material("classify", SEEDS, (TEST,), ("up", "down")), 200)


DROPPED = [
    ("empty", ""), ("empty", " … "), ("empty", "\u200b"),
    ("too-long", GOOD * 5),
    ("control-characters", f"{GOOD}\x1b[31m"), ("control-characters", f"{GOOD}\u202e"),
    ("control-characters", f"{GOOD} \ud800"), ("control-characters", f"{GOOD}\rover"),
    ("special-token", f"{GOOD} <|im_end|>"), ("special-token", f"{GOOD}</s>"),
    ("special-token", f"### Response: {GOOD}"), ("special-token", f"[INST] {GOOD}"),
    ("private", f"{GOOD}, says jan.novak@firma.cz"), ("private", f"{GOOD}: password=Zx81lk20qp"),
    ("other-language", "Der Verkauf der Boote ist in diesem Jahr nicht so gut wie im letzten gewesen"),
    ("other-language", "공장이 다음 달에 다시 문을 연다고 회사가 오늘 밝혔다"),
    ("exact-duplicate", SEEDS[1].text.upper()), ("exact-duplicate", TEST.replace(" ", "  ")),
    ("near-seed", SEEDS[0].text.replace("bank", "bakery")),
    ("near-kept-out", TEST.replace("ferry", "trains")),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "text"), DROPPED)
def test_a_reason_is_found_by_its_name(reason: str, text: str) -> None:
    assert sieve().reason(Sample(text, "", "up"), "up") == reason
    assert reason in REASONS


def test_what_is_right_passes_once() -> None:
    one = sieve()
    for text in (GOOD, f"<b>{GOOD}</b> & more of it", "Llama!", f"{GOOD}\nand\tthe rest of it as well"):
        assert sieve().reason(Sample(text, "", "up"), "up") is None
    one.take(Sample(GOOD, "", "up"))
    assert one.reason(Sample(GOOD, "", "up"), "up") == "exact-duplicate"
    assert one.reason(Sample(GOOD.replace("county", "state"), "", "down"), "down") == "near-earlier"


def test_labels_are_those_that_were_asked_for() -> None:
    assert sieve().reason(Sample(GOOD, "", "down"), "up") == "wrong-label"
    assert sieve().reason(Sample(GOOD, "", "sideways"), "up") == "wrong-label"


def test_an_instruction_is_as_near_as_its_input() -> None:
    """A test item under another instruction is the test item."""
    one = Sieve(
        Material("instruct", (Sample("Summarise the text of the day", SEEDS[0].text, "Up.", "s:1"),), (TEST,)), 500
    )
    assert one.reason(Sample("Translate the following to Dutch for me", TEST, "Veerboot."), None) == "near-kept-out"
    assert one.reason(Sample("Translate this", GOOD, ""), None) == "empty"
    assert one.reason(Sample("Translate this", GOOD, GOOD.upper()), None) == "echo"
    assert one.reason(Sample("Translate this", GOOD, "Zuivel in de bergen"), None) is None


def test_korean_seeds_want_korean_rows() -> None:
    seeds = (Sample("공장이 다음 달에 다시 문을 연다고 회사가 오늘 밝혔다", "", "up", "s:1"),)
    one = Sieve(Material("classify", seeds, (), ("up",)), 200)
    assert one.reason(Sample("배당금이 작년보다 크게 늘었다고 은행이 전했다", "", "up"), "up") is None
    assert one.reason(Sample(GOOD, "", "up"), "up") == "other-language"


def test_every_dropped_row_has_a_reason_that_people_know() -> None:
    assert {reason for reason, _ in DROPPED} | {
        "wrong-label", "near-earlier", "unparsable", "cut-off", "echo", "label-not-confirmed", "not-verified",
        "not-needed",
    } == set(REASONS)  # fmt: skip


FAULTS = {
    "find_private": lambda *_: iter(()),
    "languages": lambda texts: ["" for _ in texts],
}


@pytest.mark.parametrize(("name", "reason"), [("find_private", "private"), ("languages", "other-language")])
def test_a_fault_shows(name: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, name, FAULTS[name])
    texts = [text for one, text in DROPPED if one == reason]
    assert all(sieve().reason(Sample(text, "", "up"), "up") != reason for text in texts)
