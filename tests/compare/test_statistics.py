"""Tango's interval, McNemar's test and Holm's adjustment against oracles that share no code with them."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from pronk.compare import statistics
from pronk.compare.statistics import (
    fair_coin_p_value,
    holm,
    mcnemar_exact,
    score_variance,
    tango_interval,
    wilson_interval,
)

Z_SQUARED = 1.959963984540054**2


def numerical_score_squared(only_a: int, only_b: int, n: int, difference: float) -> float:
    """Tango's statistic, with the restricted maximum likelihood found by a search instead of a formula."""
    low, high = max(0.0, -difference), (1.0 - difference) / 2.0

    def minus_log_likelihood(q: float) -> float:
        cells = ((only_a, q), (only_b, q + difference), (n - only_a - only_b, 1.0 - 2.0 * q - difference))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    found = minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13})
    candidates = [low, high, float(found.x)]
    q = min(candidates, key=minus_log_likelihood)
    return (only_b - only_a - n * difference) ** 2 / (n * (2 * q + difference - difference**2))


@pytest.mark.parametrize(
    ("only_a", "only_b", "n"),
    [(12, 31, 300), (31, 12, 300), (0, 7, 40), (7, 0, 40), (1, 1, 5), (0, 1, 2), (20, 29, 50), (3, 4, 7)],
)
def test_the_limits_are_where_the_score_statistic_equals_z(only_a: int, only_b: int, n: int) -> None:
    low, high = tango_interval(only_a, only_b, n)
    assert low < (only_b - only_a) / n < high
    for limit in (low, high):
        assert numerical_score_squared(only_a, only_b, n, limit) == pytest.approx(Z_SQUARED, rel=1e-4)


def test_the_oracle_rejects_an_interval_with_walds_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    def wald(only_a: int, only_b: int, n: int, _difference: float) -> float:
        return only_a + only_b - (only_b - only_a) ** 2 / n

    monkeypatch.setattr(statistics, "score_variance", wald)
    low, high = tango_interval(12, 31, 300)
    found = [numerical_score_squared(12, 31, 300, limit) for limit in (low, high)]
    assert found != pytest.approx([Z_SQUARED, Z_SQUARED], rel=1e-2)


@pytest.mark.parametrize("n", [1, 2, 30, 900])
def test_without_discordant_pairs_the_limit_has_a_closed_form(n: int) -> None:
    limit = Z_SQUARED / (n + Z_SQUARED)
    assert tango_interval(0, 0, n) == pytest.approx((-limit, limit), rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 30, 900])
def test_where_only_one_run_is_ever_right_the_interval_reaches_one(n: int) -> None:
    limit = (n - Z_SQUARED) / (n + Z_SQUARED)
    assert tango_interval(0, n, n) == pytest.approx((limit, 1.0), rel=1e-9)
    assert tango_interval(n, 0, n) == pytest.approx((-1.0, -limit), rel=1e-9)


def test_the_interval_mirrors_and_narrows_with_a_lower_level() -> None:
    low, high = tango_interval(10, 25, 200)
    assert tango_interval(25, 10, 200) == pytest.approx((-high, -low), abs=1e-12)
    narrow = tango_interval(10, 25, 200, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def coverage(interval, draws: int = 3000) -> float:
    """How often the interval holds the true difference, 0.06, of 200 pairs."""
    random = np.random.default_rng(11)
    tables, counts = np.unique(random.multinomial(200, [0.08, 0.14, 0.78], draws), axis=0, return_counts=True)
    held = 0
    for (only_a, only_b, _), count in zip(tables.tolist(), counts.tolist(), strict=True):
        low, high = interval(only_a, only_b, 200)
        held += count * (low <= 0.06 <= high)
    return held / draws


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    # Discreteness moves the exact coverage by less than one Monte-Carlo error at this n.
    assert coverage(tango_interval) == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 3000))


def test_the_coverage_check_rejects_an_interval_that_forgets_the_pairing() -> None:
    def unpaired(only_a: int, only_b: int, n: int) -> tuple[float, float]:
        a, b = 0.6 + only_a / n, 0.6 + only_b / n  # 120 of the items are right in both runs
        half = 1.96 * math.sqrt((a * (1 - a) + b * (1 - b)) / n)
        return b - a - half, b - a + half

    assert abs(coverage(unpaired) - 0.95) > 3 * math.sqrt(0.95 * 0.05 / 3000)


@pytest.mark.parametrize("table", [(-1, 2, 10), (5, 6, 10), (0, 0, 0)])
def test_impossible_tables_are_refused(table: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no such paired table"):
        tango_interval(*table)


def test_the_restricted_variance_is_that_of_an_unrestricted_table_at_its_own_estimate() -> None:
    # At the observed difference the restriction does not bind: variance = x + y - (x - y)^2 / n.
    assert score_variance(12, 31, 300, 19 / 300) == pytest.approx(43 - 19**2 / 300)


def test_mcnemar_counts_coin_tosses() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(0, 5) == pytest.approx(2 / 2**5)
    tail = sum(math.comb(12, k) for k in range(3)) / 2**12
    assert mcnemar_exact(2, 10) == mcnemar_exact(10, 2) == pytest.approx(2 * tail)


def test_the_fair_coin_is_scipys() -> None:
    for tosses in (1, 2, 3, 10, 35, 300, 901):  # of 35 the two tails are 1 + 2e-16 when summed
        for heads in range(tosses + 1):
            expected = binomtest(heads, tosses, 0.5).pvalue
            assert fair_coin_p_value(heads, tosses) == pytest.approx(expected, rel=1e-12)
            assert fair_coin_p_value(heads, tosses) <= 1.0


def test_the_interval_of_a_share_is_scipys() -> None:
    for right, n in ((0, 1), (1, 1), (0, 30), (7, 30), (450, 900), (900, 900)):
        expected = tuple(binomtest(right, n).proportion_ci(0.95, method="wilson"))
        assert wilson_interval(right, n) == pytest.approx(expected, abs=1e-12)
    for n in range(1, 60):  # rounding must not leave out a share of 0 or 1
        assert all(low <= k / n <= high for k in range(n + 1) for low, high in [wilson_interval(k, n)])


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and the last raised to .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).shape == (0,)
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, float("nan")])


def holm_rejects(p_values: list[float], level: float) -> set[int]:
    """Holm's procedure as he states it: step down, stop at the first that is too large."""
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    kept = itertools.takewhile(lambda ik: p_values[ik[1]] <= level / (len(order) - ik[0]), enumerate(order))
    return {k for _, k in kept}


def test_an_adjusted_p_value_is_the_smallest_level_that_rejects() -> None:
    random = np.random.default_rng(2)
    for size in (1, 2, 5, 9):
        p_values = np.round(random.beta(0.3, 2, size), 3).tolist()
        adjusted = holm(p_values)
        for level in np.linspace(0.0005, 0.9995, 400):
            assert {k for k in range(size) if adjusted[k] <= level + 1e-12} == holm_rejects(p_values, level + 1e-12)
