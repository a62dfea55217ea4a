"""Paired permutation tests and paired bootstrap intervals, vectorised in bounded memory.

Both runs answered the same items, so an item is the unit: the permutation test swaps the two runs'
results within items (under "no difference" either order is as likely), the bootstrap draws whole items
with replacement. Differences are b minus a.
Shapes: n items, C classes, R resamples, P pairs of runs, K columns of what is summed over items, W words of 64 items.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Words = NDArray[np.uint64]

PERMUTATIONS = 20_000
BOOTSTRAPS = 5_000
_CELLS = 2**21  # of one block of resamples: 16 MiB in float64
_AT_ONCE = 2**18  # cells that are made and multiplied at once: what a core's cache holds
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
    return ratio_permutation_p_values(difference[:, None], weight[:, None], resamples, seed)[0]


def ratio_permutation_p_values(
    difference_nP: Floats, weight_nP: Floats, resamples: int = PERMUTATIONS, seed: int = 0
) -> list[float]:
    """The same for P pairs of runs on as many items, in one matrix product: the flips are the same for all."""
    total_P = weight_nP.sum(axis=0)
    # A swap turns d into -d, so the statistic changes by -2 d / total.
    change_nP = -2.0 * difference_nP / total_P
    observed_P = difference_nP.sum(axis=0) / total_P
    flipped = (change_nP.T @ swaps.T for swaps in _swaps(len(difference_nP), resamples, seed))
    statistics = (observed_P[:, None] + change_PR for change_PR in flipped)
    # Rounding scales with what is summed, not with what is left after cancellation.
    tolerance_P = 1e-12 * np.abs(difference_nP).sum(axis=0) / total_P
    return _p_values(statistics, observed_P, resamples, tolerance_P)


def macro_f1_permutation_p_value(
    labels: Codes, a: Codes, b: Codes, classes: int, resamples: int = PERMUTATIONS, seed: int = 0
) -> float:
    """Two-sided p-value for the difference of macro-F1, by swapping the two predictions of items.

    `labels`, `a`, `b` (n,) are class positions, -1 in a prediction for one that could not be parsed.
    The +1 correction is that of `ratio_permutation_p_value`.
    """
    of_a, of_b = _counts(labels, a, classes), _counts(labels, b, classes)
    support, total_a, total_b = _sums(_one_hot(labels, classes)), _sums(of_a), _sums(of_b)
    differ = a != b  # swapping equal predictions changes nothing

    in_a, in_b = _marks(of_a[differ]), _marks(of_b[differ])

    def statistics() -> Iterator[Floats]:
        for flips in map(_words, _flips(int(differ.sum()), resamples, seed)):
            moved_KR = _tally(flips, in_b) - _tally(flips, in_a)
            yield (_macro_f1(support, total_b - moved_KR) - _macro_f1(support, total_a + moved_KR))[None]

    observed = _macro_f1(support, total_b) - _macro_f1(support, total_a)
    return _p_values(statistics(), observed, resamples, np.array([1e-12]))[0]


def ratio_bootstrap_interval(
    difference: Floats, weight: Floats, level: float = 0.95, resamples: int = BOOTSTRAPS, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of sum(difference) / sum(weight) over resampled items (ratio estimator).

    Arguments as in `ratio_permutation_p_value`; the result is in nats per token. Its exponential is the
    interval of the ratio of perplexities, b over a. Efron & Tibshirani (1993), chapter 13; see `_tail` for the level.
    """
    return ratio_bootstrap_intervals(difference[:, None], weight[:, None], level, resamples, seed)[0]


def ratio_bootstrap_intervals(
    difference_nP: Floats, weight_nP: Floats, level: float = 0.95, resamples: int = BOOTSTRAPS, seed: int = 0
) -> list[tuple[float, float]]:
    """The same for P pairs of runs on as many items, in one matrix product: the draws are the same for all."""
    above_PR, below_PR = np.split(_resampled_sums(np.hstack([difference_nP, weight_nP]), resamples, seed), 2)
    parts_nP = difference_nP - difference_nP.sum(axis=0) / weight_nP.sum(axis=0) * weight_nP
    return [_percentiles(found, parts, level) for found, parts in zip(above_PR / below_PR, parts_nP.T, strict=True)]


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
    of_a, of_b = (macro_f1_resampled(labels, predicted, classes, resamples, seed) for predicted in (a, b))
    return resampled_difference(of_a, of_b, level)


@dataclass(frozen=True)
class Resampled:
    """A figure of one run, the same on resampled items (R,), and each item's influence on it (n,), with mean 0."""

    value: float
    values_R: Floats
    parts_n: Floats


def macro_f1_resampled(
    labels: Codes, predicted: Codes, classes: int, resamples: int = BOOTSTRAPS, seed: int = 0
) -> Resampled:
    """Macro-F1 of one run. Every run is seen on the same draws, so that two of them can be subtracted."""
    columns = np.hstack([_one_hot(labels, classes), _counts(labels, predicted, classes)])
    sums_KR = _resampled_sums(columns, resamples, seed)
    values_R = _macro_f1(sums_KR[:classes], sums_KR[classes:])
    return Resampled(macro_f1(labels, predicted, classes), values_R, macro_f1_parts(labels, predicted, classes))


def resampled_difference(a: Resampled, b: Resampled, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of b minus a; see `_tail` for the level."""
    return _percentiles(b.values_R - a.values_R, b.parts_n - a.parts_n, level)


def macro_f1(labels: Codes, predicted: Codes, classes: int) -> float:
    """Macro-F1 over the classes that occur in the labels or the predictions; -1 is no class."""
    return float(_macro_f1(_sums(_one_hot(labels, classes)), _sums(_counts(labels, predicted, classes)))[0])


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


def _macro_f1(support_CR: Floats, counts_KR: Floats) -> Floats:
    """Macro-F1 (R,) from support (C, R or 1) and [hits, predicted] (2C, R): the mean of 2 hits / both."""
    hits, predicted = np.split(counts_KR, 2)
    both = support_CR + predicted
    scores = np.divide(2.0 * hits, both, out=np.zeros_like(both), where=both > 0)
    # A class that is neither there nor predicted has no F1; it is left out, not counted as 0.
    return np.asarray(scores.sum(axis=0) / (both > 0).sum(axis=0))


def _one_hot(codes: Codes, classes: int) -> Floats:
    return np.asarray(codes[:, None] == np.arange(classes), dtype=np.float64)


def _counts(labels: Codes, predicted: Codes, classes: int) -> Floats:
    """(n, 2C): whether an item is a hit of each class, and whether it is predicted as each class."""
    chosen = _one_hot(predicted, classes)
    return np.hstack([chosen * _one_hot(labels, classes), chosen])


def _sums(columns_nK: Floats) -> Floats:
    """(K, 1): of what is there, without resampling."""
    return np.asarray(columns_nK.sum(axis=0)[:, None])


def _blocks(n: int, resamples: int, cells: int) -> Iterator[int]:
    """Split the resamples into blocks of rows of at most about so many cells."""
    rows = max(1, cells // max(n, 1))
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)


def _flips(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Blocks (rows, n / 8) of fair coin flips, a bit an item: 1 where an item's two results change places."""
    generator, width = np.random.default_rng(seed), (n + 7) // 8
    for rows in _blocks(n, resamples, _CELLS):
        yield np.frombuffer(generator.bytes(rows * width), dtype=np.uint8).reshape(rows, width)


def _swaps(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """The same as numbers (rows, n), 1.0 or 0.0, fewer rows at a time."""
    for flips in _flips(n, resamples, seed):
        for some in np.split(flips, np.cumsum([*_blocks(n, len(flips), _AT_ONCE)])[:-1]):
            yield np.unpackbits(some, axis=1, count=n).astype(np.float64)


def _tally(swapped_WR: Words, marked_WK: Words) -> Floats:
    """How many of the items that change places bear each mark (K, R): bits are counted, 64 items at once."""
    found_KR = np.zeros((marked_WK.shape[1], swapped_WR.shape[1]))
    for word, k in np.argwhere(marked_WK):
        found_KR[k] += np.bitwise_count(swapped_WR[word] & marked_WK[word, k])
    return found_KR


def _marks(columns_nK: Floats) -> Words:
    """Which items have a 1 in each column, a bit an item."""
    return _words(np.packbits(columns_nK.astype(bool).T, axis=1))


def _words(packed: NDArray[np.uint8]) -> Words:
    """Rows of bytes as columns of 64-bit words, the last filled up with zeros."""
    whole = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), dtype=np.uint8)
    whole[:, : packed.shape[1]] = packed
    return np.ascontiguousarray(whole.view(np.uint64).T)


def _p_values(blocks_PR: Iterator[Floats], observed_P: Floats, resamples: int, tolerance_P: Floats) -> list[float]:
    """Share of resamples at least as far from zero as the observation, which counts as one of them; for each pair."""
    threshold_P = np.abs(observed_P) - tolerance_P
    extreme_P = sum((np.abs(block) >= threshold_P[:, None]).sum(axis=1) for block in blocks_PR)
    return [float(share) for share in (extreme_P + 1) / (resamples + 1)]


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


def _percentiles(found: Floats, parts: Floats, level: float) -> tuple[float, float]:
    """The interval from a figure's resamples (R,) and each item's influence on it (n,).

    Quantiles are those of R + 1 equal parts, so that few resamples cut off no more than many.
    """
    tail = _tail(parts, level)
    low, high = np.quantile(found, [tail, 1.0 - tail], method="weibull")
    return float(low), float(high)


def _resampled_sums(columns_nK: Floats, resamples: int, seed: int) -> Floats:
    """Draw n of n items again and again; each draw's sums of the columns (K, R)."""
    n = len(columns_nK)
    blocks = _kept_draws(n, resamples, seed) if n * resamples <= _KEPT else _draws(n, resamples, seed)
    return np.hstack([columns_nK.T @ times.T.astype(np.float64) for times in blocks])


def _draws(n: int, resamples: int, seed: int) -> Iterator[Codes]:
    """Blocks (rows, n) of how often each item is drawn in n draws with replacement."""
    generator = np.random.default_rng(seed)
    for rows in _blocks(n, resamples, _AT_ONCE):
        drawn = generator.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)


@lru_cache(maxsize=1)  # all pairs of a study are compared on the same items, so with the same draws
def _kept_draws(n: int, resamples: int, seed: int) -> list[NDArray[np.uint16]]:
    return [times.astype(np.uint16) for times in _draws(n, resamples, seed)]
