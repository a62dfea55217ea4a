"""What is voted on: questions and every contestant's answers, as STUDY/arena/contest.json holds them.

    {"contestants": ["base", "rank-16"],
     "questions": [{"id": "q-9f…", "turns": ["…"], "answers": {"base": ["…"], "rank-16": ["…"]}}],
     "source": "mt_bench_question.jsonl", "settings": {"max_new_tokens": 512, …}}

An answer is a list: one text for each turn of the question. Votes count only for the answers that are here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from pronk.compare.items import read_lines, run_folder
from pronk.compare.pairs import evaluated, plain_base
from pronk.compare.votes import Vote, answers_id
from pronk.errors import StudyError
from pronk.runs import StudyFolder, write_text

# item files that hold what a run answered, and under which key; the first that two runs have is taken
ANSWERED = {"answers": "answer", "similarity": "answer", "exact": "answer", "classify": "generated"}

TEST_ITEMS = "the study's test items"  # a contest's `source` where its questions are these


@dataclass(frozen=True, slots=True)
class Matter:
    """A question with all answers to it. turns: what the asker says. answers: by contestant, a text for each turn."""

    id: str
    turns: tuple[str, ...]
    answers: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Match:
    """Two contestants on one question; a is the alphabetically earlier one."""

    matter: Matter
    a: str
    b: str

    @property
    def identical(self) -> bool:
        """Whether there is nothing to choose: the texts are the same, spaces around them aside."""
        one, other = ([text.strip() for text in self.matter.answers[name]] for name in (self.a, self.b))
        return one == other

    @property
    def answers_id(self) -> str:
        """What a vote on these two answers names them by."""
        return answers_id(*("\0".join(self.matter.answers[name]) for name in (self.a, self.b)))


@dataclass(frozen=True)
class Contest:
    """contestants: in the order of the study, the base first. source: where the questions come from."""

    contestants: tuple[str, ...]
    matters: tuple[Matter, ...]
    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every two contestants, the alphabetically earlier one first."""
        return [(min(pair), max(pair)) for pair in combinations(self.contestants, 2)]

    def matches(self) -> Iterator[Match]:
        """Every two contestants on every question that both answered."""
        for matter in self.matters:
            for a, b in self.pairs:
                if a in matter.answers and b in matter.answers:
                    yield Match(matter, a, b)

    def counting(self, votes: Sequence[Vote]) -> list[Vote]:
        """The votes that are about these answers, in their order."""
        return [vote for vote in votes if self._answers_ids.get((vote.question, vote.a, vote.b)) == vote.answers]

    @cached_property
    def _answers_ids(self) -> dict[tuple[str, str, str], str]:
        return {(match.matter.id, match.a, match.b): match.answers_id for match in self.matches()}


def contest_file(study: Path) -> Path:
    """Where the contest of a study lies."""
    return study / "arena" / "contest.json"


def write_contest(study: Path, contest: Contest) -> None:
    """Write contest.json, whole or not at all."""
    whole = {
        "contestants": contest.contestants,
        "source": contest.source,
        "settings": dict(contest.settings),
        "questions": [asdict(matter) for matter in contest.matters],
    }
    write_text(contest_file(study), json.dumps(whole, indent=1) + "\n")


def read_contest(study: Path) -> Contest | None:
    """The contest of a study; None where there is none. Raises StudyError where contest.json is not ours."""
    path = contest_file(study)
    if not path.is_file():
        return None
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        matters = [
            Matter(str(row["id"]), _texts(row["turns"]), {name: _texts(one) for name, one in row["answers"].items()})
            for row in whole["questions"]
        ]
        if any(len(texts) != len(one.turns) for one in matters for texts in one.answers.values()):
            raise ValueError("an answer has not as many texts as its question has turns")
        return Contest(_texts(whole["contestants"]), tuple(matters), str(whole["source"]), dict(whole["settings"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(
            f"{path}: not a contest of pronk's ({type(error).__name__}: {error}); move it away to begin anew"
        ) from None


def contest_of_items(study: Path, chosen: Sequence[str] = (), base: bool = True) -> Contest:
    """The study's own test items with what its runs answered when they were evaluated; nothing is generated.

    chosen: names of the tuned runs that take part; all when empty. base: whether the untouched base does. Raises
    StudyError where no two of them have answered.
    """
    folder = StudyFolder.open(study)
    runs = sorted((run for run in folder.read()["runs"] if evaluated(run)), key=lambda run: not plain_base(run))
    tuned = [str(run["name"]) for run in runs if not run.get("baseline")]
    if unknown := [name for name in chosen if name not in tuned]:
        raise StudyError(f"{study}: there is no evaluated run {unknown[0]!r}; there are {', '.join(tuned) or 'none'}")
    taking_part = {*(chosen or tuned), *(str(run["name"]) for run in runs if base and plain_base(run))}
    names = [str(run["name"]) for run in runs if run["name"] in taking_part]
    for evaluation, key in ANSWERED.items():
        files = {name: run_folder(study, name) / "items" / f"{evaluation}.jsonl" for name in names}
        answers = {name: texts for name, path in files.items() if (texts := _answers(path, key))}
        if len(answers) > 1:
            return Contest(tuple(answers), tuple(_matters(folder, answers)), TEST_ITEMS)
    raise StudyError(
        f"{study}: no two of its runs have written answers to the test items (they were measured by likelihood); name "
        f"questions with --questions FILE, or have them answered: pronk eval {study} --evaluate answers"
    )


def _matters(folder: StudyFolder, answers: Mapping[str, Mapping[str, str]]) -> Iterator[Matter]:
    for row in folder.read_items():
        name, asked = str(row.get("id")), str(row.get("question") or row.get("input") or "")
        given = {run: (texts[name],) for run, texts in answers.items() if name in texts}
        if len(given) > 1:
            yield Matter(name, (asked,), given)


def _answers(path: Path, key: str) -> dict[str, str]:
    return {str(row.get("id")): row[key] for _, row in read_lines(path) if isinstance(row.get(key), str)}


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("expected a list of texts")
    return tuple(values)
