"""The verb that reads several studies: compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pronk.cli.shared import Json, console, say


def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR…", help="Study folders, or folders of runs (STUDY/runs/NAME).")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.html", help="Write the comparison as a page, too.")
    ] = None,
    lang: Annotated[str, typer.Option("--lang", help="The page's language: en or ko.")] = "en",
    as_json: Json = False,
) -> None:
    """Compare runs of several studies and dates on the same test items. Needs neither torch nor a base model."""
    from pronk.compare.across import compare_across
    from pronk.compare.across_page import write_across
    from pronk.compare.across_terminal import across_summary
    from pronk.compare.languages import language
    from pronk.data.terminal import plain_json, width
    from pronk.errors import OptionError

    language(lang)
    if out is not None and out.is_dir():
        raise OptionError(f"--out {out}: this is a folder; name the file to write, such as {out / 'compare.html'}")
    with console().status("comparing item by item"):
        record = compare_across(folders)
    if out is not None:
        write_across(record, out, lang)
    print(plain_json(record, indent=2) if as_json else across_summary(record, width()))
    if out is not None:
        say(f"page: {out}") if as_json else print(f"page: {out}")
