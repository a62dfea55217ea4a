"""The answers that a contest is about: written once, kept in the study, gone on with where they broke off."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.ask.asking import Answer
from pronk.ask.dialogues import ask_dialogues
from pronk.ask.models import Model
from pronk.compare.contest import Contest, Matter
from pronk.compare.items import read_lines
from pronk.compare.votes import append_rows
from pronk.data.questions import Question
from pronk.data.words import counted
from pronk.errors import OptionError, StudyError
from pronk.recipe import Generation
from pronk.runs import disk_guard, one_writer

if TYPE_CHECKING:
    from rich.console import Console

SAMPLE = 2**20  # bytes at either end of a file of weights that tell it from others: training changes every tensor

Key = tuple[str, str]  # who answered (see `identity`), what was asked


def answers_file(study: Path) -> Path:
    """Where the answers of a study's contests are kept, whatever was asked and in which settings."""
    return study / "arena" / "answers.jsonl"


def make_contest(
    study: Path, models: Sequence[Model], questions: Sequence[Question], settings: Generation, source: str,
    console: Console,
) -> Contest | None:  # fmt: skip
    """All models' answers to all questions, each asked once in a study's life; None where Ctrl-C came first.

    What is there already, from the same weights in the same settings, is not asked again. Raises PronkError before any
    weights are loaded where something is wrong with models or questions.
    """
    from pronk.train.progress import say

    names = [model.name for model in models]
    if len(models) < 2:
        raise OptionError(f"a contest needs two models, found {names[0] if names else 'none'}; name one more")
    if not questions:
        raise OptionError("there is no question to ask")
    questions = list({question.id: question for question in questions}.values())  # each once
    path, keys = answers_file(study), [identity(model, settings) for model in models]
    kept = _read(path)
    every = len(models) * sum(len(question.turns) for question in questions)
    missing = sum(len(question.turns) - len(kept.get((key, question.id), ())) for key in keys for question in questions)
    if missing < every:
        say(console, f"{every - missing} of {counted(every, 'answer')} were written before")
    if missing:
        with disk_guard(path), one_writer(path):
            kept = _read(path)  # as it is now that nobody else writes
            if not _answer(models, keys, questions, settings, kept, path, console):
                return None
    matters = [
        Matter(one.id, one.turns, {name: kept[key, one.id] for name, key in zip(names, keys, strict=True)})
        for one in questions
    ]
    return Contest(tuple(names), tuple(matters), source, settings.model_dump())


def _answer(
    models: Sequence[Model], keys: Sequence[str], questions: Sequence[Question], settings: Generation,
    kept: dict[Key, tuple[str, ...]], path: Path, console: Console,
) -> bool:  # fmt: skip
    """Write the answers that are missing, into the file and into kept; whether Ctrl-C did not come first."""
    wanted = {
        (number, place): [Answer(models[number].name, question, text, "end", 0) for text in said]
        for number, key in enumerate(keys)
        for place, question in enumerate(questions)
        if len(said := kept.get((key, question.id), ())) < len(question.turns)
    }

    def keep(dialogues: dict[tuple[int, int], list[Answer]]) -> None:
        rows = [_row(keys[model], questions[place], answers) for (model, place), answers in dialogues.items()]
        append_rows(path, rows)
        kept.update({(row["identity"], row["question"]): tuple(row["answers"]) for row in rows})

    return not wanted or ask_dialogues(models, questions, wanted, settings, keep, console)


def identity(model: Model, settings: Generation) -> str:
    """What a model's answers hang on: base and types, how it is asked, its weights, how it writes; not its name."""
    recipe, folder = model.recipe, model.adapter.folder if model.adapter else None
    if folder is None and model.run is not None:  # all weights were trained
        folder = Path(recipe.base)
    base = model.origin or recipe.base
    parts = [base, recipe.quantize, recipe.train.dtype, asdict(model.form), settings.model_dump()]
    weights = [_sample(path) for path in sorted(folder.glob("*.safetensors"))] if folder else []
    return hashlib.sha256(json.dumps([*parts, weights]).encode()).hexdigest()[:16]


def _sample(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        digest = hashlib.sha256(f"{size}".encode() + file.read(SAMPLE))
        file.seek(max(0, size - SAMPLE))
        digest.update(file.read())
    return digest.hexdigest()


def _row(key: str, question: Question, answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "question": question.id,
        "identity": key,
        "model": answers[0].model,
        "answers": [answer.text for answer in answers],
    }


def _read(path: Path) -> dict[Key, tuple[str, ...]]:
    """The answers so far; a later line of a dialogue has more of its turns."""
    kept = {}
    for number, row in read_lines(path, half=True):
        texts = row.get("answers")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise StudyError(f"{path}, line {number}: `answers` must be a list of texts; move the file away")
        kept[str(row.get("identity")), str(row.get("question"))] = tuple(texts)
    return kept
