"""Everything that is known to go wrong silently, looked for before anything is trained.

`pronk check` shows what was found; `pronk run` does not begin over an error that the recipe does not allow.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from pronk.data.detect import with_found_formats
from pronk.data.finding import Finding, Row
from pronk.data.split import Splits, read_splits
from pronk.data.terminal import plain
from pronk.data.words import counted
from pronk.doctor.ready import Ready, prepare
from pronk.errors import InputError, PromptError, RefusedError
from pronk.recipe import Recipe
from pronk.recipe.checks import NOT_ALLOWED
from pronk.study import plan_study
from pronk.train.progress import say

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.tokens.check import View

PATIENCE = 2.0  # seconds after which a person is told what takes so long
PARTS = ("train", "validation", "test")
ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Checked:
    """What was found, the worst first, and the names that the recipe allows.

    final: names of errors behind which nothing can go on, such as a broken template, whatever is allowed.
    """

    findings: tuple[Finding, ...]
    allowed: tuple[str, ...]
    final: tuple[str, ...] = ()

    @property
    def errors(self) -> list[Finding]:
        """Errors that the recipe does not allow."""
        return [one for one in self.findings if one.severity == "error" and not self.allows(one)]

    @property
    def told(self) -> list[Finding]:
        """What a run says before it begins: errors that are allowed, and warnings that the recipe does not name."""
        return [
            one for one in self.findings if one.severity != "note" and (one.severity == "error") == self.allows(one)
        ]

    def allows(self, one: Finding) -> bool:
        """Whether the recipe accepts a finding."""
        return one.name in self.allowed and one.name not in self.final

    @property
    def allowable(self) -> list[str]:
        """The names that the recipe would have to allow for a run to begin; none where that would not do."""
        names = list(dict.fromkeys(one.name for one in self.errors))
        return [] if {*names} & {*NOT_ALLOWED, *self.final} else names


def check_recipe(recipe: Recipe, console: Console) -> Checked:
    """Check a recipe from its data to its settings; no GPU is needed, and no weights are read.

    Raises InputError for what is wrong but no check goes by name for.
    """
    tell = partial(say, console)
    try:
        with slowly(console, "reading the data"):
            recipe = with_found_formats(recipe, tell)
            study = plan_study(recipe)
            splits, labels = read_splits(recipe.data, tell)
    except InputError as error:
        return _checked([_named(error)], recipe, error.check)
    with slowly(console, "looking at the rows"):
        found = _row_findings(splits, labels)
    try:
        with slowly(console, f"tokenizing {counted(sum(splits.counts()[part] for part in PARTS), 'row')}"):
            ready = prepare(study, splits, labels, tell, elsewhere=True, leave_out=True)
    except InputError as error:
        return _checked([*found, _named(error)], recipe, error.check)
    with slowly(console, "looking at prompts and tokens"):
        return _checked([*found, *ready_findings(ready)], recipe)


def gate(ready: Sequence[Ready], splits: Splits, labels: tuple[str, ...], recipe: Recipe, console: Console) -> None:
    """Refuse to train over an error; say what else is worth knowing, a line each. Raises RefusedError."""
    with slowly(console, "checking rows, prompts and tokens"):
        checked = _checked([*_row_findings(splits, labels), *ready_findings(ready)], recipe)
    if checked.errors:
        raise RefusedError(refusal(checked))
    for one in checked.told:
        kind = "allowed" if one.severity == "error" else "warning"
        say(console, f"{kind}: {one.name}{_how_many(one)}: {sentence(one.message)}", "yellow")


@contextmanager
def refused_by_name(recipe: Recipe) -> Iterator[None]:
    """Refuse to go on over an error that a check goes by name for, as over one that it has found. Raises RefusedError
    then; any other error stays what it is."""
    try:
        yield
    except InputError as error:
        raise RefusedError(refusal(_checked([_named(error)], recipe, error.check))) from error


def refusal(checked: Checked) -> str:
    """Why nothing is trained, and what to do about each error."""
    errors = checked.errors
    one = len(errors) == 1
    lines = [f"nothing was trained: {'a check' if one else f'{len(errors)} checks'} found what would spoil the result"]
    for error in errors:
        place = error.rows[0].place if error.rows else ""
        where = line(f" First in {place}.") if place and place not in error.message else ""
        lines += [
            f"  {error.name}{_how_many(error)}: {sentence(error.message)} {where}",
            f"    {sentence(error.remedy)}",
        ]
    allow = f" To train all the same, put into the recipe: allow: [{', '.join(checked.allowable)}]"
    lines.append(f"`pronk check` shows the rows.{allow if checked.allowable else ''}")
    return "\n".join(text.rstrip() for text in lines)


def line(text: str) -> str:
    """A text in one line; nothing in it can steer a terminal."""
    return " ".join(plain(text).split())


def sentence(text: str) -> str:
    """The same, with a capital and a full stop."""
    text = line(text)
    first = text[:1].upper() if text.split(" ")[0].rstrip(",;:").isalpha() else text[:1]  # a key stays as it is
    return first + text[1:] + ("" if text.endswith((".", "?", "!", "…")) else ".")


def _how_many(one: Finding) -> str:
    return f" ({one.count:,} of {one.total:,} {one.unit})" if one.total else ""


def _row_findings(splits: Splits, labels: tuple[str, ...]) -> list[Finding]:
    from pronk.data.checks import data_findings

    return data_findings(splits, labels)


def ready_findings(ready: Sequence[Ready]) -> list[Finding]:
    """What is wrong with prompts, tokens and settings, once for each base and length that the study has."""
    from pronk.tokens.check import (
        label_findings,
        length_findings,
        mask_findings,
        prompt_findings,
        setting_findings,
        split_findings,
        text_findings,
        token_findings,
    )  # fmt: skip

    views = _views(ready)
    bases = dict(reversed(views))  # texts are the same whatever the length
    found: list[tuple[str, Finding]] = []
    for name, view in bases.items():
        of_base = [*token_findings(view), *prompt_findings(view), *text_findings(view), *label_findings(view)]
        found += [(f"base {name}" if len(bases) > 1 else "", one) for one in of_base]
    for name, view in views:
        told = _told_apart(name, view, views)
        found += [(told, one) for one in [*mask_findings(view), *length_findings(view)]]
    if ready:
        found += [("", one) for one in split_findings(ready[0].examples.splits)]
    for one in ready:
        for trained in one.fleet.trained:
            train = trained.recipe.train
            rows = len(one.examples.train(train.max_length, train.train_on_prompt))
            found += [("", one) for one in setting_findings(train, rows)]
    return _merged(found)


def _views(ready: Sequence[Ready]) -> list[tuple[str, View]]:
    """Each base, max_length and train_on_prompt once, whatever else the study varies."""
    from pronk.tokens.check import View

    views: dict[tuple[str, int, bool], View] = {}
    for one in ready:
        for trained in one.fleet.trained:
            train = trained.recipe.train
            key = (one.fleet.base, one.examples.length(train.max_length), train.train_on_prompt)
            views.setdefault(key, View(one.examples, train.max_length, train.train_on_prompt, train.batch_size))
    return [(base, view) for (base, _, _), view in views.items()]


def _told_apart(name: str, view: View, views: Sequence[tuple[str, View]]) -> str:
    """How a view is called where a study has several: by what not all of them share."""
    facts = [
        (f"base {one}", f"train.max_length {other.length}", "the prompt learned too" if other.on_prompt else "")
        for one, other in views
    ]
    own = (f"base {name}", f"train.max_length {view.length}", "the prompt learned too" if view.on_prompt else "")
    return ", ".join(
        fact for fact, all_ in zip(own, zip(*facts, strict=True), strict=True) if fact and len(set(all_)) > 1
    )


def _merged(found: Sequence[tuple[str, Finding]]) -> list[Finding]:
    """What is the same for all views once; the rest with the view that it is about."""
    where: dict[Finding, list[str]] = {}
    for told, one in found:
        where.setdefault(one, []).append(told)
    merged = []
    for one, places in where.items():
        told = places[0] if len(set(places)) == 1 else ""
        merged.append(replace(one, message=f"With {told}: {one.message}") if told else one)
    return merged


def _named(error: InputError) -> Finding:
    """An error that was raised as a finding, if it is one of those that checks go by; else it is raised again."""
    if not error.check:
        raise error
    message, _, remedy = str(error).rpartition("; ")
    if not message:  # an error that says only what is wrong
        mend = (
            "mend the template" if isinstance(error, PromptError) else "mend such rows, or leave them out (data.where)"
        )
        message, remedy = remedy, mend
    rows = tuple(Row(place, "") for place in error.places)
    unit = "rows" if error.count else ""
    return Finding(
        error.check, "error", f"{message}.", f"{remedy[:1].upper()}{remedy[1:]}.", error.count, 0, unit, rows
    )


def _checked(findings: Sequence[Finding], recipe: Recipe, *final: str) -> Checked:
    ordered = sorted(findings, key=lambda one: (ORDER[one.severity], -one.share, one.name))
    return Checked(tuple(ordered), tuple(recipe.allow), final)


@contextmanager
def slowly(console: Console, what: str) -> Iterator[None]:
    """A spinner in a terminal; elsewhere, a line once it has taken two seconds."""
    if console.is_terminal:
        with console.status(what):
            yield
        return
    timer = threading.Timer(PATIENCE, lambda: say(console, f"{what} …"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
