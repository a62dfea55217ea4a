"""A run's figures, and what each item has to do with them: what comparisons over several seeds work on.

A new metric joins by one line in `measures`; n items, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pronk.compare.items import RunItems
from pronk.compare.metrics import encode
from pronk.compare.resampling import macro_f1, macro_f1_parts

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """One figure of a run over its items.

    `parts` (n,) is the influence of each item, with mean 0: the figure of other items from the same source is about
    `value` plus the mean of their parts. `weight` (n,) is what the figure is per, where that is not the item: target
    tokens. `counts` is true of figures that count right and wrong, false of means and losses.
    """

    ids: tuple[str, ...]
    value: float
    parts: Floats
    weight: Floats | None = None
    counts: bool = False


def measures(items: RunItems) -> dict[str, Measure]:
    """A run's measures by metric, those of `pairs.compare_runs`; without any whose losses are not finite."""
    found: dict[str, Measure] = {}
    if (one := items.classified) is not None:
        if one.predicted is not None:
            found["accuracy"] = _share(one.ids, one.labels, one.predicted)
            found["macro_f1"] = _macro_f1(one.ids, one.labels, one.predicted, one.classes)
        if one.generated_labels is not None:
            found["generated_accuracy"] = _share(one.ids, one.labels, one.generated_labels)
    if (choice := items.chosen) is not None:
        found["choice_accuracy"] = _share(choice.ids, choice.answers, choice.predicted)
        if not choice.of_one_length:  # else it is the same figure
            found["choice_accuracy_normalised"] = _share(choice.ids, choice.answers, choice.predicted_normalised)
    if (exact := items.exact) is not None:
        found["exact_match"] = mean(exact.ids, exact.right.astype(np.float64), counts=True)
    for metric, of in (("nll", items.likelihood), ("forgetting_nll", items.forgetting)):
        if of is not None and np.isfinite(of.loss).all() and of.tokens.sum() > 0:
            found[metric] = ratio([str(key) for key in of.ids], of.loss, of.tokens.astype(np.float64))
    if (near := items.similarity) is not None:
        found["rouge_l"], found["chrf"] = mean(near.ids, near.rouge_l), mean(near.ids, near.chrf)
    return found


def mean(ids: Sequence[str], values: Floats, counts: bool = False) -> Measure:
    """The mean of `values` (n,)."""
    value = float(values.mean())
    return Measure(tuple(ids), value, values - value, counts=counts)


def ratio(ids: Sequence[str], values: Floats, weight: Floats) -> Measure:
    """sum(values) / sum(weight), both (n,): a loss per token, say. An item's part is (v - ratio w) / mean(w)."""
    value = float(values.sum() / weight.sum())
    return Measure(tuple(ids), value, (values - value * weight) / weight.mean(), weight)


def _share(ids: Sequence[str], labels: Sequence[str], answers: Sequence[str | None]) -> Measure:
    right = [label == answer for label, answer in zip(labels, answers, strict=True)]
    return mean(ids, np.array(right, dtype=np.float64), counts=True)


def _macro_f1(
    ids: Sequence[str], labels: Sequence[str], answers: Sequence[str | None], classes: Sequence[str]
) -> Measure:
    true, said = encode(labels, classes), encode(answers, classes)
    count = len(classes)
    return Measure(tuple(ids), macro_f1(true, said, count), macro_f1_parts(true, said, count), counts=True)
