"""Runs of several studies in the terminal, as wide as that is."""

from __future__ import annotations

import textwrap
from typing import Any

from pronk.compare import words
from pronk.compare.across_page import note_on_base
from pronk.compare.conclusion import conclusion
from pronk.compare.pairs import baseline_of, evaluated, figure, lower_is_better, plain_base, primary_metric
from pronk.compare.terminal import over_seeds
from pronk.data.terminal import COLUMNS, plain

View = dict[str, Any]
STUDY, VALUE = 16, 40
SHORTEST = 12  # the least room for names of runs
MOST_DIFFERENCES = 20


def across_summary(record: View, width: int = COLUMNS) -> str:
    """The ranking over all studies, what follows from it, and what differs between the studies. width: columns of the
    terminal."""
    metric = primary_metric(record["runs"])
    sign = 1 if lower_is_better(metric) else -1
    ranked = sorted(record["runs"], key=lambda run: (figure(run, metric) is None, sign * (figure(run, metric) or 0)))
    rows = [_row(run, record, metric) for run in ranked]
    title = words.METRICS[metric].split(" (")[0]
    table = _table(["study", "date", "run", title.lower(), "against its base"], rows, width)
    said = [sentence.striptags() for sentence in conclusion(record["runs"], record["comparisons"], record["items"])]
    if (count := len(record["comparisons"])) > 1:
        said.append(f"Verdicts allow for all {count:,} comparisons (Holm); intervals are 95% and unadjusted.")
    lines = [
        f"{len(record['studies'])} studies on the same {record['items']:,} test items",
        "",
        *table,
        "",
        *(line for sentence in said for line in textwrap.wrap(sentence, width)),
        *(line for note in record["notes"] for line in textwrap.wrap(note_on_base(note).striptags(), width)),
        *over_seeds(record["runs"], metric, record["comparisons"], width),
        *_differences(record, width),
    ]
    return plain("\n".join(lines))  # names and settings of a study may hold what steers a terminal


def _row(run: View, record: View, metric: str) -> list[str]:
    studies = run.get("studies") or [run["study"]]
    shown = words.short(studies[0], STUDY) if len(studies) == 1 else f"{len(studies)} studies"
    date = "" if len(studies) > 1 else run["created"][:10]
    return [shown, date, run["run"], words.metric_value(metric, figure(run, metric)), _against(run, record, metric)]


def _against(run: View, record: View, metric: str) -> str:
    if plain_base(run):
        return "(the base)"
    if not evaluated(run):
        return str(run.get("status"))
    base = baseline_of(run, record["runs"])
    for entry in record["comparisons"]:
        if base and (entry["a"], entry["b"], entry["metric"]) == (base["name"], run["name"], metric):
            return f"{words.number(entry['difference'], signed=True)} {words.VERDICTS[entry['verdict']]}"
    return "–"


def _table(head: list[str], rows: list[list[str]], width: int) -> list[str]:
    """Columns as wide as what is in them; the names of runs give way."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(5)]
    widths[2] = min(widths[2], max(SHORTEST, width - 8 - sum(widths[:2]) - sum(widths[3:])))
    lines = []
    for row in [head, *rows]:
        cells = [*row[:2], words.short(row[2], widths[2]), *row[3:]]
        cells = [cell.rjust(wide) if at == 3 else cell.ljust(wide)
                 for at, (cell, wide) in enumerate(zip(cells, widths, strict=True))]  # fmt: skip
        lines.append("  ".join(cells).rstrip())
    return lines


def _differences(record: View, width: int) -> list[str]:
    """What differs, a line for each, the studies in their order."""
    found = record["differences"]
    if not found:
        return ["", "The studies do not differ in recipe, data or environment."]
    labels = [words.short(one["label"], STUDY) for one in record["studies"]]
    lines = ["", f"What differs ({' / '.join(labels)}):"]
    for one in found[:MOST_DIFFERENCES]:
        short = {value: _value(value) for value in one["values"]}
        whole = len(set(short.values())) < len(short)  # else a difference would not show
        values = " / ".join(value if whole else short[value] for value in one["values"])
        lines += textwrap.wrap(f"{one['key']}: {values}", width, initial_indent="  ", subsequent_indent="    ")
    if len(found) > MOST_DIFFERENCES:
        lines.append(f"  and {len(found) - MOST_DIFFERENCES} more; --out FILE.html or --json has all")
    return lines


def _value(value: str) -> str:
    """Within 40 columns: of a path the end, of other texts the beginning."""
    if len(value) <= VALUE:
        return value or "–"
    return words.short(value, VALUE) if "/" in value and " " not in value else f"{value[: VALUE - 2]} …"
