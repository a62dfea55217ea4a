"""Verbs that bring a run to those who use it: export."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from pronk.cli.shared import Json, console, say


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder: STUDY/runs/NAME.")],
    to: Annotated[
        list[str],
        typer.Option("--to", metavar="FORM", help="adapter, merged, gguf, ollama or hub. Again, or with commas."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to write.", show_default="RUN/export")
    ] = None,
    quant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE",
            help="Types of the .gguf files: f32, f16, bf16, q8_0, or a K-quant such as q4_k_m. Again, or with commas.",
            show_default="f16,q8_0",
        ),
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FACTOR|NAME=LIMIT",
            help="How far it may differ from the run: 2 doubles all limits, kl=0.05 sets one (kl, worst, top1, loss, "
            "metric).",
            show_default="1",
        ),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Validation rows that are compared, at most.", show_default="100")
    ] = None,
    hub_merged: Annotated[
        bool, typer.Option("--hub-merged", help="--to hub: the whole model instead of the adapter.")
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="--to hub: upload, privately.", show_default="only show what would go"),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="--push: anyone can read it.")] = False,
    update: Annotated[bool, typer.Option("--update", help="--push: the repository is there already.")] = False,
    lang: Annotated[
        str | None,
        typer.Option("--lang", metavar="CODE", help="--to hub: the card's language, en or ko.", show_default="en"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ship a run: each form is read back by the program that it is for, and compared with the run."""
    from pronk.data.terminal import plain_json
    from pronk.errors import OptionError
    from pronk.ship.export.exporting import Options, one_run
    from pronk.ship.export.exporting import export as exported
    from pronk.ship.export.record import Record, as_table
    from pronk.ship.hub import upload as hub_upload

    forms, more = _split(to), {"quant": _split(quant or ()), "push": push, "hub_merged": hub_merged, "lang": lang}
    if quant and not {"gguf", "ollama"} & set(forms):
        raise OptionError("--quant is for --to gguf and --to ollama: leave it out, or add one of them")
    hub_upload.check_options(forms, push, hub_merged, public, update, lang)
    model = one_run(run)
    place = out or (model.run or Path()) / "export"
    kept = push and lang is None  # what stands there may be in another language
    made = [form for form in forms if not (form == "hub" and kept and hub_upload.stands(place, hub_merged))]
    try:
        options = Options(made, out, tolerance or [], rows, more)
        record = exported(run, options, console()) if made or not forms else Record.at(place, model)
    except KeyboardInterrupt:
        say("interrupted; forms that were done are kept, nothing is left half-written")
        sys.exit(130)
    told = {**record.data, "artifacts": record.entries, "refused": record.refused}
    if made and not as_json:
        print(as_table(record))
    if "hub" in forms and ("hub" not in made or record.status("hub") == "passed"):
        told["hub"] = _to_hub(place, push, public, update, as_json)
    if as_json:
        print(plain_json(told, indent=2))
    if not record.passed:
        say("rejected: what is named REJECTED is not what was tuned; do not ship it", "red")
        sys.exit(1)


def _to_hub(place: Path, push: str | None, public: bool, update: bool, as_json: bool) -> dict[str, Any]:
    """Show what would be uploaded, and upload it if that was asked for."""
    from pronk.data.terminal import plain
    from pronk.ship.hub import upload as hub_upload

    upload = hub_upload.plan_upload(place, push, not public, update)
    if not as_json:
        print(plain("\n".join(["", *hub_upload.as_lines(upload)])))
    if push is None:
        say("nothing was uploaded; --push OWNER/NAME does it")
        return hub_upload.as_json(upload, done=False)
    try:
        say(f"uploaded: {hub_upload.push(upload, console())}")
    except KeyboardInterrupt:
        say(f"interrupted; {upload.repository} may be there without all files: run this again with --update")
        sys.exit(130)
    return hub_upload.as_json(upload, done=True)


def _split(given: Iterable[str]) -> list[str]:
    """What was given again, or with commas."""
    return [part.strip() for one in given for part in one.split(",") if part.strip()]
