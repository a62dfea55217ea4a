"""A run's metrics, from its item results."""

from __future__ import annotations

import math

from pronk.compare.items import Chosen, Classified, ExactAnswers, FreeAnswers, Likelihood, RunItems, Similarity
from pronk.compare.metrics import classification_report


def run_metrics(items: RunItems) -> dict[str, float]:
    """The figures of study.json: `accuracy`, `macro_f1` and `weighted_f1` by label likelihood, the same
    by generated answer with the count of `unparsable` ones, `nll` (nats per target token), `perplexity`,
    `bits_per_byte` (of the answers' text, end tokens' loss included); `choice_accuracy` by the likelihood of each
    choice and `choice_accuracy_normalised` by the letter; `exact_match`, with the count of `exact_unparsable` answers,
    which are wrong; `rouge_l` and `chrf` in [0, 1], each the mean over the items; the count of `unended` answers;
    of free answers that, `answer_length` (characters, the mean) and the count of `empty_answers`;
    `forgetting_nll` and `forgetting_perplexity` of general text."""
    metrics: dict[str, float] = {}
    if items.classified is not None:
        metrics |= _classification(items.classified)
    if items.likelihood is not None:
        metrics |= _likelihood(items.likelihood)
    if items.chosen is not None:
        metrics |= _choice(items.chosen)
    if items.exact is not None:
        metrics |= _exact(items.exact)
    if items.similarity is not None:
        metrics |= _similarity(items.similarity)
    if items.answered is not None:
        metrics |= _answered(items.answered)
    if items.forgetting is not None:
        nll = _mean_loss(items.forgetting)
        metrics |= {"forgetting_nll": nll, "forgetting_perplexity": _perplexity(nll)}
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
    nll = _mean_loss(items)
    metrics = {"nll": nll, "perplexity": _perplexity(nll)}
    if items.bytes is not None and items.bytes.sum():
        metrics["bits_per_byte"] = float(items.loss.sum() / items.bytes.sum() / math.log(2))
    return metrics


def _mean_loss(items: Likelihood) -> float:
    return float(items.loss.sum() / items.tokens.sum())


def _perplexity(nll: float) -> float:
    return math.exp(min(nll, 700.0))  # e^709 is the largest float


def _choice(items: Chosen) -> dict[str, float]:
    raw, normalised = (
        sum(map(str.__eq__, items.answers, predicted)) / len(items.ids)
        for predicted in (items.predicted, items.predicted_normalised)
    )
    return {"choice_accuracy": raw, "choice_accuracy_normalised": normalised}


def _exact(items: ExactAnswers) -> dict[str, float]:
    return {
        "exact_match": float(items.right.mean()),
        "exact_unparsable": sum(found is None for found in items.found),
        "unended": int((~items.ended).sum()),
    }


def _similarity(items: Similarity) -> dict[str, float]:
    return {
        "rouge_l": float(items.rouge_l.mean()),
        "chrf": float(items.chrf.mean()),
        "unended": int((~items.ended).sum()),
    }


def _answered(items: FreeAnswers) -> dict[str, float]:
    return {
        "answer_length": sum(map(len, items.answers)) / len(items.ids),
        "empty_answers": sum(not answer.strip() for answer in items.answers),
        "unended": int((~items.ended).sum()),
    }
