"""From the item results in a study's folder to its figures: metrics, comparisons, study.json and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pronk.compare.items import read_items
from pronk.compare.overfitting import overfitting
from pronk.compare.pairs import compare_runs, evaluated
from pronk.compare.report import write_report
from pronk.compare.summary import run_metrics
from pronk.runs import StudyFolder


def conclude_beside_others(folder: StudyFolder, own: dict[str, Any]) -> Path:
    """`conclude` with these keys of study.json; what judges and people have added in the meantime stays."""
    with folder.changing():
        known = folder.read() if (folder.path / "study.json").is_file() else {}
        return conclude(folder, known | own)


def conclude(folder: StudyFolder, summary: dict[str, Any], language: str | None = None) -> Path:
    """Write study.json and report.html, from the item results alone. summary: what else study.json says. language: of
    the report; as it was when absent.

    Of a run that lies elsewhere (`source`), what its own study said of overfitting stays. Raises StudyError where
    item results cannot be read.
    """
    items = {run["name"]: read_items(folder.path, run["name"]) for run in summary["runs"] if evaluated(run)}
    for run in summary["runs"]:
        run["metrics"] = run_metrics(items[run["name"]]) if run["name"] in items else {}
        if not run["baseline"] and "source" not in run:
            run["overfitting"] = overfitting(folder.path, run["name"])
    summary["comparisons"] = compare_runs(summary["runs"], items)
    folder.write(summary)
    return write_report(folder.path, language, items)
