"""All readings of a contest by one judge, as far as they are not there already."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

from pronk.compare.contest import Contest, Matter
from pronk.compare.judged import Judged, Said, Side
from pronk.data.questions import Question
from pronk.errors import StudyError
from pronk.judge.estimate import Estimate
from pronk.judge.judges import Judge
from pronk.judge.kept import TRIES, Kept, Wanted
from pronk.judge.prompt import Reading

Pair = tuple[str, str]
Named = TypeVar("Named", Matter, Question)  # what has an id
FIRST_IS_A: dict[str, Said] = {"A": "a", "B": "b", "tie": "tie"}
FIRST_IS_B: dict[str, Said] = {"A": "b", "B": "a", "tie": "tie"}


@dataclass(frozen=True)
class Match:
    """Two models' answers to one question. reference: a right answer, a text for each turn; empty for none."""

    matter: Matter
    a: str
    b: str
    reference: tuple[str, ...] = ()

    @property
    def answers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Of a and of b."""
        return self.matter.answers[self.a], self.matter.answers[self.b]

    @property
    def identical(self) -> bool:
        """Whether both say the same, spaces around it aside, so that there is nothing to ask."""
        one, other = ([text.strip() for text in texts] for texts in self.answers)
        return one == other

    @property
    def longer(self) -> Side | None:
        """Whose answers have more letters."""
        of_a, of_b = (sum(map(len, texts)) for texts in self.answers)
        return None if of_a == of_b else "a" if of_a > of_b else "b"

    def readings(self) -> tuple[Wanted, Wanted]:
        """a first, then b first."""
        (of_a, of_b), turns = self.answers, self.matter.turns
        return (
            Wanted(self.matter.id, self.a, self.b, Reading(turns, of_a, of_b, self.reference)),
            Wanted(self.matter.id, self.b, self.a, Reading(turns, of_b, of_a, self.reference)),
        )


def matches(contest: Contest, pairs: Sequence[Pair], references: Mapping[str, tuple[str, ...]]) -> list[Match]:
    """Every pair on every question that both answered, question by question: what breaks off has whole questions."""
    return [
        Match(matter, a, b, references.get(matter.id, ()))
        for matter in contest.matters
        for a, b in pairs
        if a in matter.answers and b in matter.answers
    ]


def some_of(questions: Sequence[Named], count: int | None) -> list[Named]:
    """So many of the questions, all when None: always the same ones, and those of a smaller number are among them."""
    order = sorted(questions, key=lambda one: hashlib.sha256(one.id.encode()).digest())
    kept = {one.id for one in order[:count]}
    return [one for one in questions if one.id in kept]


def pairs_of(contestants: Sequence[str], bases: Mapping[str, str], best: str | None, kind: str) -> list[Pair]:
    """Which models are judged against which, the base or the best run first. kind: see Options.pairs.

    bases: of each run. best: the best run. Raises StudyError where that leaves no pair.
    """
    if kind == "all":
        pairs = list(combinations(contestants, 2))
    elif kind == "best":
        pairs = [(best, name) for name in contestants if best in contestants and name != best and best is not None]
    else:
        pairs = [(bases[name], name) for name in contestants if bases.get(name) in contestants]
    if not pairs:
        raise StudyError(
            f"--pairs {kind}: there is no such pair among {', '.join(contestants) or 'no answers'}; try --pairs all"
        )
    return pairs


class Judging:
    """One judge and what is wanted of it. Pairs that show it the same two texts share their verdict."""

    def __init__(self, judge: Judge, kept: Kept, found: Sequence[Match]) -> None:
        self.judge, self.kept, self.matches = judge, kept, found
        readings = [one for match in found if not match.identical for one in match.readings()]
        self.wanted = list({one.key(kept.identity): one for one in readings}.values())
        self._tokens: dict[str, int] = {}  # of each reading that is open, by key
        self._lost: set[str] = set()  # keys of those that got no reply; the next command asks again

    def open(self) -> list[Wanted]:
        """The readings that are still to be asked for."""
        return [one for one in self.wanted if self.kept.open(one)]

    def count(self) -> None:
        """Count the tokens of what is open. Raises DataError for what the judge cannot read."""
        wanted = self.open()
        sizes = self.judge.tokens([one.reading for one in wanted])
        self._tokens = {one.key(self.kept.identity): size for one, size in zip(wanted, sizes, strict=True)}

    def estimate(self, start: Estimate, reply_tokens: float) -> Estimate:
        """Of what is open. start: how tokens are counted, and what they cost."""
        wanted = self.open()
        tokens = sum(self._tokens[one.key(self.kept.identity)] for one in wanted)
        seconds, out = self.judge.seconds(len(wanted), tokens), round(len(wanted) * reply_tokens)
        return replace(start, calls=len(wanted), tokens_in=tokens, tokens_out=out, seconds=seconds)

    def measure(self, stop: Callable[[], bool], advance: Callable[[int], None]) -> None:
        """Ask for the first few readings, which are kept like all others, to know how long the rest will take."""
        self._ask(self.open()[: self.judge.most], False, stop, advance)

    def run(self, stop: Callable[[], bool], advance: Callable[[int], None]) -> None:
        """Ask for everything that is open; for what was no verdict again, TRIES times in all."""
        for attempt in range(TRIES):
            wanted = [one for one in self.open() if self.kept.tried(one) == attempt and not self._is_lost(one)]
            self._ask(wanted, attempt > 0, stop, advance)
            if stop():
                return

    @property
    def wasted(self) -> int:
        """Replies that were no verdict, also those of former commands."""
        return sum(self.kept.tried(one) for one in self.wanted)

    def judged(self) -> list[Judged]:
        """What has been said, match by match."""
        return [self._judged(match) for match in self.matches]

    def _ask(
        self, wanted: Sequence[Wanted], again: bool, stop: Callable[[], bool], advance: Callable[[int], None]
    ) -> None:
        for place, reply in self.judge.replies([one.reading for one in wanted], again, stop):
            if reply is None:
                self._lost.add(wanted[place].key(self.kept.identity))
            else:
                self.kept.add(wanted[place], reply)
            if reply is None or not self.kept.open(wanted[place]):
                advance(1)

    def _is_lost(self, wanted: Wanted) -> bool:
        return wanted.key(self.kept.identity) in self._lost

    def _judged(self, match: Match) -> Judged:
        a_first, b_first = match.readings()
        said = self._said(a_first, FIRST_IS_A), self._said(b_first, FIRST_IS_B)
        return Judged(match.matter.id, match.a, match.b, *said, match.longer, match.identical)

    def _said(self, wanted: Wanted, meaning: Mapping[str, Said]) -> Said:
        choice = self.kept.said(wanted)
        if choice is None:
            return "missing" if self.kept.open(wanted) else "unparsable"
        return meaning[choice]
