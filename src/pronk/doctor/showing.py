"""`pronk check --show`: a recipe's examples as its runs see them, before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pronk.data.detect import with_found_formats
from pronk.data.split import read_splits
from pronk.doctor.ready import Ready, prepare
from pronk.errors import OptionError
from pronk.recipe import Recipe
from pronk.runs import disk_guard, write_text
from pronk.study import plan_study
from pronk.tokens.show import PARTS, USUAL_COUNT, Choice, Shown, show_examples
from pronk.train.progress import say

if TYPE_CHECKING:
    from rich.console import Console

PAGE_ENDINGS = (".html", ".htm")
ON_A_PAGE = 20  # examples, where nobody says how many


def choice_of(count: int | None, split: str, rows: Sequence[str] | None, cut_first: bool, page: Path | None) -> Choice:
    """What the options of the verb ask for. Raises OptionError for what cannot be."""
    if split not in PARTS:
        raise OptionError(f"--split {split}: expected train, validation or test")
    if rows and (count is not None or cut_first):
        raise OptionError("--show-row names the rows to show; leave --show and --cut-first out")
    if cut_first and split == "test":
        raise OptionError("--cut-first: test rows are never cut to max_length; look at train or validation")
    if page is not None and (page.suffix.lower() not in PAGE_ENDINGS or page.is_dir()):
        raise OptionError(f"--html {page}: expected the name of a page to write, ending in .html")
    usual = USUAL_COUNT if page is None else ON_A_PAGE
    return Choice(count or usual, split, tuple(dict.fromkeys(rows or ())), cut_first)


def show_recipe(
    recipe: Recipe, choice: Choice, ids: bool, page: Path | None, console: Console, messages: Console
) -> None:
    """The examples of a recipe's first run, on console or on a page; what is worth knowing goes to messages."""
    tell = partial(say, messages)
    recipe = with_found_formats(recipe, tell)
    study = plan_study(recipe)
    splits, labels = read_splits(recipe.data, tell)
    with messages.status("reading the base and the data"):
        ready = prepare(study, splits, labels, tell, elsewhere=True)
    if len(study.runs) > 1:
        tell(f"shown as the run {ready[0].fleet.trained[0].runs[0].name} sees them; others with --set")
    show(ready[0], choice, console, ids, page)
    if page is not None:
        tell(f"page: {page}")


def show(ready: Ready, choice: Choice, console: Console, ids: bool = False, page: Path | None = None) -> Shown:
    """Show examples of the first run of a fleet on a console, or with `page` write them there instead.

    Raises OptionError for rows that are not there.
    """
    from pronk.tokens.show_page import render
    from pronk.tokens.show_terminal import print_examples

    run = ready.fleet.trained[0]
    shown = show_examples(ready.examples, run.recipe.train, ready.fleet.base, choice)
    if page is None:
        print_examples(shown, console, ids)
    else:
        with disk_guard(page.parent):
            write_text(page, render(shown, ids))
    return shown
