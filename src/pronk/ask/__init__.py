"""Questions to base and runs, side by side.

models.py        what was named: a run's folder, a study's, an adapter's, or a base
asking.py        all models over one base answer in one batch
kept.py          one model that stays in memory, to be asked again and again
shown.py         answers for the terminal, for JSON and for notebooks
dialogues.py     questions of several turns, each after the model's own answers
contest.py       the answers that are voted on, kept as they come
conversation.py  the same turn by turn, and while it is written
writing.py       the text of an answer that still grows
room.py          whether several bases fit into memory, and how long an answer will take
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.ask.asking import Answer, Answered, ask
from pronk.ask.models import find_models
from pronk.ask.shown import as_html, as_json, as_lines, as_text, records, show
from pronk.data.questions import read_questions
from pronk.errors import OptionError
from pronk.recipe import generation_settings
from pronk.runs import disk_guard, write_text

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Answer", "Answered", "as_html", "as_json", "as_lines", "as_text", "generate", "records", "show"]

DEFAULT_QUESTIONS = "english"


def generate(
    models: Sequence[str], questions: Sequence[str] | None, base: bool, prompt: str | None, overrides: Sequence[str],
    settings: Mapping[str, Any], out: Path | None, console: Console,
) -> Answered:  # fmt: skip
    """Answers of all models to all questions, also written to `out`, a .jsonl file, if that is given.

    questions: texts, files, or the names of samples; None for the English samples. settings: of
    recipe.Generation. Raises PronkError with one message, before any weights are loaded where that can be.
    """
    checked = generation_settings(settings)
    asked = read_questions([DEFAULT_QUESTIONS] if questions is None else questions)
    if not asked:
        raise OptionError("there is no question to ask")
    if out is not None and out.suffix != ".jsonl":
        raise OptionError(f"--out {out}: answers are written to a file ending in .jsonl")
    if out is not None and out.exists():
        raise OptionError(f"--out {out}: this file exists already; choose another name, or move it away first")
    answered = ask(find_models(models, base, prompt, overrides), asked, checked, console)
    if out is not None and answered.answers:
        with disk_guard(out):
            write_text(out, as_lines(answered))
    return answered
