"""Labels for classification: those of the recipe or those found, and each row's answer among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pronk.data.conversation import Conversation, Message
from pronk.data.rows import Problems
from pronk.data.words import did_you_mean, enumerated
from pronk.errors import DataError
from pronk.recipe import Data

MOST_FOUND_LABELS = 100  # more distinct values than this are texts or ids, not labels


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A row to classify before all labels are known."""

    text: str
    label: str
    place: str


def default_instruction(labels: Sequence[str]) -> str:
    """What a model is asked to do with a text when the recipe does not say; needs two labels or more."""
    return f"Classify the text as {enumerated(labels, 'or')}. Answer with the label alone."


def labelled(data: Data, rows: Sequence[LabelledText]) -> tuple[list[Conversation], tuple[str, ...]]:
    """A conversation a row, with one of the labels as its answer; and the names of all labels.

    Raises DataError for a label that the recipe does not know, or for found ones that cannot be labels.
    """
    if data.labels is None:
        names = _found_labels(rows)
        meanings, shown = {name.casefold(): name for name in names}, list(names)
    else:
        meanings, shown = _given_labels(data.labels)
        names = tuple(str(name).strip() for name in data.labels)
    problems = Problems()
    for row in rows:
        if row.label.casefold() not in meanings:
            hint = did_you_mean(row.label, list(meanings))
            problems.add("label", row.place, f"the label {row.label!r} is not one of {enumerated(shown, 'and')}{hint}")
    problems.raise_first()
    system = (Message("system", data.system),) if data.system else ()
    instruction = data.instruction or default_instruction(names)
    return [_conversation(row, meanings[row.label.casefold()], instruction, system) for row in rows], names


def label_text(value: Any) -> Any:
    """Labels may be whole numbers: 1 and 1.0 in JSON are the label '1'."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value.strip() if isinstance(value, str) else value


def _conversation(row: LabelledText, answer: str, instruction: str, system: tuple[Message, ...]) -> Conversation:
    return Conversation(
        (*system, Message("user", instruction, row.text), Message("assistant", answer)), row.place, answer
    )


def _given_labels(labels: dict[str, str | int] | list[str]) -> tuple[dict[str, str], list[str]]:
    """What a value in the file means, as answers by casefolded text; and the labels as shown to people."""
    given = labels.items() if isinstance(labels, dict) else [(label, label) for label in labels]
    pairs = [(answer.strip(), str(value).strip()) for answer, value in given]
    for side, name in ((0, "label"), (1, "value in the file")):
        folded = [pair[side].casefold() for pair in pairs]
        if "" in folded:
            raise DataError(f"data.labels: a {name} is empty")
        for position, text in enumerate(folded):
            if text in folded[:position]:
                raise DataError(f"data.labels: the {name} {pairs[position][side]!r} is given twice")
    # the file's own value wins where it is also another label's word
    meanings = {answer.casefold(): answer for answer, _ in pairs}
    meanings.update({value.casefold(): answer for answer, value in pairs})
    return meanings, [answer if answer == value else f"{answer} ({value})" for answer, value in pairs]


def _found_labels(rows: Sequence[LabelledText]) -> tuple[str, ...]:
    first = {row.label: row.place for row in reversed(rows)}
    names = sorted(first)
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise DataError(
                f"{first[name]}: the label {name!r} and the label {other!r} ({first[other]}) differ only in "
                "upper and lower case; say in data.labels how the label is written"
            )
    if len(names) < 2:
        raise DataError(
            f"{rows[0].place}: all {len(rows)} rows have the label {names[0]!r}; classification needs at "
            "least two: name them all in data.labels"
        )
    if len(names) > MOST_FOUND_LABELS:
        raise DataError(
            f"{rows[0].place}: there are {len(names)} different labels, such as {names[0]!r}; "
            f"more than {MOST_FOUND_LABELS} have to be named in data.labels (or is label in data.columns "
            "another column?)"
        )
    return tuple(names)
