"""Should I fine-tune at all? The untouched base with examples in its prompt, and other models beside it."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from pronk.compare import resampling, words
from pronk.compare.items import Likelihood, RunItems
from pronk.compare.pairs import figure, plain_base, primary_metric
from pronk.compare.statistics import wilson_interval
from pronk.data.words import counted

SHOWN = (
    "accuracy", "generated_accuracy", "macro_f1", "choice_accuracy", "choice_accuracy_normalised", "exact_match",
    "nll", "perplexity", "bits_per_byte", "rouge_l", "chrf",
)  # fmt: skip
FEW_ROWS = 30  # below, the bootstrap is known to give intervals that are too narrow
NAME, VALUE, INTERVAL, DIFFERENCE = 16, 7, 17, 26


def intervals(items: RunItems) -> dict[str, list[float]]:
    """95% intervals of a row's own figures, [low, high] by metric; none of losses that are no number.

    Proportions: Wilson's (1927) score interval. Losses per token and means over items: the bootstrap over items, as
    for differences (compare/resampling.py); perplexity is e to the loss's.
    """
    found: dict[str, list[float]] = {}
    if (one := items.classified) is not None:
        for metric, answers in (("accuracy", one.predicted), ("generated_accuracy", one.generated_labels)):
            if answers is not None:
                right = sum(map(operator.eq, one.labels, answers))
                found[metric] = list(wilson_interval(right, len(one.labels)))
    if (of := items.likelihood) is not None and np.isfinite(of.loss).all():
        found |= _losses(of, "")
        if of.bytes is not None and of.bytes.sum():
            bits = resampling.ratio_bootstrap_interval(of.loss / math.log(2), of.bytes.astype(np.float64))
            found["bits_per_byte"] = list(bits)
    if (on := items.chosen) is not None:
        for metric, chosen in (("", on.predicted), ("_normalised", on.predicted_normalised)):
            right = sum(map(str.__eq__, on.answers, chosen))
            found[f"choice_accuracy{metric}"] = list(wilson_interval(right, len(on.answers)))
    if (short := items.exact) is not None:
        found["exact_match"] = list(wilson_interval(int(short.right.sum()), len(short.ids)))
    if (general := items.forgetting) is not None and np.isfinite(general.loss).all():
        found |= _losses(general, "forgetting_")
    if (near := items.similarity) is not None:
        each = np.ones(len(near.ids))
        for metric, values in (("rouge_l", near.rouge_l), ("chrf", near.chrf)):
            found[metric] = list(resampling.ratio_bootstrap_interval(values, each))
    return found


def _losses(items: Likelihood, before: str) -> dict[str, list[float]]:
    low, high = resampling.ratio_bootstrap_interval(items.loss, items.tokens.astype(np.float64))
    perplexities = [math.exp(min(low, 700.0)), math.exp(min(high, 700.0))]
    return {f"{before}nll": [low, high], f"{before}perplexity": perplexities}


def baseline_table(record: dict[str, Any]) -> str:
    """A table for each metric and base, within 80 columns, and what follows from them. record: see doctor.baseline."""
    rows = record["rows"]
    bases = list(dict.fromkeys((row["base"], row["quantize"]) for row in rows))
    head = f"{counted(record['items'], 'validation row')}, nothing trained; examples are rows of train"
    parts = [head]
    if record["items"] < FEW_ROWS:
        parts += [
            "So few rows tell little, and intervals of losses from them are too narrow;",
            "a larger data.split.validation helps.",
        ]
    for base in bases:
        own = [row for row in rows if (row["base"], row["quantize"]) == base]
        tables = [_table(metric, own, record["comparisons"]) for metric in SHOWN if _has(own, metric)]
        parts += ["", "\n\n".join(tables), *_conclusion(own, record["comparisons"])]
    if (count := len(record["comparisons"])) > 1:
        parts.append(f"Verdicts allow for all {count} comparisons (Holm); intervals do not.")
    return "\n".join([*parts, *record["left_out"]])


def _has(rows: Sequence[dict[str, Any]], metric: str) -> bool:
    return any(figure(row, metric) is not None for row in rows)


def _table(metric: str, rows: Sequence[dict[str, Any]], comparisons: Sequence[dict[str, Any]]) -> str:
    base = next(row for row in rows if plain_base(row))
    title = f"{words.METRICS[metric]}, {words.short(base['name'], 20)}"
    head = f"{'':{NAME}}{'value':>{VALUE}}  {'95% interval':{INTERVAL}}  against 0 examples, 95% interval"
    lines = [title, head.rstrip()]
    for row in rows:
        value = figure(row, metric)
        if value is None:
            continue
        digits = 2 if metric == "perplexity" else 3
        own = row["intervals"].get(metric)
        spread = " to ".join(words.number(bound, digits) for bound in own) if own else ""
        against = _against(base["name"], row["name"], metric, comparisons)
        start = f"{words.short(_said(row), NAME - 1):{NAME}}{words.number(value, digits):>{VALUE}}"
        lines.append(f"{start}  {spread:{INTERVAL}}  {against}".rstrip())
    return "\n".join(lines)


def _said(row: dict[str, Any]) -> str:
    return str(row["name"]) if row.get("served") else counted(row.get("shots", 0), "example")


def _against(base: str, name: str, metric: str, comparisons: Sequence[dict[str, Any]]) -> str:
    for entry in comparisons:
        if (entry["a"], entry["b"], entry["metric"]) == (base, name, metric):
            low, high = (words.number(bound, signed=True) for bound in entry["interval"])
            cell = f"{words.number(entry['difference'], signed=True)} ({low} to {high})"
            return f"{cell:{DIFFERENCE}}{words.VERDICTS[entry['verdict']]}"
    return ""


def _conclusion(rows: Sequence[dict[str, Any]], comparisons: Sequence[dict[str, Any]]) -> list[str]:
    """What the examples alone are good for: the bar that a fine-tune has to clear."""
    metrics = [primary_metric(rows)]
    if metrics == ["accuracy"] and _has(rows, "generated_accuracy"):
        metrics.append("generated_accuracy")
    best = [line for metric in metrics if (line := _best(rows, metric, comparisons))]
    if not best:
        return []
    return ["", *best, "That is what a fine-tune has to beat."]


def _best(rows: Sequence[dict[str, Any]], metric: str, comparisons: Sequence[dict[str, Any]]) -> str:
    """The number of examples with the best figure, in a sentence; empty where there is no figure."""
    sign = 1.0 if metric == "nll" else -1.0
    asked = [row for row in rows if not row.get("served") and figure(row, metric) is not None]
    best = min(asked, key=lambda row: sign * row["metrics"][metric], default=None)
    if best is None:
        return ""
    base = next(row for row in rows if plain_base(row))
    name, value = words.METRICS[metric].split(" (")[0], words.number(figure(best, metric))
    if best is base:
        return f"{name}: {value} without examples; with examples no better."
    verdict = next(
        (c["verdict"] for c in comparisons if (c["a"], c["b"], c["metric"]) == (base["name"], best["name"], metric)),
        "tie",
    )
    sure = "more than chance explains" if verdict == "better" else "which could be chance"
    return f"{name}: best with {counted(best['shots'], 'example')}, {value}, {sure}."
