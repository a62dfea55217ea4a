"""What models wrote when asked, side by side for people to read, below what each figure says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pronk.compare import words
from pronk.compare.flips import shown
from pronk.compare.items import FreeAnswers, RunItems, Similarity, read_lines
from pronk.compare.languages import Language
from pronk.compare.pairs import baseline_of, best_run

Run = dict[str, Any]
View = dict[str, Any]

ANSWERS_SHOWN = 10
ANSWERERS_SHOWN = 6  # models; beyond it nobody reads a table from left to right


def answers(folder: Path, runs: list[Run], items: dict[str, RunItems], t: Language) -> View | None:
    """The free answers to the first test items; None where nothing was answered.

    Of all models where `answers` was measured, the best run and its base first; else of these two.
    """
    found = [(name, written) for name in _readable(runs, items) if (written := _written(items[name])) is not None]
    if not found:
        return None
    left_out = max(0, len(found) - ANSWERERS_SHOWN)
    found = found[:ANSWERERS_SHOWN]
    known = [item for _, item in read_lines(folder / "items.jsonl") if str(item.get("id")) in found[0][1].ids]
    rows = [
        {
            "text": shown(item.get("input", "")),
            "reference": shown(item.get("reference", "")),
            "answers": [_answer(written, t, written.ids.index(str(item["id"]))) for _, written in found],
        }
        for item in known[:ANSWERS_SHOWN]
    ]
    compared = any(isinstance(written, Similarity) for _, written in found)
    return {"names": [name for name, _ in found], "rows": rows, "left_out": left_out, "compared": compared}


def _readable(runs: list[Run], items: dict[str, RunItems]) -> list[str]:
    """Whose answers stand there, in this order."""
    best = best_run(runs)
    base = baseline_of(best, runs) if best else None
    names = [run["name"] for run in (base, best) if run]
    if any(found.answered is not None for found in items.values()):
        names += [run["name"] for run in runs]
    return [name for name in dict.fromkeys(names) if name in items]


def _written(found: RunItems) -> Similarity | FreeAnswers | None:
    return found.similarity or found.answered


def _answer(written: Similarity | FreeAnswers, t: Language, place: int) -> View:
    """An answer, and below it what is to be known of it."""
    text, said = written.answers[place], []
    if isinstance(written, Similarity):
        said.append(
            t("answers.figures", rouge=words.number(written.rouge_l[place]), chrf=words.number(written.chrf[place]))
        )
    if not text.strip():
        said.append(t("answers.empty"))
    if not written.ended[place]:
        said.append(t("answers.cut"))
    return {"text": shown(text), "figures": ", ".join(said)}
