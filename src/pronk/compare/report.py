"""report.html: one file that says what a study found, without network, scripts or fonts of its own."""

import re
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pronk.compare import arena_words, axis_views, conclusion, flips, quality, sections, side_by_side, words
from pronk.compare.baseline import intervals
from pronk.compare.items import RunItems, read_items, read_study
from pronk.compare.judged_shown import judged_views
from pronk.compare.languages import LANGUAGES, Language, language
from pronk.compare.pairs import compare_runs, evaluated, primary_metric
from pronk.compare.seed_view import seed_view
from pronk.compare.seeds import seed_noise
from pronk.compare.templates import template
from pronk.runs import write_text

_HERE = Path(__file__).parent
View = dict[str, Any]


def write_report(study_folder: Path, code: str | None = None, items: dict[str, RunItems] | None = None) -> Path:
    """Render the study in `study_folder` into its report.html, atomically, and return that path.

    code: of the language, `en` or `ko`; that of the report which is there when absent. items: the runs' item results by
    name, read when absent. Comparisons come from study.json, or are made where it has none. Everything from the study
    is escaped: texts, names and generated answers may hold markup. StudyError for a folder that cannot be read,
    OptionError for a language that there is not.
    """
    page = render(study_folder, code or report_language(study_folder), items)
    target = study_folder / "report.html"
    write_text(target, page)
    return target


def report_language(study_folder: Path) -> str:
    """The code of the language in which a study's report is written; `en` where there is none."""
    try:
        with (study_folder / "report.html").open(encoding="utf-8") as page:
            found = re.search(r'<html lang="(\w+)">', page.read(200))
    except (OSError, UnicodeDecodeError):
        found = None
    return found[1] if found and found[1] in LANGUAGES else "en"


def render(study_folder: Path, code: str = "en", items: dict[str, RunItems] | None = None) -> str:
    """The page as text; the same text for the same folder and language."""
    t = language(code)
    study = read_study(study_folder)
    runs: list[dict[str, Any]] = study["runs"]
    if items is None:
        items = {run["name"]: read_items(study_folder, run["name"]) for run in runs if evaluated(run)}
    comparisons = study.get("comparisons")
    if comparisons is None:
        comparisons = compare_runs(runs, items)
    return template("report.html").render(
        t=t,
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        name=study.get("name") or study_folder.resolve().name,
        created=str(study.get("created") or "")[:16].replace("T", " "),
        **_head(study, runs, comparisons, items, t),
        **_settings(study_folder, runs, comparisons, items, t),
        **_tables(study_folder, study, comparisons, items, t),
        judged=judged_views(study, t),
        arena=arena_words.section(study.get("arena"), t.code),
    )


def _head(study: View, runs: list[View], comparisons: list[View], items: dict[str, RunItems], t: Language) -> View:
    """The conclusion, what it does not say, and the ranking."""
    count = _items_evaluated(study, items)
    return {
        "conclusion": conclusion.conclusion(runs, comparisons, count, t),
        "limits": conclusion.limits(runs, comparisons, count, _wrote(items), t),
        "ranking": sections.ranking(runs, comparisons, t),
        "unfinished": sections.unfinished(runs, t),
    }


def _settings(folder: Path, runs: list[View], comparisons: list[View], items: dict[str, RunItems], t: Language) -> View:
    """What the settings do, and what they cost."""
    metric = primary_metric(runs)
    figures = axis_views.figures_of(runs, metric, {name: intervals(found) for name, found in items.items()})
    return {
        "metric": t.metric(metric),
        "axes": axis_views.axis_views(folder, runs, comparisons, metric, figures, t),
        "grid": axis_views.grid_view(runs, comparisons, metric, figures, t),
        "seeds": seed_view(seed_noise(runs, items), metric, t),
        "quality": quality.quality_view(runs, comparisons, metric, figures, t),
        "settings": sections.settings(runs),
        "costs": sections.costs(runs, t),
    }


def _tables(folder: Path, study: View, comparisons: list[View], items: dict[str, RunItems], t: Language) -> View:
    """Comparisons, curves, and what the runs answered."""
    runs, labels = study["runs"], study.get("labels") or []
    total = study.get("total_seconds")
    return {
        "tables": sections.comparisons_by_metric(comparisons, t),
        "family": len(comparisons),
        "curves": sections.curves(folder, runs, t),
        "overfitting": sections.overfitting(runs, t),
        "confusions": sections.confusions(runs, items, labels, t),
        "answers": side_by_side.answers(folder, runs, items, t),
        "classes": flips.class_views(runs, items, labels, t),
        "flips": flips.flips(folder, runs, items, t),
        "total": "" if total is None else words.duration(total, t),
        "data": sections.facts(study.get("data") or {}, t),
        "environment": sections.facts(study.get("environment") or {}, t),
    }


def _wrote(items: dict[str, RunItems]) -> bool:
    """Whether answers that runs wrote themselves were scored."""
    return any(
        found.similarity is not None
        or found.exact is not None
        or (found.classified is not None and found.classified.generated_labels is not None)
        for found in items.values()
    )


def _items_evaluated(study: dict[str, Any], items: dict[str, RunItems]) -> int | None:
    """How many items the runs answered; None where there are no item results."""
    for found in items.values():
        if found.ids is not None:
            return len(found.ids)
    count = (study.get("data") or {}).get("test")
    return count if isinstance(count, int) else None
