"""What the runs cost against what they reach: the Pareto front, as a chart and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator, NullLocator

from pronk.compare import charts, words
from pronk.compare.axis_views import Bounds, Figures
from pronk.compare.conclusion import between
from pronk.compare.languages import Language
from pronk.compare.pairs import baseline_of, figure, lower_is_better

Run = dict[str, Any]
View = dict[str, Any]
ALIKE = 1.02  # costs that differ by less than this factor are the same
FLIPPED = {"better": "worse", "worse": "better", "tie": "tie"}


@dataclass(frozen=True)
class Priced:
    """A run with what it cost and what it reached."""

    run: Run
    cost: float
    figure: float
    interval: Bounds | None


def quality_view(runs: list[Run], comparisons: list[View], metric: str, figures: Figures, t: Language) -> View | None:
    """Cost against the metric; None where fewer than two runs have both. `chart` is absent where all cost alike."""
    tuned = [run for run in runs if run["name"] in figures]
    unit = cost_unit(tuned)
    priced = [
        Priced(run, float(run[unit]), *figures[run["name"]]) for run in tuned if _number(run.get(unit))
    ]  # fmt: skip
    if len(priced) < 2:
        return None
    if max(one.cost for one in priced) <= ALIKE * min(one.cost for one in priced):
        return {"chart": None}
    front = pareto_front(priced, lower_is_better(metric))
    bases = [base for run in tuned if (base := baseline_of(run, runs)) is not None]
    untouched = figure(bases[0], metric) if bases and all(one is bases[0] for one in bases) else None
    kind = "tokens" if unit == "train_tokens" else "seconds"
    note = "quality.note" if untouched is not None else "quality.note-no-base"
    return {
        "chart": chart(priced, front, untouched, (t(f"quality.{kind}"), "")),
        "note": t(note, metric=t.metric(metric), cost=t(f"quality.{kind}-inside")),
        "metric": t.metric(metric),
        "rows": [_row(place, front, kind, metric, comparisons, t) for place in range(len(front))],
    }


def cost_unit(runs: Sequence[Run]) -> str:
    """Tokens where every run's second is worth as many of them, for then they say the same and are exact; else time."""
    speeds = {
        round(run["train_tokens"] / run["train_seconds"], 3)
        for run in runs
        if _number(run.get("train_tokens")) and _number(run.get("train_seconds"))
    }
    alike = not speeds or max(speeds) <= ALIKE * min(speeds)
    return "train_tokens" if alike else "train_seconds"


def pareto_front(priced: Sequence[Priced], lower: bool) -> list[Priced]:
    """The runs that no other reaches or beats at the same cost or less, from cheap to dear; of equals the first."""
    sign = 1.0 if lower else -1.0
    front: list[Priced] = []
    for one in sorted(priced, key=lambda one: (one.cost, sign * one.figure)):
        if not front or sign * one.figure < sign * front[-1].figure:
            front.append(one)
    return front


def chart(priced: Sequence[Priced], front: Sequence[Priced], base: float | None, labels: charts.Labels) -> str:
    """All runs with their intervals; the front stepped and numbered, as the table numbers it; the base dashed."""

    def draw(on: Any) -> None:
        costs = [one.cost for one in priced]
        for one in priced:
            ahead = one in front
            colour = charts.colour(0 if ahead else charts.COLOURS - 1)
            on.plot(one.cost, one.figure, marker="o", markersize=5.5 if ahead else 4.0, color=colour)
            if one.interval is not None:
                on.plot([one.cost, one.cost], one.interval, color=colour, linewidth=1.0, alpha=0.6 if ahead else 0.35)
        steps = [*[(one.cost, one.figure) for one in front], (max(costs), front[-1].figure)]
        (line,) = on.plot([x for x, _ in steps], [y for _, y in steps], drawstyle="steps-post")
        charts.styled(line, 0)
        for number, one in enumerate(front, start=1):
            on.annotate(str(number), (one.cost, one.figure), xytext=(5, 5), textcoords="offset points")
        if base is not None:
            on.axhline(base, color=charts.colour(charts.COLOURS - 1), linewidth=1.0, dashes=(4, 3))
        on.set_xscale("log" if max(costs) >= 8 * min(costs) else "linear")
        on.xaxis.set_major_locator(MaxNLocator(nbins=5))
        on.xaxis.set_minor_locator(NullLocator())  # on a logarithmic axis it would say 2.5×10⁵ between 200 k and 300 k
        on.xaxis.set_major_formatter(lambda value, _: words.size(value).replace(".0 ", " "))
        on.margins(x=0.08)

    return charts.drawn(draw, "quality", labels, size=(5.2, 3.0))


def _row(place: int, front: Sequence[Priced], kind: str, metric: str, comparisons: list[View], t: Language) -> View:
    """A run on the front, and what the step up to it is worth."""
    one = front[place]
    digits = words.digits(metric)
    return {
        "number": place + 1,
        "name": one.run["name"],
        "cost": words.size(one.cost) if kind == "tokens" else words.duration(one.cost, t),
        "value": words.number(one.figure, digits),
        "interval": words.interval(one.interval, t, digits, signed=False) if one.interval else "–",
        "step": _step(front[place - 1].run, one.run, metric, comparisons, t) if place else None,
    }


def _step(before: Run, after: Run, metric: str, comparisons: list[View], t: Language) -> View:
    """The difference of two runs and its verdict, whichever way round the study has it."""
    entry, sign = between(before, after, metric, comparisons), 1
    if entry is None:
        entry, sign = between(after, before, metric, comparisons), -1
    if entry is None:
        return {"difference": "", "verdict": "", "said": t("quality.not-compared")}
    verdict = entry["verdict"] if sign == 1 else FLIPPED[entry["verdict"]]
    difference = words.number(sign * entry["difference"], signed=True)
    return {"difference": difference, "verdict": verdict, "said": t.verdict(verdict)}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0
