"""All that the doctor looks at, in order."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pronk.doctor.health import access, devices, machine, versions
from pronk.doctor.health.finding import COLOURS, MARKS, Line
from pronk.doctor.health.processes import SECONDS, Result, Trial
from pronk.doctor.health.secrets import without_secrets
from pronk.model.places import EMBEDDED

if TYPE_CHECKING:
    from rich.console import Console

REINSTALL = "pip install -U pronk, in a new virtual environment if that does not help"
ANYWHERE, ON_A_GPU = ("bf16", "fp8", "bitsandbytes"), ("triton", "attention")
SHOWN: dict[str, Callable[[Result], Line]] = {
    "bf16": devices.bf16_line, "fp8": devices.fp8_line, "bitsandbytes": devices.bitsandbytes_line,
    "triton": devices.triton_line, "attention": devices.attention_line,
}  # fmt: skip


def examine(base: str, console: Console) -> list[Line]:
    """Every line of the list; progress goes to the console. base: what --base names, or empty.

    Nothing that is broken here breaks it: what cannot be looked at is a line of its own.
    """
    begun: list[Trial] = []
    try:
        with console.status("looking at this machine") as status:
            lines = list(_lines(base, begun, lambda what: status.update(f"trying {what}")))
    finally:
        for trial in begun:
            trial.stop()
    return without_secrets(lines)


def show(lines: Sequence[Line], console: Console) -> None:
    """The list for people, with a sum at its end."""
    from rich.text import Text

    for line in lines:
        text = Text(line.text())
        text.stylize(COLOURS[line.status], 0, len(MARKS[line.status]))
        console.print(text, soft_wrap=True)
    failed = sum(line.status == "failed" for line in lines)
    console.print(f"\n{failed} failed" if failed else "\nnothing failed", highlight=False)


def _lines(base: str, begun: list[Trial], tell: Callable[[str], None]) -> Iterator[Line]:
    hub_id = base if base and base != EMBEDDED and access.local_base(base) is None else ""

    def start(name: str, *arguments: str, seconds: float = SECONDS) -> Trial:
        begun.append(Trial(name, *arguments, seconds=seconds))
        return begun[-1]

    there = importlib.util.find_spec("torch") is not None
    trials = {name: start(name) for name in ("torch", *ANYWHERE)} if there else {}
    hub = start("hub", hub_id, seconds=access.SECONDS)
    smi = machine.nvidia_smi()
    yield from _guarded("Python", lambda: [versions.python_line()])
    yield from _guarded("processor", lambda: [machine.processor_line()])
    yield from _guarded("folders", machine.folder_lines)
    yield from _guarded("embedded model", lambda: [machine.embedded_line()])
    yield from _guarded("libraries", versions.version_lines)
    tell("PyTorch")
    found = trials.pop("torch").result() if there else Result({}, "it is not installed")
    yield from _guarded("PyTorch", lambda: devices.torch_lines(found, smi))
    gpu = bool(found.facts.get("gpus"))
    if gpu or os.environ.get("TRITON_INTERPRET") == "1":
        trials |= {name: start(name) for name in ON_A_GPU}
    yield from _tried(found, trials, tell)
    yield from _guarded("place", lambda: machine.place_lines(os.environ, gpu))
    tell("the hub")
    yield from _guarded("hub", lambda: access.hub_lines(hub.result(), hub_id))
    if base and not hub_id:
        yield from _guarded("base", lambda: [_here(base)])


def _here(base: str) -> Line:
    """The line about a base that is on this machine, or should be."""
    if base == EMBEDDED:
        line = machine.embedded_line()
        return Line("base", "failed" if line.status == "note" else "ok", line.found, line.remedy)
    return access.local_base(base) or Line("base", "note", f"{base} was not looked at")


def _tried(torch: Result, trials: Mapping[str, Trial], tell: Callable[[str], None]) -> Iterator[Line]:
    """What builds on PyTorch; all of it is under way."""
    if torch.fault:
        yield Line("trials", "note", "bf16, FP8, bitsandbytes, Triton and attention were not tried: they need PyTorch")
        return
    for name, line in SHOWN.items():
        tell(name)
        yield line(trials[name].result() if name in trials else Result({}))


def _guarded(name: str, look: Callable[[], Sequence[Line]]) -> Sequence[Line]:
    """The lines of a look; one that breaks is a line that says so."""
    try:
        return look()
    except Exception as error:  # a broken installation breaks wherever it likes
        return [Line(name, "failed", f"could not be looked at ({type(error).__name__}: {error})", REINSTALL)]
