"""The verb that answers whole files: predict."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pronk.cli.shared import (
    Form,
    Json,
    MaxNewTokens,
    Seed,
    Set,
    Stop,
    Temperature,
    TopK,
    TopP,
    console,
    only_given,
    say,
)


def predict(
    model: Annotated[str, typer.Argument(metavar="RUN|BASE", help="A run's folder, a PEFT adapter, or a base.")],
    given: Annotated[
        str, typer.Option("--input", metavar="FILE", help=".jsonl, .json, .csv or .parquet; - for JSON lines on stdin.")
    ],
    output: Annotated[
        str, typer.Option("--output", metavar="FILE", help=".jsonl, .csv or .parquet; - for JSON lines on stdout.")
    ],
    column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The column that the model reads.", show_default="as in the run's data"),
    ] = None,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Before the names of the new columns.")] = "",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Rows that cannot be read stay empty; a column `error` says why.")
    ] = False,
    calibration: Annotated[
        bool, typer.Option("--calibration/--no-calibration", help="Calibrate probabilities on the validation rows.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an output that is there, and what another job began.")
    ] = False,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = None,
    stop: Stop = None,
    seed: Seed = None,
    prompt: Form = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """A label with probabilities, a choice, or a text, for each row of a file. Stopped, the same command goes on."""
    from pronk.errors import OptionError
    from pronk.ship.predict.predicting import Wanted, predict_file

    if as_json and output == "-":
        raise OptionError("--json and --output - would both print to stdout: leave one of them out")
    chosen = only_given(
        temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, max_new_tokens=max_new_tokens, stop=stop
    )
    wanted = Wanted(model, column, calibration, skip_bad, prompt, overrides or [], chosen)
    try:
        found = predict_file(wanted, given, output, console(), prefix, force)
    except KeyboardInterrupt as stopped:
        say(f"interrupted; {stopped}" if str(stopped) else "interrupted")
        sys.exit(130)
    if as_json:
        from pronk.data.terminal import plain_json

        print(plain_json(found.to_json(), indent=2))
    else:
        say(found.told())
