"""What a model's verdicts on pairs of answers come to: win rates, and how far the judge is to be trusted.

The judge reads every pair twice, each answer first once. A verdict counts where both readings name the same answer;
where they disagree it is a tie. Where a reading is missing or cannot be parsed there is no verdict, and none is made up.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from pronk.compare import resampling
from pronk.compare.statistics import holm, mcnemar_exact, tango_interval

SIGNIFICANCE = 0.05
# what a reading said: the better answer, or why there is nothing
Said = Literal["a", "b", "tie", "unparsable", "missing"]
VALID = ("a", "b", "tie")
CHOICES = ("a", "tie", "b")


@dataclass(frozen=True, slots=True)
class Judged:
    """Two answers to one question. a_first, b_first: what was said with that answer first. longer: which of them has
    more letters, None where neither. identical: the same text, so nobody was asked."""

    question: str
    a: str
    b: str
    a_first: Said
    b_first: Said
    longer: Literal["a", "b"] | None = None
    identical: bool = False

    @property
    def verdict(self) -> Literal["a", "b", "tie"] | None:
        """What both readings say; a tie where they disagree; None where one of them says nothing."""
        if self.identical:
            return "tie"
        if self.a_first not in VALID or self.b_first not in VALID:
            return None
        return self.a_first if self.a_first == self.b_first else "tie"

    @property
    def disagrees(self) -> bool:
        """Whether the verdict hangs on which answer stood first."""
        return self.verdict is not None and self.a_first != self.b_first

    @property
    def favours_first(self) -> bool | None:
        """Where the readings disagree: whether they lean to what stood first. None where they agree."""
        return (self.a_first == "a" or self.b_first == "b") if self.disagrees else None


def pair_results(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Each pair of runs, as study.json holds them: how often b was preferred, ties counted as half.

    `win_rate` is b's, with `interval` (95%, unadjusted). With one verdict a question: Tango's score interval of the
    difference of wins, and McNemar's exact test of them, ties apart. With several: bootstrap and sign flips of whole
    questions. `p_adjusted`: Holm over the pairs. `verdict` speaks of b.
    """
    pairs: dict[tuple[str, str], list[Judged]] = defaultdict(list)
    for one in judged:
        pairs[one.a, one.b].append(one)
    results = [{"a": a, "b": b, **_counts(found), **_rate(found)} for (a, b), found in pairs.items()]
    told = [result for result in results if result["p_value"] is not None]
    for result, adjusted in zip(told, holm([result["p_value"] for result in told]), strict=True):
        result["p_adjusted"] = float(adjusted)
        won = result["win_rate"] - 0.5
        sure = adjusted < SIGNIFICANCE and won != 0
        result["verdict"] = ("better" if won > 0 else "worse") if sure else "tie"
    return results


def _counts(judged: Sequence[Judged]) -> dict[str, int]:
    verdicts = Counter(one.verdict for one in judged)
    said = [{one.a_first, one.b_first} for one in judged if one.verdict is None]
    unparsable = sum("unparsable" in one for one in said)
    return {
        "questions": len({one.question for one in judged}),
        "judged": sum(verdicts[choice] for choice in VALID),
        "wins_a": verdicts["a"], "ties": verdicts["tie"], "wins_b": verdicts["b"],
        "disagreed": sum(one.disagrees for one in judged), "identical": sum(one.identical for one in judged),
        "unparsable": unparsable, "missing": len(said) - unparsable,
    }  # fmt: skip


def _rate(judged: Sequence[Judged]) -> dict[str, Any]:
    """The win rate of b with interval and p-value; None of each where nothing was judged."""
    scores = {"a": -1.0, "tie": 0.0, "b": 1.0}
    known = [(one.question, scores[one.verdict]) for one in judged if one.verdict is not None]
    if not known:
        return {"win_rate": None, "interval": None, "p_value": None, "p_adjusted": None, "verdict": None}
    sums, counts = _by_question(known)
    difference = float(sums.sum() / counts.sum())
    if counts.max() == 1:
        only_a, only_b = int((sums < 0).sum()), int((sums > 0).sum())
        low, high = tango_interval(only_a, only_b, len(sums))
        p_value = mcnemar_exact(only_a, only_b)
    else:
        low, high = resampling.ratio_bootstrap_interval(sums, counts)
        p_value = resampling.ratio_permutation_p_value(sums, counts)
    interval = [(1 + low) / 2, (1 + high) / 2]
    return {"win_rate": (1 + difference) / 2, "interval": interval, "p_value": p_value}


def _by_question(values: Iterable[tuple[str, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums and counts (questions,) of values that are named by their question."""
    found: dict[str, list[float]] = defaultdict(list)
    for question, value in values:
        found[question].append(value)
    return np.array([sum(one) for one in found.values()]), np.array([float(len(one)) for one in found.values()])


def position_bias(judged: Sequence[Judged]) -> dict[str, Any]:
    """How often the order of the answers decided. `share` of verdicts from two readings that disagreed, with its
    interval; `first`: how many of them lean to the answer that stood first."""
    asked = [one for one in judged if one.verdict is not None and not one.identical]
    found = clustered_share([(one.question, one.disagrees) for one in asked])
    return {**found, "first": sum(bool(one.favours_first) for one in asked)}


def length_bias(judged: Sequence[Judged]) -> dict[str, Any]:
    """How often the longer answer won, of the verdicts that are no tie; one half if length did not matter or went
    both ways. Better answers may also be longer: a high share is a question, not a proof."""
    decided = [one for one in judged if one.verdict in ("a", "b") and one.longer]
    return clustered_share([(one.question, one.verdict == one.longer) for one in decided])


def clustered_share(hits: Sequence[tuple[str, bool]]) -> dict[str, Any]:
    """A share and its 95% interval where several cases belong to one question: `count`, `of`, `share`, `interval`.

    Wilson's (1927) score interval with the number of cases divided by the design effect (Rao & Scott 1992,
    Biometrics 48:577-585): how much more the share varies between questions than independent cases would. It is never
    taken below 1; where all cases agree it cannot be seen, and each question counts as one case.
    """
    if not hits:
        return {"count": 0, "of": 0, "share": None, "interval": None}
    sums, counts = _by_question((question, float(hit)) for question, hit in hits)
    total, clusters = float(counts.sum()), len(counts)
    share = float(sums.sum()) / total
    effect = total / clusters
    if 0 < share < 1 and clusters > 1:
        spread = float(((sums - share * counts) ** 2).sum()) * clusters / (clusters - 1)
        effect = max(1.0, spread / (total * share * (1 - share)))
    interval = _wilson(share, total / effect)
    return {"count": int(sums.sum()), "of": int(total), "share": share, "interval": interval}


def _wilson(share: float, n: float, level: float = 0.95) -> list[float]:
    z = float(norm.ppf(0.5 + level / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [max(0.0, middle - half), min(1.0, middle + half)]


def agreement(pairs: Sequence[tuple[str, str, str]]) -> dict[str, Any] | None:
    """Cohen's (1960) kappa between two judges, from (question, one's choice, the other's), each of a, tie, b.

    `kappa` is None where both always say the same one thing: chance explains all of it. `interval`: percentile
    bootstrap over whole questions, None below 10 of them. None without any pair.
    """
    if not pairs:
        return None
    tables: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(9))
    for question, one, other in pairs:
        tables[question][3 * CHOICES.index(one) + CHOICES.index(other)] += 1
    columns = np.array(list(tables.values()))
    whole = columns.sum(axis=0)
    kappa = float(_kappa(whole[None])[0])
    interval = None
    if len(columns) >= 10 and math.isfinite(kappa):
        interval = _bootstrap(columns)
    return {
        "votes": len(pairs), "questions": len(columns), "agreed": float(whole[[0, 4, 8]].sum() / whole.sum()),
        "kappa": kappa if math.isfinite(kappa) else None, "interval": interval,
    }  # fmt: skip


def _kappa(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kappa of 3 × 3 tables (R, 9); nan where chance alone explains everything."""
    table = tables.reshape(-1, 3, 3) / tables.sum(axis=1)[:, None, None]
    agreed = np.trace(table, axis1=1, axis2=2)
    chance = (table.sum(axis=1) * table.sum(axis=2)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1 - 1e-12, (agreed - chance) / (1 - chance), np.nan)


def _bootstrap(columns: NDArray[np.float64], resamples: int = resampling.BOOTSTRAPS, seed: int = 0) -> list[float]:
    generator, n = np.random.default_rng(seed), len(columns)
    found = []
    for _ in range(0, resamples, 500):  # blocks, so that memory stays small
        times = generator.multinomial(n, np.full(n, 1 / n), size=500).astype(np.float64)
        found.append(_kappa(times @ columns))
    low, high = np.nanquantile(np.concatenate(found), [0.025, 0.975])
    return [float(low), float(high)]
