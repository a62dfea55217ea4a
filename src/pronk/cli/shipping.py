"""Verbs that bring a run to those who use it: export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

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
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FACTOR|NAME=LIMIT",
            help="How far it may differ from the run: 2 doubles all limits, kl=0.05 sets one (kl, worst, top1, loss, "
            "metric).",
            show_default="1",
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Validation rows that are compared, at most.")] = 100,
    as_json: Json = False,
) -> None:
    """Ship a run: each form is read back by the program that it is for, and compared with the run."""
    from pronk.data.terminal import plain_json
    from pronk.ship.exporting import Options
    from pronk.ship.exporting import export as exported
    from pronk.ship.record import as_table

    forms = [form.strip() for one in to for form in one.split(",") if form.strip()]
    try:
        record = exported(run, Options(forms, out, tolerance or [], rows), console())
    except KeyboardInterrupt:
        say("interrupted; forms that were done are kept, nothing is left half-written")
        sys.exit(130)
    print(plain_json({**record.data, "artifacts": record.entries}, indent=2) if as_json else as_table(record))
    if not record.passed:
        say("rejected: what is named REJECTED is not what was tuned; do not ship it", "red")
        sys.exit(1)
