"""What votes come to: the key of study.json, plain words, the report's section, and text that stays text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study_builder import HOSTILE, build_study

from pronk.compare.arena import arena_result, result_of, settled, store_result
from pronk.compare.arena_words import section, sentences, terminal_lines
from pronk.compare.contest import Contest, Matter, contest_file, contest_of_items, read_contest, write_contest
from pronk.compare.report import render
from pronk.compare.votes import Vote, answers_id, append_votes, votes_file
from pronk.errors import StudyError


def contest(questions: int = 20, names: tuple[str, ...] = ("base", "tuned")) -> Contest:
    matters = [Matter(f"q{k}", ("asked?",), {name: (f"{name} {k}",) for name in names}) for k in range(questions)]
    return Contest(names, tuple(matters), "q.jsonl")


def vote(number: int, choice: Any, judge: str = "anna", pair: tuple[str, str] = ("base", "tuned")) -> Vote:
    texts = [f"{name} {number}" for name in pair]
    return Vote(f"q{number}", *pair, choice, "ab" if number % 2 else "ba", judge, answers=answers_id(*texts))


def test_one_pair_in_figures_and_words() -> None:
    votes = [vote(k, "b") for k in range(14)] + [vote(14, "tie"), vote(15, "both_bad"), vote(16, "a")]
    found = result_of(contest(), [*votes, replace(vote(17, "a"), answers="others")])
    pair = found["pairs"][0]
    assert (pair["a"], pair["b"], pair["wins_a"], pair["wins_b"], pair["ties"], pair["both_bad"]) == (
        "base", "tuned", 1, 14, 1, 1,
    )  # fmt: skip
    assert pair["win_rate"] == pytest.approx(15 / 17)
    assert (pair["verdict"], pair["sure_after"], found["left_out"]) == ("better", 9, 1)
    assert pair["interval_any_time"][0] < pair["interval"][0] < 15 / 17 < pair["interval"][1]
    said = sentences(found)
    assert said[0].startswith("tuned is better than base: it won 88% of the comparisons (95% interval ")
    assert said[1] == "17 votes by anna on 17 of 20 questions (q.jsonl)."
    assert said[-1] == "1 vote on other answers are in the file and left out."


def test_directions_are_those_of_the_study_whatever_the_alphabet() -> None:
    names = ("zebra", "ant")  # the base comes first in the study, and last in the alphabet
    votes = [vote(k, "b", pair=("ant", "zebra")) for k in range(12)]
    pair = result_of(contest(names=names), votes)["pairs"][0]
    assert (pair["a"], pair["b"], pair["wins_a"], pair["win_rate"], pair["verdict"]) == ("zebra", "ant", 12, 0, "worse")
    assert sentences(result_of(contest(names=names), votes))[0].startswith("zebra is better than ant: it won 100%")


def test_a_tie_is_not_called_equal() -> None:
    votes = [vote(k, "b" if k < 6 else "a") for k in range(10)]
    said = sentences(result_of(contest(), votes))[0]
    assert "do not settle which of the two is better. tuned is ahead of base: it won 60%" in said
    assert "This does not mean that they are equal" in said
    clear = sentences(result_of(contest(), [vote(k, "a" if k < 2 else "b") for k in range(11)]))[0]
    assert clear.endswith("holds for a number of votes fixed beforehand, not for stopping at will.)")
    even = sentences(result_of(contest(), votes[2:]))[0]
    assert even == "The votes do not tell base and tuned apart: each won half of the comparisons."


def test_a_second_judge_adds_no_evidence_for_being_sure() -> None:
    """Two people who agree on seven questions are seven questions."""
    one = [vote(k, "b") for k in range(7)]
    two = [vote(k, "b", "ben") for k in range(7)]
    found = result_of(contest(), one + two)
    assert (found["pairs"][0]["sure_after"], found["pairs"][0]["votes"]) == (None, 14)
    assert found["agreement"]["pairs"][0]["agreed"] == 1
    assert settled(contest(), one + two) == (0, 0)
    assert settled(contest(7), one + two) == (0, 1)
    assert settled(contest(), [vote(k, "b") for k in range(9)]) == (1, 0)


def test_a_favoured_place_is_said() -> None:
    votes = [replace(vote(k, "a" if k % 2 else "b")) for k in range(20)]  # always who stood first
    assert any(
        "stood first (left, or above) won 100% of the 20 votes" in one for one in sentences(result_of(contest(), votes))
    )


def test_several_contestants_are_judged_more_strictly() -> None:
    names = ("base", "one", "two")
    votes = [vote(k, "b", pair=("base", "one")) for k in range(9)] + [
        vote(k, "a", pair=("one", "two")) for k in range(9)
    ]
    found = result_of(contest(names=names), votes)
    assert [(pair["a"], pair["b"], pair["verdict"]) for pair in found["pairs"]] == [
        ("base", "one", "tie"), ("one", "two", "tie"),
    ]  # fmt: skip
    more = [vote(k, "b", pair=("base", "one")) for k in range(9, 12)]
    found = result_of(contest(names=names), votes + more)
    assert found["pairs"][0]["verdict"] == "better"
    assert found["ranking"][0]["name"] == "one"
    said = sentences(found)
    assert said[0].startswith("Ahead is one: against the average of the others it would win ")
    assert said[1] == "Settled are 1 of 2 pairs: one over base. The others could be chance."


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_contest(tmp_path, contest())
    assert read_contest(tmp_path) == contest()
    assert read_contest(tmp_path / "none") is None
    for broken in ("{", "[]", '{"contestants": "ab"}', contest_file(tmp_path).read_text().replace('"asked?"', "")):
        contest_file(tmp_path).write_text(broken, encoding="utf-8")
        with pytest.raises(StudyError, match=r"contest\.json: not a contest of pronk's"):
            read_contest(tmp_path)


def test_the_study_s_own_answers(tmp_path: Path) -> None:
    study = build_study(tmp_path, items=12, runs=("qv-2", "all-linear-2"), similarity=True)
    found = contest_of_items(study)
    assert found.contestants == ("smollm2", "qv-2", "all-linear-2")
    assert len(found.matters) == 12
    assert found.matters[0].answers["qv-2"][0].startswith("A summary of")
    assert contest_of_items(study, ["qv-2"]).contestants == ("smollm2", "qv-2")
    assert contest_of_items(study, base=False).contestants == ("qv-2", "all-linear-2")
    with pytest.raises(StudyError, match=r"no evaluated run 'nobody'; there are qv-2, all-linear-2"):
        contest_of_items(study, ["nobody"])
    classified = contest_of_items(build_study(tmp_path / "classify", items=12, runs=("qv-2",)))
    assert all(len(one.answers["qv-2"]) == 1 for one in classified.matters)


def test_the_report_has_a_section_and_hostile_names_stay_text(tmp_path: Path) -> None:
    study = build_study(tmp_path, items=12, runs=("qv-2",))
    assert "Blind test" not in render(study)
    names = ("base", HOSTILE[0])
    hostile = replace(contest(names=names), source=HOSTILE[1])
    write_contest(study, hostile)
    with pytest.raises(StudyError, match="nobody has voted yet"):
        arena_result(study)
    votes = [vote(k, "a", pair=(HOSTILE[0], "base")) for k in range(12)]
    append_votes(votes_file(study), votes)
    store_result(study)
    assert json.loads((study / "study.json").read_text())["arena"]["pairs"][0]["verdict"] == "better"
    page = render(study)
    assert "Blind test" in page
    assert not any(text in page for text in HOSTILE[:3])
    assert "&lt;script&gt;alert(1)&lt;/script&gt; is better than base" in page


def test_no_section_without_a_test() -> None:
    assert section(None) == section({}) == section({"pairs": []}) == ""


def test_the_terminal_s_lines() -> None:
    lines = terminal_lines(result_of(contest(), [vote(k, "b" if k else "both_bad") for k in range(12)]))
    assert lines[0] == "tuned against base: ▲ better"
    assert lines[1].endswith("; won 11, lost 0, tied 0, 1 both bad")
    assert max(map(len, lines[:2])) <= 80
