"""Two runs, the same items, right or wrong: the interval and the test; and Holm's adjustment.

Throughout, `only_a` counts the items that only run a answers correctly and `only_b` those that only
run b does: the discordant pairs. Differences are b minus a.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, ndtri


def tango_interval(only_a: float, only_b: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """The score interval for the difference of two paired proportions, b minus a.

    Tango (1998), Statistics in Medicine 17:891-908: all differences D that the score test does not
    reject, score(D)^2 <= z^2. It keeps its level with few items and few discordant pairs, where the Wald
    interval has length zero. Without discordant pairs it is +-z^2 / (n + z^2).
    Counts may be fractions, as where they were divided by a design effect.
    Raises ValueError for negative counts, more discordant pairs than items, or a level outside (0, 1).
    """
    if only_a < 0 or only_b < 0 or n < 1 or only_a + only_b > n or not 0 < level < 1:
        raise ValueError(f"no such paired table or level: {only_a=} {only_b=} {n=} {level=}")
    z_squared = float(ndtri(0.5 + level / 2)) ** 2
    return -_upper_limit(only_b, only_a, n, z_squared), _upper_limit(only_a, only_b, n, z_squared)


def _upper_limit(only_a: float, only_b: float, n: float, z_squared: float) -> float:
    """The largest difference that the score test accepts; the lower limit is this one, mirrored."""
    estimate = (only_b - only_a) / n
    if only_b == n:
        return 1.0

    def excess(difference: float) -> float:
        variance = score_variance(only_a, only_b, n, difference)
        return (only_b - only_a - n * difference) ** 2 - z_squared * variance

    # At the estimate itself the excess can be exactly zero (no discordant pairs), which is not the limit.
    low, high = estimate + 1e-9 * (1.0 - estimate), 1.0
    while low < (middle := (low + high) / 2) < high:  # until no number lies between
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return high


def score_variance(only_a: float, only_b: float, n: float, difference: float) -> float:
    """The variance of only_b - only_a if the true difference were `difference`; needs -1 <= it <= 1.

    n (2 q + D - D^2), where q is the restricted maximum-likelihood estimate of P(only a is right), the
    larger root of A q^2 + B q + C = 0 (Tango 1998, section 3).
    """
    a = 2.0 * n
    b = -(only_a + only_b) + (2 * n + only_a - only_b) * difference
    c = -only_a * difference * (1.0 - difference)
    root = (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    q = max(root, 0.0, -difference)
    return max(n * (2.0 * q + difference - difference * difference), 0.0)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of McNemar's test: given the discordant pairs, is it a fair coin?

    McNemar (1947), Psychometrika 12:153-157, with the binomial distribution in place of chi-squared.
    Without discordant pairs it is 1.
    """
    return fair_coin_p_value(only_a, only_a + only_b)


def fair_coin_p_value(heads: int, tosses: int) -> float:
    """The exact two-sided p-value for "a fair coin": twice the binomial tail, cut at 1.

    The tail P(X <= k) of n tosses is the regularised incomplete beta function I_{1/2}(n - k, k + 1). scipy.stats has
    the same as `binomtest`, and takes half a second to import.
    """
    fewer = min(heads, tosses - heads)
    return 1.0 if 2 * fewer == tosses else min(2.0 * float(betainc(tosses - fewer, fewer + 1, 0.5)), 1.0)


def wilson_interval(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The score interval of one proportion, right of n, which it always holds: Wilson (1927), JASA 22:209-212."""
    z = float(ndtri(0.5 + level / 2))
    middle = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(right * (n - right) / n + z * z / 4)
    return middle - half if right > 0 else 0.0, middle + half if right < n else 1.0


def holm(p_values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values (m,) adjusted so that P(any false claim in the family) stays at its level; same order.

    Holm (1979), Scandinavian Journal of Statistics 6:65-70: the i-th smallest of m times (m - i + 1),
    made monotone and cut at 1. It holds under any dependence, which comparisons that share runs and
    items need. Raises ValueError for a value outside [0, 1].
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("a p-value lies between 0 and 1")
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted
