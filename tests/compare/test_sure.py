"""The rule for stopping: at most 5% false alarms whenever one looks and whenever one stops; exact where it can be."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from scipy.special import betaln
from scipy.stats import binom

from pronk.compare.sure import LEVEL, always_valid_interval, can_still_be_sure, fewest_votes, log_e_value, sure_after

SIMULATIONS = 2000
VOTES = 150
SIZE = LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / SIMULATIONS)  # 5% and three Monte-Carlo errors

Alarm = Callable[[np.ndarray], bool]


def by_betting(scores: np.ndarray) -> bool:
    return sure_after(scores) is not None


def by_looking_at_p_each_time(scores: np.ndarray) -> bool:
    """The planted fault: an ordinary sign test after every vote."""
    wins, losses = np.cumsum(scores == 1), np.cumsum(scores == 0)
    return any(p_value(int(w), int(w + n)) < LEVEL for w, n in zip(wins, losses, strict=True) if w + n)


@cache
def p_value(wins: int, decided: int) -> float:
    return float(2 * min(binom.cdf(wins, decided, 0.5), binom.sf(wins - 1, decided, 0.5)))


def by_repeating_votes(scores: np.ndarray) -> bool:
    """The planted fault: four judges who say the same count as four questions."""
    return by_betting(np.repeat(scores, 4))


def draw(random: np.random.Generator, ties: float, better: float = 0.5) -> np.ndarray:
    decided = (random.random(VOTES) < better).astype(float)
    return np.where(random.random(VOTES) < ties, 0.5, decided)


def alarms(rule: Alarm, ties: float, simulations: int, seed: int) -> float:
    random = np.random.default_rng(seed)
    return float(np.mean([rule(draw(random, ties)) for _ in range(simulations)]))


@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_false_alarms_under_optional_stopping(ties: float) -> None:
    """`sure_after` looks after every vote, so it counts whoever stops as soon as it is sure."""
    assert 0.01 < alarms(by_betting, ties, SIMULATIONS, seed=7) <= SIZE


@pytest.mark.parametrize("fault", [by_looking_at_p_each_time, by_repeating_votes])
def test_faulty_rules_are_seen(fault: Alarm) -> None:
    assert alarms(fault, 0.2, 200, seed=7) > 2 * SIZE


@pytest.mark.parametrize(("better", "votes"), [(0.9, 20), (0.8, 35), (0.7, 80), (0.6, 360)])
def test_it_finds_what_is_there_as_soon_as_the_guide_says(better: float, votes: int) -> None:
    """docs/guides/blind-test.md: in four of five contests."""
    random = np.random.default_rng(3)
    found = [sure_after((random.random(votes) < better).astype(float)) for _ in range(300)]
    assert abs(np.mean([one is not None for one in found]) - 0.8) < 0.05 + 3 * math.sqrt(0.8 * 0.2 / 300)


@pytest.mark.parametrize("counts", [(0, 0, 0), (5, 0, 0), (3, 9, 4), (40, 3, 22), (300, 100, 200)])
def test_against_one_half_it_is_the_sign_test_of_the_beta_mixture(counts: tuple[int, int, int]) -> None:
    """In closed form: the e-value of wins among wins and losses under a Beta(2, 2) share, over that of one half."""
    wins, _, losses = counts
    exact = (wins + losses) * math.log(2) + betaln(2 + wins, 2 + losses) - betaln(2, 2)
    assert log_e_value(*counts) == pytest.approx(exact, abs=2e-3)


@pytest.mark.parametrize("mean", [0.2, 0.5, 0.9])
def test_a_fair_bet_wins_nothing_on_average(mean: float) -> None:
    """One vote, whatever the odds: the expected e-value is 1, for every way to have that mean."""
    for ties in (0.0, 0.1):
        win = mean - ties / 2
        e_values = [math.exp(log_e_value(*counts, mean)) for counts in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
        assert np.dot([win, ties, 1 - win - ties], e_values) == pytest.approx(1, abs=1e-12)


def test_sure_is_sure_and_says_when() -> None:
    scores = [1.0] * 7 + [0.5] + [1.0] * 3
    place = next(n for n in range(12) if log_e_value(n - (n > 7), n > 7, 0) >= math.log(20))
    assert sure_after(scores) == place
    assert sure_after(scores + [0.0] * 50) == place
    assert sure_after(scores[: place - 1]) is None
    assert sure_after([]) is None
    assert sure_after([0.5] * 100) is None


def test_when_it_can_no_longer_be_told() -> None:
    assert can_still_be_sure(0, 0, 0, 10)
    assert not can_still_be_sure(0, 0, 0, 5)
    assert not can_still_be_sure(10, 0, 10, 9)
    assert can_still_be_sure(10, 0, 10, 40)
    assert (fewest_votes(), sure_after([0.0] * 20)) == (9, 9)
    assert fewest_votes(LEVEL / 6) > 9


def test_the_interval_covers_at_all_looks_together() -> None:
    """It holds exactly the means that the e-value does not speak against, so that is counted: at each of 150 looks."""
    random, simulations, truth, missed = np.random.default_rng(5), 300, 0.1 + 0.8 * 0.7, 0
    for _ in range(simulations):
        scores = draw(random, 0.2, better=0.7)
        counts = zip(*(np.cumsum(scores == score) for score in (1, 0.5, 0)), strict=True)
        missed += any(log_e_value(*map(int, one), truth) >= math.log(20) for one in counts)
    assert missed <= simulations * (LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / simulations))


@pytest.mark.parametrize("counts", [(0, 0, 0), (15, 2, 1), (9, 2, 7), (0, 30, 0), (0, 1, 9)])
def test_the_interval_holds_what_the_e_value_does_not_speak_against(counts: tuple[int, int, int]) -> None:
    low, high = always_valid_interval(*counts)
    for mean in np.arange(0.05, 1, 0.05):
        assert (low < mean < high) == (log_e_value(*counts, float(mean)) < math.log(20))
    assert (low < 0.5 < high) == (log_e_value(*counts) < math.log(20))
