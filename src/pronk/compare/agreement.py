"""How far judges agree beyond chance: Cohen's kappa for two, Krippendorff's alpha for any number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from pronk.compare.votes import Vote

RESAMPLES = 1000
Unit = tuple[Hashable, ...]  # what was judged: a question and a pair of contestants
Verdicts = Mapping[Unit, Mapping[str, str]]  # by unit and judge


def cohens_kappa(one: Sequence[str], other: Sequence[str]) -> float | None:
    """Cohen (1960), Educational and Psychological Measurement 20:37-46, for two judges' verdicts on the same units.

    1: they always agree; 0: no more than chance would have it. None where chance alone explains everything, as
    where both always say the same, and without units.
    """
    if not one:
        return None
    n = len(one)
    agreed = sum(a == b for a, b in zip(one, other, strict=True)) / n
    of_one, of_other = Counter(one), Counter(other)
    expected = sum(of_one[verdict] * of_other[verdict] for verdict in of_one) / n**2
    return None if expected == 1 else (agreed - expected) / (1 - expected)


def krippendorffs_alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Krippendorff's alpha for nominal verdicts, any number of judges, not all of whom judged everything.

    1 - observed / expected disagreement, by coincidences within units (Krippendorff 2011, Computing Krippendorff's
    Alpha-Reliability). units: the verdicts on each. None without two different verdicts on units judged twice.
    """
    paired = [unit for unit in units if len(unit) > 1]
    totals = Counter(verdict for unit in paired for verdict in unit)
    n = sum(totals.values())
    expected = n**2 - sum(count**2 for count in totals.values())
    if expected == 0:
        return None
    observed = sum(
        (len(unit) ** 2 - sum(count**2 for count in Counter(unit).values())) / (len(unit) - 1) for unit in paired
    )
    return 1 - (n - 1) * observed / expected


def agreement(votes: Sequence[Vote], seed: int = 0) -> dict[str, Any] | None:
    """What the judges' verdicts on the same answers say of each other; None where no two judged the same.

    A tie and two bad answers are one verdict, "neither". Answers that nobody had to look at are left out. Intervals
    (95%) are percentiles of the bootstrap over questions: votes on one question stay together.
    """
    verdicts: dict[Unit, dict[str, str]] = {}
    for vote in votes:
        if vote.kind != "identical":
            judge = f"{vote.judge} (model)" if vote.kind == "model" else vote.judge
            verdict = vote.vote if vote.vote in ("a", "b") else "neither"
            verdicts.setdefault((vote.question, vote.a, vote.b, vote.answers), {})[judge] = verdict or ""
    judges = sorted({judge for unit in verdicts.values() for judge in unit})
    pairs = [found for pair in combinations(judges, 2) if (found := _of_two(verdicts, *pair, seed))]
    if not pairs:
        return None
    several = [list(unit.values()) for unit in verdicts.values()]
    questions = [unit[0] for unit in verdicts]
    return {
        "judges": judges,
        "units": sum(len(unit) > 1 for unit in several),
        "pairs": pairs,
        "krippendorffs_alpha": krippendorffs_alpha(several),
        "interval": _bootstrap(several, questions, krippendorffs_alpha, seed),
    }


def _of_two(verdicts: Verdicts, one: str, other: str, seed: int) -> dict[str, Any] | None:
    both = [(key[0], unit[one], unit[other]) for key, unit in verdicts.items() if one in unit and other in unit]
    if not both:
        return None
    said = [(a, b) for _, a, b in both]

    def kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
        return cohens_kappa([a for a, _ in pairs], [b for _, b in pairs])

    return {
        "judges": [one, other],
        "units": len(both),
        "agreed": sum(a == b for a, b in said) / len(said),
        "cohens_kappa": kappa(said),
        "interval": _bootstrap(said, [question for question, _, _ in both], kappa, seed),
    }


def _bootstrap(
    units: Sequence[Any], questions: Sequence[Hashable], statistic: Callable[[Sequence[Any]], float | None], seed: int
) -> list[float] | None:
    """Percentiles of a statistic over resampled questions; None with fewer than 10 of them, which say nothing."""
    groups: dict[Hashable, list[Any]] = {}
    for question, unit in zip(questions, units, strict=True):
        groups.setdefault(question, []).append(unit)
    members = list(groups.values())
    if len(members) < 10:
        return None
    random = np.random.default_rng(seed)
    drawn = (random.integers(0, len(members), len(members)) for _ in range(RESAMPLES))
    found = [statistic([unit for place in one for unit in members[place]]) for one in drawn]
    known = [value for value in found if value is not None]
    return [float(bound) for bound in np.percentile(known, [2.5, 97.5])] if known else None
