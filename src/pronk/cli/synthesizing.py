"""The verb that makes up examples: synthesize."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pronk.cli.shared import Json, Set, console, say


def synthesize(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="The model that writes: a run's folder, or a base.")
    ] = None,
    seeds: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Examples to start from, in any format that recipes read.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="RECIPE", help="Take its training rows as seeds; keep its validation and test rows out, unseen."
        ),
    ] = None,
    avoid: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Keep these texts out too. Again for more.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="classify or instruct.", show_default="what the seeds are")] = None,
    count: Annotated[int | None, typer.Option(help="Rows in all.", show_default="100")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.jsonl", help="Where the rows go.")] = Path(
        "synthetic.jsonl"
    ),
    base: Annotated[str | None, typer.Option("--base", help="A base writes: smollm2, a folder, a hub id.")] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="An OpenAI-compatible server's model writes.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Its name there. The key is read from PRONK_API_KEY.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="The labels.", show_default="those of the seeds")
    ] = None,
    shots: Annotated[int | None, typer.Option("--shots", help="Seeds that a request shows.", show_default="4")] = None,
    per_request: Annotated[
        int | None, typer.Option(help="New examples that a request asks for.", show_default="4")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            help="json, or continue: a list to go on with.", show_default="continue for bases without a chat form"
        ),
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the drawing.", show_default="0.8")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of seeds shown and tokens drawn.", show_default="42")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Characters that an example may have.", show_default="2000")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of an answer.", show_default="from the seeds")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Ask the model for each text's label, blind; keep what it confirms.")
    ] = False,
    limit_tokens: Annotated[
        int | None, typer.Option(help="Stop before more tokens are used.", show_default="none")
    ] = None,
    limit_cost: Annotated[float | None, typer.Option(help="Stop before more is spent.", show_default="none")] = None,
    price_in: Annotated[float | None, typer.Option(help="Of a million tokens read.", show_default="0")] = None,
    price_out: Annotated[float | None, typer.Option(help="Of a million tokens written.", show_default="0")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a served model is used.")] = False,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Make up examples after seeds, with a model; near-copies of seeds and test items are dropped.

    The same command goes on where it stopped.
    """
    from pronk.data.terminal import plain_json
    from pronk.errors import OptionError, RefusedError
    from pronk.synthesize import told
    from pronk.synthesize.starting import Wishes
    from pronk.synthesize.starting import synthesize as make

    if run is not None and base is not None:
        raise OptionError(f"found {run} and --base {base}: one model writes; leave one of them out")
    settings = {
        "task": task, "count": count, "shots": shots, "per_request": per_request, "form": form,
        "temperature": temperature, "seed": seed, "max_length": max_length, "max_new_tokens": max_new_tokens,
        "verify": verify, "limit_tokens": limit_tokens, "limit_cost": limit_cost, "price_in": price_in,
        "price_out": price_out,
    }  # fmt: skip
    given = {key: value for key, value in settings.items() if value is not None}
    named = tuple(filter(None, (label.strip() for label in (labels or "").split(","))))
    wishes = Wishes(
        out, seeds, recipe, tuple(avoid or ()), named, run or base, url, model, tuple(overrides or ()), given
    )
    try:
        result = make(wishes, console(), lambda: yes or _agreed())
    except KeyboardInterrupt:
        say(f"interrupted; rows that are whole are in {out}" if out.exists() else "interrupted; nothing was written")
        sys.exit(130)
    if result is None:
        say("nothing was asked")
        return
    print(plain_json(result.record, indent=2) if as_json else told.summary(result))
    if result.status == "gave-up":
        raise RefusedError(told.gave_up(result))
    if result.status == "interrupted":
        sys.exit(130)


def _agreed() -> bool:
    from pronk.errors import OptionError

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise OptionError("--url: a server elsewhere may cost money; read the estimate above, then add --yes")
    return typer.confirm("Ask this server?", err=True)
