"""The verb that serves: serve."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from pronk.cli.shared import Json, Set, console


def serve(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN…|FILE.gguf", help="Runs over one base, a study, or a GGUF file.")
    ],
    engine: Annotated[
        str | None,
        typer.Option(
            help="vllm, llama.cpp or transformers.", show_default="the first that is installed and can serve this"
        ),
    ] = None,
    engine_python: Annotated[
        str | None,
        typer.Option(
            metavar="PYTHON",
            help="Of an environment of the engine's own. Of vLLM's also by PRONK_VLLM_PYTHON.",
            show_default="pronk's own",
        ),
    ] = None,
    gguf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The run as llama.cpp reads it.", show_default="from its export/gguf"),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Who may ask.", show_default="127.0.0.1: this machine alone")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0 takes a free one.", show_default="8000")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="fp32, bf16, fp16 or auto.", show_default="that of the runs")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(help="Most tokens of a conversation.", show_default="all that the base reads")
    ] = None,
    engine_arg: Annotated[
        list[str] | None,
        typer.Option(metavar="ARG", help="For the engine, as it is: --engine-arg=--seed --engine-arg=7."),
    ] = None,
    wait: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For the engine to be ready.", show_default="600")
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="All that the engine says.", show_default="kept where it fails"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the engine's command; start nothing.")] = False,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Serve runs to any OpenAI client: vLLM (all runs over one base), llama.cpp (a GGUF) or transformers (one run).

    Clients send the key in PRONK_API_KEY; without one, a new key is shown once.
    """
    from pronk.ship.serve import serving as room
    from pronk.ship.serve.order import Options

    given: dict[str, Any] = {
        "engine": engine, "engine_python": engine_python, "gguf": gguf, "host": host, "port": port, "dtype": dtype,
        "max_model_len": max_model_len, "seconds": wait, "log": log, "arguments": engine_arg,
    }  # fmt: skip
    options = Options(**{key: value for key, value in given.items() if value is not None})
    if dry_run:
        planned = room.dry_run(runs, options, overrides or [], console())
        print(room.as_json(planned) if as_json else room.dry_run_text(planned))
        return
    ready = (lambda found: print(room.as_json(found), flush=True)) if as_json else (lambda _: None)
    with suppress(KeyboardInterrupt):  # before there is an engine to end
        room.serve(runs, options, overrides or [], console(), ready)
    sys.exit(130)  # a server ends when the user ends it
