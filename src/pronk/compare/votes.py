"""Votes on pairs of answers: the one record that people in the blind test and model judges write.

STUDY/arena/votes.jsonl holds them, a line each, appended as they come:

    {"question": "q-9f…", "a": "base", "b": "rank-16", "vote": "b", "order": "ba", "judge": "anna", "kind": "person",
     "answers": "3c…", "time": "2026-10-20T09:30:00+00:00", "seconds": 8.2}

Nothing is ever rewritten: of several lines by one judge on one pair of answers the last one counts, and a `vote` of
null takes it back. Extra keys are allowed and left alone, so that a writer may add what it knows.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pronk.compare.items import read_lines
from pronk.errors import StudyError

# which answer is better. both_bad: neither is any good; counts as a tie in figures, and is told apart in words
Choice = Literal["a", "b", "tie", "both_bad"]
# what stood first (left, or above): ab, ba. both: a verdict from two readings, one in each order
Order = Literal["ab", "ba", "both"]
# identical: the answers are the same text, so nobody was asked
Kind = Literal["person", "model", "identical"]

FLIPPED: dict[Any, Any] = {"a": "b", "b": "a", "ab": "ba", "ba": "ab"}


@dataclass(frozen=True, slots=True)
class Vote:
    """One judge's verdict on two answers to one question.

    question: its id (data.questions). a, b: names of the contestants as study.json has them, `a` the alphabetically
    earlier one. judge: a person's name as they gave it, or a model's. answers: `answers_id` of the two texts, so that
    a vote never counts for answers that it was not about. time: ISO 8601, UTC. seconds: that the judge took.
    """

    question: str
    a: str
    b: str
    vote: Choice | None
    order: Order
    judge: str
    kind: Kind = "person"
    answers: str = ""
    time: str = ""
    seconds: float | None = None

    @property
    def place(self) -> tuple[str, ...]:
        """What there is one verdict on: a later vote with the same place replaces this one."""
        return ("" if self.kind == "model" else "person", self.judge, self.question, self.a, self.b, self.answers)

    @property
    def score(self) -> float:
        """1 where b won, 0 where a did, else one half."""
        return {"a": 0.0, "b": 1.0}.get(self.vote or "", 0.5)

    def ordered(self) -> Vote:
        """The same vote with the alphabetically earlier contestant as `a`."""
        if self.a <= self.b:
            return self
        vote, order = FLIPPED.get(self.vote, self.vote), FLIPPED.get(self.order, self.order)
        return replace(self, a=self.b, b=self.a, vote=vote, order=order)


def votes_file(study: Path) -> Path:
    """Where the votes of a study lie."""
    return study / "arena" / "votes.jsonl"


def answers_id(one: str, other: str) -> str:
    """A name for two answers to one question, whichever stands first."""
    return hashlib.sha256("\0".join(sorted((one, other))).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def append_votes(path: Path, votes: Iterable[Vote]) -> None:
    """Add votes at the end of a file; see append_rows."""
    append_rows(path, [asdict(vote.ordered()) for vote in votes])


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add lines of JSON at the end of a file, in one write that is on the disk when this returns.

    Several processes may append to one file. Half a line that a power failure left behind is cut off first.
    """
    content = "".join(json.dumps(row) + "\n" for row in rows)
    if not content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        _cut_half_a_line(file)
        file.write(content.encode())
        os.fsync(file.fileno())


def _cut_half_a_line(file: Any) -> None:
    size, window, tail = file.seek(0, os.SEEK_END), 2**12, b""
    while b"\n" not in tail and len(tail) < size:
        window *= 4
        file.seek(max(0, size - window))
        tail = file.read()
    if not tail.endswith(b"\n"):
        file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)


def read_votes(path: Path) -> list[Vote]:
    """The votes that count, in the order in which they were given; none where there is no file.

    The last vote of a judge on a pair of answers counts, unless it was taken back. Half a last line, which a power
    failure may leave, is no vote. Raises StudyError with file and line for anything else that is no vote.
    """
    votes: dict[tuple[str, ...], Vote] = {}
    for number, row in read_lines(path, half=True):
        vote = _vote(row, f"{path}, line {number}").ordered()
        votes.pop(vote.place, None)
        if vote.vote is not None:
            votes[vote.place] = vote
    return list(votes.values())


def _vote(row: dict[str, Any], place: str) -> Vote:
    texts = {key: row.get(key) for key in ("question", "a", "b", "judge")}
    for key, value in texts.items():
        if not isinstance(value, str) or not value:
            raise StudyError(f"{place}: `{key}` must be a text, found {json.dumps(value)[:40]}")
    for key, allowed in (("vote", (*get_args(Choice), None)), ("order", get_args(Order)), ("kind", get_args(Kind))):
        found = row.get(key, "person" if key == "kind" else "")
        if found not in allowed:
            raise StudyError(f"{place}: `{key}` must be one of {json.dumps(list(allowed))}, found {str(found)[:40]!r}")
    if row["a"] == row["b"]:
        raise StudyError(f"{place}: {row['a']!r} stands against itself")
    seconds = row.get("seconds")
    return Vote(
        row["question"], row["a"], row["b"], row["vote"], row["order"], row["judge"], row.get("kind", "person"),
        str(row.get("answers") or ""), str(row.get("time") or ""),
        float(seconds) if isinstance(seconds, int | float) else None,
    )  # fmt: skip
