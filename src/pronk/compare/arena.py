"""What the votes of people on a study's answers come to: STUDY/arena → the key `arena` of study.json.

Figures are of preference.py, when it is sure of sure.py, agreement of agreement.py. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pronk.compare.agreement import agreement
from pronk.compare.contest import Contest, read_contest
from pronk.compare.preference import ranking, win_rate
from pronk.compare.sure import LEVEL, always_valid_interval, can_still_be_sure, sure_after
from pronk.compare.votes import Vote, read_votes, votes_file
from pronk.errors import StudyError
from pronk.runs import StudyFolder

Result = dict[str, Any]


def arena_result(study: Path) -> Result:
    """What people have voted so far in the contest of a study. Raises StudyError where there is none, or no vote.

    `pairs`: of every two contestants that were voted on, `a` before `b` as the study lists them; `win_rate` of b, a
    tie (and two bad answers) being half a win; `interval` for a number of votes fixed beforehand, `interval_any_time`
    for whenever one stops; `verdict` on b: `better` or `worse` where it is sure, else `tie`; `sure_after`: so many
    questions. `ranking` of three contestants or more, `agreement` of two judges or more, else None.
    """
    contest = read_contest(study)
    if contest is None:
        raise StudyError(f"{study}: there is no contest here yet; `pronk arena {study}` begins one")
    votes = read_votes(votes_file(study))
    result = result_of(contest, [vote for vote in votes if vote.kind != "model"])
    if not result["votes"]:
        raise StudyError(f"{study}: nobody has voted yet; `pronk arena {study}` opens the page")
    return result


def result_of(contest: Contest, votes: Sequence[Vote]) -> Result:
    """The same of a contest and all votes of people, in the order in which they were given."""
    counting = contest.counting(votes)
    pairs = [_pair(a, b, counting, len(contest.pairs)) for a, b in _in_order(contest)]
    pairs = [pair for pair in pairs if pair["votes"]]
    voted = [name for name in contest.contestants if any(name in (pair["a"], pair["b"]) for pair in pairs)]
    return {
        "contestants": list(contest.contestants),
        "questions": len(contest.matters),
        "questions_voted_on": len({vote.question for vote in counting}),
        "source": contest.source,
        "settings": dict(contest.settings),
        "votes": sum(vote.kind == "person" for vote in counting),
        "identical": len({(vote.question, vote.a, vote.b) for vote in counting if vote.kind == "identical"}),
        "left_out": len(votes) - len(counting),
        "judges": _judges(counting),
        "pairs": pairs,
        "ranking": ranking(counting, voted) if len(voted) > 2 else None,
        "agreement": agreement(counting),
        "first_won": _first_won(counting),
    }


def settled(contest: Contest, votes: Sequence[Vote]) -> tuple[int, int]:
    """Of how many pairs it is sure who is better, and of how many the questions left can no longer tell."""
    sure, hopeless, level = 0, 0, LEVEL / len(contest.pairs)
    matches = list(contest.matches())
    for a, b in contest.pairs:
        scores = _first_scores(votes, a, b)
        left = sum((match.a, match.b) == (a, b) for match in matches) - len(scores)
        if sure_after(scores, level) is not None:
            sure += 1
        elif not can_still_be_sure(*_counts(scores), left, level):
            hopeless += 1
    return sure, hopeless


def store_result(study: Path) -> Result:
    """The result, also written into study.json where the contest belongs to a study. Raises StudyError as above."""
    result = arena_result(study)
    if (study / "study.json").is_file():
        folder = StudyFolder.open(study)
        with folder.changing():  # judges write theirs
            folder.write({**folder.read(), "arena": result})
    return result


def _in_order(contest: Contest) -> list[tuple[str, str]]:
    """Pairs as the study lists its runs: the base first."""
    names = contest.contestants
    return [(a, b) for number, a in enumerate(names) for b in names[number + 1 :]]


def _pair(a: str, b: str, votes: Sequence[Vote], family: int) -> Result:
    own = [vote for vote in votes if {vote.a, vote.b} == {a, b}]
    entry: Result = {"a": a, "b": b, "votes": len(own)}
    if not own:
        return entry
    scores: dict[str, list[float]] = {}
    for vote in own:
        scores.setdefault(vote.question, []).append(_score(vote, b))
    rate, interval = win_rate(scores)
    level, first = LEVEL / family, _first_scores(own, a, b)
    sure = sure_after(first, level)
    said = [vote.vote for vote in own]
    return entry | {
        "questions": len(scores),
        "wins_a": sum(score == 0 for one in scores.values() for score in one),
        "wins_b": sum(score == 1 for one in scores.values() for score in one),
        "ties": said.count("tie"),
        "both_bad": said.count("both_bad"),
        "identical": sum(vote.kind == "identical" for vote in own),
        "win_rate": rate,
        "interval": interval,
        "interval_any_time": _any_time(first, sure, level),
        "sure_after": sure,
        "verdict": "tie" if sure is None else "better" if sum(first[:sure]) > sure / 2 else "worse",
    }  # fmt: skip


def _any_time(scores: Sequence[float], sure: int | None, level: float) -> list[float]:
    """The interval that holds whenever one stops: it holds at all votes together, so also what two of them have in
    common, the last and the one at which it was sure. Without that, later votes could blur what is settled."""
    low, high = always_valid_interval(*_counts(scores), level)
    if sure is not None:
        then = always_valid_interval(*_counts(scores[:sure]), level)
        both = max(low, then[0]), min(high, then[1])
        low, high = both if both[0] < both[1] else (low, high)
    return [low, high]


def _score(vote: Vote, name: str) -> float:
    return vote.score if vote.b == name else 1 - vote.score


def _first_scores(votes: Sequence[Vote], a: str, b: str) -> list[float]:
    """Of each question the first vote, in the order of voting: another opinion on it is no independent evidence."""
    first: dict[str, float] = {}
    for vote in votes:
        if {vote.a, vote.b} == {a, b}:
            first.setdefault(vote.question, _score(vote, b))
    return list(first.values())


def _counts(scores: Sequence[float]) -> tuple[int, int, int]:
    found = list(scores)
    return found.count(1.0), found.count(0.5), found.count(0.0)


def _judges(votes: Sequence[Vote]) -> list[Mapping[str, Any]]:
    names = dict.fromkeys(vote.judge for vote in votes)
    own = {name: [vote for vote in votes if vote.judge == name and vote.kind == "person"] for name in names}
    return [
        {"name": name, "votes": len(given),
         "seconds": sorted(times)[len(times) // 2] if (times := [v.seconds for v in given if v.seconds]) else None}
        for name, given in own.items() if given
    ]  # fmt: skip


def _first_won(votes: Sequence[Vote]) -> list[int] | None:
    """[how often who stood first won, of so many votes for one side]; far from half: the place was voted for."""
    decided = [vote for vote in votes if vote.vote in ("a", "b") and vote.kind == "person" and vote.order != "both"]
    return [sum(vote.order[0] == vote.vote for vote in decided), len(decided)] if decided else None
