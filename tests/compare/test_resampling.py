"""Permutation tests and bootstrap intervals against exact enumeration, scipy and scikit-learn."""

import itertools
import tracemalloc

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from pronk.compare import resampling
from pronk.compare.resampling import (
    macro_f1,
    macro_f1_bootstrap_interval,
    macro_f1_permutation_p_value,
    ratio_bootstrap_interval,
    ratio_permutation_p_value,
)


def losses(n: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    tokens = random.integers(1, 9, n).astype(float)
    return random.normal(shift, 1.0, n) * tokens, tokens


def predictions(n: int, seed: int = 0, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and two runs' predictions, about 55% and 80% right, some unparsable (-1)."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    a = np.where(random.random(n) < 0.4, labels, random.integers(-1, classes, n))
    b = np.where(random.random(n) < 0.75, labels, random.integers(-1, classes, n))
    return labels, a, b


def sklearn_macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    present = sorted(set(labels.tolist()) | set(predicted.tolist()) - {-1})
    return float(f1_score(labels, predicted, labels=present, average="macro", zero_division=0.0))


def enumerated_p_value(statistics: list[float], observed: float) -> float:
    return float(np.mean(np.abs(statistics) >= abs(observed) - 1e-9))


def within_monte_carlo_error(found: float, exact: float, resamples: int) -> bool:
    return abs(found - exact) <= 4 * np.sqrt(exact * (1 - exact) / resamples) + 1 / resamples


@pytest.mark.parametrize("shift", [0.0, 0.4, 1.2])
def test_ratio_permutation_agrees_with_all_sign_flips(shift: float) -> None:
    difference, tokens = losses(10, shift)
    flips = np.array(list(itertools.product([1, -1], repeat=10)))
    exact = enumerated_p_value(flips @ difference / tokens.sum(), difference.sum() / tokens.sum())
    assert within_monte_carlo_error(ratio_permutation_p_value(difference, tokens), exact, 20_000)


def test_ratio_permutation_agrees_with_scipy() -> None:
    difference, tokens = losses(60, 0.2, seed=4)
    a, b = np.zeros(60), difference

    def statistic(one: np.ndarray, two: np.ndarray, axis: int) -> np.ndarray:
        return (two - one).sum(axis=axis) / tokens.sum()

    oracle = stats.permutation_test(
        (a, b), statistic, permutation_type="samples", vectorized=True, n_resamples=9999, rng=1
    )
    assert ratio_permutation_p_value(difference, tokens) == pytest.approx(oracle.pvalue, abs=0.015)


def test_macro_f1_permutation_agrees_with_all_swaps_scored_by_sklearn() -> None:
    labels, a, b = predictions(40, seed=3)
    same = np.flatnonzero(a != b)[8:]  # leave eight items that differ, so that all 256 swaps can be tried
    b[same] = a[same]
    statistics = []
    for swap in itertools.product([False, True], repeat=8):
        swapped = np.zeros(40, dtype=bool)
        swapped[np.flatnonzero(a != b)] = swap
        one, two = np.where(swapped, b, a), np.where(swapped, a, b)
        statistics.append(sklearn_macro_f1(labels, two) - sklearn_macro_f1(labels, one))
    exact = enumerated_p_value(statistics, statistics[0])
    assert 0.005 < exact < 0.9  # or the comparison would say little
    assert within_monte_carlo_error(macro_f1_permutation_p_value(labels, a, b, 3), exact, 20_000)


def test_the_permuted_macro_f1_statistics_are_those_of_swapped_arrays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels, a, b = predictions(30, seed=5)
    swapped = np.random.default_rng(0).random((6, 30)) < 0.5
    monkeypatch.setattr(resampling, "_flips", lambda *_: iter([np.packbits(swapped[:, a != b], axis=1)]))
    seen = []
    monkeypatch.setattr(resampling, "_p_values", lambda blocks, *_: [seen.extend(np.hstack(list(blocks))[0])])
    macro_f1_permutation_p_value(labels, a, b, 3)
    expected = [
        sklearn_macro_f1(labels, np.where(row, a, b)) - sklearn_macro_f1(labels, np.where(row, b, a)) for row in swapped
    ]
    assert seen == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [1, 7, 64, 65, 300])
def test_counted_bits_are_the_matrix_product(n: int) -> None:
    """What macro-F1 counts 64 items at once is what the swaps of losses come to, multiplied out."""
    columns = np.random.default_rng(n).integers(0, 2, (n, 6)).astype(float)
    flips = [resampling._words(one) for one in resampling._flips(n, 5000, seed=2)]
    tallied = np.hstack([resampling._tally(words, resampling._marks(columns)) for words in flips])
    assert np.array_equal(tallied.T, np.concatenate([*resampling._swaps(n, 5000, seed=2)]) @ columns)


def test_pairs_that_are_resampled_together_have_the_figures_that_each_has_alone() -> None:
    pairs = [losses(40, shift, seed) for seed, shift in enumerate((0.0, 0.1, 0.3, 0.8))]
    difference_nP, weight_nP = (np.column_stack(columns) for columns in zip(*pairs, strict=True))
    p_values = resampling.ratio_permutation_p_values(difference_nP, weight_nP, 999)
    assert p_values == [ratio_permutation_p_value(*pair, 999) for pair in pairs]
    alone = [ratio_bootstrap_interval(*pair) for pair in pairs]
    assert np.array(resampling.ratio_bootstrap_intervals(difference_nP, weight_nP)) == pytest.approx(np.array(alone))


def test_runs_that_are_resampled_once_have_the_interval_of_the_pair() -> None:
    labels, a, b = predictions(50, seed=2)
    of_a, of_b = (resampling.macro_f1_resampled(labels, one, 3) for one in (a, b))
    assert (of_a.value, of_b.value) == (macro_f1(labels, a, 3), macro_f1(labels, b, 3))
    assert resampling.resampled_difference(of_a, of_b) == macro_f1_bootstrap_interval(labels, a, b, 3)
    swapped = resampling.resampled_difference(of_b, of_a)
    assert swapped == pytest.approx([-bound for bound in macro_f1_bootstrap_interval(labels, a, b, 3)][::-1])


def test_seeded_figures_stay_what_they_were() -> None:
    """Studies of last year and of today compare: a seed's draws never change, however they are made or cut up."""
    draws = np.concatenate([*resampling._draws(901, 700, seed=0)])
    drawn = np.random.default_rng(0).integers(0, 901, size=(700, 901))
    assert np.array_equal(draws[[0, 290, 291, 699]], [np.bincount(drawn[k], minlength=901) for k in (0, 290, 291, 699)])
    generator = np.random.default_rng(0)
    blocks = [generator.integers(0, 256, (rows, 38), dtype=np.uint8) for rows in (7013, 7013, 974)]
    swaps = np.concatenate([*resampling._swaps(299, 15_000, seed=0)])
    assert np.array_equal(swaps, np.unpackbits(np.concatenate(blocks), axis=1, count=299))


def test_macro_f1_is_sklearns_over_the_classes_that_occur() -> None:
    for seed in range(20):
        labels, a, _ = predictions(12, seed=seed, classes=5)  # few items: some class is often absent
        assert macro_f1(labels, a, 5) == pytest.approx(sklearn_macro_f1(labels, a), abs=1e-12)


def test_p_values_are_never_zero_and_one_without_a_difference() -> None:
    assert ratio_permutation_p_value(np.full(50, 3.0), np.ones(50), resamples=999) == 1 / 1000
    assert ratio_permutation_p_value(np.zeros(50), np.ones(50), resamples=999) == 1.0
    labels, a, _ = predictions(50)
    assert macro_f1_permutation_p_value(labels, a, a, 3, resamples=999) == 1.0


def rejections(p_value, experiments: int = 1600) -> float:
    return float(np.mean([p_value(*losses(25, 0.0, seed)) <= 0.05 for seed in range(experiments)]))


def test_under_no_difference_one_in_twenty_is_found_and_a_naive_test_finds_more() -> None:
    def one_sided(difference: np.ndarray, tokens: np.ndarray) -> float:
        return ratio_permutation_p_value(difference, tokens, resamples=199) / 2

    error = 3 * np.sqrt(0.05 * 0.95 / 1600)
    assert rejections(lambda d, t: ratio_permutation_p_value(d, t, resamples=199)) == pytest.approx(0.05, abs=error)
    assert rejections(one_sided) > 0.05 + error


def test_resampling_is_seeded() -> None:
    difference, tokens = losses(30, 0.3)
    first, again, other = (ratio_permutation_p_value(difference, tokens, 500, seed) for seed in (1, 1, 2))
    assert first == again != other
    intervals = [ratio_bootstrap_interval(difference, tokens, seed=seed) for seed in (1, 1, 2)]
    assert intervals[0] == intervals[1] != intervals[2]


def test_ratio_bootstrap_agrees_with_scipy() -> None:
    difference, tokens = losses(80, 0.3, seed=6)
    oracle = stats.bootstrap(
        (difference, tokens),
        lambda d, t, axis: d.sum(axis=axis) / t.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=5000,
        rng=3,
    ).confidence_interval
    width = oracle.high - oracle.low
    assert ratio_bootstrap_interval(difference, tokens) == pytest.approx(tuple(oracle), abs=0.05 * width)


def test_macro_f1_bootstrap_agrees_with_a_plain_loop_over_sklearn() -> None:
    labels, a, b = predictions(60, seed=7)
    random = np.random.default_rng(8)
    found = []
    for _ in range(800):
        drawn = random.integers(0, 60, 60)
        found.append(sklearn_macro_f1(labels[drawn], b[drawn]) - sklearn_macro_f1(labels[drawn], a[drawn]))
    low, high = np.quantile(found, [0.025, 0.975])
    interval = macro_f1_bootstrap_interval(labels, a, b, 3)
    assert interval == pytest.approx((low, high), abs=0.12 * (high - low))


def test_memory_stays_bounded_with_many_items() -> None:
    difference, tokens = losses(20_000, 0.0)
    tracemalloc.start()
    ratio_permutation_p_value(difference, tokens, resamples=1000)  # 160 MB as one matrix
    ratio_bootstrap_interval(difference, tokens, resamples=500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 90e6
