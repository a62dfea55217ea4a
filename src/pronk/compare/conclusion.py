"""The first words of the report: what is better and by how much, what is a tie, and what the study does not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from pronk.compare.languages import ENGLISH, Language
from pronk.compare.pairs import baseline_of, best_few_shot, best_run, evaluated, figure, primary_metric
from pronk.compare.seeds import SEED
from pronk.compare.words import about, interval, number

Run = dict[str, Any]
Comparison = dict[str, Any]


def conclusion(
    runs: list[Run], comparisons: list[Comparison], items: int | None, t: Language = ENGLISH
) -> list[Markup]:
    """What the best run gained, how sure that is, how the other runs did, and how many ties there are.

    items: how many items the runs answered, if known.
    """
    best, metric = best_run(runs), primary_metric(runs)
    if best is None:
        wrote = any(figure(run, "answer_length") is not None for run in runs if not run.get("baseline"))
        return [t("answers-only" if wrote else "nothing-yet")]
    sentences = [_gain(best, baseline_of(best, runs), metric, comparisons, items, t)]
    sentences += _against_few_shot(best, runs, metric, comparisons, t)
    rivals = [c for c in comparisons if c["metric"] == metric and "best" in c["reasons"]]
    if rivals:
        sentences.append(_lead(best, rivals, t))
    sentences += _tally(runs, metric, comparisons, t)
    if comparisons:
        ties = sum(entry["verdict"] == "tie" for entry in comparisons)
        key = {0: "ties.none", 1: "ties.one"}.get(ties, "ties.many")
        sentences.append(t(key, differences=t.count("difference", len(comparisons)), n=ties))
    unfinished = sum(run.get("status") in ("failed", "interrupted") for run in runs)
    if unfinished:
        sentences.append(t("unfinished", runs=t.count("run", unfinished)))
    return sentences


def limits(
    runs: list[Run], comparisons: list[Comparison], items: int | None, wrote: bool, t: Language = ENGLISH
) -> list[Markup]:
    """What the study does not say, sentence by sentence; nothing where no tuned run has results.

    wrote: whether the runs wrote answers of their own that were scored.
    """
    if best_run(runs) is None:
        return []
    tuned = [run for run in runs if not run.get("baseline")]
    counted = t.count("item", items) if items else t("the-test-items")
    sentences = []
    if len(comparisons) > 1:
        sentences.append(t("limits.intervals", comparisons=t.count("comparison", len(comparisons))))
    if any(entry["verdict"] == "tie" for entry in comparisons):
        sentences.append(t("limits.ties", items=counted))
    if len(tuned) > 1:
        sentences.append(t("limits.chosen"))
    if not any(SEED in (run.get("settings") or {}) for run in tuned):
        sentences.append(t("limits.seeds"))
    unjudged = [run["name"] for run in tuned if evaluated(run) and _verdict(run) in (None, "not assessed")]
    if unjudged:
        sentences.append(t("limits.validation", runs=t.listed(unjudged)))
    if not wrote:
        sentences.append(t("limits.labels-only" if primary_metric(runs) == "nll" else "limits.generated"))
    if any(not evaluated(run) for run in tuned):
        sentences.append(t("limits.unfinished"))
    return [*sentences, t("limits.data", items=counted)]


def _verdict(run: Run) -> str | None:
    found = run.get("overfitting")
    return found.get("verdict") if isinstance(found, dict) else found


def _gain(
    best: Run, base: Run | None, metric: str, comparisons: list[Comparison], items: int | None, t: Language
) -> Markup:
    """`X answers 0.830 of 300 test items correctly, the base 0.430: a difference of …`"""
    counted = t.count("item", items) if items else t("the-test-items")
    right = metric in ("accuracy", "choice_accuracy", "exact_match")
    key = "gain.accuracy" if right else "gain.nll" if metric == "nll" else "gain.other"
    gain = t(key, run=best["name"], value=number(figure(best, metric)), items=counted, metric=t.metric_inside(metric))
    value = figure(base, metric) if base else None
    if base is None or value is None:
        return t("gain.no-base", gain=gain)
    gain = t("gain.base", gain=gain, value=number(value))
    perplexities = [figure(run, "perplexity") for run in (best, base)]
    if metric == "nll" and None not in perplexities:
        gain = t("gain.perplexities", gain=gain, run=number(perplexities[0], 2), base=number(perplexities[1], 2))
    entry = between(base, best, metric, comparisons)
    if entry is None:
        return t("gain.not-compared", gain=gain)
    said = t(
        f"gain.{_explained(entry)}", gain=gain, difference=number(entry["difference"], signed=True),
        interval=interval(entry["interval"], t), comparisons=t.count("comparison", len(comparisons)),
    )  # fmt: skip
    return _sentences(said, items_needed([entry], t) if entry["verdict"] == "tie" else "")


def between(a: Run, b: Run, metric: str, comparisons: Sequence[Comparison]) -> Comparison | None:
    """The comparison of two runs on a metric, b against a, if the study has it in that order."""
    wanted = (a["name"], b["name"], metric)
    return next((entry for entry in comparisons if (entry["a"], entry["b"], entry["metric"]) == wanted), None)


def _explained(entry: Comparison) -> str:
    """A tie can have an interval without zero: that stands for itself, the verdict for one of many comparisons."""
    low, high = entry["interval"]
    return "tie-among" if entry["verdict"] == "tie" and not low <= 0 <= high else str(entry["verdict"])


def _against_few_shot(
    best: Run, runs: list[Run], metric: str, comparisons: list[Comparison], t: Language
) -> list[Markup]:
    """What the base reaches with examples in its prompt, and whether the best run is beyond that."""
    base = baseline_of(best, runs)
    few_shot = best_few_shot(base, runs) if base else None
    if few_shot is None:
        return []
    entry = between(few_shot, best, metric, comparisons)
    key = f"few-shot.{entry['verdict'] if entry else 'not-compared'}"
    examples = t.count("example", few_shot["shots"])
    return [t(key, examples=examples, value=number(figure(few_shot, metric)))]


def _lead(best: Run, rivals: list[Comparison], t: Language) -> Markup:
    """Whether chance could explain the best run's lead over the other tuned runs."""
    ties = [c for c in rivals if c["verdict"] == "tie"]
    tied = [c["a"] if c["b"] == best["name"] else c["b"] for c in ties]
    which = "one" if len(rivals) == 1 else "all"
    if not tied:
        return t(f"lead.{which}", n=len(rivals))
    needed = items_needed(ties, t)
    if len(tied) == len(rivals):
        return _sentences(t(f"lead.tie-{which}", n=len(rivals)), needed)
    return _sentences(t("lead.tie-some", names=t.listed(tied)), needed)


def _tally(runs: list[Run], metric: str, comparisons: list[Comparison], t: Language) -> list[Markup]:
    """How many tuned runs are better than their base; nothing for one run, of which the first sentence speaks."""
    tuned = [run for run in runs if not run.get("baseline") and evaluated(run)]
    pairs = [(base, run) for run in tuned if (base := baseline_of(run, runs)) is not None]
    found = [entry["verdict"] for base, run in pairs if (entry := between(base, run, metric, comparisons))]
    if len(found) < 2:
        return []
    better, ties, worse = (found.count(verdict) for verdict in ("better", "tie", "worse"))
    key = "tally.all" if better == len(found) else "tally.some"
    return [t(key, n=len(found), better=better, ties=ties, worse=worse)]


def items_needed(ties: Sequence[Comparison], t: Language = ENGLISH) -> Markup | str:
    """A sentence: how many test items would tell these ties apart; empty for studies that do not say."""
    known = [entry["items_needed"] for entry in ties if "items_needed" in entry]
    found = sorted(count for count in known if count is not None)
    if not known or len(known) < len(ties):
        return ""
    if not found:
        return t("needed.never")
    first, last = about(found[0]), about(found[-1])
    if len(known) == 1:
        return t("needed.one", n=first)
    return t("needed.first", n=first) if len(found) < len(known) else t("needed.range", first=first, last=last)


def _sentences(*parts: Markup | str) -> Markup:
    return Markup(" ").join(part for part in parts if part)
