"""What a model's verdicts on pairs of answers come to: win rates, and how far the judge is to be trusted.

The judge reads every pair twice, each answer first once. A verdict counts where both readings name the same answer;
where they disagree it is a tie. Where a reading is missing or was no verdict, there is none, and none is made up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pronk.compare import resampling
from pronk.compare.preference import win_rate
from pronk.compare.statistics import holm, mcnemar_exact

SIGNIFICANCE = 0.05
Side = Literal["a", "b"]
# what a reading said: the better answer, or why there is nothing
Said = Literal["a", "b", "tie", "unparsable", "missing"]
Verdict = Literal["a", "b", "tie"]
VALID: dict[Said, Verdict] = {"a": "a", "b": "b", "tie": "tie"}
SCORES = {"a": 0.0, "tie": 0.5, "b": 1.0}


@dataclass(frozen=True, slots=True)
class Judged:
    """Two answers to one question. a_first, b_first: what was said with that answer first. longer: which of them has
    more letters, None where neither. identical: the same text, so nobody was asked."""

    question: str
    a: str
    b: str
    a_first: Said
    b_first: Said
    longer: Side | None = None
    identical: bool = False

    @property
    def verdict(self) -> Verdict | None:
        """What both readings say; a tie where they disagree; None where one of them says nothing."""
        if self.identical:
            return "tie"
        one, other = VALID.get(self.a_first), VALID.get(self.b_first)
        if one is None or other is None:
            return None
        return one if one == other else "tie"

    @property
    def disagrees(self) -> bool:
        """Whether the verdict hangs on which answer stood first."""
        return self.verdict is not None and self.a_first != self.b_first

    @property
    def favours_first(self) -> bool:
        """Whether the readings disagree, and lean to what stood first."""
        return self.disagrees and (self.a_first == "a" or self.b_first == "b")


def pair_results(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Each pair of runs, as study.json holds them: how often b was preferred, ties counted as half.

    `win_rate` is b's, with `interval` (95%, unadjusted; preference.py) and p-value: McNemar's exact test of wins and
    losses with one verdict a question, sign flips of whole questions with several (resampling.py). `p_adjusted`: Holm
    over the pairs. `verdict` speaks of b. All of these are None where nothing was judged.
    """
    pairs: dict[tuple[str, str], list[Judged]] = defaultdict(list)
    for one in judged:
        pairs[one.a, one.b].append(one)
    results = [{"a": a, "b": b, **_counts(found), **_rate(found)} for (a, b), found in pairs.items()]
    told = [result for result in results if result["p_value"] is not None]
    for result, adjusted in zip(told, holm([result["p_value"] for result in told]), strict=True):
        sure = adjusted < SIGNIFICANCE and result["win_rate"] != 0.5
        result["p_adjusted"] = float(adjusted)
        result["verdict"] = ("better" if result["win_rate"] > 0.5 else "worse") if sure else "tie"
    return results


def _counts(judged: Sequence[Judged]) -> dict[str, int]:
    verdicts = Counter(one.verdict for one in judged)
    without = [(one.a_first, one.b_first) for one in judged if one.verdict is None]
    unparsable = sum("unparsable" in said for said in without)
    return {
        "questions": len({one.question for one in judged}),
        "judged": len(judged) - len(without),
        "wins_a": verdicts["a"], "ties": verdicts["tie"], "wins_b": verdicts["b"],
        "disagreed": sum(one.disagrees for one in judged), "identical": sum(one.identical for one in judged),
        "unparsable": unparsable, "missing": len(without) - unparsable,
    }  # fmt: skip


def _rate(judged: Sequence[Judged]) -> dict[str, Any]:
    found = _by_question((one.question, SCORES[one.verdict]) for one in judged if one.verdict is not None)
    if not found:
        return {"win_rate": None, "interval": None, "p_value": None, "p_adjusted": None, "verdict": None}
    mean, interval = win_rate(found)
    won_Q = np.array([2 * sum(one) - len(one) for one in found.values()])
    counts_Q = np.array([len(one) for one in found.values()], dtype=np.float64)
    if counts_Q.max() == 1:
        p_value = mcnemar_exact(int((won_Q < 0).sum()), int((won_Q > 0).sum()))
    else:
        p_value = resampling.ratio_permutation_p_value(won_Q, counts_Q)
    return {"win_rate": mean, "interval": interval, "p_value": p_value}


def position_bias(judged: Sequence[Judged]) -> dict[str, Any]:
    """How often the order of the answers decided: of all pairs with two readings, the share that disagreed (see
    `share`). `first`: how many of them lean to the answer that stood first."""
    asked = [one for one in judged if one.verdict is not None and not one.identical]
    return {
        **share([(one.question, one.disagrees) for one in asked]), "first": sum(one.favours_first for one in asked),
    }  # fmt: skip


def length_bias(judged: Sequence[Judged]) -> dict[str, Any]:
    """How often the longer answer won, of the verdicts that are no tie (see `share`). One half where length did not
    matter. Better answers may be longer too: a high share is a question, and no proof."""
    decided = [one for one in judged if one.verdict in ("a", "b") and one.longer]
    return share([(one.question, one.verdict == one.longer) for one in decided])


def share(hits: Sequence[tuple[str, bool]]) -> dict[str, Any]:
    """`count` of `of` cases, their `share` and its 95% `interval`; cases are named by their question, whose cases are
    not independent (preference.win_rate)."""
    if not hits:
        return {"count": 0, "of": 0, "share": None, "interval": None}
    mean, interval = win_rate(_by_question((question, float(hit)) for question, hit in hits))
    return {"count": sum(hit for _, hit in hits), "of": len(hits), "share": mean, "interval": interval}


def _by_question(values: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for question, value in values:
        found[question].append(value)
    return found
