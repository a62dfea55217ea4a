"""report.html: one file that says what a study found, without network, scripts or fonts of its own."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pronk.compare import arena_words, sections, words
from pronk.compare.items import RunItems, read_items, read_study
from pronk.compare.pairs import compare_runs, evaluated, primary_metric
from pronk.runs import write_text

_HERE = Path(__file__).parent


def write_report(study_folder: Path) -> Path:
    """Render the study in `study_folder` into its report.html, atomically, and return that path.

    Comparisons come from study.json, or are made where it has none. Everything from the study is escaped:
    texts, names and generated answers may hold markup. StudyError for a folder that cannot be read.
    """
    page = render(study_folder)
    target = study_folder / "report.html"
    write_text(target, page)
    return target


def render(study_folder: Path) -> str:
    """The page as text; the same text for the same folder."""
    study = read_study(study_folder)
    runs: list[dict[str, Any]] = study["runs"]
    items = {run["name"]: read_items(study_folder, run["name"]) for run in runs if evaluated(run)}
    comparisons = study.get("comparisons")
    if comparisons is None:
        comparisons = compare_runs(runs, items)
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    curves = sections.curves(study_folder, runs)
    for chart in curves["charts"] if curves else []:
        chart["svg"] = Markup(chart["svg"])  # ours: charts.py lets no text of the study into it
    return environment.get_template("report.html").render(
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        name=study.get("name") or study_folder.resolve().name,
        created=str(study.get("created") or "")[:16].replace("T", " "),
        conclusion=words.conclusion(runs, comparisons, _items_evaluated(study, items)),
        ranking=sections.ranking(runs, comparisons),
        tables=sections.comparisons_by_metric(comparisons),
        family=len(comparisons),
        curves=curves,
        arena=arena_words.section(study.get("arena")),
        overfitting=sections.overfitting(runs),
        confusions=sections.confusions(runs, items, study.get("labels") or []),
        answers=sections.answers(study_folder, runs, items),
        flips=sections.flips(study_folder, runs, items),
        settings=sections.settings(runs),
        costs=sections.costs(runs),
        total=words.duration(study["total_seconds"]) if study.get("total_seconds") is not None else "",
        data=sections.facts(study.get("data") or {}),
        environment=sections.facts(study.get("environment") or {}),
        unfinished=[run for run in runs if not evaluated(run)],
        primary=words.METRICS[primary_metric(runs)].split(" (")[0].lower(),
    )


def _items_evaluated(study: dict[str, Any], items: dict[str, RunItems]) -> int | None:
    """How many items the runs answered; None where there are no item results."""
    for found in items.values():
        if found.ids is not None:
            return len(found.ids)
    count = (study.get("data") or {}).get("test")
    return count if isinstance(count, int) else None
