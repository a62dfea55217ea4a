"""What votes on pairs of answers say: win rates with intervals, and a ranking of three or more.

A tie, and two bad answers, count half for each side. A question is the unit of chance: votes of several judges on one
question agree more than votes on several questions would, and counting them as independent makes intervals too narrow.
Shapes: Q questions, K contestants, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pronk.compare.statistics import tango_interval
from pronk.compare.votes import Vote

Floats = NDArray[np.float64]

RESAMPLES = 1000
_ROUNDS = 500  # of the fit of strengths; it stops when they stand still
_PRIOR = 0.5  # wins and losses of everybody against an imaginary average contestant: nobody is infinitely strong


def win_rate(scores: Mapping[str, Sequence[float]], level: float = 0.95) -> tuple[float, list[float]]:
    """The mean score and its interval, for any number of votes on each question. scores: by question; 1, 1/2 or 0.

    With a vote on each question: Tango's score interval for the difference of wins and losses (statistics.py), halved
    around one half. Where votes repeat, all counts are divided by the design effect first (Rao & Scott 1992,
    Biometrics 48:577-585): the variance of the mean as whole questions vary, over that of as many independent votes;
    never below 1, nor above what votes that merely repeat each other would give. Raises ValueError without votes.
    """
    sums_Q = np.array([sum(one) for one in scores.values()])
    counts_Q = np.array([len(one) for one in scores.values()], dtype=np.float64)
    flat = np.array([score for one in scores.values() for score in one])
    n, mean = len(flat), float(flat.mean())
    effect = _design_effect(sums_Q, counts_Q, flat)
    wins, losses = float((flat == 1).sum()) / effect, float((flat == 0).sum()) / effect
    low, high = tango_interval(losses, wins, n / effect, level)
    return mean, [0.5 + low / 2, 0.5 + high / 2]


def _design_effect(sums_Q: Floats, counts_Q: Floats, flat: Floats) -> float:
    n, questions, mean = len(flat), len(counts_Q), float(flat.mean())
    most = float((counts_Q**2).sum()) / n
    independent = float(((flat - mean) ** 2).sum()) / n**2
    if questions < 2 or independent == 0:
        return most  # nothing to see: the cautious one
    clustered = float(((sums_Q - mean * counts_Q) ** 2).sum()) / n**2 * questions / (questions - 1)
    return min(max(clustered / independent, 1.0), most)


def ranking(votes: Sequence[Vote], names: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """Contestants from strongest to weakest by Bradley & Terry (1952), Biometrika 39:324-345.

    `win_rate`: expected against the average of the others, were all to meet equally often. `interval` (95%) and
    `places` [best, worst] are percentiles of the bootstrap over questions. Strengths are those of maximum likelihood,
    ties as half a win each, with half a win and half a loss of everybody against an imaginary average contestant.
    """
    wins_QKK = _wins(votes, names)
    random = np.random.default_rng(seed)
    drawn_RQ = random.multinomial(len(wins_QKK), np.full(len(wins_QKK), 1 / len(wins_QKK)), RESAMPLES)
    flat_QK2 = wins_QKK.reshape(len(wins_QKK), -1)
    wins_RKK = (drawn_RQ @ flat_QK2).reshape(RESAMPLES, len(names), len(names))
    rate_K = _rates(strengths(wins_QKK.sum(axis=0)[None]))[0]
    rate_RK = _rates(strengths(wins_RKK))
    place_RK = 1 + (rate_RK[:, None, :] > rate_RK[:, :, None] + 1e-9).sum(axis=2)
    low_K, high_K = np.percentile(rate_RK, [2.5, 97.5], axis=0)
    best_K, worst_K = np.percentile(place_RK, [2.5, 97.5], axis=0, method="nearest")
    return [
        {"name": names[k], "win_rate": float(rate_K[k]), "interval": [float(low_K[k]), float(high_K[k])],
         "places": [int(best_K[k]), int(worst_K[k])]}
        for k in sorted(range(len(names)), key=lambda k: -rate_K[k])
    ]  # fmt: skip


def strengths(wins_RKK: Floats) -> Floats:
    """Logarithms of strengths (R, K) from wins_RKK, how often the row's contestant won over the column's.

    Hunter (2004), Annals of Statistics 32:384-406, equation 3: each strength is wins over the sum, rival by rival, of
    meetings / (own strength + rival's), until none changes. The imaginary rival's is 1, which also fixes the scale.
    """
    met_RKK = wins_RKK + wins_RKK.transpose(0, 2, 1)
    won_RK = wins_RKK.sum(axis=2) + _PRIOR
    strength_RK = np.ones_like(won_RK)
    for _ in range(_ROUNDS):
        together_RKK = strength_RK[:, :, None] + strength_RK[:, None, :]
        renewed_RK = won_RK / ((met_RKK / together_RKK).sum(axis=2) + 2 * _PRIOR / (strength_RK + 1))
        still = np.allclose(renewed_RK, strength_RK, rtol=1e-8, atol=0)
        strength_RK = renewed_RK
        if still:
            break
    return np.log(strength_RK)


def _rates(log_RK: Floats) -> Floats:
    """Expected share of wins (R, K) against the average of the others."""
    share_RKK = 1 / (1 + np.exp(log_RK[:, None, :] - log_RK[:, :, None]))
    count = log_RK.shape[1]
    return (share_RKK.sum(axis=2) - 0.5) / (count - 1)


def _wins(votes: Sequence[Vote], names: Sequence[str]) -> Floats:
    """(Q, K, K): how often the first contestant won over the second on each question; a tie is half a win for both."""
    questions = {question: place for place, question in enumerate(dict.fromkeys(vote.question for vote in votes))}
    place = {name: k for k, name in enumerate(names)}
    wins_QKK = np.zeros((len(questions), len(names), len(names)))
    for vote in votes:
        a, b = place[vote.a], place[vote.b]
        wins_QKK[questions[vote.question], b, a] += vote.score
        wins_QKK[questions[vote.question], a, b] += 1 - vote.score
    return wins_QKK
