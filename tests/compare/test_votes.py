"""Votes are appended, the last one counts, and what is no vote is said with its line."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pronk.compare.votes import Vote, answers_id, append_votes, read_votes, votes_file
from pronk.errors import StudyError

ONE = Vote("q-1", "base", "rank-4", "b", "ba", "anna", answers="x", time="2026-10-20T09:30:00+00:00", seconds=2.5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return votes_file(tmp_path)


def test_what_is_written_is_read(file: Path) -> None:
    votes = [ONE, replace(ONE, judge="한별", vote="both_bad"), replace(ONE, kind="model", order="both", seconds=None)]
    append_votes(file, votes[:1])
    append_votes(file, votes[1:])
    assert read_votes(file) == votes
    assert [vote.score for vote in votes] == [1.0, 0.5, 1.0]
    assert read_votes(file.with_name("none.jsonl")) == []


def test_whoever_stands_first_it_is_the_same_vote(file: Path) -> None:
    append_votes(file, [Vote("q-1", "z", "a", "a", "ab", "anna")])
    assert read_votes(file) == [Vote("q-1", "a", "z", "b", "ba", "anna")]
    assert answers_id("one", "two") == answers_id("two", "one") != answers_id("one", "three")


def test_the_last_vote_counts_and_can_be_taken_back(file: Path) -> None:
    append_votes(file, [ONE, replace(ONE, question="q-2"), replace(ONE, vote="tie")])
    assert [(vote.question, vote.vote) for vote in read_votes(file)] == [("q-2", "b"), ("q-1", "tie")]
    append_votes(file, [replace(ONE, vote=None)])
    assert [vote.question for vote in read_votes(file)] == ["q-2"]
    append_votes(file, [replace(ONE, vote="a")])
    assert [vote.vote for vote in read_votes(file)] == ["b", "a"]


def test_other_answers_and_other_judges_are_other_votes(file: Path) -> None:
    votes = [ONE, replace(ONE, answers="y"), replace(ONE, kind="model"), replace(ONE, judge="ben")]
    append_votes(file, votes)
    assert read_votes(file) == votes


def test_half_a_last_line_is_no_vote_and_is_cut_off(file: Path) -> None:
    append_votes(file, [ONE, replace(ONE, question="q-2")])
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert read_votes(file) == [ONE]
    append_votes(file, [replace(ONE, question="q-2")])
    assert file.read_bytes() == whole


def test_several_may_append_at_once(file: Path) -> None:
    def vote(judge: str) -> None:
        for number in range(20):
            append_votes(file, [replace(ONE, judge=judge, question=f"q-{number}")])

    threads = [threading.Thread(target=vote, args=(f"judge {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_votes(file)) == 80


WRONG = {
    "broken": ('{"question": ', "not JSON"),
    "no question": ({"question": ""}, "`question` must be a text"),
    "no judge": ({"judge": None}, "`judge` must be a text, found null"),
    "another vote": ({"vote": "left"}, '`vote` must be one of ["a", "b", "tie", "both_bad", null], found \'left\''),
    "a list": ({"vote": []}, "`vote` must be one of"),
    "another order": ({"order": "abc"}, "`order` must be one of"),
    "another kind": ({"kind": "cat"}, "`kind` must be one of"),
    "itself": ({"b": "base"}, "'base' stands against itself"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_vote(file: Path, name: str) -> None:
    change, message = WRONG[name]
    append_votes(file, [ONE])
    row = json.loads(file.read_text())
    line = change if isinstance(change, str) else json.dumps({**row, **change})
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(StudyError) as error:
        read_votes(file)
    assert f"{file}, line 2: " in str(error.value)
    assert message in str(error.value)
