"""The blind test: who votes on what, in which order, and when names are told.

A judge's order and the side of each answer hang on a seed and the judge's name. The browser gets texts and the place of
a pair in that order, no names, until that judge is through or stops; then their voting is over.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pronk.compare.arena import result_of, settled
from pronk.compare.arena_words import Words, percent, place_of
from pronk.compare.contest import Contest, Match
from pronk.compare.items import read_lines
from pronk.compare.votes import Choice, Order, Vote, append_rows, append_votes, read_votes, votes_file
from pronk.data.terminal import plain
from pronk.data.words import is_whole
from pronk.errors import OptionError
from pronk.runs import disk_guard
from pronk.ui.arena_texts import ENGLISH, TEXTS
from pronk.ui.local_page import Page, read_page

LONGEST_NAME = 60
View = dict[str, Any]


class Arena:
    """The contest of a study and its votes, which are read anew each time: other processes may vote too.

    judge: whose name the page proposes. code: of the page's language, `en` or `ko`. Its methods are called by the page,
    in several threads.
    """

    def __init__(self, study: Path, contest: Contest, seed: int = 0, judge: str = "", code: str = "en") -> None:
        self.contest, self.seed, self.code, self.texts = contest, seed, code, TEXTS[code]
        self.judge = judge_name(judge) if judge else ""
        self.file, self.told_file = votes_file(study), study / "arena" / "told.jsonl"
        self.matches = list(contest.matches())
        self._lock = threading.Lock()

    def page(self) -> Page:
        """The page with this contest behind it."""
        ending = threading.Event()

        def close(_: Mapping[str, Any]) -> View:
            ending.set()
            return {}

        posts = {"/api/next": self.next, "/api/vote": self.vote, "/api/undo": self.undo, "/api/result": self.result}
        blanks = {
            "language": self.code,
            "t": {key: Markup(text) for key, text in self.texts.items()},
            "script": json.dumps({key[7:]: text for key, text in self.texts.items() if key.startswith("script.")}),
        }
        get, post = {"/api/state": self.state}, {**posts, "/api/close": close}
        return read_page("arena", blanks, get=get, post=post, ending=ending)

    def state(self) -> View:
        """How much there is to do, and who probably does it."""
        asked = sum(not match.identical for match in self.matches)
        return {"judge": self.judge, "amount": self.texts["once" if asked == 1 else "times"].format(n=f"{asked:,}")}

    def next(self, body: Mapping[str, Any]) -> View:
        """The pair that a judge is to vote on."""
        with self._lock:
            return self._next(judge_name(body.get("judge"), self.texts))

    def vote(self, body: Mapping[str, Any]) -> View:
        """Keep a vote; the next pair. Raises OptionError where it is for another pair than the one to vote on."""
        judge = judge_name(body.get("judge"), self.texts)
        with self._lock:
            view = self._next(judge)
            if view.get("finished") or body.get("pair") != view["pair"]:
                raise OptionError(self.texts["voted"])
            match = self._order(judge)[view["pair"]]
            order = self._sides(judge, match)
            self._keep([self._vote(match, judge, _choice(body.get("choice"), order), order, body)])
            return self._next(judge)

    def undo(self, body: Mapping[str, Any]) -> View:
        """Take a judge's last vote back; the pair that it was on."""
        judge = judge_name(body.get("judge"), self.texts)
        with self._lock:
            own = [vote for vote in self._votes() if vote.judge == judge and vote.kind == "person"]
            if own and not self._told(judge):
                places = {_place(match): match for match in self.matches}
                last = own[-1]
                self._keep([self._vote(places[_place(last)], judge, None, last.order, {})])
            return self._next(judge)

    def result(self, body: Mapping[str, Any]) -> View:
        """What all judges have voted, names included, for a judge who is through or stops. Raises OptionError else."""
        judge = judge_name(body.get("judge"), self.texts)
        with self._lock:
            finished = self._next(judge).get("finished")
            if not finished and body.get("stop") is not True:
                raise OptionError(self.texts["not-through"])
            votes = self._votes()
            if not any(vote.kind == "person" for vote in votes) and not finished:
                raise OptionError(self.texts["nobody"])
            if not self._told(judge):
                now = datetime.now(UTC).isoformat(timespec="seconds")
                with disk_guard(self.told_file):
                    append_rows(
                        self.told_file, [{"judge": judge, "contestants": self.contest.contestants, "time": now}]
                    )
        found, words = result_of(self.contest, votes), Words(self.code)
        pairs = [
            {**pair, "win_rate": percent(pair["win_rate"]), "interval": words.between(pair["interval"]),
             "a": plain(pair["a"]), "b": plain(pair["b"])}
            for pair in found["pairs"]
        ]  # fmt: skip
        ranking = [
            [plain(one["name"]), percent(one["win_rate"]), words.between(one["interval"]), place_of(one)]
            for one in found["ranking"] or ()
        ]
        return {"said": [plain(sentence) for sentence in words.sentences(found)], "pairs": pairs, "ranking": ranking}

    # --- a judge's way through the contest ------------------------------------------------------

    def _next(self, judge: str) -> View:
        """What is identical is passed, and kept as the judge's tie when its turn comes."""
        votes = self._votes()
        done = {_place(vote) for vote in votes if vote.judge == judge}
        order, passed = self._order(judge), []
        current = None
        for number, match in enumerate(order):
            if _place(match) in done:
                continue
            if not match.identical:
                current = number
                break
            passed.append(self._vote(match, judge, "tie", "both", {}, "identical"))
        of = [_place(match) for match in order if not match.identical]
        view = {"judge": judge, "done": sum(place in done for place in of), "of": len(of)}
        if self._told(judge):
            return {**view, "finished": True, "told": True}
        self._keep(passed)
        if current is None:
            return {**view, "finished": True, "told": False}
        news = self._news(judge, [*votes, *passed])
        return {**view, "pair": current, "turns": self._turns(judge, order[current]), "news": news}

    def _turns(self, judge: str, match: Match) -> list[View]:
        answers = [match.matter.answers[name] for name in (match.a, match.b)]
        left, right = answers if self._sides(judge, match) == "ab" else reversed(answers)
        return [
            {"asked": plain(asked), "left": plain(one.strip()), "right": plain(other.strip())}
            for asked, one, other in zip(match.matter.turns, left, right, strict=True)
        ]

    def _news(self, judge: str, votes: Sequence[Vote]) -> str:
        """Whether one may stop: said without saying in whose favour, and only to those whose votes are new questions.

        Who votes on what others have voted on tells how far people agree; that is never settled.
        """
        first = {_place(vote): vote.judge for vote in reversed(votes)}
        if judge not in first.values():
            return ""
        sure, hopeless = settled(self.contest, votes)
        if sure + hopeless < len(self.contest.pairs) or (not sure and hopeless == settled(self.contest, ())[1]):
            return ""
        return self.texts["sure" if sure else "hopeless"]

    def _order(self, judge: str) -> list[Match]:
        order = list(self.matches)
        random.Random(f"{self.seed}/{judge}").shuffle(order)
        return order

    def _sides(self, judge: str, match: Match) -> Order:
        drawn = random.Random("/".join((str(self.seed), judge, *_place(match)))).random()
        return "ab" if drawn < 0.5 else "ba"

    def _votes(self) -> list[Vote]:
        return self.contest.counting([vote for vote in read_votes(self.file) if vote.kind != "model"])

    def _keep(self, votes: Sequence[Vote]) -> None:
        with disk_guard(self.file):
            append_votes(self.file, votes)

    def _told(self, judge: str) -> bool:
        told = [(row.get("judge"), row.get("contestants")) for _, row in read_lines(self.told_file, half=True)]
        return (judge, list(self.contest.contestants)) in told

    def _vote(
        self, match: Match, judge: str, choice: Choice | None, order: Order, body: Mapping[str, Any],
        kind: Any = "person",
    ) -> Vote:  # fmt: skip
        seconds = body.get("seconds")
        known = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < 1e6
        return Vote(
            match.matter.id, match.a, match.b, choice, order, judge, kind, match.answers_id,
            _now(), round(float(seconds), 1) if known and seconds else None,
        )  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _place(one: Match | Vote) -> tuple[str, str, str]:
    question = one.question if isinstance(one, Vote) else one.matter.id
    return question, one.a, one.b


def _choice(given: Any, order: Order) -> Choice:
    sides: dict[Any, Choice] = {"tie": "tie", "both_bad": "both_bad"}
    sides |= {"left": "a", "right": "b"} if order == "ab" else {"left": "b", "right": "a"}
    if not isinstance(given, str) or given not in sides:
        raise OptionError("a vote is left, right, tie or both_bad")
    return sides[given]


def judge_name(given: Any, texts: Mapping[str, str] = ENGLISH) -> str:
    """A judge's name as it is kept, in one line. Raises OptionError, in the words of `texts`, for what is none."""
    name = " ".join(given.split()) if isinstance(given, str) else ""
    if not name or len(name) > LONGEST_NAME or not is_whole(name) or plain(name) != name:
        raise OptionError(texts["name"].format(longest=LONGEST_NAME))
    return name
