"""How many items would tell: how large a test set must be where the verdict is a tie.

Every paired test here asks about signs: under "no difference" an item's difference d = b - a is as likely to be -d.
So one formula serves them all; with d in {-1, 0, 1} (right or wrong) it is the usual one for McNemar's test.
"""

import math

from scipy.special import ndtri, stdtrit

from pronk.compare.crossed import degrees_of_freedom

POWER = 0.8
MOST = 1_000_000  # items; a number beyond this is no advice


def items_to_tell(mean: float, mean_square: float, level: float, step: float = 0.0) -> int | None:
    """The items at which a paired two-sided test at `level` finds this difference with 80% power; None for no such.

    `mean` and `mean_square` are those of d over the items seen, in any unit; `step` is what the sum of d must exceed
    its limit by. The sum has the deviation sqrt(N E d^2) if signs are chance, and sqrt(N) sd(d) if the mean is as
    seen, so N is where N |E d| - step = sqrt(N) (z_{level/2} sqrt(E d^2) + z_{power} sd(d)).
    Connor (1987), Biometrics 43:207-211, for right and wrong, where E d^2 is the share of discordant items; the normal
    approximation for all other means. The weights of a ratio (tokens) drop out: they do not change with the sign.
    None where the difference is zero, or where it takes more than a million items.
    Raises ValueError for a mean square that no such mean can have, or a level outside (0, 1).
    """
    variance = mean_square - mean * mean
    if not 0 < level < 1 or variance < -1e-9 * mean_square:
        raise ValueError(f"no such differences or level: {mean=} {mean_square=} {level=}")
    if mean == 0:
        return None
    chance, power = -float(ndtri(level / 2)), float(ndtri(POWER))
    width = chance * math.sqrt(mean_square) + power * math.sqrt(max(variance, 0.0))
    root = (width + math.sqrt(width * width + 4.0 * step * abs(mean))) / (2.0 * abs(mean))
    return math.ceil(root * root) if root * root <= MOST else None


def items_for_mcnemar(only_a: int, only_b: int, n: int, level: float) -> int | None:
    """`items_to_tell` for McNemar's exact test, if as large shares of the items stay discordant, either way.

    The exact test is as strict as the one with the continuity correction, which takes 1 off |only_b - only_a|. At the
    N named its power is 80 to 85%; more where only one of the runs is ever alone in being right.
    """
    return items_to_tell((only_b - only_a) / n, (only_a + only_b) / n, level, step=1.0)


def items_from_interval(difference: float, low: float, high: float, n: int, level: float) -> int | None:
    """`items_to_tell` for a figure that is no mean over items (macro-F1), from its 95% interval on `n` items.

    The interval's width gives its standard error, which falls with the root of the number of items.
    """
    deviation = (high - low) / (2.0 * float(ndtri(0.975))) * math.sqrt(n)
    return items_to_tell(difference, deviation**2 + difference**2, level)


def items_over_seeds(
    difference: float, seed_variance: float, item_variance: float, seeds: int, n: int, level: float
) -> int | None:
    """The items at which groups of several seeds are told apart with 80% power; None where no number of items would.

    `seed_variance` and `item_variance` are those of `difference` on `n` items, of which more items make only the second
    smaller. The more items, the larger the seeds' share, and the fewer the degrees of freedom: `seeds` less one in the
    end. Counts are tried in steps of 2%, the smallest that will do is the answer.
    """
    if difference == 0:
        return None
    for step in range(math.ceil(math.log(MOST / n) / math.log(1.02)) + 1):
        items = math.ceil(n * 1.02**step)
        rest = item_variance * n / items
        freedom = degrees_of_freedom([(seed_variance, seeds - 1)], rest)
        width = float(stdtrit(freedom, 1.0 - level / 2)) + float(ndtri(POWER))
        if abs(difference) >= width * math.sqrt(seed_variance + rest):
            return items if items <= MOST else None
    return None
