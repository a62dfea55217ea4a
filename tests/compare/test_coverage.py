"""In 5,000 simulated studies of 200 items each interval holds the truth in 95% ± 1%, and each test finds a difference
where there is none in 5% at most; both within three Monte-Carlo errors. Planted faults miss it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtr, stdtrit
from scipy.stats import chi2

from pronk.compare import crossed as room
from pronk.compare.crossed import Side, crossed, degrees_of_freedom, least_variance
from pronk.compare.measures import mean, ratio
from pronk.compare.resampling import (
    macro_f1_bootstrap_interval,
    macro_f1_parts,
    macro_f1_permutation_p_value,
    ratio_bootstrap_interval,
    ratio_permutation_p_value,
)
from pronk.compare.statistics import mcnemar_exact, tango_interval

STUDIES, ITEMS = 5000, 200
RESAMPLES = 199  # (199 + 1) * 0.05 is whole, so a test by so many resamples has its level exactly
ERROR = 3 * math.sqrt(0.05 * 0.95 / STUDIES)  # 0.0092
Floats = np.ndarray
Interval = tuple[float, float]


def covers(held: Floats | list[bool]) -> bool:
    return bool(0.94 - ERROR <= np.mean(held) <= 0.96 + ERROR)


def too_many_alarms(p_values: list[float]) -> bool:
    return bool(np.mean(np.array(p_values) <= 0.05) > 0.05 + ERROR)


def holds(interval: Interval, truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


# Right and wrong on the same items


def tables(only_a: float, only_b: float) -> list[tuple[int, int]]:
    """Studies of two runs that are alone in being right so often."""
    drawn = np.random.default_rng(1).multinomial(ITEMS, [only_a, only_b, 1 - only_a - only_b], STUDIES)
    return [(int(one), int(two)) for one, two, _ in drawn]


@pytest.mark.parametrize(("only_a", "only_b"), [(0.1, 0.1), (0.03, 0.03), (0.08, 0.14), (0.02, 0.4)])
def test_accuracy(only_a: float, only_b: float) -> None:
    drawn = tables(only_a, only_b)
    found = {table: tango_interval(*table, ITEMS) for table in set(drawn)}
    assert covers([holds(found[table], only_b - only_a) for table in drawn])
    if only_a == only_b:
        p_values = {table: mcnemar_exact(*table) for table in set(drawn)}
        assert not too_many_alarms([p_values[table] for table in drawn])


def test_accuracy_resampled_without_its_pairs_is_seen() -> None:
    def unpaired(only_a: int, only_b: int) -> Interval:
        a, b = 0.6 + only_a / ITEMS, 0.6 + only_b / ITEMS  # 120 of the items are right in both runs
        half = 1.96 * math.sqrt((a * (1 - a) + b * (1 - b)) / ITEMS)
        return b - a - half, b - a + half

    assert not covers([holds(unpaired(*table), 0.0) for table in tables(0.1, 0.1)])


# Macro-F1

PRIOR = np.array([0.12, 0.6, 0.28])
COMMON = np.array([[0.7, 0.2, 0.1], [0.03, 0.94, 0.03], [0.05, 0.25, 0.7]])  # rows: what is said of each true class


def said(errors: Floats) -> Floats:
    """A run of its own mind (C, C): each class wrong so often, one way or the other alike."""
    return np.diag(1 - 1.5 * errors) + (errors / 2)[:, None]


def joint(a: Floats, b: Floats) -> Floats:
    """P(label, a, b): on half of the items both say what is common to them, on the others each what it will."""
    together = np.einsum("la,ab->lab", COMMON, np.eye(3))
    return PRIOR[:, None, None] * (together + np.einsum("la,lb->lab", a, b)) / 2


def f1_of(cells: Floats) -> float:
    """Macro-F1 of shares (label, said)."""
    return float(np.mean(2 * np.diag(cells) / (cells.sum(axis=0) + cells.sum(axis=1))))


def true_difference(cells: Floats) -> float:
    return f1_of(cells.sum(axis=1)) - f1_of(cells.sum(axis=2))


def equal_but_different() -> Floats:
    """Two runs with the same macro-F1, wrong in different classes."""

    def cells(scale: float) -> Floats:
        return joint(said(np.array([0.5, 0.1, 0.2])), said(scale * np.array([0.1, 0.2, 0.3])))

    return cells(brentq(lambda scale: true_difference(cells(scale)), 0.1, 3.0))


def classified(cells: Floats) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Labels and both runs' predictions, study after study."""
    random = np.random.default_rng(2)
    for drawn in random.choice(27, size=(STUDIES, ITEMS), p=cells.ravel()):
        label, a, b = np.unravel_index(drawn, (3, 3, 3))
        yield label, a, b


@pytest.mark.slow
def test_macro_f1_where_nothing_differs() -> None:
    cells = equal_but_different()
    assert true_difference(cells) == pytest.approx(0, abs=1e-9)
    held, p_values = [], []
    for study in classified(cells):
        held.append(holds(macro_f1_bootstrap_interval(*study, 3, resamples=RESAMPLES), 0.0))
        p_values.append(macro_f1_permutation_p_value(*study, 3, resamples=RESAMPLES))
    assert covers(held)
    assert not too_many_alarms(p_values)


@pytest.mark.slow
def test_macro_f1_where_the_second_run_is_better() -> None:
    cells = joint(said(np.array([0.6, 0.2, 0.4])), said(np.array([0.2, 0.1, 0.1])))
    truth = true_difference(cells)
    assert truth > 0.1
    found = [macro_f1_bootstrap_interval(*study, 3, resamples=RESAMPLES) for study in classified(cells)]
    assert covers([holds(interval, truth) for interval in found])


def test_macro_f1_resampled_without_its_pairs_is_seen() -> None:
    """By the deviations that either resampling comes to, which is quicker."""
    held = []
    for label, a, b in classified(equal_but_different()):
        parts = [macro_f1_parts(label, one, 3) for one in (a, b)]
        error = math.sqrt(sum(float(np.var(one)) for one in parts) / ITEMS)
        confusions = [np.bincount(3 * label + one, minlength=9).reshape(3, 3) / ITEMS for one in (a, b)]
        held.append(abs(f1_of(confusions[1]) - f1_of(confusions[0])) < 1.96 * error)
    assert not covers(held)


# Losses per token, and means


def losses(factor: float, seed: int = 3) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Summed losses of a and b and target tokens: answers of about 40 tokens, few long ones; the longer, the easier."""
    random = np.random.default_rng(seed)
    for _ in range(STUDIES):
        tokens = np.maximum(1.0, np.round(np.exp(random.normal(math.log(40), 0.8, ITEMS))))
        ease = random.gamma(2.0, 0.5, ITEMS) * (0.5 + 4.0 / np.sqrt(tokens))
        a, b = (np.exp(random.normal(-0.045, 0.3, ITEMS)) for _ in range(2))
        yield tokens * ease * a, tokens * ease * b * factor, tokens


def true_ratio(factor: float) -> float:
    """What `losses` is about: E[tokens ease] (factor - 1) / E[tokens], by all lengths that occur."""
    tokens = np.arange(1.0, 4000.0)
    edges = (np.log(np.append(tokens - 0.5, 3999.5)) - math.log(40)) / 0.8
    edges[0] = -np.inf
    share = np.diff(ndtr(edges))
    ease = 0.5 + 4.0 / np.sqrt(tokens)
    return float((factor - 1) * (share * tokens * ease).sum() / (share * tokens).sum())


def test_perplexity_where_nothing_differs() -> None:
    held, p_values = [], []
    for a, b, tokens in losses(1.0):
        held.append(holds(ratio_bootstrap_interval(b - a, tokens, resamples=RESAMPLES), 0.0))
        p_values.append(ratio_permutation_p_value(b - a, tokens, resamples=RESAMPLES))
    assert covers(held)
    assert not too_many_alarms(p_values)


@pytest.mark.slow
def test_perplexity_where_the_second_run_is_better() -> None:
    truth = true_ratio(0.7)
    held = [holds(ratio_bootstrap_interval(b - a, tokens, resamples=RESAMPLES), truth) for a, b, tokens in losses(0.7)]
    assert covers(held)


def ratio_by_deviation(faulty: Callable[[Floats, Floats, Floats], tuple[float, float]], factor: float) -> list[bool]:
    """How a resampling with this mean and deviation would do."""
    held, truth = [], true_ratio(factor)
    for a, b, tokens in losses(factor):
        estimate, deviation = faulty(a, b, tokens)
        held.append(abs(estimate - truth) < 1.96 * deviation)
    return held


def test_a_mean_of_means_is_seen() -> None:
    def faulty(a: Floats, b: Floats, tokens: Floats) -> tuple[float, float]:
        each = (b - a) / tokens
        return float(each.mean()), float(each.std()) / math.sqrt(ITEMS)

    assert not covers(ratio_by_deviation(faulty, 0.7))


def test_losses_resampled_without_their_pairs_are_seen() -> None:
    def faulty(a: Floats, b: Floats, tokens: Floats) -> tuple[float, float]:
        parts = [ratio(["x"] * ITEMS, one, tokens).parts for one in (a, b)]
        variance = sum(float(np.var(one)) for one in parts) / ITEMS
        return float((b - a).sum() / tokens.sum()), math.sqrt(variance)

    assert not covers(ratio_by_deviation(faulty, 0.7))


def test_similarity() -> None:
    """Means of overlaps between 0 and 1; a third of the answers are the same in both runs, some are empty."""
    random = np.random.default_rng(4)
    ease = random.beta(1, 2, (STUDIES, ITEMS))
    a, b = (np.clip(ease + random.normal(0, 0.15, ease.shape), 0, 1) for _ in range(2))
    b = np.where(random.random(ease.shape) < 1 / 3, a, b)
    held, p_values, weight = [], [], np.ones(ITEMS)
    for difference in b - a:
        held.append(holds(ratio_bootstrap_interval(difference, weight, resamples=RESAMPLES), 0.0))
        p_values.append(ratio_permutation_p_value(difference, weight, resamples=RESAMPLES))
    assert covers(held)
    assert not too_many_alarms(p_values)


# Seeds and items


def sides(seeds: int, seed: float, item: float, both: float, groups: int = 1) -> Iterator[list[Side]]:
    """Studies of so many groups; the deviations are those of a figure that is a mean over items, true value 0."""
    random = np.random.default_rng(5)
    for _ in range(STUDIES):
        made = []
        for _ in range(groups):
            values = random.normal(0, both, (seeds, ITEMS)) + random.normal(0, seed, (seeds, 1))
            values += random.normal(0, item, ITEMS)
            of_runs = [mean(["x"] * ITEMS, one) for one in values]
            made.append(Side(np.array([one.value for one in of_runs]), np.array([one.parts for one in of_runs])))
        yield made


WHERE = [(0.0, 1.0, 1.0), (0.05, 1.0, 1.0), (0.2, 1.0, 1.0), (1.0, 1.0, 1.0), (0.02, 0.05, 1.0)]


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("deviations", WHERE)
def test_seeds_and_items(seeds: int, deviations: tuple[float, float, float]) -> None:
    found = [crossed(side) for (side,) in sides(seeds, *deviations)]
    assert covers([holds(one.interval, 0.0) for one in found])
    assert not too_many_alarms([one.p_value for one in found])
    assert all((one.p_value <= 0.05) != holds(one.interval, 0.0) for one in found)


def test_two_groups_with_seeds_of_their_own() -> None:
    found = [crossed(b, a) for a, b in sides(3, 0.1, 0.7, 0.7, groups=2)]
    assert covers([holds(one.interval, 0.0) for one in found])
    assert not too_many_alarms([one.p_value for one in found])


def right_and_wrong(seeds: int, deviation: float) -> Iterator[Side]:
    """b minus a where a seed moves how many of the items are right; a tenth of the items are at odds in each pair."""
    random = np.random.default_rng(6)
    for _ in range(STUDIES):
        ease = random.random(ITEMS)
        level = 0.7 + random.normal(0, deviation, (2, seeds, 1))
        a, b = ease + random.normal(0, 0.12, (2, seeds, ITEMS)) < level
        of_runs = [mean(["x"] * ITEMS, one) for one in b.astype(float) - a]
        yield Side(np.array([one.value for one in of_runs]), np.array([one.parts for one in of_runs]))


@pytest.mark.parametrize(("seeds", "deviation"), [(2, 0.0), (3, 0.0), (3, 0.03)])
def test_accuracy_over_seeds(seeds: int, deviation: float) -> None:
    least = least_variance(ITEMS)
    found = [crossed(one, least=least) for one in right_and_wrong(seeds, deviation)]
    assert covers([holds(one.interval, 0.0) for one in found])
    assert not too_many_alarms([one.p_value for one in found])


def test_items_resampled_within_seeds_alone_are_seen() -> None:
    def within(side: Side) -> bool:
        error = float(np.std(side.parts.mean(axis=0))) / math.sqrt(ITEMS)
        return abs(float(side.values.mean())) < 1.96 * error

    assert not covers([within(side) for (side,) in sides(3, 0.2, 1.0, 1.0)])


def test_percentiles_of_the_pigeonhole_bootstrap_are_seen_with_three_seeds() -> None:
    """Seeds and items resampled independently, Owen 2007: here by its expected variance and normal quantiles."""

    def pigeonhole(side: Side) -> bool:
        seeds = float(np.var(side.values)) / 3
        items = float(np.var(side.parts.mean(axis=0))) / ITEMS
        return abs(float(side.values.mean())) < 1.96 * math.sqrt(seeds + items)

    held = [pigeonhole(side) for (side,) in sides(3, 1.0, 1.0, 1.0)]
    assert np.mean(held) < 0.8


def test_with_many_seeds_the_standard_error_is_that_of_the_pigeonhole_bootstrap() -> None:
    """An oracle that shares nothing with mean squares: both ways are drawn, and the whole is averaged anew."""
    random = np.random.default_rng(7)
    values = random.normal(0, 0.1, (40, 1)) + random.normal(0, 1.0, ITEMS) + random.normal(0, 0.5, (40, ITEMS))
    side = Side(values.mean(axis=1), values - values.mean(axis=1, keepdims=True))
    means = [values[np.ix_(random.integers(0, 40, 40), random.integers(0, ITEMS, ITEMS))].mean() for _ in range(3000)]
    found = crossed(side)
    assert math.sqrt(found.seed_variance + found.item_variance) == pytest.approx(np.std(means), rel=0.06)


def coverage_by_integration(seeds: int, share: float, both: float) -> float:
    """How often the interval holds the truth, where seeds have this share of the squared error; no chance in it.

    both: which part of the rest is the seeds' and the items' together, and so counted with the seeds.
    """
    counted = share + (1 - share) * both
    freedom = seeds - 1
    drawn = chi2.ppf((np.arange(2000) + 0.5) / 2000, freedom) / freedom * counted
    rest = 1 - counted
    quantile = [stdtrit(degrees_of_freedom([(float(one), freedom)], rest), 0.975) for one in drawn]
    return float(np.mean(2 * ndtr(np.array(quantile) * np.sqrt(drawn + rest)) - 1))


SHARES = [0.0001, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999]


@pytest.mark.parametrize(
    ("seeds", "low", "high"),
    [
        (2, 0.945, 0.967),
        (3, 0.945, 0.957),
        (4, 0.945, 0.957),
        (5, 0.945, 0.957),
        (10, 0.945, 0.957),
        (30, 0.945, 0.957),
    ],
)
def test_whatever_the_share_of_the_seeds_is(seeds: int, low: float, high: float) -> None:
    found = [coverage_by_integration(seeds, share, both) for share in SHARES for both in (0.0, 0.5)]
    assert low <= min(found)
    assert max(found) <= high


def test_satterthwaite_s_rule_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def satterthwaite(of_seeds: list[tuple[float, int]], items: float) -> float:
        ((seeds, count),) = of_seeds
        return count * ((seeds + items) / seeds) ** 2

    monkeypatch.setattr(room, "degrees_of_freedom", satterthwaite)
    monkeypatch.setitem(globals(), "degrees_of_freedom", satterthwaite)
    assert min(coverage_by_integration(2, share, 0.0) for share in SHARES) < 0.89
    assert min(coverage_by_integration(3, share, 0.0) for share in SHARES) < 0.93
    assert not covers([holds(crossed(side).interval, 0.0) for (side,) in sides(2, 0.3, 1.0, 1.0)])
