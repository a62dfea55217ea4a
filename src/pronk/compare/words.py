"""Numbers and verdicts as a person reads them; the sentences at the top of the report."""

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from pronk.compare.pairs import baseline_of, best_few_shot, best_run, figure, primary_metric
from pronk.data.words import counted

METRICS = {  # in the order in which they are shown
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "weighted_f1": "Weighted F1",
    "generated_accuracy": "Accuracy, generated",
    "generated_macro_f1": "Macro-F1, generated",
    "unparsable": "Unparsable answers",
    "nll": "Loss (nats per token)",
    "perplexity": "Perplexity",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "unended": "Answers without an end",
}
VERDICTS = {"better": "▲ better", "worse": "▼ worse", "tie": "= tie"}

Run = dict[str, Any]


def number(value: float | None, digits: int = 3, signed: bool = False) -> str:
    """A figure with a true minus sign; an en dash for none."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    rounded = round(value, digits) + 0.0  # adding 0.0 turns a rounded -0.0 into 0.0
    return f"{rounded:{sign},.{digits}f}".replace("-", "−")


def metric_value(metric: str, value: float | None) -> str:
    """A metric in its usual precision: counts as counts, perplexities to two digits."""
    if value is None:
        return "–"
    if metric in ("unparsable", "unended"):
        return f"{value:,.0f}"
    return number(value, 2 if metric == "perplexity" else 3)


def p_value(value: float) -> str:
    """A p-value to three digits, to four where three would hide on which side of 0.05 it lies."""
    if value < 0.001:
        return "< 0.001"
    return f"{value:.4f}" if 0.0495 <= value < 0.0505 else f"{value:.3f}"


def interval(bounds: Sequence[float]) -> str:
    """`low to high`, with signs."""
    return f"{number(bounds[0], signed=True)} to {number(bounds[1], signed=True)}"


def about(count: int) -> str:
    """A count of items to two digits, upwards: more would claim to know it better than one does."""
    step = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // step) * step:,}"


def items_needed(ties: Sequence[dict[str, Any]]) -> str:
    """A sentence: how many test items would tell these ties apart; empty for studies that do not say."""
    known = [entry["items_needed"] for entry in ties if "items_needed" in entry]
    found = sorted(count for count in known if count is not None)
    if not known or len(known) < len(ties):
        return ""
    if not found:
        return " No number of test items that you will ever have would tell."
    if len(known) == 1:
        return f" You would need about {about(found[0])} test items to tell."
    if len(found) < len(known):
        return f" The first of these takes about {about(found[0])} test items to tell, the last more than anyone has."
    return f" You would need about {about(found[0])} test items to tell the first of these, {about(found[-1])} for all."


def size(count: float | None) -> str:
    """A count in thousands (k), millions (M) or billions (B)."""
    if count is None:
        return "–"
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            return f"{count / (1e3 if letter == 'k' else limit):.1f} {letter}"
    return f"{count:,.0f}"


def memory(count: float | None) -> str:
    """Bytes in GiB."""
    return "–" if count is None else f"{count / 2**30:.1f} GiB"


def duration(seconds: float | None) -> str:
    """Seconds as `4.9 s`, `2 min 25 s` or `3 h 05 min`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def setting(value: Any) -> str:
    """A recipe's value: lists by commas, the rest as YAML would show it."""
    if isinstance(value, list):
        return ", ".join(setting(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def short(name: str, room: int) -> str:
    """A long name keeps its end, where runs of a study differ most."""
    return name if len(name) <= room else "…" + name[1 - room :]


def base_tag(run: Run) -> str:
    """What an untouched base is marked with: how many examples its prompt has; empty for a tuned run."""
    if not run.get("baseline"):
        return ""
    shots = run.get("shots")
    return f"untouched base, {counted(shots, 'example')} in its prompt" if shots else "base"


def conclusion(runs: list[Run], comparisons: list[dict[str, Any]], items: int | None) -> list[Markup]:
    """The report's first words: what the best run gained, how sure that is, and how many ties there are."""
    best, metric = best_run(runs), primary_metric(runs)
    if best is None:
        return [Markup("No tuned run has finished with results, so there is nothing to compare yet.")]
    sentences = [_gain(best, baseline_of(best, runs), metric, comparisons, items)]
    sentences += _against_few_shot(best, runs, metric, comparisons)
    rivals = [c for c in comparisons if c["metric"] == metric and "best" in c["reasons"]]
    if rivals:
        sentences.append(_lead(best, rivals))
    ties = sum(entry["verdict"] == "tie" for entry in comparisons)
    if comparisons:
        sentences.append(Markup(f"Of {counted(len(comparisons), 'difference')} tested, {ties or 'none'} "))
        sentences[-1] += "is a tie." if ties <= 1 else "are ties."
    failed = sum(run.get("status") in ("failed", "interrupted") for run in runs)
    if failed:
        sentences.append(Markup(f"{counted(failed, 'run')} did not finish."))
    return sentences


def _gain(best: Run, base: Run | None, metric: str, comparisons: list[dict[str, Any]], items: int | None) -> Markup:
    """`X answers 0.830 of 300 test items correctly, the base 0.430: a difference of …`"""
    of_items = f"{counted(items, 'test item')}" if items else "the test items"
    template = "<b>{}</b> answers {} of {} correctly"
    if metric == "nll":
        template = "<b>{}</b> needs {} nats per target token on {}"
    if metric == "rouge_l":
        template = "<b>{}</b> reaches a ROUGE-L of {} on {}"
    sentence = Markup(template).format(best["name"], number(figure(best, metric)), of_items)
    value = figure(base, metric) if base else None
    if base is None or value is None:
        return sentence + "; the base was not evaluated, so this says nothing about a gain."
    sentence += Markup(", the base {}").format(number(value))
    perplexities = [figure(run, "perplexity") for run in (best, base)]
    if metric == "nll" and None not in perplexities:
        sentence += Markup(" (perplexity {} against {})").format(*(number(one, 2) for one in perplexities))
    entry = next(
        (c for c in comparisons if (c["a"], c["b"], c["metric"]) == (base["name"], best["name"], metric)),
        None,
    )
    if entry is None:
        return sentence + "."
    sentence += Markup(": a difference of {} (95% interval {})").format(
        number(entry["difference"], signed=True), interval(entry["interval"])
    )
    said = {
        "better": ", more than chance explains.",
        "worse": ": worse, by more than chance explains.",
        "tie": f", which chance could explain{_among(entry, len(comparisons))}: a tie.{items_needed([entry])}",
    }
    return sentence + said[entry["verdict"]]


def _against_few_shot(best: Run, runs: list[Run], metric: str, comparisons: list[dict[str, Any]]) -> list[Markup]:
    """What the base reaches with examples in its prompt, and whether the best run is beyond that."""
    base = baseline_of(best, runs)
    few_shot = best_few_shot(base, runs) if base else None
    if few_shot is None:
        return []
    sentence = Markup("With {} in its prompt the untouched base reaches {}").format(
        counted(few_shot["shots"], "example"), number(figure(few_shot, metric))
    )
    pairs = ((c["a"], c["b"], c["metric"]) for c in comparisons)
    entry = dict(zip(pairs, comparisons, strict=True)).get((few_shot["name"], best["name"], metric))
    said = {
        "better": "; the run is better than that.",
        "worse": "; that is better than the run, so no fine-tuning is needed for it.",
        "tie": "; that the run differs from that could be chance.",
    }
    return [sentence + (said[entry["verdict"]] if entry else ".")]


def _among(entry: dict[str, Any], tested: int) -> str:
    """Why a tie can have an interval without zero: it stands for itself, the verdict for one of so many."""
    low, high = entry["interval"]
    return "" if low <= 0 <= high else f" among {counted(tested, 'comparison')}"


def _lead(best: Run, rivals: list[dict[str, Any]]) -> Markup:
    """Whether chance could explain the best run's lead over the other tuned runs."""
    ties = [c for c in rivals if c["verdict"] == "tie"]
    tied = [c["a"] if c["b"] == best["name"] else c["b"] for c in ties]
    others = "the other tuned run" if len(rivals) == 1 else f"all {len(rivals)} other tuned runs"
    if not tied:
        return Markup(f"Its lead over {others} is more than chance explains.")
    if len(tied) == len(rivals):
        return Markup(f"Its lead over {others} could be chance.{items_needed(ties)}")
    names = Markup(", ").join(tied[:4]) + (f" and {len(tied) - 4} more" if len(tied) > 4 else "")
    return Markup("Its lead over {} could be chance.{}").format(names, items_needed(ties))


def overfitting(found: dict[str, Any]) -> str:
    """What the overfitting verdict rests on, and what to do, in one or two sentences."""
    verdict = str(found.get("verdict", ""))
    if found.get("lowest") is None:
        return f"{verdict}: {found['reason']}." if found.get("reason") else f"{verdict}."
    lowest, last = epoch(found["epoch"]), epoch(found["last_epoch"])
    rise = f"Validation loss was lowest at epoch {lowest} ({number(found['lowest'])})"
    if found.get("interval"):
        rise += f" and {number(found['rise'], signed=True)} higher at epoch {last} (95% interval "
        rise += f"{interval(found['interval'])}; p {p_value(found['p_value'])}, the choice of the lowest allowed for)"
    if verdict == "overfitting":
        fall = number(found["train_fall"])
        return f"{verdict}. {rise}, while training loss fell by {fall}. Stop at epoch {lowest}."
    if verdict == "still improving":
        fall = f"Validation loss fell by {number(found['fall'])} from epoch {epoch(found['fall_since'])} to {last}"
        return f"{verdict}. {fall} (95% interval {interval(found['fall_interval'])}). Longer training may help."
    if found.get("reason"):
        return f"{verdict}. {rise}, and {found['reason']}."
    ending = ", which chance could explain." if found.get("interval") else ", the last, but hardly lower than before."
    return f"{verdict}. {rise}{ending}"


def epoch(value: float) -> str:
    """An epoch with as many digits as it needs, two at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
