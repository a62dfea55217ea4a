"""Two runs on the same items: the difference, its interval and its p-value in each metric that both have."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pronk.compare import resampling
from pronk.compare.items import Chosen, Classified, Likelihood, RunItems, Similarity
from pronk.compare.metrics import encode
from pronk.compare.resampling import Floats
from pronk.compare.statistics import mcnemar_exact, tango_interval
from pronk.errors import StudyError

Run = dict[str, Any]
Comparison = dict[str, Any]


def compare_pair(a: Run, b: Run, items: dict[str, RunItems], resamples: int) -> Iterator[Comparison]:
    """b minus a in each metric: entries as `pairs.compare_runs` has them, before they are judged.

    Raises StudyError, naming both runs, where they have different items or labels.
    """
    of_a, of_b = items[a["name"]], items[b["name"]]
    if of_a.classified is not None and of_b.classified is not None:
        _check_same((a, b), of_a.classified.ids, of_b.classified.ids, "items")
        _check_same((a, b), of_a.classified.labels, of_b.classified.labels, "labels")
        yield from _compare_classified(of_a.classified, of_b.classified, resamples)
    if of_a.likelihood is not None and of_b.likelihood is not None:
        _check_same((a, b), list(of_a.likelihood.ids), list(of_b.likelihood.ids), "items")
        if a.get("base") == b.get("base") and _same_measure(of_a.likelihood, of_b.likelihood):
            yield _compare_likelihood("nll", of_a.likelihood, of_b.likelihood, resamples)
        elif _same_texts(of_a.likelihood, of_b.likelihood):
            yield _compare_bits(of_a.likelihood, of_b.likelihood, resamples)
    if of_a.chosen is not None and of_b.chosen is not None:
        _check_same((a, b), of_a.chosen.ids, of_b.chosen.ids, "items")
        _check_same((a, b), of_a.chosen.answers, of_b.chosen.answers, "right choices")
        yield from _compare_chosen(of_a.chosen, of_b.chosen)
    if of_a.exact is not None and of_b.exact is not None:
        _check_same((a, b), of_a.exact.ids, of_b.exact.ids, "items")
        _check_same((a, b), of_a.exact.expected, of_b.exact.expected, "expected answers")
        yield _compare_right("exact_match", of_a.exact.right.tolist(), of_b.exact.right.tolist())
    if of_a.similarity is not None and of_b.similarity is not None:
        _check_same((a, b), of_a.similarity.ids, of_b.similarity.ids, "items")
        yield from _compare_similarity(of_a.similarity, of_b.similarity, resamples)
    if of_a.forgetting is not None and of_b.forgetting is not None:
        _check_same((a, b), list(of_a.forgetting.ids), list(of_b.forgetting.ids), "general text")
        if a.get("base") == b.get("base") and _same_measure(of_a.forgetting, of_b.forgetting):
            yield _compare_likelihood("forgetting_nll", of_a.forgetting, of_b.forgetting, resamples)


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


def _compare_classified(a: Classified, b: Classified, resamples: int) -> Iterator[Comparison]:
    if a.predicted is not None and b.predicted is not None:
        yield _compare_proportions("accuracy", a.labels, a.predicted, b.predicted)
    if a.generated_labels is not None and b.generated_labels is not None:
        yield _compare_proportions("generated_accuracy", a.labels, a.generated_labels, b.generated_labels)
    if a.predicted is None or b.predicted is None:
        return
    classes = tuple(dict.fromkeys(a.classes + b.classes))
    count = len(classes)
    labels, of_a, of_b = (encode(names, classes) for names in (a.labels, a.predicted, b.predicted))
    f1_a, f1_b = (resampling.macro_f1(labels, predicted, count) for predicted in (of_a, of_b))
    yield {
        "metric": "macro_f1",
        "difference": f1_b - f1_a,
        "interval": list(resampling.macro_f1_bootstrap_interval(labels, of_a, of_b, count)),
        "p_value": resampling.macro_f1_permutation_p_value(labels, of_a, of_b, count, resamples=resamples),
        "n": len(a.ids),
    }


def _compare_proportions(
    metric: str, labels: Sequence[str], a: Sequence[str | None], b: Sequence[str | None]
) -> Comparison:
    right_a, right_b = ([label == one for label, one in zip(labels, names, strict=True)] for names in (a, b))
    return _compare_right(metric, right_a, right_b)


def _compare_chosen(a: Chosen, b: Chosen) -> Iterator[Comparison]:
    yield _compare_proportions("choice_accuracy", a.answers, a.predicted, b.predicted)
    if not a.of_one_length:  # else it is the same figure
        found = (a.predicted_normalised, b.predicted_normalised)
        yield _compare_proportions("choice_accuracy_normalised", a.answers, *found)


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


def _compare_likelihood(metric: str, a: Likelihood, b: Likelihood, resamples: int) -> Comparison:
    found = _compare_ratio(metric, b.loss - a.loss, a.tokens.astype(np.float64), resamples)
    values = (found["difference"], *found["interval"])
    found["perplexity_ratio"] = [math.exp(min(value, 700.0)) for value in values]  # e^709 is the largest float
    if metric == "nll" and _same_texts(a, b):
        bits, sizes = (b.loss - a.loss) / math.log(2), np.asarray(a.bytes, dtype=np.float64)
        interval = resampling.ratio_bootstrap_interval(bits, sizes)
        found["bits_per_byte"] = [float(bits.sum() / sizes.sum()), *interval]
    return found


def _compare_bits(a: Likelihood, b: Likelihood, resamples: int) -> Comparison:
    sizes = np.asarray(a.bytes, dtype=np.float64)
    return _compare_ratio("bits_per_byte", (b.loss - a.loss) / math.log(2), sizes, resamples)


def _compare_ratio(metric: str, difference: Floats, weight: Floats, resamples: int) -> Comparison:
    """Two losses by weight: per token, per byte."""
    return {
        "metric": metric,
        "difference": float(difference.sum() / weight.sum()),
        "interval": list(resampling.ratio_bootstrap_interval(difference, weight)),
        "p_value": resampling.ratio_permutation_p_value(difference, weight, resamples=resamples),
        "n": len(difference),
        "mean_square": float(np.mean((difference / weight.mean()) ** 2)),
    }


def _compare_similarity(a: Similarity, b: Similarity, resamples: int) -> Iterator[Comparison]:
    """Means over items: an item weighs 1, so a mean is a ratio like the loss per token."""
    weight = np.ones(len(a.ids))
    for metric, difference in (("rouge_l", b.rouge_l - a.rouge_l), ("chrf", b.chrf - a.chrf)):
        yield {
            "metric": metric,
            "difference": float(difference.mean()),
            "interval": list(resampling.ratio_bootstrap_interval(difference, weight)),
            "p_value": resampling.ratio_permutation_p_value(difference, weight, resamples=resamples),
            "n": len(a.ids),
            "mean_square": float(np.mean(difference**2)),
        }
