"""Numbers, runs and verdicts as a person reads them."""

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from pronk.compare.languages import ENGLISH, Language

METRICS, VERDICTS = ENGLISH.metrics, ENGLISH.verdicts  # what terminal, Python and `pronk check` show

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
    if metric in ("unparsable", "exact_unparsable", "unended", "empty_answers", "answer_length"):
        return f"{value:,.0f}"
    return number(value, digits(metric))


def digits(metric: str) -> int:
    """How many digits behind the point a metric is shown with."""
    return 2 if metric.endswith("perplexity") else 3


def p_value(value: float) -> str:
    """A p-value to three digits, to four where three would hide on which side of 0.05 it lies."""
    if value < 0.001:
        return "< 0.001"
    return f"{value:.4f}" if 0.0495 <= value < 0.0505 else f"{value:.3f}"


def interval(bounds: Sequence[float], t: Language = ENGLISH, places: int = 3, signed: bool = True) -> str:
    """`low to high`; with signs, as differences have them, unless told otherwise."""
    low, high = (number(bound, places, signed) for bound in bounds)
    return str(t("interval", low=low, high=high))


def about(count: int) -> str:
    """A count of items to two digits, upwards: more would claim to know it better than one does."""
    step = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // step) * step:,}"


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


def duration(seconds: float | None, t: Language = ENGLISH) -> str:
    """Seconds as `4.9 s`, `2 min 25 s` or `3 h 05 min`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return str(t("seconds", seconds=f"{seconds:.1f}"))
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return str(t("minutes", minutes=minutes, seconds=f"{rest:02d}"))
    return str(t("hours", hours=minutes // 60, minutes=f"{minutes % 60:02d}"))


def setting(value: Any) -> str:
    """A recipe's value: lists by commas, the rest as YAML would show it."""
    if isinstance(value, list):
        return ", ".join(setting(part) for part in value)
    if isinstance(value, float):
        return json.dumps(value).replace("e-0", "e-")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def short(name: str, room: int) -> str:
    """A long name keeps its end, where runs of a study differ most."""
    return name if len(name) <= room else "…" + name[1 - room :]


def base_tag(run: Run, t: Language = ENGLISH) -> str:
    """What an untouched base is marked with: how many examples its prompt has; empty for a tuned run."""
    if not run.get("baseline"):
        return ""
    shots = run.get("shots")
    return str(t("base.shots", examples=t.count("example", shots)) if shots else t("base"))


def overfitting_verdict(found: Any, t: Language = ENGLISH) -> str:
    """The verdict in a few words, with the epoch since when; studies written before pronk judged have a text."""
    if not isinstance(found, dict):
        return "" if found is None else setting(found)
    verdict = str(found.get("verdict", ""))
    return str(t.texts.get(f"overfitting.verdict.{verdict}", verdict))


def overfitting(found: dict[str, Any], t: Language = ENGLISH) -> Markup:
    """What the overfitting verdict rests on, and what to do, in one or two sentences."""
    kind, verdict, reason = found.get("verdict"), overfitting_verdict(found, t), _reason(found, t)
    if found.get("lowest") is None:
        return t("overfitting.unknown" if reason else "overfitting.plain", verdict=verdict, reason=reason)
    lowest, last = epoch(found["epoch"]), epoch(found["last_epoch"])
    if kind == "still improving":
        fall, since = number(found["fall"]), epoch(found["fall_since"])
        spread = interval(found["fall_interval"], t)
        return t("overfitting.improving", verdict=verdict, fall=fall, since=since, last=last, interval=spread)
    rise = t("overfitting.lowest", lowest=lowest, value=number(found["lowest"]))
    if found.get("interval"):
        higher, spread = number(found["rise"], signed=True), interval(found["interval"], t)
        blanks = {"lowest": lowest, "value": number(found["lowest"]), "last": last, "rise": higher, "interval": spread}
        rise = t("overfitting.rise", **blanks, p=p_value(found["p_value"]))
    if kind == "overfitting":
        fall = number(found["train_fall"])
        return t("overfitting.overfitting", verdict=verdict, rise=rise, fall=fall, lowest=lowest)
    if reason:
        return t("overfitting.reason", verdict=verdict, rise=rise, reason=reason)
    return t("overfitting.chance" if found.get("interval") else "overfitting.last", verdict=verdict, rise=rise)


def _reason(found: dict[str, Any], t: Language) -> str:
    """Why there is no verdict, or not another one; as study.json says it where it has no code of ours."""
    key = f"overfitting.why.{found.get('why')}"
    blanks = {"rows": found.get("rows"), "fewest": found.get("fewest")}
    return str(t(key, **blanks)) if key in t.texts else str(found.get("reason") or "")


def epoch(value: float) -> str:
    """An epoch with as many digits as it needs, two at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
