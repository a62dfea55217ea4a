"""A run's metrics, from its item results."""

from __future__ import annotations

import math

from pronk.compare.items import Classified, Likelihood, RunItems, Similarity
from pronk.compare.metrics import classification_report


def run_metrics(items: RunItems) -> dict[str, float]:
    """The figures of study.json: `accuracy`, `macro_f1` and `weighted_f1` by label likelihood, the same
    by generated answer with the count of `unparsable` ones, `nll` (nats per target token), `perplexity`;
    `rouge_l` and `chrf` in [0, 1], each the mean over the items, and the count of `unended` answers."""
    metrics: dict[str, float] = {}
    if items.classified is not None:
        metrics |= _classification(items.classified)
    if items.likelihood is not None:
        metrics |= _likelihood(items.likelihood)
    if items.similarity is not None:
        metrics |= _similarity(items.similarity)
    return metrics


def _classification(items: Classified) -> dict[str, float]:
    metrics: dict[str, float] = {}
    if items.predicted is not None:
        by_likelihood = classification_report(items.labels, items.predicted, items.classes)
        metrics |= {
            "accuracy": by_likelihood.accuracy,
            "macro_f1": by_likelihood.macro.f1,
            "weighted_f1": by_likelihood.weighted.f1,
        }
    if items.generated_labels is not None:
        answered = classification_report(items.labels, items.generated_labels, items.classes)
        metrics |= {
            "generated_accuracy": answered.accuracy,
            "generated_macro_f1": answered.macro.f1,
            "unparsable": answered.unparsable,
        }
    return metrics


def _likelihood(items: Likelihood) -> dict[str, float]:
    nll = float(items.loss.sum() / items.tokens.sum())
    return {"nll": nll, "perplexity": math.exp(min(nll, 700.0))}  # e^709 is the largest float


def _similarity(items: Similarity) -> dict[str, float]:
    return {
        "rouge_l": float(items.rouge_l.mean()),
        "chrf": float(items.chrf.mean()),
        "unended": int((~items.ended).sum()),
    }
