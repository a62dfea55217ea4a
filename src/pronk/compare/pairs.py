"""Which runs of a study are compared, on which metrics, and what can be said."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.compare import resampling
from pronk.compare.item_by_item import Comparison, compare_pairs
from pronk.compare.items import RunItems, read_items, read_study
from pronk.compare.measures import measures
from pronk.compare.sample_size import items_for_mcnemar, items_from_interval, items_over_seeds, items_to_tell
from pronk.compare.seeds import SEED, Group, alone, compare_groups, groups
from pronk.compare.statistics import holm

SIGNIFICANCE = 0.05
PRIMARY = ("accuracy", "choice_accuracy", "exact_match", "nll", "rouge_l")
LOWER = (  # the less, the better
    "nll", "perplexity", "bits_per_byte", "unparsable", "exact_unparsable", "unended", "empty_answers",
    "forgetting_nll", "forgetting_perplexity",
)  # fmt: skip
EVALUATED = ("finished", "stopped_early")  # the statuses whose item results are complete

Run = dict[str, Any]
Pair = tuple[Run, Run, list[str]]
GroupPair = tuple[Group, Group, list[str]]


def compare_study(folder: Path) -> list[Comparison]:
    """The comparisons of the study in `folder`; see `compare_runs`. StudyError for a folder that is none."""
    runs = read_study(folder)["runs"]
    return compare_runs(runs, {run["name"]: read_items(folder, run["name"]) for run in runs if evaluated(run)})


def compare_runs(runs: list[Run], items: dict[str, RunItems]) -> list[Comparison]:
    """Compare runs item by item; a list of JSON-ready entries, as study.json holds them.

    Compared are every tuned run with its own base ("base"), every other tuned run with the best ("best"),
    and every two tuned runs that differ in exactly one setting ("one key: train.epochs"), or, of several studies, in
    none ("again"); where the base was also
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

    Tuned runs that differ in `train.seed` alone are a group, and groups are compared as well: each with its base
    ("base"), with the best row that has examples in its prompt ("few-shot"), the others with the group of the best mean
    ("best group"), and two that differ in one setting ("one key: …"). Such an entry has the groups' names in `a` and
    `b`, and `seeds` and `runs`, lists by "a" and "b" (the base has no seeds). It speaks of the setting, over seeds and
    items (compare/crossed.py), where the other entries speak of one trained run. `variance` is its squared
    error, `seed_share` the share of that which more items would not make smaller, and `degrees_of_freedom` are those of
    its Student's t.

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
    entries = compare_pairs([(a, b) for a, b, _ in pairs], items, resamples)
    comparisons: list[Comparison] = [
        {"a": a["name"], "b": b["name"], **entry, "reasons": list(reasons)}
        for (a, b, reasons), found in zip(pairs, entries, strict=True)
        for entry in found
    ]
    for one, other, reasons in _group_pairs(known):
        comparisons += [{**entry, "reasons": list(reasons)} for entry in _compare_group_pair(one, other, items)]
    judge(comparisons)
    return comparisons


def judge(comparisons: list[Comparison]) -> None:
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
    if "seeds" in entry:
        of_seeds = entry["variance"] * entry["seed_share"]
        fewest = min(len(seeds) for seeds in entry["seeds"].values() if seeds)
        of_items = entry["variance"] - of_seeds
        found = items_over_seeds(entry["difference"], of_seeds, of_items, fewest, entry["n"], level)
    elif "only_a_right" in entry:
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
            keys = _differing_keys(a.get("settings") or {}, b.get("settings") or {})
            reasons += [f"one key: {keys[0]}"] if len(keys) == 1 and keys != [SEED] else []
            reasons += ["again"] if not keys and a.get("study") != b.get("study") else []
            if reasons:
                rest.append((a, b, reasons))
    yield from sorted(rest, key=lambda pair: "best" not in pair[2])


def _group_pairs(runs: list[Run]) -> Iterator[GroupPair]:
    """The same of groups of seeds."""
    found, metric = groups(runs), primary_metric(runs)
    means = [_mean_figure(group, metric) for group in found]
    known = [value for value in means if value is not None]
    first = (min if lower_is_better(metric) else max)(known) if known else None
    best = found[means.index(first)] if first is not None else None
    for group in found:
        base = baseline_of(group.runs[0], runs)
        few_shot = best_few_shot(base, runs) if base else None
        for other, reason in ((base, "base"), (few_shot, "few-shot")):
            if other is not None:
                yield alone(other), group, [reason]
    for position, a in enumerate(found):
        for b in found[position + 1 :]:
            keys = _differing_keys(a.settings, b.settings)
            reasons = ["best group"] if best in (a, b) else []
            reasons += [f"one key: {keys[0]}"] if len(keys) == 1 else []
            if reasons:
                yield a, b, reasons


def _mean_figure(group: Group, metric: str) -> float | None:
    values = [value for run in group.runs if (value := figure(run, metric)) is not None]
    return float(np.mean(values)) if len(values) == len(group.runs) else None


def _differing_keys(settings_a: dict[str, Any], settings_b: dict[str, Any]) -> list[str]:
    absent = object()
    keys = dict.fromkeys([*settings_a, *settings_b])
    return [key for key in keys if settings_a.get(key, absent) != settings_b.get(key, absent)]


def _compare_group_pair(a: Group, b: Group, items: dict[str, RunItems]) -> Iterator[Comparison]:
    of_a, of_b = ([measures(items[name]) for name in group.names()] for group in (a, b))
    per_token = ("nll", "forgetting_nll") if a.runs[0].get("base") != b.runs[0].get("base") else ()
    for metric in of_a[0]:
        if metric in per_token or not all(metric in one for one in (*of_a, *of_b)):
            continue
        found = compare_groups(a, b, [one[metric] for one in of_a], [one[metric] for one in of_b])
        if found is not None:
            least, most = (-math.inf, math.inf) if lower_is_better(metric) else (-1.0, 1.0)  # what a difference can be
            yield {
                "a": a.name,
                "b": b.name,
                "metric": metric,
                "difference": found.value,
                "interval": [min(max(bound, least), most) for bound in found.interval],
                "p_value": found.p_value,
                "n": len(of_a[0][metric].ids),
                "seeds": {"a": list(a.seeds), "b": list(b.seeds)},
                "runs": {"a": a.names(), "b": b.names()},
                "variance": found.seed_variance + found.item_variance,
                "seed_share": found.seed_share,
                "degrees_of_freedom": found.degrees_of_freedom,
            }


def _verdict(entry: Comparison) -> str:
    if entry["p_adjusted"] >= SIGNIFICANCE or entry["difference"] == 0:
        return "tie"
    gain = -entry["difference"] if lower_is_better(entry["metric"]) else entry["difference"]
    return "better" if gain > 0 else "worse"
