"""Seed noise: how far the seed alone moves the metric, beside how far the settings do."""

from __future__ import annotations

from typing import Any

import numpy as np

from pronk.compare import words
from pronk.compare.languages import Language
from pronk.compare.pairs import lower_is_better

View = dict[str, Any]
WIDTH = 132.0  # of the drawn scale, in SVG units; 4 more on either side for the dots


def seed_view(noise: list[View], metric: str, t: Language) -> View | None:
    """A row for each setting that was trained with several seeds; None without any.

    noise: entries of `seeds.seed_noise`. The pooled deviation is the root of the mean variance over the seeds.
    """
    found = [entry for entry in noise if entry["metric"] == metric]
    if not found:
        return None
    values = [value for entry in found for value in entry["values"]]
    scale = Scale(min(values), max(values))
    rows = [_row(entry, scale, metric, t) for entry in found]
    return {"metric": t.metric(metric), "rows": rows, "said": _said(found, metric, t)}


class Scale:
    """Where figures are drawn: all seeds, and on either side as much again; intervals that go on are cut there."""

    def __init__(self, low: float, high: float) -> None:
        room = (high - low) or 1.0
        self.left, self.right = low - room, high + room

    def __call__(self, value: float) -> float:
        """A figure's place in SVG units."""
        inside = min(max(value, self.left), self.right)
        return round(4 + WIDTH * (inside - self.left) / (self.right - self.left), 1)


def _row(entry: View, scale: Scale, metric: str, t: Language) -> View:
    """A setting with its seeds; what an interval has beyond what the metric can be is left out."""
    places, most = words.digits(metric), float("inf") if lower_is_better(metric) else 1.0
    interval = [min(max(bound, 0.0), most) for bound in entry["interval"]]
    return {
        "name": t.row(entry["group"]),
        "mean": words.number(entry["mean"], places),
        "interval": words.interval(interval, t, places, signed=False),
        "range": words.interval([entry["lowest"], entry["highest"]], t, places, signed=False),
        "deviation": words.number(entry["deviation"], places + 1),
        "dots": [scale(value) for value in entry["values"]],
        "low": scale(interval[0]),
        "high": scale(interval[1]),
    }


def _said(found: list[View], metric: str, t: Language) -> str:
    """What the seed does, against what the settings do."""
    places = words.digits(metric) + 1
    pooled = float(np.sqrt(np.mean([entry["deviation"] ** 2 for entry in found])))
    means = [entry["mean"] for entry in found]
    blanks = {
        "metric": t.metric_inside(metric),
        "deviation": words.number(pooled, places),
        "two": words.number(pooled * 2**0.5, places),
        "groups": t.count("setting", len(found)),
        "apart": words.number(max(means) - min(means), places),
    }
    return t("seeds.said" if len(found) > 1 else "seeds.said-one", **blanks)
