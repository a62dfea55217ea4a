"""Win rates and their intervals, rankings and agreement, against oracles and simulations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.metrics import cohen_kappa_score

from pronk.compare.agreement import agreement, cohens_kappa, krippendorffs_alpha
from pronk.compare.preference import ranking, strengths, win_rate
from pronk.compare.statistics import tango_interval
from pronk.compare.votes import Vote

Interval = Callable[[Mapping[str, Sequence[float]]], tuple[float, Sequence[float]]]


def test_one_vote_a_question_is_tangos_interval() -> None:
    rate, interval = win_rate({str(k): [score] for k, score in enumerate([1.0] * 12 + [0.5] * 3 + [0.0] * 5)})
    low, high = tango_interval(5, 12, 20)
    assert rate == 13.5 / 20
    assert interval == pytest.approx([0.5 + low / 2, 0.5 + high / 2])


def test_votes_that_repeat_each_other_say_no_more_than_one() -> None:
    once = {str(k): [score] for k, score in enumerate([1.0] * 12 + [0.5] * 3 + [0.0] * 5)}
    often = {question: scores * 4 for question, scores in once.items()}
    rate, interval = win_rate(often)
    assert rate == win_rate(once)[0]
    # the sample's variance has one degree of freedom fewer than questions
    assert np.ptp(interval) == pytest.approx(np.ptp(win_rate(once)[1]), rel=0.03)
    assert np.ptp(interval) >= np.ptp(win_rate(once)[1])


def test_extremes_have_an_interval() -> None:
    for score in (0.0, 0.5, 1.0):
        rate, (low, high) = win_rate({str(k): [score] * 3 for k in range(10)})
        assert low <= rate <= high
        assert high - low > 0.1
    assert win_rate({"a": [1.0]})[1] == pytest.approx([0.5 + b / 2 for b in tango_interval(0, 1, 1)])


def as_if_independent(scores: Mapping[str, Sequence[float]]) -> tuple[float, Sequence[float]]:
    """The planted fault: every vote counts as a question of its own."""
    flat = [score for one in scores.values() for score in one]
    return win_rate({str(k): [score] for k, score in enumerate(flat)})


def coverage(interval: Interval, questions: int, judges: int, spread: float, simulations: int) -> float:
    """How often the interval holds the truth, where questions differ in how often b wins them (Beta, `spread`)."""
    random, held = np.random.default_rng(11), 0
    for _ in range(simulations):
        chance_Q = random.beta(0.6 * spread, 0.4 * spread, questions)
        won_QJ = (random.random((questions, judges)) < chance_Q[:, None]).astype(float)
        score_QJ = np.where(random.random((questions, judges)) < 0.2, 0.5, won_QJ)
        _, (low, high) = interval({str(q): list(score_QJ[q]) for q in range(questions)})
        held += low <= 0.1 + 0.8 * 0.6 <= high
    return held / simulations


@pytest.mark.parametrize(("questions", "judges", "spread"), [(20, 3, 0.5), (60, 2, 1.0), (60, 1, 1.0)])
def test_intervals_cover_with_votes_that_go_together(questions: int, judges: int, spread: float) -> None:
    simulations = 800
    error = math.sqrt(0.95 * 0.05 / simulations)
    assert abs(coverage(win_rate, questions, judges, spread, simulations) - 0.95) < 3 * error


def test_counting_every_vote_alone_is_seen() -> None:
    assert coverage(as_if_independent, 60, 4, 0.5, 200) < 0.85


def test_strengths_are_those_of_maximum_likelihood() -> None:
    random = np.random.default_rng(2)
    wins_KK = random.integers(0, 12, (4, 4)).astype(float)
    np.fill_diagonal(wins_KK, 0)

    def loss(log_K: np.ndarray) -> float:
        log_share_KK = -np.logaddexp(0, log_K[None, :] - log_K[:, None])
        imaginary = 0.5 * np.logaddexp(0, log_K) + 0.5 * np.logaddexp(0, -log_K)
        return float(imaginary.sum() - (wins_KK * log_share_KK).sum())

    expected = minimize(loss, np.zeros(4), tol=1e-12).x
    assert strengths(wins_KK[None])[0] == pytest.approx(expected, abs=1e-4)


def votes_of(chances: Mapping[str, float], questions: int, seed: int = 0) -> list[Vote]:
    """One judge on all pairs; who is stronger wins more often."""
    random, votes = np.random.default_rng(seed), []
    for question in range(questions):
        for a, b in combinations(sorted(chances), 2):
            share = chances[b] / (chances[a] + chances[b])
            votes.append(Vote(f"q{question}", a, b, "b" if random.random() < share else "a", "ab", "anna"))
    return votes


def test_the_ranking_finds_the_order_and_its_doubt() -> None:
    found = ranking(
        votes_of({"poor": 1.0, "twin": 3.0, "twins": 3.0, "good": 12.0}, 80), ["poor", "twin", "twins", "good"]
    )
    assert [one["name"] for one in found][::3] == ["good", "poor"]
    assert found[0]["places"] == [1, 1]
    assert found[1]["places"] == found[2]["places"] == [2, 3]
    for one, truth in zip(found, (0.8 + 0.8 + 12 / 13, None, None, 1 / 13 + 0.25 + 0.25), strict=True):
        low, high = one["interval"]
        assert low < one["win_rate"] < high
        assert truth is None or low < truth / 3 < high


def test_one_who_always_wins_is_not_infinitely_strong() -> None:
    votes = [Vote(f"q{k}", "a", name, "a", "ab", "j") for k in range(10) for name in "bc"]
    found = ranking(votes, ["a", "b", "c"])
    assert found[0]["name"] == "a"
    assert 0.8 < found[0]["win_rate"] < 1
    assert found[1]["win_rate"] == pytest.approx(found[2]["win_rate"])


def test_cohens_kappa_is_scikit_learns() -> None:
    random = np.random.default_rng(4)
    for _ in range(20):
        one, other = (random.choice(["a", "b", "neither"], 30, p=[0.5, 0.3, 0.2]) for _ in range(2))
        assert cohens_kappa(list(one), list(other)) == pytest.approx(cohen_kappa_score(one, other))
    assert cohens_kappa(["a", "a"], ["a", "a"]) is None
    assert cohens_kappa([], []) is None


def test_krippendorffs_alpha_is_that_of_his_example() -> None:
    """Krippendorff (2011), section C: four observers, 12 units, missing values; nominal alpha 0.743."""
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    units = [[str(value) for value in column if value is not None] for column in zip(*table, strict=True)]
    assert krippendorffs_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert krippendorffs_alpha([["a", "a"], ["a"]]) is None


def test_agreement_is_about_the_same_answers() -> None:
    anna = [Vote(f"q{k}", "x", "y", "a" if k % 3 else "tie", "ab", "anna", answers="1") for k in range(20)]
    ben = [Vote(f"q{k}", "x", "y", "a" if k % 3 else "both_bad", "ba", "ben", answers="1") for k in range(20)]
    other = [Vote(f"q{k}", "x", "y", "b", "ba", "ben", answers="2") for k in range(20)]
    alike = [Vote("same", "x", "y", "tie", "both", judge, "identical", "1") for judge in ("anna", "ben")]
    found = agreement([*anna, *ben, *other, *alike])
    assert found is not None
    assert found["pairs"] == [
        {"judges": ["anna", "ben"], "units": 20, "agreed": 1.0, "cohens_kappa": 1.0, "interval": [1.0, 1.0]}
    ]
    assert found["krippendorffs_alpha"] == 1.0
    assert agreement(anna) is None
    model = [Vote(f"q{k}", "x", "y", "b", "both", "anna", "model", "1") for k in range(5)]
    mixed = agreement([*anna, *model])
    assert mixed is not None
    assert mixed["judges"] == ["anna", "anna (model)"]
    assert mixed["pairs"][0]["units"] == 5
    assert mixed["pairs"][0]["interval"] is None
