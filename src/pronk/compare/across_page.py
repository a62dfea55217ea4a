"""The page of `pronk compare`: one file, of the same pieces as a study's report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from pronk.compare import sections, words
from pronk.compare.conclusion import conclusion
from pronk.compare.languages import ENGLISH, Language, language
from pronk.compare.pairs import primary_metric
from pronk.compare.seed_view import seed_view
from pronk.compare.templates import template
from pronk.runs import disk_guard, write_text

_HERE = Path(__file__).parent
View = dict[str, Any]


def write_across(record: View, target: Path, code: str = "en") -> None:
    """Write what `across.compare_across` found as one HTML file, whole or not at all; code: `en` or `ko`."""
    page = render_across(record, code)
    with disk_guard(target.parent):
        write_text(target, page)


def render_across(record: View, code: str = "en") -> str:
    """The page as text; everything from the studies is escaped. OptionError for a language that there is not."""
    t = language(code)
    runs, comparisons = record["runs"], record["comparisons"]
    return template("across.html").render(
        t=t,
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        title=t("across.title", n=len(record["studies"])),
        conclusion=conclusion(runs, comparisons, record["items"], t),
        ranking=_ranking(record, t),
        primary=t.metric_inside(primary_metric(runs)),
        items=t.count("item", record["items"]),
        tables=sections.comparisons_by_metric(comparisons, t),
        family=len(comparisons),
        studies=[{**one, "created": _date(one["created"])} for one in record["studies"]],
        differences=record["differences"],
        notes=[note_on_base(note, t) for note in record["notes"]],
        seeds=seed_view(record["seed_noise"], primary_metric(runs), t),
        settings=sections.settings(runs),
        costs=sections.costs(runs, t),
        unfinished=sections.unfinished(runs, t),
    )


def note_on_base(note: View, t: Language = ENGLISH) -> Markup:
    """A sentence on a base that did not come to the same figures in all studies."""
    figures = Markup(", ").join(
        t("across.figure", study=study, value=words.metric_value(note["metric"], value))
        for study, value in note["figures"]
    )
    blanks = {"row": t.row(note["row"]), "study": note["study"], "metric": t.metric_inside(note["metric"])}
    return t("across.base", figures=figures, **blanks)


def _ranking(record: View, t: Language) -> View:
    """The report's ranking, each row with its study and date."""
    found = sections.ranking(record["runs"], record["comparisons"], t)
    by_name = {run["name"]: run for run in record["runs"]}
    rows = []
    for row in found["rows"]:
        run = by_name[row["name"]]
        several = len(run.get("studies") or ()) > 1
        study = t("across.all", n=len(run["studies"])) if several else run["study"]
        shown = "" if several else run["created"][:10]
        rows.append({**row, "study": study, "created": shown, "run": t.row(run["run"])})
    return {**found, "rows": rows}


def _date(created: str) -> str:
    return created[:16].replace("T", " ")
