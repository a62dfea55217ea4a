"""Two runs on the same items: the difference, its interval and its p-value in each metric that both have."""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from pronk.compare import resampling
from pronk.compare.items import Likelihood, RunItems
from pronk.compare.metrics import encode
from pronk.compare.resampling import Floats
from pronk.compare.statistics import mcnemar_exact, tango_interval
from pronk.errors import StudyError

Run = dict[str, Any]
Comparison = dict[str, Any]
Found = TypeVar("Found")

ORDER = (  # of a pair's entries
    "accuracy", "generated_accuracy", "macro_f1", "nll", "bits_per_byte", "choice_accuracy",
    "choice_accuracy_normalised", "exact_match", "rouge_l", "chrf", "forgetting_nll",
)  # fmt: skip
AT_ONCE = 2**22  # numbers in one matrix of differences: 32 MiB
MOST_AT_ONCE = 256  # pairs in it


@dataclass(frozen=True)
class Ratio:
    """A difference of losses, b minus a, by what they are per (tokens, bytes, items): both (n,).

    bytes: of the same texts, where the losses per token can be told per byte as well.
    """

    metric: str
    difference: Floats
    weight: Floats
    bytes: Floats | None = None

    @property
    def value(self) -> float:
        """The figure itself."""
        return float(self.difference.sum() / self.weight.sum())

    @property
    def per_byte(self) -> Ratio | None:
        """The same in bits per byte."""
        return None if self.bytes is None else Ratio("bits_per_byte", self.difference / math.log(2), self.bytes)


def compare_pairs(
    pairs: Sequence[tuple[Run, Run]], items: dict[str, RunItems], resamples: int
) -> list[list[Comparison]]:
    """b minus a in each metric, for each pair: entries as `pairs.compare_runs` has them, before they are judged.

    All pairs are resampled alike, so what can be is resampled for all of them, or once for each run.
    Raises StudyError, naming both runs, where two have different items or labels.
    """
    for a, b in pairs:
        _check_items((a, b), items[a["name"]], items[b["name"]])
    found = [list(_shares(items[a["name"]], items[b["name"]])) for a, b in pairs]
    for entries, of_f1 in zip(found, _macro_f1s(pairs, items, resamples), strict=True):
        entries.extend(of_f1)
    ratios = [(entries, ratio) for entries, pair in zip(found, pairs, strict=True) for ratio in _ratios(*pair, items)]
    compared = _compare_ratios([ratio for _, ratio in ratios], resamples)
    for (entries, _), entry in zip(ratios, compared, strict=True):
        entries.append(entry)
    return [sorted(entries, key=lambda entry: ORDER.index(entry["metric"])) for entries in found]


def _check_items(runs: tuple[Run, Run], a: RunItems, b: RunItems) -> None:
    if a.classified is not None and b.classified is not None:
        _check_same(runs, a.classified.ids, b.classified.ids, "items")
        _check_same(runs, a.classified.labels, b.classified.labels, "labels")
    if a.likelihood is not None and b.likelihood is not None:
        _check_same(runs, list(a.likelihood.ids), list(b.likelihood.ids), "items")
    if a.chosen is not None and b.chosen is not None:
        _check_same(runs, a.chosen.ids, b.chosen.ids, "items")
        _check_same(runs, a.chosen.answers, b.chosen.answers, "right choices")
    if a.exact is not None and b.exact is not None:
        _check_same(runs, a.exact.ids, b.exact.ids, "items")
        _check_same(runs, a.exact.expected, b.exact.expected, "expected answers")
    if a.similarity is not None and b.similarity is not None:
        _check_same(runs, a.similarity.ids, b.similarity.ids, "items")
    if a.forgetting is not None and b.forgetting is not None:
        _check_same(runs, list(a.forgetting.ids), list(b.forgetting.ids), "general text")


def _check_same(runs: tuple[Run, Run], of_a: Sequence[str], of_b: Sequence[str], what: str) -> None:
    if of_a == of_b:
        return
    detail = f"{len(of_a)} and {len(of_b)}"
    if len(of_a) == len(of_b):
        detail = next(f"{one!r} and {two!r}" for one, two in zip(of_a, of_b, strict=True) if one != two)
    raise StudyError(
        f"{runs[0]['name']!r} and {runs[1]['name']!r} cannot be compared: they were evaluated on different "
        f"{what} ({detail}); evaluate both on the same test set"
    )


def _same_measure(a: Likelihood, b: Likelihood) -> bool:
    """Losses per token compare only over the same tokens, and only where they are numbers."""
    finite = np.isfinite(a.loss).all() and np.isfinite(b.loss).all()
    return bool(finite and np.array_equal(a.tokens, b.tokens) and a.tokens.sum() > 0)


def _same_texts(a: Likelihood, b: Likelihood) -> bool:
    """Losses of the same texts compare by their bytes, whatever the tokens."""
    if a.bytes is None or b.bytes is None or not np.array_equal(a.bytes, b.bytes):
        return False
    return bool(np.isfinite(a.loss).all() and np.isfinite(b.loss).all() and a.bytes.sum() > 0)


def _shares(a: RunItems, b: RunItems) -> Iterator[Comparison]:
    """Shares of right items."""
    if a.classified is not None and b.classified is not None:
        yield from _compare_answers("accuracy", a.classified.labels, a.classified.predicted, b.classified.predicted)
        generated = (a.classified.generated_labels, b.classified.generated_labels)
        yield from _compare_answers("generated_accuracy", a.classified.labels, *generated)
    if a.chosen is not None and b.chosen is not None:
        yield from _compare_answers("choice_accuracy", a.chosen.answers, a.chosen.predicted, b.chosen.predicted)
        if not a.chosen.of_one_length:  # else it is the same figure
            normalised = (a.chosen.predicted_normalised, b.chosen.predicted_normalised)
            yield from _compare_answers("choice_accuracy_normalised", a.chosen.answers, *normalised)
    if a.exact is not None and b.exact is not None:
        yield _compare_right("exact_match", a.exact.right.tolist(), b.exact.right.tolist())


def _compare_answers(
    metric: str, right: Sequence[str], a: Sequence[str | None] | None, b: Sequence[str | None] | None
) -> Iterator[Comparison]:
    if a is not None and b is not None:
        yield _compare_right(metric, *([*map(operator.eq, right, answers)] for answers in (a, b)))


def _compare_right(metric: str, a: Sequence[bool], b: Sequence[bool]) -> Comparison:
    """Two shares of right items."""
    right = [*zip(a, b, strict=True)]
    only_a, only_b = right.count((True, False)), right.count((False, True))
    return {
        "metric": metric,
        "difference": (only_b - only_a) / len(right),
        "interval": list(tango_interval(only_a, only_b, len(right))),
        "p_value": mcnemar_exact(only_a, only_b),
        "n": len(right),
        "only_a_right": only_a,
        "only_b_right": only_b,
    }


def _macro_f1s(
    pairs: Sequence[tuple[Run, Run]], items: dict[str, RunItems], resamples: int
) -> Iterator[list[Comparison]]:
    """Macro-F1 by label likelihood: an entry for each pair, or none where it was not measured."""
    known = {
        run["name"]: one for pair in pairs for run in pair
        if (one := items[run["name"]].classified) is not None and one.predicted is not None
    }  # fmt: skip
    classes = tuple(dict.fromkeys(label for one in known.values() for label in one.classes))
    labels = {name: encode(one.labels, classes) for name, one in known.items()}
    said = {name: encode(one.predicted or (), classes) for name, one in known.items()}
    f1 = {name: resampling.macro_f1_resampled(labels[name], said[name], len(classes)) for name in known}
    for a, b in ((one["name"], two["name"]) for one, two in pairs):
        if a not in known or b not in known:
            yield []
            continue
        test = resampling.macro_f1_permutation_p_value(labels[a], said[a], said[b], len(classes), resamples)
        yield [
            {
                "metric": "macro_f1",
                "difference": f1[b].value - f1[a].value,
                "interval": list(resampling.resampled_difference(f1[a], f1[b])),
                "p_value": test,
                "n": len(labels[a]),
            }
        ]


def _ratios(a: Run, b: Run, items: dict[str, RunItems]) -> Iterator[Ratio]:
    """Losses by their tokens or bytes, and means over items: an item weighs 1, so that a mean is a ratio as well."""
    of_a, of_b = items[a["name"]], items[b["name"]]
    same_base = a.get("base") == b.get("base")
    if (one := of_a.likelihood) is not None and (two := of_b.likelihood) is not None:
        sizes = np.asarray(one.bytes, dtype=np.float64) if _same_texts(one, two) else None
        per_token = Ratio("nll", two.loss - one.loss, one.tokens.astype(np.float64), sizes)
        if same_base and _same_measure(one, two):
            yield per_token
        elif (per_byte := per_token.per_byte) is not None:
            yield per_byte
    if (near := of_a.similarity) is not None and (other := of_b.similarity) is not None:
        yield Ratio("rouge_l", other.rouge_l - near.rouge_l, np.ones(len(near.ids)))
        yield Ratio("chrf", other.chrf - near.chrf, np.ones(len(near.ids)))
    before, after = of_a.forgetting, of_b.forgetting
    if same_base and before is not None and after is not None and _same_measure(before, after):
        yield Ratio("forgetting_nll", after.loss - before.loss, before.tokens.astype(np.float64))


def _compare_ratios(ratios: Sequence[Ratio], resamples: int) -> Iterator[Comparison]:
    """An entry for each, in their order."""
    intervals = _of_all(resampling.ratio_bootstrap_intervals, ratios)
    p_values = _of_all(partial(resampling.ratio_permutation_p_values, resamples=resamples), ratios)
    per_byte = {place: bits for place, ratio in enumerate(ratios) if (bits := ratio.per_byte) is not None}
    of_bytes = dict(zip(per_byte, _of_all(resampling.ratio_bootstrap_intervals, [*per_byte.values()]), strict=True))
    for place, (ratio, interval, p_value) in enumerate(zip(ratios, intervals, p_values, strict=True)):
        entry = {
            "metric": ratio.metric,
            "difference": ratio.value,
            "interval": list(interval),
            "p_value": p_value,
            "n": len(ratio.difference),
            "mean_square": float(np.mean((ratio.difference / ratio.weight.mean()) ** 2)),
        }
        if ratio.metric in ("nll", "forgetting_nll"):  # e^709 is the largest float
            entry["perplexity_ratio"] = [math.exp(min(value, 700.0)) for value in (ratio.value, *interval)]
        if place in per_byte:
            entry["bits_per_byte"] = [per_byte[place].value, *of_bytes[place]]
        yield entry


def _of_all(resample: Callable[[Floats, Floats], list[Found]], ratios: Sequence[Ratio]) -> list[Found]:
    """What `resample` finds for each: of differences and weights (n, P), for pairs with as many items."""
    by_size: dict[int, list[int]] = defaultdict(list)
    found: dict[int, Found] = {}
    for place, ratio in enumerate(ratios):
        by_size[len(ratio.difference)].append(place)
    for n, places in by_size.items():
        count = min(max(1, AT_ONCE // n), MOST_AT_ONCE)
        for some in (places[start : start + count] for start in range(0, len(places), count)):
            differences, weights = zip(
                *((ratios[place].difference, ratios[place].weight) for place in some), strict=True
            )
            found |= zip(some, resample(np.column_stack(differences), np.column_stack(weights)), strict=True)
    return [found[place] for place in range(len(ratios))]
