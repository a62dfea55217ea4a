"""What each section of the report shows: rows of formatted text, for the template to lay out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pronk.compare import charts, words
from pronk.compare.items import RunItems, Similarity, read_lines, run_folder
from pronk.compare.metrics import ClassificationReport, classification_report
from pronk.compare.pairs import baseline_of, best_run, evaluated, figure, primary_metric
from pronk.data.words import counted

Run = dict[str, Any]
View = dict[str, Any]

FLIPS_SHOWN = 30
ANSWERS_SHOWN = 10
INTERVAL_WIDTH = 132  # of the drawn scale, in SVG units; 4 more on either side for the dots
TEXT_SHOWN = 600  # characters of an item's text or answer


def ranking(runs: list[Run], comparisons: list[View]) -> View:
    """The runs from best to worst by the primary metric, with all metrics and the verdict on the base."""
    primary = primary_metric(runs)
    present = {metric for run in runs for metric in run.get("metrics") or {}}
    known = [metric for metric in words.METRICS if metric in present]
    metrics = [
        primary,
        *(m for m in known if m != primary),
        *sorted(present - set(words.METRICS) - {primary}),
    ]
    best = best_run(runs)
    against_base = {
        entry["b"]: entry for entry in comparisons if entry["metric"] == primary and "base" in entry["reasons"]
    }
    sign = 1.0 if primary == "nll" else -1.0

    def place(run: Run) -> tuple[bool, float]:
        value = figure(run, primary)
        return (value is None or not evaluated(run), 0.0 if value is None else sign * value)

    rows = [
        {
            "name": run["name"],
            "base": run.get("base", ""),
            "tag": words.base_tag(run),
            "best": run is best,
            "status": "" if evaluated(run) else run.get("status", ""),
            "message": run.get("message") or "",
            "overfitting": _overfitting(run),
            "values": [words.metric_value(metric, figure(run, metric)) for metric in metrics],
            "against": comparison(against_base[run["name"]]) if run["name"] in against_base else None,
        }
        for run in sorted(runs, key=place)
    ]
    return {
        "metrics": [words.METRICS.get(metric, metric) for metric in metrics],
        "rows": rows,
        "bases": len({run.get("base") for run in runs}) > 1,
        "overfitting": any(row["overfitting"] for row in rows),
    }


def _overfitting(run: Run) -> str:
    """The verdict in a few words, for the ranking."""
    found = run.get("overfitting")
    if not isinstance(found, dict):
        return "" if found is None else words.setting(found)
    since = f" from epoch {words.epoch(found['epoch'])}" if found.get("verdict") == "overfitting" else ""
    return f"{found.get('verdict', '')}{since}"


def overfitting(runs: list[Run]) -> list[View]:
    """A line for each run that has a verdict: what it rests on, and which weights the run has."""
    views = []
    for run in runs:
        found = run.get("overfitting")
        if isinstance(found, dict):
            weights = ""
            if run.get("adapter_step") is not None and run["adapter_step"] != run.get("steps"):
                early = "It stopped early" if run.get("status") == "stopped_early" else "It went to its end"
                weights = f"{early}; adapter and metrics are those of step {run['adapter_step']} of {run['steps']}."
            views.append({"name": run["name"], "said": words.overfitting(found), "weights": weights,
                          "bad": found.get("verdict") == "overfitting"})  # fmt: skip
    return views


def comparison(entry: View) -> View:
    """One comparison in words."""
    return {
        "a": entry["a"],
        "b": entry["b"],
        "reasons": ", ".join(_reason(reason) for reason in entry["reasons"]),
        "difference": words.number(entry["difference"], signed=True),
        "interval": words.interval(entry["interval"]),
        "p_value": words.p_value(entry["p_value"]),
        "p_adjusted": words.p_value(entry["p_adjusted"]),
        "verdict": entry["verdict"],
        "said": words.VERDICTS[entry["verdict"]],
        "items_needed": _items_needed(entry),
    }


def _items_needed(entry: View) -> str:
    if entry["verdict"] != "tie" or "items_needed" not in entry:  # told, or written before pronk said this
        return "–"
    return "no number" if entry["items_needed"] is None else words.about(entry["items_needed"])


def _reason(reason: str) -> str:
    said = {"base": "its base", "best": "the best run", "few-shot": "its base with examples in the prompt"}
    return said.get(reason, reason.removeprefix("one key: "))


def comparisons_by_metric(comparisons: list[View]) -> list[View]:
    """The comparisons, a table per metric, each row with its interval drawn on the table's common scale."""
    tables = []
    for metric in dict.fromkeys([*words.METRICS, *(entry["metric"] for entry in comparisons)]):
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
            rows.append({**comparison(entry), "low": low, "middle": middle, "high": high, "zero": zero})
        ties = sum(entry["verdict"] == "tie" for entry in entries)
        lower = ", lower is better" if metric == "nll" else ""
        summary = f"{counted(len(entries), 'comparison')}, {counted(ties, 'tie')}{lower}"
        tables.append({"title": words.METRICS.get(metric, metric), "rows": rows, "summary": summary})
    return tables


def curves(folder: Path, runs: list[Run]) -> View | None:
    """The two loss charts and their legend; None where no run has logged a loss."""
    found: dict[str, list[charts.Curve]] = {"train": [], "validation": []}
    legend, marked = [], False
    for series, run in enumerate(run for run in runs if not run.get("baseline")):
        logged = _losses(run_folder(folder, run["name"]) / "metrics.jsonl")
        verdict = run.get("overfitting")
        mark = verdict.get("epoch") if isinstance(verdict, dict) and verdict.get("verdict") == "overfitting" else None
        marked = marked or mark is not None
        for kind, points in logged.items():
            if len(points):
                losses = charts.smooth(points[:, 1]) if kind == "train" else points[:, 1]
                found[kind].append(charts.Curve(series, points[:, 0], losses, mark))
        if any(len(points) for points in logged.values()):
            legend.append({"name": run["name"], "colour": series % charts.COLOURS + 1, "dash": charts.dash(series)})
    titles = {"train": "Training loss, smoothed", "validation": "Validation loss"}
    drawn = [
        {"title": titles[kind], "svg": charts.loss_chart(lines, f"chart-{kind}", points=kind == "validation")}
        for kind, lines in found.items()
        if lines
    ]
    return {"charts": drawn, "legend": legend, "marked": marked} if drawn else None


def _losses(path: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Epoch and loss (points, 2) of the train and the validation lines, without losses that are no number."""
    points: dict[str, list[tuple[float, float]]] = {"train": [], "validation": []}
    for _, row in read_lines(path):
        epoch, loss = row.get("epoch"), row.get("loss")
        if row.get("kind") in points and epoch is not None and loss is not None and np.isfinite(loss):
            points[row["kind"]].append((float(epoch), float(loss)))
    return {kind: np.array(rows, dtype=np.float64).reshape(-1, 2) for kind, rows in points.items()}


def confusions(runs: list[Run], items: dict[str, RunItems], labels: Sequence[str]) -> list[View]:
    """Per run: confusion matrices and per-class figures, by likelihood and from the generated answers."""
    best, views = best_run(runs), []
    base = baseline_of(best, runs) if best else None
    for run in runs:
        classified = items[run["name"]].classified if run["name"] in items else None
        if classified is None:
            continue
        classes = tuple(dict.fromkeys([*labels, *classified.classes]))
        kinds: list[tuple[str, Sequence[str | None] | None]] = [
            ("By label likelihood", classified.predicted),
            ("From generated answers", classified.generated_labels),
        ]
        tables = [
            {"title": title, **_confusion(classification_report(classified.labels, predicted, classes))}
            for title, predicted in kinds
            if predicted is not None
        ]
        views.append({"name": run["name"], "open": run is best or run is base, "tables": tables})
    return views


def _confusion(report: ClassificationReport) -> View:
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
    averages = [("macro average", report.macro), ("weighted average", report.weighted)]
    figures = [
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


def flips(folder: Path, runs: list[Run], items: dict[str, RunItems]) -> View | None:
    """The items that the best run answers and its base does not, and the reverse; None without both."""
    best = best_run(runs)
    base = baseline_of(best, runs) if best else None
    if best is None or base is None or best["name"] not in items or base["name"] not in items:
        return None
    before, after = items[base["name"]].classified, items[best["name"]].classified
    if before is None or after is None or before.ids != after.ids:
        return None
    if before.predicted is None or after.predicted is None:
        return None
    texts = {str(row.get("id")): row for _, row in read_lines(folder / "items.jsonl")}
    fixed: list[View] = []
    broken: list[View] = []
    for k, (key, label) in enumerate(zip(after.ids, after.labels, strict=True)):
        was, now = before.predicted[k] == label, after.predicted[k] == label
        if was != now:
            item = texts.get(key, {})
            row = {
                "text": _shown(item.get("input", f"item {key}")),
                "reference": _shown(item.get("reference") or label),
                "before": before.predicted[k] or "unparsable",
                "after": after.predicted[k] or "unparsable",
                "generated_before": _shown(before.generated[k]) if before.generated else None,
                "generated_after": _shown(after.generated[k]) if after.generated else None,
            }
            (fixed if now else broken).append(row)
    groups = [("Fixed", "wrong in the base, right in the run", fixed)]
    groups += [("Broken", "right in the base, wrong in the run", broken)]
    return {
        "base": base["name"],
        "run": best["name"],
        "generated": before.generated is not None or after.generated is not None,
        "groups": [
            {"title": title, "meaning": meaning, "count": len(rows), "rows": rows[:FLIPS_SHOWN]}
            for title, meaning, rows in groups
        ],
    }


def answers(folder: Path, runs: list[Run], items: dict[str, RunItems]) -> View | None:
    """The free answers of the base and the best run to the first test items; None where nothing was answered."""
    best = best_run(runs)
    base = baseline_of(best, runs) if best else None
    chosen = [(run["name"], items[run["name"]].similarity) for run in (base, best) if run and run["name"] in items]
    found = [(name, answered) for name, answered in chosen if answered is not None]
    if not found:
        return None
    known = [item for _, item in read_lines(folder / "items.jsonl") if str(item.get("id")) in found[0][1].ids]
    rows = [
        {
            "text": _shown(item.get("input", "")),
            "reference": _shown(item.get("reference", "")),
            "answers": [_answer(answered, answered.ids.index(str(item["id"]))) for _, answered in found],
        }
        for item in known[:ANSWERS_SHOWN]
    ]
    return {"names": [name for name, _ in found], "rows": rows}


def _answer(answered: Similarity, place: int) -> View:
    figures = f"ROUGE-L {words.number(answered.rouge_l[place])}, chrF {words.number(answered.chrf[place])}"
    cut = "" if answered.ended[place] else ", cut"
    return {"text": _shown(answered.answers[place]), "figures": figures + cut}


def _shown(text: Any) -> str:
    whole = text if isinstance(text, str) else words.setting(text)
    return whole if len(whole) <= TEXT_SHOWN else whole[:TEXT_SHOWN] + " …"


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


def costs(runs: list[Run]) -> list[View]:
    """What each tuned run cost; "–" for what was not measured."""
    return [
        {
            "name": run["name"],
            "values": [
                words.size(run.get("trainable_parameters")),
                words.size(run.get("steps")),
                words.size(run.get("train_tokens")),
                words.duration(run.get("train_seconds")),
                words.size(run.get("tokens_per_second")),
                words.memory(run.get("peak_memory_bytes")),
            ],
            "shared_with": ", ".join(run.get("shared_with") or []),
        }
        for run in runs
        if not run.get("baseline")
    ]


def facts(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Keys as words, values as text: data counts, environment."""
    return [
        (key.replace("_", " "), f"{value:,}" if type(value) is int else words.setting(value))
        for key, value in values.items()
        if value is not None
    ]
