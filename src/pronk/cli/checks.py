"""Verbs that come before a study: check, tokens, init, doctor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pronk.cli.shared import Json, Set, console, say

if TYPE_CHECKING:
    from pronk.recipe import Recipe


def check(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    show: Annotated[
        int | None, typer.Option("--show", min=1, metavar="N", help="Show N examples as training sees them.")
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="With the id of each token under its text.")] = False,
    split: Annotated[str, typer.Option("--split", metavar="PART", help="train, validation or test.")] = "train",
    rows: Annotated[
        list[str] | None, typer.Option("--show-row", metavar="FILE:LINE", help="Show this row. Again for more.")
    ] = None,
    cut_first: Annotated[
        bool, typer.Option("--cut-first", help="Show first what lost the most tokens to max_length.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the examples as a page instead.")
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="Should I fine-tune at all? The base on the validation rows, untrained."),
    ] = False,
    shots: Annotated[
        str | None,
        typer.Option(metavar="0,2,4,8", help="With --baseline: numbers of examples in the prompt."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="URL", help="With --baseline: an OpenAI-compatible server to measure too."),
    ] = None,
    against_model: Annotated[
        str | None,
        typer.Option("--against-model", metavar="NAME", help="Its model. The key is read from PRONK_API_KEY."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.json", help="With --baseline: where to write the result.")
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """What would go wrong silently? Data, prompts, tokens and settings, before anything is trained; needs no GPU.

    With --show, --show-row or --html instead: examples as training sees them. With --baseline: what the base can do.
    """
    from pronk.doctor.showing import choice_of, show_recipe
    from pronk.recipe import read_recipe

    shows = show is not None or bool(rows) or html is not None
    how, measured = ids or cut_first or split != "train", bool(shots or against or against_model or out)
    _fit_together(shows, how, baseline, measured, as_json)
    if baseline:
        _baseline(recipe, shots, (against, against_model), out, overrides, as_json)
        return
    choice = choice_of(show, split, rows, cut_first, html)
    read = read_recipe(recipe, overrides or [])
    if shows:
        show_recipe(read, choice, ids, html, console(stderr=False), console())
        return
    _check(read, as_json)


def _fit_together(shows: bool, how: bool, baseline: bool, measured: bool, as_json: bool) -> None:
    """shows, how: whether examples are to be shown, and whether it is said how; measured: what belongs to --baseline.

    Raises OptionError for options that would do nothing.
    """
    from pronk.errors import OptionError

    if how and not shows:
        raise OptionError(
            "check: --ids, --split and --cut-first say how examples are shown; add --show N or --html FILE"
        )
    if shows and (baseline or as_json):
        raise OptionError(f"check: examples are not shown with {'--baseline' if baseline else '--json'}; leave one out")
    if measured and not baseline:
        raise OptionError("check: --shots, --against, --against-model and --out belong to --baseline; add it")


def _check(recipe: Recipe, as_json: bool) -> None:
    from pronk.doctor import findings
    from pronk.doctor.checking import check_recipe

    checked = check_recipe(recipe, console())
    if as_json:
        print(findings.as_json(checked))
    else:
        findings.show(checked, console(stderr=False))
    if checked.errors:
        sys.exit(1)


def init(
    target: Annotated[
        str | None, typer.Argument(metavar="[DIR|FILE]", help="Where the recipe goes, or the data file it is for.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="FILE|ID", help="The data: a file or a hub id.")] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="classify, alpaca, pairs, messages, sharegpt or text.")
    ] = None,
    base: Annotated[str | None, typer.Option("--base", help="smollm2, a folder, a .gguf file or a hub id.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR|FILE", help="Where the recipe goes.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take every proposal; ask nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a recipe that is there.")] = False,
) -> None:
    """Look at your data and write a commented recipe for it. Asks for what options do not say."""
    from pronk.doctor.new_recipe.making import make_recipe, wishes_of

    wishes = wishes_of(target, data, task, base, out, yes, force)
    try:
        written = make_recipe(wishes, console())
    except KeyboardInterrupt:
        say("\ninterrupted; nothing was written")
        sys.exit(130)
    if written is None:
        say("nothing was written")
        return
    say(f"written: {written}\n{_checked(written)}\nlook at it: pronk check {written}\nrun it: pronk run {written}")


def _checked(recipe: Path) -> str:
    """What `pronk check` says of a recipe that was just written, in a sentence or two."""
    from pronk.doctor import findings
    from pronk.doctor.checking import check_recipe
    from pronk.errors import InputError
    from pronk.recipe import read_recipe

    try:
        return findings.verdict(check_recipe(read_recipe(recipe, []), console()))
    except InputError as error:  # a base that is not here yet, say
        return f"not checked: {error}"
    except KeyboardInterrupt:
        return "not checked"


def tokens(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A text, or - for standard input.")],
    base: Annotated[str, typer.Option("--base", help="smollm2, a folder, a .gguf file or a hub id.")] = "smollm2",
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", help="Ask the text in this form, as in recipes: alpaca, chat, llama2, llama3, ….jinja."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """A text as a base reads it: pieces, ids, special tokens, and decoded back. Loads no weights."""
    from pronk.doctor import tokenized

    found = tokenized.tokenize(tokenized.given_text(text), base, prompt)
    if as_json:
        print(tokenized.as_json(found))
    else:
        tokenized.show(found, console(stderr=False))


def doctor(
    base: Annotated[
        str, typer.Option("--base", metavar="BASE", help="Look whether this base may be read, e.g. a gated hub id.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Look at this machine: Python, PyTorch, GPU, libraries, folders, hub; a remedy for everything that fails."""
    import json

    from pronk.doctor.health import examination, finding

    lines = examination.examine(base, console())
    found = finding.as_json(lines)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        examination.show(lines, console(stderr=False))
    if not found["ok"]:
        sys.exit(1)


def _baseline(
    recipe: Path, shots: str | None, against: tuple[str | None, str | None], out: Path | None,
    overrides: list[str] | None, as_json: bool,
) -> None:  # fmt: skip
    from pronk.data.terminal import plain, plain_json
    from pronk.doctor.baseline import check_baseline
    from pronk.recipe import read_recipe

    given = [*(overrides or []), *([] if shots is None else [f"baseline.shots=[{shots}]"])]
    path = out or Path(f"{recipe.stem}-baseline.json")
    try:
        record = check_baseline(read_recipe(recipe, given), *against, path, console())
    except KeyboardInterrupt:
        say("interrupted; nothing was written")
        sys.exit(130)
    from pronk.compare.baseline import baseline_table

    print(plain_json(record, indent=2) if as_json else plain(baseline_table(record)))
    say(f"written to {path}")
