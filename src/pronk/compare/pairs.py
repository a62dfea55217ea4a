"""Which runs of a study are compared, on which metrics, and what can be said."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.compare import resampling
from pronk.compare.items import Chosen, Classified, Likelihood, RunItems, Similarity, read_items, read_study
from pronk.compare.metrics import encode
from pronk.compare.resampling import Floats
from pronk.compare.sample_size import items_for_mcnemar, items_from_interval, items_to_tell
from pronk.compare.statistics import holm, mcnemar_exact, tango_interval
from pronk.errors import StudyError

SIGNIFICANCE = 0.05
PRIMARY = ("accuracy", "choice_accuracy", "exact_match", "nll", "rouge_l")
LOWER = (  # the less, the better
    "nll", "perplexity", "bits_per_byte", "unparsable", "exact_unparsable", "unended",
    "forgetting_nll", "forgetting_perplexity",
)  # fmt: skip
EVALUATED = ("finished", "stopped_early")  # the statuses whose item results are complete

Run = dict[str, Any]
Comparison = dict[str, Any]
Pair = tuple[Run, Run, list[str]]


def compare_study(folder: Path) -> list[Comparison]:
    """The comparisons of the study in `folder`; see `compare_runs`. StudyError for a folder that is none."""
    runs = read_study(folder)["runs"]
    return compare_runs(runs, {run["name"]: read_items(folder, run["name"]) for run in runs if evaluated(run)})


def compare_runs(runs: list[Run], items: dict[str, RunItems]) -> list[Comparison]:
    """Compare runs item by item; a list of JSON-ready entries, as study.json holds them.

    Compared are every tuned run with its own base ("base"), every other tuned run with the best ("best"),
    and every two tuned runs that differ in exactly one setting ("one key: train.epochs"); where the base was also
    asked with examples in its prompt, each such row with the plain one ("base"), and every tuned run with the best of
    them ("few-shot"), which is chosen on these very items, in its favour. A pair appears once per metric, with all its
    reasons. `a` is the base or the earlier run, `b` the other; `difference`
    is b minus a and `verdict` speaks of b. A verdict is "better" or "worse" only where Holm's adjusted
    p-value, over all entries together, is below 0.05; else it is "tie". Of a tie, `items_needed` says how many items
    would tell (80% power), None if none ever will; it is None of the others.

    - accuracy, generated_accuracy, choice_accuracy, exact_match: Tango's interval, McNemar's exact test; so for
      choice_accuracy_normalised, where choices differ in length;
    - macro_f1: bootstrap interval, permutation test;
    - rouge_l, chrf (means over the items): the same;
    - nll (nats per target token; lower is better): the same, and `perplexity_ratio` [b/a, low, high].
      Never between different bases or where token counts differ: per token of what? Nor where a loss
      is not finite. `bits_per_byte` [b - a, low, high] is the same difference by the bytes of the text;
    - bits_per_byte (lower is better): the same, where nll cannot be compared and the texts are as long;
    - forgetting_nll (nats per token of general text; lower is better): as nll, a passage being an item.

    Runs that did not finish or have no items are left out. The best run is the one with the highest accuracy,
    choice_accuracy or exact_match, else the lowest nll, else the highest rouge_l, on these very items. Being chosen
    by them, its own figure is optimistic (selection bias), and so are its leads over the others; the intervals do not
    allow for that.
    Raises StudyError, naming both runs, where two runs have different items or labels.
    """
    known = [run for run in runs if evaluated(run) and _has_items(items.get(run["name"]))]
    pairs = list(_pairs(known))
    # With 20,000 resamples no p-value is below 1/20,001; in a big family Holm would then find only ties.
    resamples = max(resampling.PERMUTATIONS, 200 * 6 * len(pairs))
    comparisons: list[Comparison] = []
    for a, b, reasons in pairs:
        names = {"a": a["name"], "b": b["name"]}
        comparisons += [{**names, **entry, "reasons": list(reasons)} for entry in _compare_pair(a, b, items, resamples)]
    _judge(comparisons)
    return comparisons


def _judge(comparisons: list[Comparison]) -> None:
    """Give each entry its adjusted p-value, its verdict, and, for a tie, the number of items that would tell.

    That number is for the level of Holm's next step, 0.05 over the number of ties: who passes it is told whatever
    becomes of the other ties. Any later step is one that others must have passed first.
    """
    for entry, adjusted in zip(comparisons, holm([c["p_value"] for c in comparisons]), strict=True):
        entry["p_adjusted"] = float(adjusted)
        entry["verdict"] = _verdict(entry)
    ties = sum(entry["verdict"] == "tie" for entry in comparisons)
    for entry in comparisons:
        mean_square = entry.pop("mean_square", None)
        told = entry["verdict"] != "tie"
        entry["items_needed"] = None if told else _items_needed(entry, mean_square, SIGNIFICANCE / ties)


def _items_needed(entry: Comparison, mean_square: float | None, level: float) -> int | None:
    """mean_square: of an item's difference, in the unit of `difference`; None where that is no mean over items."""
    if "only_a_right" in entry:
        found = items_for_mcnemar(entry["only_a_right"], entry["only_b_right"], entry["n"], level)
    elif mean_square is None:
        low, high = entry["interval"]
        found = items_from_interval(entry["difference"], low, high, entry["n"], level)
    else:
        found = items_to_tell(entry["difference"], mean_square, level)
    return found and max(found, entry["n"] + 1)  # as many as these did not tell


def evaluated(run: Run) -> bool:
    """Whether a run's item results are complete."""
    return run.get("status", "finished") in EVALUATED


def figure(run: Run, metric: str) -> float | None:
    """A run's metric, or None where it has none or one that is not finite."""
    value = (run.get("metrics") or {}).get(metric)
    return float(value) if value is not None and np.isfinite(value) else None


def lower_is_better(metric: str) -> bool:
    """Whether a small figure is a good one."""
    return metric in LOWER


def primary_metric(runs: Sequence[Run]) -> str:
    """What the runs are ranked by: accuracy where a run has it, else that of choices, exact_match, nll, rouge_l."""
    known = (metric for metric in PRIMARY if any(figure(run, metric) is not None for run in runs))
    return next(known, "nll")


def best_run(runs: Sequence[Run]) -> Run | None:
    """The evaluated tuned run with the best primary metric, the earlier one of equals; None without any."""
    return _best([run for run in runs if not run.get("baseline")], primary_metric(runs))


def best_few_shot(base: Run, runs: Sequence[Run]) -> Run | None:
    """The best row of a base with examples in its prompt; None where it was not asked so."""
    rows = [run for run in runs if run.get("shots") and baseline_of(run, runs) is base]
    return _best(rows, primary_metric(runs))


def _best(runs: Sequence[Run], metric: str) -> Run | None:
    candidates = [run for run in runs if evaluated(run) and figure(run, metric) is not None]
    sign = 1.0 if metric == "nll" else -1.0
    return min(candidates, key=lambda run: sign * run["metrics"][metric], default=None)


def plain_base(run: Run) -> bool:
    """Whether a run is the untouched base with the plain prompt: without examples, and no model from elsewhere."""
    return bool(run.get("baseline")) and not run.get("shots") and not run.get("served")


def baseline_of(run: Run, runs: Sequence[Run]) -> Run | None:
    """The untouched base that a run was tuned from, quantized alike and asked plainly, if the study evaluated it."""
    kept = [other for other in runs if plain_base(other) and other.get("base") == run.get("base")]
    return next((other for other in kept if _quantize(other) == _quantize(run)), None)


def _quantize(run: Run) -> str:
    return run.get("quantize") or "none"


def _has_items(items: RunItems | None) -> bool:
    return items is not None and items.ids is not None


def _pairs(runs: list[Run]) -> Iterator[Pair]:
    """Every pair worth comparing, once, in the order: against the base, the best, then the rest."""
    tuned = [run for run in runs if not run.get("baseline")]
    best = best_run(runs)
    for run in runs:
        base = None if plain_base(run) else baseline_of(run, runs)
        if base is None:
            continue
        yield base, run, ["base"]
        few_shot = None if run.get("baseline") else best_few_shot(base, runs)
        if few_shot is not None:
            yield few_shot, run, ["few-shot"]
    rest: list[Pair] = []
    for position, a in enumerate(tuned):
        for b in tuned[position + 1 :]:
            reasons = ["best"] if best is not None and best["name"] in (a["name"], b["name"]) else []
            keys = _differing_keys(a, b)
            reasons += [f"one key: {keys[0]}"] if len(keys) == 1 else []
            if reasons:
                rest.append((a, b, reasons))
    yield from sorted(rest, key=lambda pair: "best" not in pair[2])


def _differing_keys(a: Run, b: Run) -> list[str]:
    settings_a, settings_b = a.get("settings") or {}, b.get("settings") or {}
    absent = object()
    keys = dict.fromkeys([*settings_a, *settings_b])
    return [key for key in keys if settings_a.get(key, absent) != settings_b.get(key, absent)]


def _compare_pair(a: Run, b: Run, items: dict[str, RunItems], resamples: int) -> Iterator[Comparison]:
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


def _verdict(entry: Comparison) -> str:
    if entry["p_adjusted"] >= SIGNIFICANCE or entry["difference"] == 0:
        return "tie"
    gain = -entry["difference"] if lower_is_better(entry["metric"]) else entry["difference"]
    return "better" if gain > 0 else "worse"
