"""Which format a source has, where the recipe does not say: found out from its columns, or asked.

A format fits if the columns of its fields are there. What else the recipe says counts too: labels and a
balanced split are for classify alone, an instruction for classify, choice and pairs. Lists of turns are told
apart by their keys, choices by being a list of texts. Plain text fits only a file that has nothing but the
text. One format that fits is taken, and
told; with none or several the message says which lines to write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pronk.data.choices import has_choices
from pronk.data.formats import FIELDS, OPTIONAL_FIELD, TURNS
from pronk.data.tables import named_sources, open_table
from pronk.data.turns import KEYS
from pronk.data.words import quoted
from pronk.errors import DataError
from pronk.recipe import Data, Format, Recipe, Source

Tell = Callable[[str], None]

MEANINGS: dict[Format, str] = {
    "classify": "a text and its label",
    "choice": "a question, its choices and the answer",
    "alpaca": "an instruction, its input and the output",
    "pairs": "a prompt and its response",
    "messages": "a list of {role, content}",
    "sharegpt": "a list of {from, value}",
    "text": "plain text to go on with",
}
TURN_FORMATS = ("messages", "sharegpt")
# Names under which columns often come; used in questions to people only, never to decide.
USUAL_NAMES = {
    "prompt": ("prompt", "question", "query", "instruction", "input", "document", "article", "source"),
    "response": ("response", "answer", "completion", "output", "summary", "target", "chosen"),
    "text": ("text", "sentence", "content", "review", "headline", "document", "body"),
    "label": ("label", "labels", "sentiment", "class", "category", "topic"),
    "question": ("question", "query", "prompt"),
    "choices": ("choices", "options"),
    "answer": ("answer", "answerkey", "answer_idx", "answer_index", "correct", "target", "label"),
    "instruction": ("instruction", "prompt", "question"),
    "output": ("output", "response", "answer", "completion"),
    "messages": ("messages", "conversation", "conversations", "dialog", "dialogue", "chat"),
    "conversations": ("conversations", "conversation", "messages", "dialog", "dialogue", "chat"),
}


@dataclass(frozen=True)
class Found:
    """A format that fits, with the columns that have to be named for it."""

    format: Format
    columns: dict[str, str]


def with_formats(data: Data, tell: Tell = lambda _: None) -> Data:
    """The section with every source's format known. Raises DataError with the question, RecipeError as below."""
    return with_found_formats(Recipe(data=data), tell).data


def with_found_formats(recipe: Recipe, tell: Tell = lambda _: None) -> Recipe:
    """The recipe with every format known, what was found told, and everything that hangs on it checked again.

    Raises DataError if a source cannot be opened or leaves a doubt, RecipeError if the format that is found does
    not go with the rest of the recipe.
    """
    data = recipe.data
    if all(source.format for source in data.sources):
        return recipe
    found = [_found(data, source, name, tell) for source, name in named_sources(data)]
    first = found[0]
    if all(one == first for one in found) and all(source.format is None for source in data.sources):
        values: dict[str, Any] = {"data.format": first.format, "data.columns": first.columns}
    else:
        sources = [
            source.model_copy(update={"format": one.format, "columns": one.columns}).model_dump()
            for source, one in zip(data.sources, found, strict=True)
        ]
        values = {"data.source": sources}
    return recipe.with_values(values, f"with the format {first.format}, found from the columns")


@dataclass(frozen=True)
class Look:
    """A source's name, columns and first row; the formats that fit, and those that others give such columns."""

    name: str
    columns: tuple[str, ...]
    first: Mapping[str, Any]
    fitting: tuple[Found, ...]
    usual: tuple[Found, ...]


def look_at(data: Data) -> Look:
    """What the first source of a section could be. Raises DataError if it cannot be opened or is empty."""
    source, name = named_sources(data)[0]
    table = open_table(source, name, data)
    first = next(table.rows, None)
    if first is None:
        raise DataError(f"{source.path or name}: the {'file' if source.path else 'data set'} has no rows")
    columns = tuple(table.columns or first.values)
    fitting = list(_fitting(data, source.columns or {}, first.values, columns))
    # without an input, alpaca is pairs by other names
    named = [f for f in FIELDS if f not in TURN_FORMATS and (f != "alpaca" or OPTIONAL_FIELD in columns)]
    usual = [one for format in named if (one := _usual(format, columns))]
    known = {found.format for found in fitting}
    return Look(name, columns, first.values, tuple(fitting), tuple(one for one in usual if one.format not in known))


def _found(data: Data, source: Source, name: str, tell: Tell) -> Found:
    if source.format:
        return Found(source.format, source.columns or {})
    table = open_table(source, name, data)
    first = next(table.rows, None)
    if first is None:
        raise DataError(f"{source.path or name}: the {'file' if source.path else 'data set'} has no rows")
    columns = table.columns or tuple(first.values)
    fitting = list(_fitting(data, source.columns or {}, first.values, columns))
    if len(fitting) != 1:
        raise DataError(_question(data, name, columns, fitting))
    fields = [fitting[0].columns.get(field, field) for field in FIELDS[fitting[0].format]]
    used = [column for column in fields if column in columns]
    tell(f"{name}: read as {fitting[0].format}, from the column{'s' * (len(used) > 1)} {quoted(used)}")
    return fitting[0]


def _fitting(data: Data, named: dict[str, str], first: Mapping[str, Any], columns: Sequence[str]) -> Iterator[Found]:
    """Every format that fits; plain text only if nothing else does."""
    structured = [*_with_texts(named, columns), *_with_choices(named, first), *_with_turns(named, first)]
    allowed = [found for found in structured if found.format in _allowed(data)]
    yield from allowed
    field = named.get("text", "text")
    alone = list(columns) == [field] or ("text" in named and field in columns)
    if not structured and alone and set(named) <= {"text"} and "text" in _allowed(data):
        yield Found("text", named)


def _allowed(data: Data) -> set[Format]:
    """The formats that the other keys of the recipe leave open."""
    if data.labels is not None or data.split.balanced:
        return {"classify"}
    if data.instruction is not None:
        return {"classify", "choice", "pairs"}
    return set(FIELDS) - ({"text"} if data.system is not None else set())


def _with_texts(named: dict[str, str], columns: Sequence[str]) -> Iterator[Found]:
    formats: tuple[Format, ...] = ("classify", "alpaca", "pairs")
    for format in formats:
        fields = FIELDS[format]
        needed = [named.get(field, field) for field in fields if field != OPTIONAL_FIELD]
        if set(named) <= set(fields) and set(needed) <= set(columns):
            yield Found(format, named)


def _with_choices(named: dict[str, str], first: Mapping[str, Any]) -> Iterator[Found]:
    """Multiple choice: its columns are there, and the choices are a list."""
    question, choices, answer = (named.get(field, field) for field in FIELDS["choice"])
    if set(named) <= set(FIELDS["choice"]) and {question, answer} <= set(first) and has_choices(first.get(choices)):
        yield Found("choice", named)


def _with_turns(named: dict[str, str], first: Mapping[str, Any]) -> Iterator[Found]:
    """Lists of turns in the first row, in whatever column they stand."""
    if set(named) - TURNS:
        return
    for column, value in first.items():
        turn = value[0] if isinstance(value, list) and value else None
        for format, keys in KEYS.items():
            (field,) = FIELDS[format]
            if isinstance(turn, dict) and set(keys) <= set(turn) and column == named.get(field, column):
                yield Found(format, {} if column == field else {field: column})


# --- the question ------------------------------------------------------------------------------


def _question(data: Data, name: str, columns: Sequence[str], fitting: Sequence[Found]) -> str:
    """What to write, when no format or more than one fits."""
    shown = f"its columns are {quoted(columns)}"
    if fitting:
        offers, why = list(fitting), f"{name} can be read in more than one way: {shown}"
    else:
        usual = [_usual(format, columns) for format in FIELDS if format in _allowed(data)]
        offers, why = [one for one in usual if one], f"{name} does not say which format it has: {shown}"
    if not offers:
        offers = [Found(f, dict.fromkeys(FIELDS[f], "COLUMN")) for f in FIELDS if f in _allowed(data)]
    lines = [f"  format: {one.format}   # {MEANINGS[one.format]}{_as_line(one.columns)}" for one in offers]
    return "\n".join([f"{why}; write {'one of these ' if len(lines) > 1 else ''}under data: in the recipe", *lines])


def _usual(format: Format, columns: Sequence[str]) -> Found | None:
    """The format with columns that usually mean its fields; None where one of them has no such column."""
    lowered = {column.lower(): column for column in columns}
    chosen: dict[str, str] = {}
    for field in FIELDS[format]:
        names = (name for name in USUAL_NAMES.get(field, ()) if name in lowered)
        column = next((lowered[name] for name in names if lowered[name] not in chosen.values()), None)
        if column is not None:
            chosen[field] = column
        elif field != OPTIONAL_FIELD:
            return None
    return Found(format, {field: column for field, column in chosen.items() if field != column})


def _as_line(columns: Mapping[str, str]) -> str:
    if not columns:
        return ""
    return "\n  columns: {" + ", ".join(f"{field}: {_scalar(column)}" for field, column in columns.items()) + "}"


def _scalar(column: str) -> str:
    """A column name as YAML, in quotation marks where it is no plain word."""
    return column if re.fullmatch(r"[A-Za-z_]\w*", column) else json.dumps(column, ensure_ascii=False)
