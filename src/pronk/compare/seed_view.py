"""Seed noise: how far the seed alone moves the metric, beside how far the settings do."""

from __future__ import annotations

from typing import Any

import numpy as np

from pronk.compare import words
from pronk.compare.languages import Language

View = dict[str, Any]
WIDTH = 132.0  # of the drawn scale, in SVG units; 4 more on either side for the dots


def seed_view(noise: list[View], metric: str, t: Language) -> View | None:
    """A row for each setting that was trained with several seeds; None without any.

    noise: entries of `seeds.seed_noise`. The pooled deviation is the root of the mean variance over the seeds.
    """
    found = [entry for entry in noise if entry["metric"] == metric]
    if not found:
        return None
    places = words.digits(metric)
    left = min(min(entry["interval"][0], entry["lowest"]) for entry in found)
    right = max(max(entry["interval"][1], entry["highest"]) for entry in found)
    scale = WIDTH / ((right - left) or 1.0)
    rows = [
        {
            "name": entry["group"],
            "mean": words.number(entry["mean"], places),
            "interval": words.interval(entry["interval"], t, places, signed=False),
            "range": words.interval([entry["lowest"], entry["highest"]], t, places, signed=False),
            "deviation": words.number(entry["deviation"], places + 1),
            "dots": [round(4 + scale * (value - left), 1) for value in entry["values"]],
            "low": round(4 + scale * (entry["interval"][0] - left), 1),
            "high": round(4 + scale * (entry["interval"][1] - left), 1),
        }
        for entry in found
    ]
    return {"metric": t.metric(metric), "rows": rows, "said": _said(found, metric, t)}


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
