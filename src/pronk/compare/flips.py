"""What changed from the untouched base to a run, item by item and class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pronk.compare import words
from pronk.compare.items import Classified, RunItems, read_lines
from pronk.compare.languages import Language
from pronk.compare.pairs import baseline_of, best_run

Run = dict[str, Any]
View = dict[str, Any]
Answers = tuple[str | None, ...]

FLIPS_SHOWN = 30
TEXT_SHOWN = 600  # characters of an item's text or answer
BAR = 60.0  # half the width of a drawn bar, in SVG units


@dataclass(frozen=True)
class ClassFlips:
    """How many items of a class (all: every class) are right in the base, became right, became wrong."""

    label: str
    items: int
    before: int
    gained: int
    lost: int

    @property
    def after(self) -> int:
        """How many the run has right."""
        return self.before + self.gained - self.lost


def flips_by_class(
    labels: Sequence[str], before: Sequence[Any], after: Sequence[Any], classes: Sequence[str]
) -> list[ClassFlips]:
    """The flips of each class in the order given, classes without items left out; all sequences (items,)."""
    found = []
    for name in classes:
        pairs = [
            (was == name, now == name) for label, was, now in zip(labels, before, after, strict=True) if label == name
        ]
        if pairs:
            right = sum(was for was, _ in pairs)
            found.append(ClassFlips(name, len(pairs), right, pairs.count((False, True)), pairs.count((True, False))))
    return found


def class_views(runs: list[Run], items: dict[str, RunItems], labels: Sequence[str], t: Language) -> list[View]:
    """A table for each tuned run beside its base, the best run's open."""
    best, views = best_run(runs), []
    for run in runs:
        found = None if run.get("baseline") else _before_and_after(run, runs, items)
        if found is None:
            continue
        base, classified, before, after, kind = found
        classes = tuple(dict.fromkeys([*labels, *classified.classes]))
        counts = flips_by_class(classified.labels, before, after, classes)
        widest = max((max(one.gained, one.lost) for one in counts), default=0) or 1
        gained, lost = sum(one.gained for one in counts), sum(one.lost for one in counts)
        whole = ClassFlips(t("classes.all"), len(after), sum(one.before for one in counts), gained, lost)
        rows = [_class_row(one, widest) for one in counts]
        views.append({
            "name": run["name"], "base": base["name"], "kind": t(f"confusion.{kind}"), "open": run is best,
            "summary": t("classes.summary", gained=gained, lost=lost), "rows": rows, "total": _class_row(whole, widest),
        })  # fmt: skip
    return views


def _class_row(one: ClassFlips, widest: int) -> View:
    numbers = {"items": one.items, "before": one.before, "gained": one.gained, "lost": one.lost, "after": one.after}
    scale = BAR / widest
    return {
        "label": one.label,
        **{key: f"{value:,}" for key, value in numbers.items()},
        "net": f"{one.after - one.before:+,}".replace("-", "−") if one.after != one.before else "0",
        "left": round(scale * one.lost, 1),
        "right": round(scale * one.gained, 1),
    }


def _before_and_after(
    run: Run, runs: list[Run], items: dict[str, RunItems]
) -> tuple[Run, Classified, Answers, Answers, str] | None:
    """A run's base, the run's own classification, what each said, and how: by likelihood, else as generated."""
    base = baseline_of(run, runs)
    if base is None or base["name"] not in items or run["name"] not in items:
        return None
    was, now = items[base["name"]].classified, items[run["name"]].classified
    if was is None or now is None or was.ids != now.ids:
        return None
    if was.predicted is not None and now.predicted is not None:
        return base, now, was.predicted, now.predicted, "likelihood"
    if was.generated_labels is not None and now.generated_labels is not None:
        return base, now, was.generated_labels, now.generated_labels, "generated"
    return None


def flips(folder: Path, runs: list[Run], items: dict[str, RunItems], t: Language) -> View | None:
    """The items that the best run answers and its base does not, and the reverse; None without both."""
    best = best_run(runs)
    found = _before_and_after(best, runs, items) if best else None
    if best is None or found is None:
        return None
    base, after, was, now, kind = found
    before = items[base["name"]].classified
    wrote = (before.generated if before else None, after.generated)
    texts = {str(row.get("id")): row for _, row in read_lines(folder / "items.jsonl")}
    groups: dict[bool, list[View]] = {True: [], False: []}
    for k, (key, label) in enumerate(zip(after.ids, after.labels, strict=True)):
        if (was[k] == label) != (now[k] == label):
            item = texts.get(key, {})
            row = {
                "text": shown(item.get("input", t("flips.item", id=key))),
                "reference": shown(item.get("reference") or label),
                "answers": [
                    {"label": said[k] or t("unparsable"), "wrote": shown(text[k]) if text else None}
                    for said, text in zip((was, now), wrote, strict=True)
                ],
            }
            groups[now[k] == label].append(row)
    return {
        "base": base["name"],
        "run": best["name"],
        "kind": t(f"flips.{kind}"),
        "groups": [
            {"title": t(f"flips.{name}"), "meaning": t(f"flips.{name}-meaning"), "count": len(rows),
             "rows": rows[:FLIPS_SHOWN]}
            for name, rows in (("fixed", groups[True]), ("broken", groups[False]))
        ],
    }  # fmt: skip


def shown(text: Any) -> str:
    """A text from the data or a model, cut where it is very long."""
    whole = text if isinstance(text, str) else words.setting(text)
    return whole if len(whole) <= TEXT_SHOWN else whole[:TEXT_SHOWN] + " …"
