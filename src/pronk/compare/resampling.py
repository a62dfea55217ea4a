"""Paired permutation tests and paired bootstrap intervals, vectorised in bounded memory.

Both runs answered the same items, so an item is the unit: the permutation test swaps the two runs'
results within items (under "no difference" either order is as likely), the bootstrap draws whole items
with replacement. Differences are b minus a. Shapes: n items, C classes, R resamples.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

PERMUTATIONS = 20_000
BOOTSTRAPS = 5_000
_CELLS = 2**21  # of one block of resamples: 16 MiB in float64
_KEPT = 2**25  # of draws that are kept from one comparison to the next: 64 MiB


def ratio_permutation_p_value(
    difference: Floats, weight: Floats, resamples: int = PERMUTATIONS, seed: int = 0
) -> float:
    """Two-sided p-value for sum(difference) / sum(weight), by random sign flips.

    `difference` (n,) is each item's loss of b minus that of a, in nats; `weight` (n,) its target tokens,
    equal in both runs, which swapping leaves alone: flipping a sign is swapping an item.
    (1 + extreme) / (1 + resamples): Phipson & Smyth (2010), Statistical Applications in Genetics and
    Molecular Biology 9(1):39, so that it is never 0 and never too small.
    """
    total = float(weight.sum())
    # A swap turns d into -d, so the statistic changes by -2 d / total.
    change = (-2.0 * difference / total)[:, None]
    observed = float(difference.sum()) / total
    statistics = (observed + (swaps @ change)[:, 0] for swaps in _swaps(len(difference), resamples, seed))
    # Rounding scales with what is summed, not with what is left after cancellation.
    return _p_value(statistics, observed, resamples, tolerance=1e-12 * float(np.abs(difference).sum()) / total)


def macro_f1_permutation_p_value(
    labels: Codes, a: Codes, b: Codes, classes: int, resamples: int = PERMUTATIONS, seed: int = 0
) -> float:
    """Two-sided p-value for the difference of macro-F1, by swapping the two predictions of items.

    `labels`, `a`, `b` (n,) are class positions, -1 in a prediction for one that could not be parsed.
    The +1 correction is that of `ratio_permutation_p_value`.
    """
    columns_a, columns_b = _counts(labels, a, classes), _counts(labels, b, classes)
    support = _one_hot(labels, classes).sum(axis=0)
    total_a, total_b = columns_a.sum(axis=0), columns_b.sum(axis=0)
    differ = a != b  # swapping equal predictions changes nothing
    change = (columns_b - columns_a)[differ]

    def statistics() -> Iterator[Floats]:
        for swaps in _swaps(int(differ.sum()), resamples, seed):
            moved = swaps @ change
            yield _macro_f1(support, total_b - moved) - _macro_f1(support, total_a + moved)

    observed = float(_macro_f1(support, total_b) - _macro_f1(support, total_a))
    return _p_value(statistics(), observed, resamples, tolerance=1e-12)


def ratio_bootstrap_interval(
    difference: Floats, weight: Floats, level: float = 0.95, resamples: int = BOOTSTRAPS, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of sum(difference) / sum(weight) over resampled items (ratio estimator).

    Arguments as in `ratio_permutation_p_value`; the result is in nats per token. Its exponential is the
    interval of the ratio of perplexities, b over a. Efron & Tibshirani (1993), chapter 13; see `_tail` for the level.
    """
    columns = np.column_stack([difference, weight]).astype(np.float64)

    def statistic(sums: Floats) -> Floats:
        return sums[:, 0] / sums[:, 1]

    parts = difference - float(difference.sum() / weight.sum()) * weight
    return _percentiles(columns, statistic, _tail(parts, level), resamples, seed)


def macro_f1_bootstrap_interval(
    labels: Codes,
    a: Codes,
    b: Codes,
    classes: int,
    level: float = 0.95,
    resamples: int = BOOTSTRAPS,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the difference of macro-F1, b minus a, over resampled items.

    Arguments as in `macro_f1_permutation_p_value`; see `_tail` for the level.
    """
    columns = np.hstack([_one_hot(labels, classes), _counts(labels, a, classes), _counts(labels, b, classes)])

    def statistic(sums: Floats) -> Floats:
        support, of_a, of_b = np.split(sums, [classes, 3 * classes], axis=1)
        return _macro_f1(support, of_b) - _macro_f1(support, of_a)

    parts = macro_f1_parts(labels, b, classes) - macro_f1_parts(labels, a, classes)
    return _percentiles(columns, statistic, _tail(parts, level), resamples, seed)


def macro_f1(labels: Codes, predicted: Codes, classes: int) -> float:
    """Macro-F1 over the classes that occur in the labels or the predictions; -1 is no class."""
    support = _one_hot(labels, classes).sum(axis=0)
    return float(_macro_f1(support, _counts(labels, predicted, classes).sum(axis=0)))


def macro_f1_parts(labels: Codes, predicted: Codes, classes: int) -> Floats:
    """Each item's influence on macro-F1, (n,), with mean 0: its derivative by the item's weight, times n.

    A class's F1 is 2 h / (l + p), hits by label and prediction counts, so an item moves it by
    (2 h_i - F1 (l_i + p_i)) / mean(l + p). -1 in `predicted` is no class.
    """
    label, both = _one_hot(labels, classes), _counts(labels, predicted, classes)
    hits, either = both[:, :classes], label + both[:, classes:]
    occurs = either.sum(axis=0) > 0
    hits, either = hits[:, occurs], either[:, occurs]
    f1 = 2.0 * hits.sum(axis=0) / either.sum(axis=0)
    return np.asarray(((2.0 * hits - f1 * either) / either.mean(axis=0)).mean(axis=1))


def _macro_f1(support: Floats, counts: Floats) -> Floats:
    """Macro-F1 from support (..., C) and [hits, predicted] (..., 2C): the mean of 2 hits / (both)."""
    hits, predicted = np.split(counts, 2, axis=-1)
    both = support + predicted
    scores = np.divide(2.0 * hits, both, out=np.zeros_like(both + hits), where=both > 0)
    # A class that is neither there nor predicted has no F1; it is left out, not counted as 0.
    return np.asarray(scores.sum(axis=-1) / (both > 0).sum(axis=-1))


def _one_hot(codes: Codes, classes: int) -> Floats:
    return np.asarray(codes[:, None] == np.arange(classes), dtype=np.float64)


def _counts(labels: Codes, predicted: Codes, classes: int) -> Floats:
    """(n, 2C): whether an item is a hit of each class, and whether it is predicted as each class."""
    chosen = _one_hot(predicted, classes)
    return np.hstack([chosen * _one_hot(labels, classes), chosen])


def _blocks(n: int, resamples: int) -> Iterator[int]:
    """Split the resamples into blocks of rows of at most about _CELLS cells."""
    rows = max(1, _CELLS // max(n, 1))
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)


def _swaps(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Blocks (rows, n) of fair coin flips, 1.0 where an item's two results change places."""
    generator = np.random.default_rng(seed)
    for rows in _blocks(n, resamples):
        packed = generator.integers(0, 256, size=(rows, (n + 7) // 8), dtype=np.uint8)
        yield np.unpackbits(packed, axis=1, count=n).astype(np.float64)


def _p_value(statistics: Iterator[Floats], observed: float, resamples: int, tolerance: float) -> float:
    """Share of resamples at least as far from zero as the observation, which counts as one of them."""
    threshold = abs(observed) - tolerance
    extreme = sum(int((np.abs(block) >= threshold).sum()) for block in statistics)
    return (extreme + 1) / (resamples + 1)


def _tail(parts: Floats, level: float) -> float:
    """Which share of the resamples to cut off on either side, given what each item has to do with the figure (n,).

    Plain percentiles, (1 - level) / 2, are too narrow: they take the spread of these items for that of their source.
    The remedy is Hesterberg's (2015, The American Statistician 69:371-386), the quantiles of Student's t in place of
    the normal ones, here with the degrees of freedom 2 n / (kurtosis - 1) of a variance that n items tell
    (Satterthwaite 1946): on losses of long and short answers few items decide, and 93% were covered without it.
    """
    n, square = len(parts), float((parts**2).mean())
    if n < 2 or square == 0:
        return 0.5 - level / 2
    kurtosis = float((parts**4).mean()) / square**2
    freedom = min(n - 1.0, 2.0 * n / max(kurtosis - 1.0, 1e-9))
    return float(ndtr(stdtrit(freedom, 0.5 - level / 2) * np.sqrt(n / (n - 1.0))))


def _percentiles(
    columns: Floats, statistic: Callable[[Floats], Floats], tail: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Draw n of n items (rows of `columns`) again and again; the statistic gets each draw's column sums.

    Quantiles are those of `resamples` + 1 equal parts, so that few resamples cut off no more than many.
    """
    n = len(columns)
    blocks = _kept_draws(n, resamples, seed) if n * resamples <= _KEPT else _draws(n, resamples, seed)
    found = [statistic(times.astype(np.float64) @ columns) for times in blocks]
    low, high = np.quantile(np.concatenate(found), [tail, 1.0 - tail], method="weibull")
    return float(low), float(high)


def _draws(n: int, resamples: int, seed: int) -> Iterator[Codes]:
    """Blocks (rows, n) of how often each item is drawn in n draws with replacement."""
    generator = np.random.default_rng(seed)
    for rows in _blocks(n, resamples):
        drawn = generator.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)


@lru_cache(maxsize=1)  # all pairs of a study are compared on the same items, so with the same draws
def _kept_draws(n: int, resamples: int, seed: int) -> list[NDArray[np.uint16]]:
    return [times.astype(np.uint16) for times in _draws(n, resamples, seed)]
