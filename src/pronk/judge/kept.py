"""What a judge has said so far: STUDY/judge/JUDGE/votes.jsonl, a line a reply, appended as replies come.

A line is a vote (compare/votes.py) of one order of a pair, with more keys: `key`, what exactly was asked; `vote` is
null where the reply was no verdict; `reason`, or the `reply` that was none. Nothing is ever rewritten, so the same
command goes on wherever it ended. Verdicts are found by `key` alone, whatever the runs are called.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pronk.compare.items import read_lines
from pronk.compare.votes import Vote, answers_id, append_rows
from pronk.errors import StudyError
from pronk.judge import prompt
from pronk.judge.prompt import Reading
from pronk.judge.verdict import CHOICES, Verdict

TRIES = 3  # times that a judge is asked for a verdict, until its reply is one
LONGEST_REPLY = 500  # letters kept of a reply that is none, for people to see why


@dataclass(frozen=True, slots=True)
class Wanted:
    """One reading of a pair. question: its id. first, second: whose answers; the judge is not told."""

    question: str
    first: str
    second: str
    reading: Reading

    def key(self, judge: str) -> str:
        """What a verdict hangs on, and nothing else: the words of the prompt, the judge, and all that it reads."""
        one = self.reading
        asked = [prompt.VERSION, judge, one.turns, one.reference, one.first, one.second]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a judge replied. verdict: None where the text is none."""

    verdict: Verdict | None
    text: str = ""
    seconds: float | None = None
    more: dict[str, Any] | None = None  # what else the line is to hold


class Kept:
    """The replies of one judge. name: as people know it. identity: what tells it from all other judges."""

    def __init__(self, path: Path, name: str, identity: str) -> None:
        self.path, self.name, self.identity = path, name, identity
        self.verdicts: dict[str, str] = {}
        self.tries: Counter[str] = Counter()
        for number, row in read_lines(path, half=True):
            self._count(row, f"{path}, line {number}")

    def said(self, wanted: Wanted) -> str | None:
        """A, B or tie; None where there is no verdict."""
        return self.verdicts.get(wanted.key(self.identity))

    def tried(self, wanted: Wanted) -> int:
        """How often the reply was no verdict."""
        return self.tries[wanted.key(self.identity)]

    def open(self, wanted: Wanted) -> bool:
        """Whether it is still to be asked for."""
        return self.said(wanted) is None and self.tried(wanted) < TRIES

    def add(self, wanted: Wanted, reply: Reply) -> None:
        """Append a reply; on the disk when this returns."""
        choice = reply.verdict.choice if reply.verdict else None
        vote = Vote(
            wanted.question, wanted.first, wanted.second, _VOTES[choice], "ab", self.name, "model",
            answers_id(*("\0".join(texts) for texts in (wanted.reading.first, wanted.reading.second))),
            datetime.now(UTC).isoformat(timespec="seconds"), reply.seconds and round(reply.seconds, 3),
        )  # fmt: skip
        row = {
            **asdict(vote.ordered()), "key": wanted.key(self.identity), "verdict": choice,
            **({"reason": reply.verdict.reason} if reply.verdict else {"reply": reply.text[:LONGEST_REPLY]}),
            **(reply.more or {}),
        }  # fmt: skip
        append_rows(self.path, [row])
        self._count(row, str(self.path))

    def _count(self, row: dict[str, Any], place: str) -> None:
        key, verdict = row.get("key"), row.get("verdict")
        if not isinstance(key, str) or verdict not in (*CHOICES, None):
            raise StudyError(
                f"{place}: no reply of a judge (`key` and `verdict`); move the file away, and the judge is asked anew"
            )
        if verdict is None:
            self.tries[key] += 1
        else:
            self.verdicts[key] = verdict


_VOTES: dict[str | None, Any] = {"A": "a", "B": "b", "tie": "tie", None: None}


def votes_file(study: Path, judge: str) -> Path:
    """Where a judge's replies lie. judge: its name, of which a folder's is made."""
    folder = re.sub(r"[^\w.-]+", "-", judge).strip("-.")[-80:]
    return study / "judge" / (folder or "judge") / "votes.jsonl"
