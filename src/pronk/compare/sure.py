"""When to stop voting: a test that may be looked at after every vote and keeps its false alarms at 5%.

An ordinary p-value, looked at after every vote, falls below 0.05 sooner or later whatever the truth: the law of the
iterated logarithm. Here a gambler with 1 unit bets on every vote, at odds that are fair if neither contestant is
better; so the capital is a martingale with mean 1, and by Ville's inequality (1939) it ever reaches 1/0.05 = 20 with a
probability of 5% at most: whenever one looks, and whenever one stops. That capital is the *e-value*.

Betting on bounded scores: Waudby-Smith & Ramdas (2024), Journal of the Royal Statistical Society B 86:1-27. The bets
are mixed beforehand over how clear the difference may be (Robbins 1970, Annals of Mathematical Statistics
41:1397-1409), so the e-value hangs on the counts alone and not on the order in which the votes came.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.05  # the most false alarms
_POINTS = 255
# Shares of won votes to bet on, and what is staked on each: Beta(2, 2), which of all Beta(a, a) needs about the fewest
# votes where the better one wins 65 to 80% of those that are no ties. A grid of bets is as fair as a continuum.
_SHARE_P = (np.arange(_POINTS) + 0.5) / _POINTS
_LOG_STAKE_P = np.log(_SHARE_P * (1 - _SHARE_P) / np.sum(_SHARE_P * (1 - _SHARE_P)))


@lru_cache(maxsize=2**16)  # asked for again after every vote
def log_e_value(wins: int, ties: int, losses: int, mean: float = 0.5) -> float:
    """The natural logarithm of the e-value against a mean score of `mean`; a win scores 1, a tie 1/2, a loss 0.

    With mean 1/2 ties change nothing: an exact sign test of the wins among wins and losses.
    """
    return float(_log_e_values(wins, ties, losses, np.array([mean]))[0])


def _log_e_values(wins: int, ties: int, losses: int, mean_M: Floats) -> Floats:
    """The same against each of several means.

    Betting on a share p means to stake lambda = (p - mean) / (mean (1 - mean)) on every score x, which multiplies the
    capital by 1 + lambda (x - mean): it is never negative, and 1 on average where the mean is right.
    """
    mean_M1 = mean_M[:, None]
    bet_MP = (_SHARE_P - mean_M1) / (mean_M1 * (1 - mean_M1))
    capital_MP = np.broadcast_to(_LOG_STAKE_P, bet_MP.shape)
    for count, score in ((wins, 1.0), (ties, 0.5), (losses, 0.0)):
        capital_MP = capital_MP + count * np.log1p(bet_MP * (score - mean_M1))
    largest_M1 = capital_MP.max(axis=1, keepdims=True)
    return np.asarray(largest_M1[:, 0] + np.log(np.exp(capital_MP - largest_M1).sum(axis=1)))


def sure_after(scores: Sequence[float] | Floats, level: float = LEVEL) -> int | None:
    """After how many of the scores (n,), in the order in which they came, it was sure; None if it never was.

    Scores are 1, 1/2 or 0, each of another question: a second opinion on the same question is no new bet.
    Once sure is sure: whatever comes later, false alarms are at most `level`.
    """
    wins = losses = 0
    for number, score in enumerate(scores, start=1):
        wins, losses = wins + (score == 1), losses + (score == 0)
        if log_e_value(int(wins), 0, int(losses)) >= -math.log(level):  # ties change nothing
            return number
    return None


def can_still_be_sure(wins: int, ties: int, losses: int, remaining: int, level: float = LEVEL) -> bool:
    """Whether so many more votes could make it sure, if all of them went one way."""
    extremes = ((wins + remaining, ties, losses), (wins, ties, losses + remaining))
    return any(log_e_value(*counts) >= -math.log(level) for counts in extremes)


def fewest_votes(level: float = LEVEL) -> int:
    """How many votes it takes to be sure if all of them go one way."""
    return next(count for count in range(1, 10_000) if can_still_be_sure(0, 0, 0, count, level))


def always_valid_interval(wins: int, ties: int, losses: int, level: float = LEVEL) -> tuple[float, float]:
    """All mean scores that the e-value does not speak against; holds at all times together (a confidence sequence).

    It covers the truth at every look with a probability of 1 - level at least, so it is wider than an interval for a
    number of votes that was fixed beforehand. Found on a grid of a thousandth, rounded outwards.
    """
    mean_M = np.arange(1, 1000) / 1000
    kept = mean_M[_log_e_values(wins, ties, losses, mean_M) < -math.log(level)]
    if not len(kept):
        middle = (wins + ties / 2) / max(1, wins + ties + losses)
        return middle, middle
    return max(0.0, float(kept[0]) - 0.001), min(1.0, float(kept[-1]) + 0.001)
