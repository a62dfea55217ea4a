"""Which items are measured: those that a run was tested on, its validation rows, or those of another file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pronk.data.conversation import shortened
from pronk.data.detect import with_found_formats
from pronk.data.sources import read_conversations
from pronk.data.split import Splits, question_key, read_splits
from pronk.data.terminal import plain_json
from pronk.errors import DataError, OptionError, PronkError
from pronk.measure.asked import Part
from pronk.recipe import Recipe
from pronk.recipe.data import is_hub_id

Tell = Callable[[str], None]
COMPARED = ("input", "reference", "label")  # what makes two items the same, wherever they lie


@dataclass(frozen=True)
class Items:
    """splits: with the items as test; the other parts are empty where they come from another file."""

    splits: Splits
    labels: tuple[str, ...]


def own_items(recipe: Recipe, part: Part, tell: Tell = lambda _: None) -> Items:
    """A part of a run's own data, divided as for its training.

    Raises DataError where the data is gone or wrong, OptionError where the part has no rows.
    """
    splits, labels = read_splits(recipe.data, tell)
    rows = getattr(splits, part)
    if not rows:
        others = [f"--split {other}" for other in get_args(Part) if getattr(splits, other)]
        raise OptionError(
            f"the {part} part of this data has no rows (data.split.{part}), so nothing can be measured, forgetting "
            f"included: name other rows with {' or '.join([*others, '--data FILE'])}"
        )
    return Items(replace(splits, test=rows), labels)


def for_other_items(recipe: Recipe, source: str, labels: Sequence[str], form_known: bool, tell: Tell) -> Recipe:
    """A recipe with another file (or hub data set) as its data, read as its own data is.

    labels: those that the run learned, where its recipe does not name them; a file may not hold all of them.
    form_known: whether the recipe says how its data is read; else that is found out. What it says in `where` chose
    its own rows, and is left out. Raises DataError or RecipeError.
    """
    first = recipe.data.sources[0]
    if not is_hub_id(source, Path.cwd()):
        source = str(Path(source).expanduser().absolute())
    values: dict[str, Any] = {"data.source": source, "data.where": None, "data.split": {}}
    values |= (
        {"data.format": first.format, "data.columns": first.columns or {}} if form_known else {"data.format": None}
    )
    if form_known and first.format == "classify" and recipe.data.labels is None and len(labels) > 1:
        values["data.labels"] = list(labels)
    return with_found_formats(recipe.with_values(values, "--data"), tell)


def all_items(recipe: Recipe, tell: Tell = lambda _: None) -> Items:
    """All rows of a recipe's data as items, in their order. Raises DataError."""
    conversations, labels = read_conversations(recipe.data, tell)
    return Items(Splits((), (), tuple(conversations), 0, 0), labels)


def check_same(name: str, items: Items, other_name: str, other: Items) -> None:
    """That two models are asked the same. Raises OptionError with the first row that differs."""
    ours, theirs = items.splits.test_items(), other.splits.test_items()
    why = f"{len(ours)} and {len(theirs)} rows" if len(ours) != len(theirs) else ""
    for one, two in zip(ours, theirs, strict=False):
        if not why and any(one[key] != two[key] for key in COMPARED):
            why = f"row {one['id']} is {_shown(one)} for the one, {_shown(two)} for the other"
    if not why and items.labels != other.labels:
        why = f"the labels {', '.join(items.labels)} and {', '.join(other.labels)}"
    if why:
        raise OptionError(
            f"{name} and {other_name} have different items ({why}), so nothing could be compared; name one set of "
            "items for both: --data FILE"
        )


def check_recorded(items: Items, recorded: Sequence[dict[str, Any]], labels: Sequence[str], folder: Path) -> None:
    """That the items of a study are what they were when it ran. Raises DataError with the first that is not."""
    now = items.splits.test_items()
    why = f"now {len(now)}, then {len(recorded)}" if len(now) != len(recorded) else ""
    for one, then in zip(now, recorded, strict=False):
        if not why and any(one[key] != then.get(key) for key in COMPARED):
            why = f"item {then.get('id')} is now {_shown(one)}, it was {_shown(then)}"
    if not why and list(items.labels) != list(labels):
        why = f"the labels are now {', '.join(items.labels)}, they were {', '.join(map(str, labels))}"
    if why:
        raise DataError(
            f"{folder}: its data gives other test items than when it ran ({why}), so old and new figures would not "
            "compare; put the data back as it was, or write elsewhere: --out DIR"
        )


def _shown(item: dict[str, Any]) -> str:
    return plain_json(shortened(f"{item.get('input')} → {item.get('reference')}", 60))


def seen_in_training(recipe: Recipe, items: Items) -> int | None:
    """How many of the items are among the rows for training and validation of a recipe; None where its data can no
    longer be read."""
    try:
        splits, _ = read_splits(recipe.data)
    except PronkError:
        return None
    learned = {question_key(row) for row in (*splits.train, *splits.validation)}
    return sum(question_key(row) in learned for row in items.splits.test)


def repeated(items: Items) -> int:
    """How many items ask what another one asks."""
    keys = [question_key(row) for row in items.splits.test]
    return len(keys) - len(set(keys))
