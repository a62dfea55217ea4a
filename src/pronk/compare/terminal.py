"""What a study found, in the terminal: the ranking and the verdicts against the base, within 80 columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from pronk.compare import words
from pronk.compare.pairs import baseline_of, evaluated, figure, plain_base, primary_metric
from pronk.compare.seeds import groups

COLUMNS = {
    "accuracy": "accuracy",
    "generated_accuracy": "generated",
    "macro_f1": "macro-F1",
    "choice_accuracy": "choice",
    "choice_accuracy_normalised": "by length",
    "exact_match": "exact",
    "perplexity": "perplexity",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "forgetting_perplexity": "general",
}


UNSCORED = {"answer_length": "characters", "empty_answers": "empty", "unended": "without an end"}


def terminal_summary(study: dict[str, Any]) -> str:
    """Runs by rank, each with its figures and its verdict against its base."""
    runs = study["runs"]
    metric = primary_metric(runs)
    titles = COLUMNS if any(figure(run, name) is not None for run in runs for name in COLUMNS) else UNSCORED
    shown = [name for name in titles if any(figure(run, name) is not None for run in runs)]
    sign = 1 if metric == "nll" else -1
    ranked = sorted(runs, key=lambda run: (figure(run, metric) is None, sign * (figure(run, metric) or 0)))
    rows = [[*(titles[name] for name in shown), "against base"]]
    for run in ranked:
        values = [words.metric_value(name, figure(run, name)) for name in shown]
        rows.append([*values, _verdict(run, runs, metric, study.get("comparisons") or [])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(shown))]
    room = max(20, 78 - sum(width + 2 for width in widths) - len("against base"))
    names = ["run", *(words.short(run["name"], room) for run in ranked)]
    left = max(map(len, names))
    lines = [
        _line([name.ljust(left), *(cell.rjust(width) for cell, width in zip(row, [*widths, 0], strict=True))])
        for name, row in zip(names, rows, strict=True)
    ]
    return "\n".join([*lines, *over_seeds(runs, metric, study.get("comparisons") or []), *_overfitting(runs)])


def _line(cells: list[str]) -> str:
    """Within 80 columns: how many items would tell a tie is said where there is room."""
    line = "  ".join(cells)
    return line if len(line) <= 80 else "  ".join([*cells[:-1], cells[-1].partition(", ")[0]])


def over_seeds(runs: list[dict[str, Any]], metric: str, comparisons: list[dict[str, Any]]) -> list[str]:
    """A line for each group of runs that differ in their seed alone: mean, deviation, and verdict on its base."""
    rows = []
    for group in groups([run for run in runs if evaluated(run)]):
        values = [value for run in group.runs if (value := figure(run, metric)) is not None]
        if len(values) < 2:
            continue
        entry = next((c for c in comparisons if c["b"] == group.name and c["metric"] == metric), None)
        against = words.VERDICTS[entry["verdict"]] if entry and "base" in entry["reasons"] else "–"
        spread = f"{words.number(float(np.mean(values)))} ± {words.number(float(np.std(values, ddof=1)))}"
        rows.append((words.short(group.name, 44), spread, against))
    if not rows:
        return []
    left = max(len(name) for name, _, _ in rows)
    head = (
        f"{words.METRICS[metric].split(' (')[0]} over seeds, mean ± standard deviation, and the mean against its base:"
    )
    return ["", head, *(f"{name.ljust(left)}  {spread}  {against}" for name, spread, against in rows)]


def _overfitting(runs: list[dict[str, Any]]) -> list[str]:
    """A line for each run that overfits, or would go on improving."""
    lines = []
    for run in runs:
        found = run.get("overfitting")
        if not isinstance(found, dict):
            continue
        verdict = found.get("verdict")
        if verdict == "overfitting":
            said = f"overfits after epoch {words.epoch(found['epoch'])}, validation loss rose by "
            lines.append(f"{said}{words.number(found['rise'])}: {words.short(run['name'], 22)}")
        elif verdict == "still improving":
            lines.append(f"still improving at its end, train longer: {words.short(run['name'], 36)}")
    return lines


def _verdict(run: dict[str, Any], runs: list[dict[str, Any]], metric: str, comparisons: list[dict[str, Any]]) -> str:
    if plain_base(run):
        return "(the base)"
    if run.get("status") not in (None, "finished", "stopped_early"):
        return str(run["status"])
    base = baseline_of(run, runs)
    for entry in comparisons:
        if base and entry["metric"] == metric and (entry["a"], entry["b"]) == (base["name"], run["name"]):
            needed = entry.get("items_needed")
            return words.VERDICTS[entry["verdict"]] + (f", {words.about(needed)} items to tell" if needed else "")
    return "not assessed"
