"""The command line: one verb per room. Imports stand inside the verbs, so that --help is quick.

studies.py       demo, run, plan, report
checks.py        check, tokens, init, doctor
comparing.py     compare
measuring.py     eval
asking.py        generate, inspect
predicting.py    predict
chatting.py      chat
voting.py        arena
judging.py       judge
shipping.py      export
synthesizing.py  synthesize
trying.py        try
serving.py       serve
benches.py       bench
shared.py        options and how a result is shown
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from pronk import __version__
from pronk.cli import (
    asking,
    benches,
    chatting,
    checks,
    comparing,
    judging,
    measuring,
    predicting,
    serving,
    shipping,
    studies,
    synthesizing,
    trying,
    voting,
)  # fmt: skip
from pronk.cli.shared import say
from pronk.errors import PronkError

app = typer.Typer(
    name="pronk",
    help="Fine-tune Llama models on the GPU you have, and know whether it helped.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (
    studies.demo, checks.init, checks.doctor, checks.tokens, checks.check, studies.plan, studies.run, studies.report,
    measuring.evaluate, comparing.compare, asking.generate, asking.inspect, chatting.chat, voting.arena, judging.judge,
    synthesizing.synthesize, shipping.export, predicting.predict, serving.serve,
):  # fmt: skip
    # eval is not a name for a function: Python has one
    app.command("eval" if verb is measuring.evaluate else None)(verb)
app.add_typer(trying.trying, name="try")
app.add_typer(benches.bench, name="bench")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        print(f"pronk {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; what a person can mend is one message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no "…" gets a "?", not a traceback
    from pronk.model.memory.sizes import steady_allocator

    steady_allocator()
    try:
        app(prog_name="pronk")
    except PronkError as error:
        say(f"pronk: {error}", style="red")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # whoever read our output has left; Python would complain once more while flushing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
