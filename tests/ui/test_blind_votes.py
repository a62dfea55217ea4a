"""Who votes on what: orders, sides, resuming, and that names stay with the server until the end. No browser here."""

from __future__ import annotations

import errno
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pronk.compare.contest import Contest, Matter
from pronk.compare.votes import append_votes, read_votes, votes_file
from pronk.errors import OptionError, ResourceError, StudyError
from pronk.ui.arena import Arena
from pronk.ui.arena_texts import ENGLISH

NAMES = ("base-model", "tuned-run")


def contest(questions: int = 6, names: tuple[str, ...] = NAMES, same: tuple[int, ...] = (2,)) -> Contest:
    """Answers that say in code whose they are: `alpha` the first contestant's, `beta` the second's, …"""
    words = ("alpha", "beta", "gamma", "delta")

    def answers(number: int) -> dict[str, tuple[str, ...]]:
        return {
            name: ("the same",) if number in same else (f"{word} {number}",)
            for name, word in zip(names, words, strict=False)
        }

    return Contest(names, tuple(Matter(f"q-{k}", (f"Question {k}?",), answers(k)) for k in range(questions)), "q.jsonl")


def arena(folder: Path, **more: Any) -> Arena:
    return Arena(folder, contest(**more), seed=1)


def vote_all(one: Arena, judge: str, prefer: str) -> list[dict[str, Any]]:
    """Vote for whoever's answer begins so, to the end; all that was shown."""
    seen = []
    view = one.next({"judge": judge})
    while not view.get("finished"):
        seen.append(view)
        side = next((side for side in ("left", "right") if view["turns"][0][side].startswith(prefer)), "tie")
        view = one.vote({"judge": judge, "pair": view["pair"], "choice": side, "seconds": 2.04})
    return seen


def test_a_whole_vote(tmp_path: Path) -> None:
    one = arena(tmp_path)
    seen = vote_all(one, "anna", "beta")
    assert [(view["done"], view["of"]) for view in seen] == [(k, 5) for k in range(5)]
    votes = read_votes(votes_file(tmp_path))
    assert sorted(vote.question for vote in votes) == [f"q-{k}" for k in range(6)]
    assert {(vote.vote, vote.kind) for vote in votes} == {("b", "person"), ("tie", "identical")}
    assert {vote.order for vote in votes if vote.kind == "person"} == {"ab", "ba"}
    assert {vote.seconds for vote in votes if vote.kind == "person"} == {2.0}
    found = one.result({"judge": "anna"})
    assert "tuned-run" in found["said"][0]
    assert "Pairs of answers that were identical: 1." in found["said"][2]
    assert (found["pairs"][0]["wins_b"], found["pairs"][0]["ties"], found["pairs"][0]["identical"]) == (5, 1, 1)


def test_orders_and_sides_are_the_judges_own_and_stay(tmp_path: Path) -> None:
    one = arena(tmp_path, questions=30)
    asked = {
        judge: [(view["turns"][0]["asked"], view["turns"][0]["left"]) for view in vote_all(one, judge, "beta")]
        for judge in ("anna", "ben")
    }
    again = vote_all(Arena(tmp_path / "again", contest(questions=30), seed=1), "anna", "beta")
    assert [(view["turns"][0]["asked"], view["turns"][0]["left"]) for view in again] == asked["anna"]
    assert [question for question, _ in asked["anna"]] != [question for question, _ in asked["ben"]]
    left = Counter(text.split()[0] for one in asked.values() for _, text in one)
    assert min(left.values()) > 15  # of 58; fewer has a chance of 1 in 5,000
    assert sorted(asked["anna"], key=str) != sorted(asked["ben"], key=str)


def leaks(one: Arena) -> bool:
    """Whether anything that the browser gets while anna votes has a contestant's name in it."""
    page, seen = one.page(), vote_all(one, "anna", "beta")
    told = [json.dumps(one.state()), page.html, page.style, page.script, *map(json.dumps, seen)]
    return any(name in text for name in NAMES for text in told)


def test_no_name_leaves_the_server_before_the_end(tmp_path: Path) -> None:
    one = arena(tmp_path)
    assert not leaks(one)
    with pytest.raises(OptionError, match="names are told when you are through, or stop"):
        one.result({"judge": "ben"})


def test_a_name_that_leaks_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the side's name goes along, as a class or an id would."""
    original = Arena._turns
    monkeypatch.setattr(
        Arena, "_turns", lambda self, judge, match: [{**turn, "id": match.a} for turn in original(self, judge, match)]
    )
    assert leaks(arena(tmp_path))


def test_closing_and_going_on(tmp_path: Path) -> None:
    first = arena(tmp_path)
    view = first.next({"judge": "anna"})
    view = first.vote({"judge": "anna", "pair": view["pair"], "choice": "tie"})
    later = arena(tmp_path).next({"judge": " anna "})
    assert later == view
    assert later["done"] == 1
    assert arena(tmp_path).next({"judge": "ben"})["done"] == 0


def test_undo_gives_the_last_pair_again(tmp_path: Path) -> None:
    one = arena(tmp_path, same=(0, 1, 2))
    first = one.next({"judge": "anna"})
    second = one.vote({"judge": "anna", "pair": first["pair"], "choice": "left"})
    assert one.undo({"judge": "anna"}) == first
    assert one.undo({"judge": "anna"}) == first  # nothing is left to take back
    assert one.vote({"judge": "anna", "pair": first["pair"], "choice": "both_bad"}) == second
    votes = [vote for vote in read_votes(votes_file(tmp_path)) if vote.kind == "person"]
    assert [vote.vote for vote in votes] == ["both_bad"]


def test_the_last_vote_can_be_undone_until_names_are_told(tmp_path: Path) -> None:
    one = arena(tmp_path)
    vote_all(one, "anna", "beta")
    assert one.undo({"judge": "anna"})["done"] == 4
    vote_all(one, "anna", "alpha")
    one.result({"judge": "anna"})
    assert one.undo({"judge": "anna"})["told"]
    assert one.next({"judge": "ben"})["done"] == 0


def test_who_stops_has_voted(tmp_path: Path) -> None:
    one = arena(tmp_path)
    view = one.next({"judge": "anna"})
    with pytest.raises(OptionError, match="nobody has voted yet"):
        one.result({"judge": "anna", "stop": True})
    one.vote({"judge": "anna", "pair": view["pair"], "choice": "left"})
    assert len(one.result({"judge": "anna", "stop": True})["pairs"]) == 1
    assert arena(tmp_path).next({"judge": "anna"})["told"]
    with pytest.raises(OptionError, match="voted on already"):
        one.vote({"judge": "anna", "pair": view["pair"] + 1, "choice": "left"})


def test_two_windows_do_not_vote_twice(tmp_path: Path) -> None:
    one = arena(tmp_path)
    view = one.next({"judge": "anna"})
    one.vote({"judge": "anna", "pair": view["pair"], "choice": "left"})
    with pytest.raises(OptionError, match="voted on already, in another window perhaps"):
        one.vote({"judge": "anna", "pair": view["pair"], "choice": "right"})


@pytest.mark.parametrize("choice", ["a", "LEFT", None, 1, ["left"]])
def test_what_is_no_choice(tmp_path: Path, choice: Any) -> None:
    one = arena(tmp_path)
    view = one.next({"judge": "anna"})
    with pytest.raises(OptionError, match="a vote is left, right, tie or both_bad"):
        one.vote({"judge": "anna", "pair": view["pair"], "choice": choice})


@pytest.mark.parametrize("name", ["", "  ", None, 5, "x" * 61, "\ud800", "a\u202eb", "\x1b[31m"])
def test_what_is_no_name(tmp_path: Path, name: Any) -> None:
    with pytest.raises(OptionError, match="a name has 1 to 60 letters"):
        arena(tmp_path).next({"judge": name})


@pytest.mark.parametrize("seconds", [None, -1, "2", True, 1e9, float("nan")])
def test_seconds_that_are_none_are_left_out(tmp_path: Path, seconds: Any) -> None:
    one = arena(tmp_path)
    view = one.next({"judge": "anna"})
    one.vote({"judge": "anna", "pair": view["pair"], "choice": "left", "seconds": seconds})
    assert [vote.seconds for vote in read_votes(votes_file(tmp_path)) if vote.kind == "person"] == [None]


def test_it_says_when_it_is_sure_and_not_in_whose_favour(tmp_path: Path) -> None:
    seen = vote_all(arena(tmp_path, questions=20), "anna", "beta")
    news = [view["news"] for view in seen]
    assert news[:7] == [""] * 7
    assert news[-1] == ENGLISH["sure"]
    assert {view["news"] for view in vote_all(arena(tmp_path, questions=20), "ben", "beta")} == {""}


def test_votes_on_other_answers_do_not_count(tmp_path: Path) -> None:
    vote_all(arena(tmp_path), "anna", "beta")
    changed = contest()
    matters = [replace(matter, answers={**matter.answers, "tuned-run": ("beta, anew",)}) for matter in changed.matters]
    anew = Arena(tmp_path, replace(changed, matters=tuple(matters)), seed=1)
    assert anew.next({"judge": "anna"})["done"] == 0


def test_three_contestants_meet_in_all_pairs(tmp_path: Path) -> None:
    names = ("base-model", "one", "two")
    one = arena(tmp_path, names=names, same=())
    assert len(vote_all(one, "anna", "gamma")) == 18
    found = one.result({"judge": "anna"})
    assert {(pair["a"], pair["b"]) for pair in found["pairs"]} == {
        ("base-model", "one"), ("base-model", "two"), ("one", "two"),
    }  # fmt: skip
    assert found["ranking"][0][0] == "two"


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = arena(tmp_path)
    view = one.next({"judge": "anna"})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pronk.compare.votes.os.fsync", full)
        with pytest.raises(ResourceError, match="no space left on this disk"):
            one.vote({"judge": "anna", "pair": view["pair"], "choice": "left"})


def test_a_broken_file_of_votes_is_said(tmp_path: Path) -> None:
    append_votes(votes_file(tmp_path), [])
    votes_file(tmp_path).parent.mkdir(exist_ok=True)
    votes_file(tmp_path).write_text('{"question": 1}\n', encoding="utf-8")
    with pytest.raises(StudyError, match=r"votes\.jsonl, line 1: `question` must be a text"):
        arena(tmp_path).next({"judge": "anna"})
