"""What each section of the report shows: rows of formatted text, for the template to lay out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from pronk.compare import charts, words
from pronk.compare.axis_views import legend
from pronk.compare.items import RunItems, read_lines, run_folder
from pronk.compare.languages import Language
from pronk.compare.metrics import ClassificationReport, classification_report
from pronk.compare.pairs import baseline_of, best_run, evaluated, figure, lower_is_better, primary_metric

Run = dict[str, Any]
View = dict[str, Any]

INTERVAL_WIDTH = 132  # of the drawn scale, in SVG units; 4 more on either side for the dots


def ranking(runs: list[Run], comparisons: list[View], t: Language) -> View:
    """The runs from best to worst by the primary metric, with all metrics and the verdict on the base."""
    primary = primary_metric(runs)
    present = {metric for run in runs for metric in run.get("metrics") or {}}
    known = [metric for metric in t.metrics if metric in present]
    unscored = "answer_length" in present and all(figure(run, primary) is None for run in runs)
    metrics = [
        *([] if unscored else [primary]),
        *(m for m in known if m != primary),
        *sorted(present - set(t.metrics) - {primary}),
    ]
    best = best_run(runs)
    against_base = {
        entry["b"]: entry for entry in comparisons if entry["metric"] == primary and "base" in entry["reasons"]
    }
    sign = 1.0 if lower_is_better(primary) else -1.0

    def place(run: Run) -> tuple[bool, float]:
        value = figure(run, primary)
        return (value is None or not evaluated(run), 0.0 if value is None else sign * value)

    rows = [
        {
            "name": run["name"],
            "base": run.get("base", ""),
            "tag": words.base_tag(run, t),
            "best": run is best,
            "status": "" if evaluated(run) else status(run, "status.", t),
            "overfitting": _overfitting(run, t),
            "values": [words.metric_value(metric, figure(run, metric)) for metric in metrics],
            "against": comparison(against_base[run["name"]], t) if run["name"] in against_base else None,
        }
        for run in sorted(runs, key=place)
    ]
    return {
        "note": t("ranking.unscored") if unscored else t("ranking.note", metric=t.metric_inside(primary)),
        "metrics": [t.metric(metric) for metric in metrics],
        "rows": rows,
        "bases": len({run.get("base") for run in runs}) > 1,
        "overfitting": any(row["overfitting"] for row in rows),
    }


def status(run: Run, kind: str, t: Language) -> str:
    """Why a run has no results, as a tag ("status.") or in a sentence ("failure."); others as study.json has it."""
    found = str(run.get("status", ""))
    return t(kind + found) if kind + found in t.texts else found


def unfinished(runs: list[Run], t: Language) -> list[Markup]:
    """A sentence for each run without results: what became of it, and the message that it left."""
    found = []
    for run in runs:
        if not evaluated(run):
            said = {"run": run["name"], "status": status(run, "failure.", t), "message": run.get("message")}
            found.append(t("failure.message" if run.get("message") else "failure", **said))
    return found


def _overfitting(run: Run, t: Language) -> str:
    """The verdict in a few words, for the ranking."""
    found = run.get("overfitting")
    said = words.overfitting_verdict(found, t)
    if isinstance(found, dict) and found.get("verdict") == "overfitting":
        return t("overfitting.since", verdict=said, epoch=words.epoch(found["epoch"]))
    return said


def overfitting(runs: list[Run], t: Language) -> list[View]:
    """A line for each run that has a verdict: what it rests on, and which weights the run has."""
    views = []
    for run in runs:
        found = run.get("overfitting")
        if isinstance(found, dict):
            weights: str = ""
            if run.get("adapter_step") is not None and run["adapter_step"] != run.get("steps"):
                key = "early" if run.get("status") == "stopped_early" else "end"
                weights = t(f"overfitting.weights-{key}", step=run["adapter_step"], steps=run.get("steps"))
            views.append({"name": run["name"], "said": words.overfitting(found, t), "weights": weights,
                          "bad": found.get("verdict") == "overfitting"})  # fmt: skip
    return views


def comparison(entry: View, t: Language) -> View:
    """One comparison in words."""
    return {
        "a": t.row(entry["a"]),
        "b": t.row(entry["b"]),
        "reasons": ", ".join(_reason(reason, t) for reason in entry["reasons"]),
        "difference": words.number(entry["difference"], signed=True),
        "interval": words.interval(entry["interval"], t),
        "p_value": words.p_value(entry["p_value"]),
        "p_adjusted": words.p_value(entry["p_adjusted"]),
        "verdict": entry["verdict"],
        "said": t.verdict(entry["verdict"]),
        "items_needed": _items_needed(entry, t),
    }


def _items_needed(entry: View, t: Language) -> str:
    if entry["verdict"] != "tie" or "items_needed" not in entry:  # told, or written before pronk said this
        return "–"
    return t("comparisons.no-number") if entry["items_needed"] is None else words.about(entry["items_needed"])


def _reason(reason: str, t: Language) -> str:
    key = f"reason.{reason}".replace(" ", "-")
    return t(key) if key in t.texts else reason.removeprefix("one key: ")


def comparisons_by_metric(comparisons: list[View], t: Language) -> list[View]:
    """The comparisons, a table per metric, each row with its interval drawn on the table's common scale."""
    tables = []
    for metric in dict.fromkeys([*t.metrics, *(entry["metric"] for entry in comparisons)]):
        entries = [entry for entry in comparisons if entry["metric"] == metric]
        if not entries:
            continue
        left = min(0.0, *(entry["interval"][0] for entry in entries))
        right = max(0.0, *(entry["interval"][1] for entry in entries))
        scale = INTERVAL_WIDTH / ((right - left) or 1.0)
        rows = []
        for entry in entries:
            low, middle, high, zero = (
                round(4 + scale * (value - left), 1)
                for value in (entry["interval"][0], entry["difference"], entry["interval"][1], 0.0)
            )
            rows.append({**comparison(entry, t), "low": low, "middle": middle, "high": high, "zero": zero})
        ties = sum(entry["verdict"] == "tie" for entry in entries)
        key = "comparisons.summary-lower" if lower_is_better(metric) else "comparisons.summary"
        summary = t(key, comparisons=t.count("comparison", len(entries)), ties=t.count("tie", ties))
        tables.append({"title": t.metric(metric), "rows": rows, "summary": summary})
    return tables


def curves(folder: Path, runs: list[Run], t: Language) -> View | None:
    """The two loss charts and their legend; None where no run has logged a loss."""
    found: dict[str, list[charts.Curve]] = {"train": [], "validation": []}
    tuned = [run for run in runs if not run.get("baseline")]
    lines, drawn_runs, marked = legend([run["name"] for run in tuned]), set(), False
    for series, run in enumerate(tuned):
        logged = _losses(run_folder(folder, run["name"]) / "metrics.jsonl")
        verdict = run.get("overfitting")
        mark = verdict.get("epoch") if isinstance(verdict, dict) and verdict.get("verdict") == "overfitting" else None
        marked = marked or mark is not None
        for kind, points in logged.items():
            if len(points):
                losses = charts.smooth(points[:, 1]) if kind == "train" else points[:, 1]
                found[kind].append(charts.Curve(series, points[:, 0], losses, mark))
        if any(len(points) for points in logged.values()):
            drawn_runs.add(series)
    labels = (str(t("curves.epoch")), str(t("curves.nats")))
    drawn = [
        {
            "title": t(f"curves.{kind}"),
            "svg": charts.loss_chart(of, f"chart-{kind}", points=kind == "validation", labels=labels),
        }
        for kind, of in found.items()
        if of
    ]
    shown_lines = [line for series, line in enumerate(lines) if series in drawn_runs]
    return {"charts": drawn, "legend": shown_lines, "marked": marked} if drawn else None


def _losses(path: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Epoch and loss (points, 2) of the train and the validation lines, without losses that are no number."""
    points: dict[str, list[tuple[float, float]]] = {"train": [], "validation": []}
    for _, row in read_lines(path):
        epoch, loss = row.get("epoch"), row.get("loss")
        if row.get("kind") in points and epoch is not None and loss is not None and np.isfinite(loss):
            points[row["kind"]].append((float(epoch), float(loss)))
    return {kind: np.array(rows, dtype=np.float64).reshape(-1, 2) for kind, rows in points.items()}


def confusions(runs: list[Run], items: dict[str, RunItems], labels: Sequence[str], t: Language) -> list[View]:
    """Per run: confusion matrices and per-class figures, by likelihood and from the generated answers."""
    best, views = best_run(runs), []
    base = baseline_of(best, runs) if best else None
    for run in runs:
        classified = items[run["name"]].classified if run["name"] in items else None
        if classified is None:
            continue
        classes = tuple(dict.fromkeys([*labels, *classified.classes]))
        kinds: list[tuple[str, Sequence[str | None] | None]] = [
            ("confusion.likelihood", classified.predicted),
            ("confusion.generated", classified.generated_labels),
        ]
        tables = [
            {"title": t(key), **_confusion(classification_report(classified.labels, predicted, classes), t)}
            for key, predicted in kinds
            if predicted is not None
        ]
        views.append({"name": run["name"], "open": run is best or run is base, "tables": tables})
    return views


def _confusion(report: ClassificationReport, t: Language) -> View:
    shown = len(report.classes) + (1 if report.unparsable else 0)
    shares = report.confusion / np.maximum(report.confusion.sum(axis=1, keepdims=True), 1)
    rows = [
        {
            "label": label,
            "cells": [
                {"count": int(report.confusion[i, j]), "share": f"{shares[i, j]:.3f}", "right": i == j}
                for j in range(shown)
            ],
        }
        for i, label in enumerate(report.classes)
    ]
    averages = [(t("confusion.macro"), report.macro), (t("confusion.weighted"), report.weighted)]
    figures: list[list[str]] = [
        [
            one.label,
            *(words.number(value) for value in (one.precision, one.recall, one.f1)),
            f"{one.support:,}",
        ]
        for one in report.per_class
    ]
    total = f"{sum(one.support for one in report.per_class):,}"
    figures += [
        [name, *(words.number(value) for value in (mean.precision, mean.recall, mean.f1)), total]
        for name, mean in averages
    ]
    return {
        "classes": report.classes,
        "unparsable": report.unparsable,
        "rows": rows,
        "figures": figures,
        "averages": len(averages),
        "accuracy": words.number(report.accuracy),
    }


def settings(runs: list[Run]) -> View | None:
    """What varies between the runs; None where nothing does."""
    keys = list(dict.fromkeys(key for run in runs for key in run.get("settings") or {}))
    rows = [
        [
            run["name"],
            *(words.setting(run["settings"][key]) if key in run["settings"] else "–" for key in keys),
        ]
        for run in runs
        if run.get("settings")
    ]
    return {"keys": keys, "rows": rows} if keys else None


def costs(runs: list[Run], t: Language) -> list[View]:
    """What each tuned run cost; "–" for what was not measured."""
    return [
        {
            "name": run["name"],
            "values": [
                words.size(run.get("trainable_parameters")),
                words.size(run.get("steps")),
                words.size(run.get("train_tokens")),
                words.duration(run.get("train_seconds"), t),
                words.size(run.get("tokens_per_second")),
                words.memory(run.get("peak_memory_bytes")),
            ],
            "shared_with": ", ".join(run.get("shared_with") or []),
        }
        for run in runs
        if not run.get("baseline")
    ]


def facts(values: dict[str, Any], t: Language) -> list[tuple[str, str]]:
    """Keys as words, values as text: data counts, environment."""
    return [
        (t.fact(key), f"{value:,}" if type(value) is int else words.setting(value))
        for key, value in values.items()
        if value is not None
    ]
