"""What a model wrote, as examples. It is hostile: any text, of any size, in any form or none.

JSON is sought wherever it stands, in prose and fences, whole or cut off: every object that is complete counts. No
more is read than a good answer could need, so that nothing makes the search long.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pronk.recipe import Task
from pronk.synthesize.requests import BLOCK_END, NAMES, Request
from pronk.synthesize.samples import COLUMNS, Sample

MOST_LETTERS = 100_000  # of an answer that are looked at
MOST_TRIES = 500  # brackets that may turn out to begin nothing
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def samples_of(text: str, request: Request, task: Task) -> list[Sample]:
    """The examples in an answer, no more than were asked for; empty where it cannot be read.

    Fields that are missing or no text are empty. Of a classification, a label that is not said is the one asked for.
    """
    if request.plain:
        return _gone_on(text, request, task)
    found: list[Sample] = []
    for value in _values(text[:MOST_LETTERS]):
        sample = _sample(value, request, task)
        if sample is not None:
            found.append(sample)
        if len(found) == request.wanted:
            break
    return found


def _values(text: str) -> Iterator[Any]:
    """Objects in a text, from left to right, and texts of a list that holds nothing else."""
    place, tries = 0, 0
    while tries < MOST_TRIES:
        starts = [at for at in (text.find("[", place), text.find("{", place)) if at >= 0]
        if not starts:
            return
        place, tries = min(starts), tries + 1
        try:
            value, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):  # cut off, or no JSON: what stands within may be
            place += 1
            continue
        yield from _flat(value)


def _flat(value: Any) -> Iterator[Any]:
    """An object, or the objects and texts of a list; {"examples": [...]}, an object with a list alone, is that list."""
    if isinstance(value, dict) and len(value) == 1:
        (inner,) = value.values()
        value = inner if isinstance(inner, list) else value
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict | str):
            yield one


def _sample(value: Any, request: Request, task: Task) -> Sample | None:
    """None for what has nothing of an example."""
    if isinstance(value, str):
        return Sample(value.strip(), "", request.label) if request.label is not None else None
    columns = COLUMNS[task]
    if not {*columns} & value.keys():
        return None
    parts = [one.strip() if isinstance(one := value.get(column), str) else "" for column in columns]
    if task == "instruct":
        return Sample(parts[0], parts[1], parts[2])
    label = parts[1] if "label" in value else (request.label or "")
    return Sample(parts[0], "", _as_asked(label, request.label))


def _as_asked(label: str, asked: str | None) -> str:
    """The label as it is written in the data."""
    return asked if asked is not None and label.casefold() == asked.casefold() else label


def _gone_on(text: str, request: Request, task: Task) -> list[Sample]:
    """The one example that a list was gone on with."""
    text = text[:MOST_LETTERS]
    if task == "classify":
        first = text.strip().partition("\n")[0].strip()
        return [Sample(first, "", request.label or "")] if first else []
    block = text.partition(BLOCK_END)[0]
    names = NAMES[task]
    asked, found, answer = block.partition(f"\n{names[2]}:")
    instruction, _, context = asked.partition(f"\n{names[1]}:")
    answer = min((answer.partition(f"\n{name}:")[0] for name in names), key=len)  # it may go on to the next by itself
    return [Sample(instruction.strip(), context.strip(), answer.strip())] if found else []
