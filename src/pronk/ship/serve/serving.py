"""`pronk serve`: runs behind an OpenAI-compatible server, from the named runs to the engine's end.

The engine is another program. Ours is what is around it: one base for all runs, their prompt form as its template,
a key, the wait until it answers, the proof that it asks as `pronk chat` does, and its end.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from pronk.errors import EngineError, OptionError
from pronk.ship.serve.engine import Choice, Place, choose
from pronk.ship.serve.health import (
    Address,
    check_prompts,
    ended_how,
    free_port,
    wait_until_ready,
)  # fmt: skip
from pronk.ship.serve.order import Command, Options, Order, read_order
from pronk.ship.serve.process import EngineProcess, heard, remove_log
from pronk.ship.serve.words import as_ready, first_error, host_warning, likely_cause, ready_lines
from pronk.train.progress import say

if TYPE_CHECKING:
    from rich.console import Console

KEY = "PRONK_API_KEY"
TOLD_EVERY = 15.0  # seconds between two lines where there is no terminal
SHOWN_LINES, SHOWN_LETTERS = 10, 300  # of the log of an engine that failed
SPINNER = 3  # columns before the line that tells how an engine gets on
KEY_LETTERS = re.compile(r"[!-~]{8,}")  # what a header can carry


def dry_run(targets: Sequence[str], options: Options, overrides: Sequence[str], console: Console) -> dict[str, Any]:
    """The command that `serve` would start, with what is to be said about it; nothing is started or left behind."""
    order = read_order(targets, options.gguf, overrides, partial(say, console))
    choice = choose(order, options)
    with tempfile.TemporaryDirectory(prefix="pronk-serve-") as folder:
        command = choice.command(order, options, _place(choice, Path(folder), options.port, f"${KEY}"))
    shown = dict(command.environment) | dict.fromkeys(command.secret, f"${KEY}")
    line = " ".join([*(f"{name}={_shell(value)}" for name, value in shown.items()), shlex.join(command.argv)])
    return {"engine": choice.label, "command": line, "models": list(command.names), "template": order.template,
            "notes": [*order.notes, *command.notes]}  # fmt: skip


def serve(
    targets: Sequence[str], options: Options, overrides: Sequence[str], console: Console,
    ready: Callable[[dict[str, Any]], None] = lambda _: None,
) -> None:  # fmt: skip
    """Serve until the user ends it. ready: gets address, models and process of an engine that answers.

    Raises OptionError and the like for what cannot be served, EngineError where the engine fails, RefusedError where it
    asks otherwise than `pronk chat`; then nothing of it is left running.
    """
    tell = partial(say, console)
    order = read_order(targets, options.gguf, overrides, tell)
    choice = choose(order, options)
    key, made = _key(console) if choice.has_key else ("", False)
    port = free_port(options.host, options.port)
    with heard(tell) as stop, _workplace(options.log) as (folder, log):
        command = choice.command(order, options, _place(choice, folder, port, key))
        for line in (f"engine: {choice.label}", *order.notes, *command.notes, *host_warning(options.host)):
            tell(line)
        if stop.asked:
            return
        around = {**command.environment, **command.secret}
        process = EngineProcess(command.argv, around, folder, log, stop, key)
        try:
            with _started(process, command):
                address = Address(options.host, port, key)
                if not _ready(process, address, command, order, options, console):
                    return
                ready(as_ready(address, command, choice.label, log))
                for line in ready_lines(address, command, order, key if made else None, log):
                    tell(line)
                if (code := process.wait()) is not None:
                    raise EngineError(f"the engine ended by itself{ended_how(code)}")
        except EngineError as error:
            raise EngineError(_explained(error, process, log)) from None


def _ready(
    process: EngineProcess, address: Address, command: Command, order: Order, options: Options, console: Console
) -> bool:
    """Whether the engine answers, and reads what it should for each of its models; not where the user ends it first."""
    said = dict[str, list[str]]()
    try:
        with _waiting(console) as tell:
            wait_until_ready(process, address, command.health, options.seconds, tell)
            for name in command.names:
                said.setdefault(check_prompts(address, command, order, name), []).append(name)
    except EngineError:
        if process.stop.asked:  # it was ended on purpose
            return False
        raise
    for what, names in said.items():
        say(console, f"{', '.join(names)}: {what}")
    return not process.stop.asked


@contextmanager
def _started(process: EngineProcess, command: Command) -> Iterator[None]:
    try:
        process.start()
    except OSError as error:
        raise OptionError(f"{command.argv[0]}: cannot be started ({error.strerror})") from None
    try:
        yield
    finally:
        process.end()


@contextmanager
def _workplace(log: Path | None) -> Iterator[tuple[Path, Path]]:
    """A folder for the engine's files, and its log. A log that was not asked for stays only where the engine fails."""
    with tempfile.TemporaryDirectory(prefix="pronk-serve-") as folder:
        if log is not None:
            place = log.expanduser().absolute()
            try:
                os.close(os.open(place, os.O_WRONLY | os.O_CREAT, 0o600))
            except OSError as error:
                raise OptionError(f"--log {log}: cannot be written ({error.strerror})") from None
            yield Path(folder), place
            return
        number, name = tempfile.mkstemp(prefix="pronk-serve-", suffix=".log")
        os.close(number)
        try:
            yield Path(folder), Path(name)
        except EngineError:
            raise
        except BaseException:
            remove_log(Path(name))
            raise
        remove_log(Path(name))


def _place(choice: Choice, folder: Path, port: int, key: str) -> Place:
    return Place(choice.environment, folder, port, key, choice.program)


def _key(console: Console) -> tuple[str, bool]:
    """The key that clients must send, and whether it was made here: then it is shown, once, to a terminal only."""
    if given := os.environ.get(KEY, ""):
        if not KEY_LETTERS.fullmatch(given):
            raise OptionError(f"{KEY}: expected at least 8 letters, digits or signs, without spaces")
        return given, False
    if not console.is_terminal:
        raise OptionError(f"there is no terminal to show a new key in: set {KEY} to the key that clients are to send")
    return secrets.token_urlsafe(32), True


@contextmanager
def _waiting(console: Console) -> Iterator[Callable[[str], None]]:
    """How the engine gets on: a line that changes in a terminal, else a line now and then."""
    last = time.monotonic()
    with console.status("starting the engine") as status:

        def tell(line: str) -> None:
            nonlocal last
            if console.is_terminal:
                status.update(Text(f"starting the engine, {line}"[: console.width - SPINNER]))
            elif time.monotonic() - last >= TOLD_EVERY:
                last = time.monotonic()
                say(console, f"waiting for the engine, {line}")

        yield tell


def _explained(error: EngineError, process: EngineProcess, log: Path) -> str:
    """What happened, its likely cause, and the engine's last words."""
    lines = process.last_lines()
    cause = likely_cause(lines)
    said = [str(error) + (f": {cause}" if cause else "")]
    if first := first_error(lines):
        said += [f"its first error: {first}"]
    if lines:
        said += ["its last lines:", *(f"  {line[:SHOWN_LETTERS]}" for line in lines[-SHOWN_LINES:])]
    return "\n".join([*said, f"all that it said: {log}"])


def _shell(value: str) -> str:
    return value if value.startswith("$") else shlex.quote(value)


def dry_run_text(planned: dict[str, Any]) -> str:
    """What `--dry-run` prints."""
    notes = [f"note: {note}" for note in planned["notes"]]
    return "\n".join([f"engine: {planned['engine']}", f"models: {', '.join(planned['models'])}", *notes,
                      planned["command"]])  # fmt: skip


def as_json(value: dict[str, Any]) -> str:
    """A record on one line."""
    return json.dumps(value, ensure_ascii=False)
