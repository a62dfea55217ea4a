"""What a study found, in the terminal: the ranking and the verdicts against the base, as wide as that is."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from pronk.compare import words
from pronk.compare.pairs import baseline_of, evaluated, figure, plain_base, primary_metric
from pronk.compare.seeds import groups
from pronk.data.terminal import COLUMNS as USUAL

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


LAST, SHORTEST = "against base", 20  # the last column's title; the least room for names


def terminal_summary(study: dict[str, Any], width: int = USUAL) -> str:
    """Runs by rank, each with its figures and its verdict against its base. width: columns of the terminal; figures
    that find no place are named below the table."""
    runs, comparisons = study["runs"], study.get("comparisons") or []
    metric = primary_metric(runs)
    titles = COLUMNS if any(figure(run, name) is not None for run in runs for name in COLUMNS) else UNSCORED
    sign = 1 if metric == "nll" else -1
    ranked = sorted(runs, key=lambda run: (figure(run, metric) is None, sign * (figure(run, metric) or 0)))
    columns = {
        name: [titles[name], *(words.metric_value(name, figure(run, name)) for run in ranked)]
        for name in titles
        if any(figure(run, name) is not None for run in runs)
    }
    least = min(SHORTEST, max((len(run["name"]) for run in runs), default=0))
    left_out = [titles[name] for name in _without_room(columns, metric, width - least)]
    kept = [column for name, column in columns.items() if titles[name] not in left_out]
    room = max(SHORTEST, width - 2 - sum(_wide(column) + 2 for column in kept) - len(LAST))
    names = ["run", *(words.short(run["name"], room) for run in ranked)]
    verdicts = [LAST, *(_verdict(run, runs, metric, comparisons) for run in ranked)]
    table = [[cell.ljust(_wide(names)) for cell in names], *([c.rjust(_wide(one)) for c in one] for one in kept)]
    lines = [_line(list(cells), width) for cells in zip(*table, verdicts, strict=True)]
    if left_out:
        lines += textwrap.wrap(f"No room for {', '.join(left_out)}: the report has them.", width)
    return "\n".join([*lines, *over_seeds(runs, metric, comparisons, width), *_overfitting(runs, width)])


def _wide(column: Sequence[str]) -> int:
    return max(map(len, column))


def _without_room(columns: dict[str, list[str]], metric: str, room: int) -> list[str]:
    """The metrics that find no place behind the names, beside verdicts and the metric that ranks; the last ones
    first."""
    ranks = "perplexity" if metric == "nll" else metric
    taken = 2 + len(LAST) + sum(_wide(column) + 2 for column in columns.values())
    gone: list[str] = []
    for name in reversed(columns):
        if taken > room and name != ranks:
            gone.insert(0, name)
            taken -= _wide(columns[name]) + 2
    return gone


def _line(cells: list[str], width: int) -> str:
    """How many items would tell a tie is said where there is room."""
    line = "  ".join(cells)
    return line if len(line) <= width else "  ".join([*cells[:-1], cells[-1].partition(", ")[0]])


def over_seeds(
    runs: list[dict[str, Any]], metric: str, comparisons: list[dict[str, Any]], width: int = USUAL
) -> list[str]:
    """A line for each group of runs that differ in their seed alone: mean, deviation, and verdict on its base."""
    rows = []
    for group in groups([run for run in runs if evaluated(run)]):
        values = [value for run in group.runs if (value := figure(run, metric)) is not None]
        if len(values) < 2:
            continue
        entry = next((c for c in comparisons if c["b"] == group.name and c["metric"] == metric), None)
        against = words.VERDICTS[entry["verdict"]] if entry and "base" in entry["reasons"] else "–"
        spread = f"{words.number(float(np.mean(values)))} ± {words.number(float(np.std(values, ddof=1)))}"
        rows.append((words.short(group.name, max(SHORTEST, width - 36)), spread, against))
    if not rows:
        return []
    left = max(len(name) for name, _, _ in rows)
    head = (
        f"{words.METRICS[metric].split(' (')[0]} over seeds, mean ± standard deviation, and the mean against its base:"
    )
    return [
        "",
        *textwrap.wrap(head, width),
        *(f"{name.ljust(left)}  {spread}  {against}" for name, spread, against in rows),
    ]


def _overfitting(runs: list[dict[str, Any]], width: int) -> list[str]:
    """A line for each run that overfits, or would go on improving."""
    lines = []
    for run in runs:
        found = run.get("overfitting")
        if not isinstance(found, dict):
            continue
        verdict = found.get("verdict")
        if verdict == "overfitting":
            said = f"overfits after epoch {words.epoch(found['epoch'])}, validation loss rose by "
            lines.append(f"{said}{words.number(found['rise'])}: {words.short(run['name'], max(SHORTEST, width - 58))}")
        elif verdict == "still improving":
            lines.append(
                f"still improving at its end, train longer: {words.short(run['name'], max(SHORTEST, width - 44))}"
            )
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
