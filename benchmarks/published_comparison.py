"""A comparison published in 2024, read with pronk's statistics: the tables of docs/a-published-comparison.md.

FinancialPhraseBank, 900 test items, one run each, accuracy in whole percent. Only these percentages are known, not
which items each run answered correctly, so runs are compared as if each had its own 900 items (unpaired).

    python benchmarks/published_comparison.py            prints the tables; needs no GPU, no data and no network
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest, norm

from pronk.compare import words
from pronk.compare.sample_size import POWER, items_to_tell
from pronk.compare.statistics import holm

ITEMS, CLASSES = 900, 3
LEVEL = 0.05
DISCORDANT = (0.10, 0.20)  # shares of items that just one of two runs gets right: assumed, the source has none
ROWS = ("base", "[q, v], 2 epochs", "all-linear, 2 epochs", "all-linear, 3 epochs", "all-linear, 5 epochs")
PERCENT = {"LLaMA 2": (37, 77, 80, 82, 84), "LLaMA 3": (36, 75, 83, 86, 86)}
NEIGHBOURS = ((0, 1), (1, 2), (2, 3), (3, 4), (2, 4))  # rows that a reader compares: one setting apart


@dataclass(frozen=True)
class Pair:
    """Two published figures, as shares; b minus a is asked about."""

    name: str
    a: float
    b: float


def pairs() -> list[Pair]:
    """The neighbours within each model, then the two models in each row."""
    found = [
        Pair(f"{model}: {ROWS[a]} → {ROWS[b]}", percent[a] / 100, percent[b] / 100)
        for model, percent in PERCENT.items()
        for a, b in NEIGHBOURS
    ]
    both = zip(ROWS, *PERCENT.values(), strict=True)
    return found + [Pair(f"{row}: LLaMA 2 → LLaMA 3", a / 100, b / 100) for row, a, b in both]


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95% score interval of one proportion: Wilson (1927), JASA 22:209-212."""
    z = float(norm.isf(0.025))
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def unpaired_interval(a: float, b: float, n_a: int, n_b: int) -> tuple[float, float]:
    """The 95% interval of b - a on two sets of items: Newcombe (1998), Statistics in Medicine 17:873-890, method 10."""
    (low_a, high_a), (low_b, high_b) = wilson(a, n_a), wilson(b, n_b)
    return b - a - math.hypot(b - low_b, high_a - a), b - a + math.hypot(high_b - b, a - low_a)


def unpaired_p_value(a: float, b: float, n: int) -> float:
    """Two-sided p-value of the two-proportion z-test with the pooled variance (Pearson's chi-squared)."""
    pooled = (a + b) / 2
    return float(2 * norm.sf(abs(b - a) / math.sqrt(2 * pooled * (1 - pooled) / n)))


def unpaired_items(a: float, b: float, level: float) -> int | None:
    """Items in each of two sets at which that test finds b - a at `level` with 80% power; None for no difference.

    Fleiss, Levin & Paik (2003), Statistical Methods for Rates and Proportions, section 4.2, without correction.
    """
    if a == b:
        return None
    pooled = (a + b) / 2
    chance = float(norm.isf(level / 2)) * math.sqrt(2 * pooled * (1 - pooled))
    power = float(norm.ppf(POWER)) * math.sqrt(a * (1 - a) + b * (1 - b))
    return math.ceil(((chance + power) / (b - a)) ** 2)


def adjusted(shift: float = 0.0) -> list[float]:
    """Holm's p-values over all pairs, each difference larger by `shift` (less for a smaller one, down to none)."""
    found = []
    for pair in pairs():
        gap = max(abs(pair.b - pair.a) + shift, 0.0)
        middle = (pair.a + pair.b) / 2
        found.append(unpaired_p_value(middle - gap / 2, middle + gap / 2, ITEMS))
    return [float(p) for p in holm(found)]


def differences() -> Iterator[Sequence[str]]:
    """Each pair: difference, interval, p-values, verdict, and whether rounding of the percentages decides it.

    Two rounded percentages move a difference by a point at most; the verdict must be the same if all are a point
    larger and if all are a point smaller.
    """
    yield "Comparison", "Difference", "95% interval", "p", "p, adjusted", "Verdict"
    as_said, at_most, at_least = adjusted(), adjusted(0.01), adjusted(-0.01)
    for k, pair in enumerate(pairs()):
        low, high = unpaired_interval(pair.a, pair.b, ITEMS, ITEMS)
        verdict = "tie" if as_said[k] >= LEVEL else "better" if pair.b > pair.a else "worse"
        verdict += "" if (at_most[k] < LEVEL) == (at_least[k] < LEVEL) else ", hangs on rounding"
        p = unpaired_p_value(pair.a, pair.b, ITEMS)
        interval = f"{points(low)} to {points(high)}"
        yield pair.name, points(pair.b - pair.a, 0), interval, p_value(p), p_value(as_said[k]), verdict


def summary() -> str:
    """How many pairs are told, how many tie, and how many verdicts hang on rounding, in one sentence."""
    verdicts = [row[-1] for row in list(differences())[1:]]
    ties = sum(verdict.startswith("tie") for verdict in verdicts)
    rounding = sum("rounding" in verdict for verdict in verdicts)
    return (
        f"Of {len(verdicts)} comparisons, {len(verdicts) - ties} are told and {ties} are ties; "
        f"{rounding} hangs on how the percentages were rounded."
    )


def items_needed() -> Iterator[Sequence[str]]:
    """For each tie: items unpaired, and paired at the assumed discordance, at the level of Holm's next step."""
    paired = [f"paired, {share:.0%} discordant" for share in DISCORDANT]
    yield "Tie", "Difference", "unpaired, each run", *paired
    ties = [pair for pair, p in zip(pairs(), adjusted(), strict=True) if p >= LEVEL]
    for pair in ties:
        counts = (
            "no number" if count is None else words.about(count) for count in counts_needed(pair, LEVEL / len(ties))
        )
        yield pair.name, points(pair.b - pair.a, 0), *counts


def counts_needed(pair: Pair, level: float) -> list[int | None]:
    """Items at which the pair would be told: unpaired, then paired at each assumed discordance."""
    paired = [items_to_tell(pair.b - pair.a, share, level, step=1.0) for share in DISCORDANT]
    return [unpaired_items(pair.a, pair.b, level), *paired]


def base_bounds() -> Iterator[Sequence[str]]:
    """What a base's accuracy can hide, if no output counts as neutral and a third of the items are neutral."""
    yield "Base", "published", "right of its own, at least", "at most", "no output, at most", "p against 33%"
    neutral = ITEMS // CLASSES
    for model, percent in PERCENT.items():
        right = percent[0] * ITEMS // 100
        own = right - neutral  # even if every neutral item was a gift
        p = binomtest(right, ITEMS, 1 / CLASSES).pvalue
        counts = (f"{count} ({count / ITEMS:.1%})" for count in (own, right, ITEMS - own))
        yield model, f"{right} of {ITEMS} ({percent[0]}%)", *counts, p_value(float(p))


def silent_shares() -> Iterator[Sequence[str]]:
    """If a base is silent on the same share of every class: its accuracy where it did answer."""
    yield "No output on", *(f"{model}: right where it answered" for model in PERCENT), "answered"
    for silent in (0.0, 0.25, 0.5, 0.75, 0.9):
        shares = [(percent[0] / 100 - silent / CLASSES) / (1 - silent) for percent in PERCENT.values()]
        yield f"{silent:.0%}", *(f"{share:.0%}" for share in shares), f"{round((1 - silent) * ITEMS)} items"


def points(share: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, signed."""
    rounded = round(100 * share, digits) + 0.0
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else "0"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def table(rows: Iterator[Sequence[str]]) -> str:
    """Markdown: the first row is the head, all columns but the first to the right."""
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES = {
    "differences": differences,
    "items needed": items_needed,
    "bounds of the base": base_bounds,
    "silent shares": silent_shares,
}


def main() -> None:
    """Print the summary, and every table under its name."""
    print(f"{summary()}\n")
    for name, rows in TABLES.items():
        print(f"{name}\n\n{table(rows())}\n")


if __name__ == "__main__":
    main()
