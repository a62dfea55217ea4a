"""A fleet against its runs one by one: training alone, or whole studies from command to report."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from pronk.doctor.agreement import TOLERANCE
from pronk.doctor.bench import (
    Measured,
    check_settings,
    command_line,
    differences,
    judged,
    peer_works,
    play,
    title,
    told,
)
from pronk.doctor.bench_work import Request, named_works
from pronk.doctor.measured import described, divided, gibibytes, plain, table, versions
from pronk.doctor.sides import choose_peers
from pronk.errors import OptionError, RefusedError
from pronk.recipe import read_recipe
from pronk.study import plan_study


def bench_fleet_training(request: Request, runs: int, single_lengths: str | None, console: Console) -> dict[str, Any]:
    """A fleet's step against a single run's, and both against peers, who train one run after another.

    single_lengths: of the single run's steps, where they are others than a fleet's run has. Returns and raises as
    bench_training.
    """
    if runs < 2:
        raise OptionError(f"--runs: found {runs}; a fleet has two runs or more")
    if request.variants:
        raise OptionError("--variant: a fleet is measured with one setting; use --set")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fleet = replace(named_works(request, folder)["ours"], runs=runs)
        single = replace(fleet, runs=1)
        if single_lengths is not None:
            place = request.base_folder or folder / str(request.base_shape)
            (folder / "single").mkdir()
            single = named_works(replace(request, lengths=single_lengths, base_folder=place), folder / "single")["ours"]
        peers = choose_peers(request.peers, single.device, single.quantize)
        check_settings(single, peers)
        works = {"ours": single, "fleet": fleet} | peer_works(peers, single, request.layout)
        answers = play(works, folder, console, request.timeout)
        measured = judged(works, answers, unlike={"fleet"} if single_lengths is not None else set())
        return {
            "json": _fleet_json(measured, peers),
            "markdown": _fleet_table(measured, peers),
            "problems": told(measured),
        }


def _fleet_json(measured: Measured, peers: Sequence[str]) -> dict[str, Any]:
    speeds = measured.speeds()
    ours = {name: value for name, value in speeds.items() if name not in peers}
    theirs = {name: value for name, value in speeds.items() if name != "fleet"}
    return {
        "ratios": divided(ours, theirs),  # "fleet" over a side: the side's runs one after another
        "tokens_per_second": speeds,
        "differences": differences(measured),
        "problems": dict(measured.problems),
        "work": {name: plain(measured.works[name]) for name in ("ours", "fleet")},
        "sides": {name: asdict(result) for name, result in measured.results.items()},
        "versions": versions(),
        "command": command_line(),
    }


def _fleet_table(measured: Measured, peers: Sequence[str]) -> str:
    speeds, runs = measured.speeds(), measured.works["fleet"].runs
    titles = {"fleet": f"pronk, a fleet of {runs}", "ours": f"pronk, {runs} single runs"}
    titles |= {peer: f"{title(peer)}, {runs} single runs" for peer in peers}
    rows = []
    for name, label in titles.items():
        result, known = measured.results.get(name), name in speeds
        ratios = [f"{speeds[one] / speeds[name]:.2f}" if known and one in speeds else "–" for one in ("fleet", "ours")]
        figure = f"{speeds[name]:,.0f}" if known else "no ratio, see below"
        memory = gibibytes(result.peak_memory_bytes) if result and known else "–"
        rows.append([label, figure, *ratios, memory])
    head = ["training only", "real tokens/s", "fleet ÷", "single ÷", "peak reserved"]
    lines = [described(measured.works["fleet"], measured.results["ours"].device_name), "", *table(head, rows), ""]
    lines.append("Of single runs one was measured: one after another, all go at its speed.")
    return "\n".join([*lines, "", f"`{command_line()}`"])


def bench_fleets(path: Path, overrides: Sequence[str], console: Console) -> dict[str, Any]:
    """A study as one fleet, then each of its runs as a study of its own, from command to report.

    Raises RefusedError if a run's result depends on its company.
    """
    study = plan_study(read_recipe(path, overrides))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        together, fleet = _timed_run(path, overrides, out / "fleet", console)
        alone: dict[str, float] = {}
        for number, run in enumerate(study.runs):
            single = [*overrides, *(f"study.{key}=[{json.dumps(value)}]" for key, value in run.settings.items())]
            alone[run.name], found = _timed_run(path, single, out / str(number), console)
            _check_same_result(run.name, fleet, found)
    ratio = sum(alone.values()) / together
    rows = [[f"{name} alone", f"{seconds:.1f}"] for name, seconds in alone.items()]
    rows += [["all alone", f"{sum(alone.values()):.1f}"], ["one fleet", f"{together:.1f}"], ["ratio", f"{ratio:.2f}"]]
    return {
        "json": {"ratio": ratio, "fleet_seconds": together, "alone_seconds": alone},
        "markdown": "\n".join(table(["from command to report", "seconds"], rows)),
        "problems": [],
    }


def _timed_run(path: Path, overrides: Sequence[str], out: Path, console: Console) -> tuple[float, dict[str, Any]]:
    options = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "pronk", "run", str(path), "--out", str(out), *options]
    with console.status(f"pronk run --out {out.name}"):
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
    if done.returncode:
        raise RefusedError(f"bench: `{' '.join(command)}` failed:\n{done.stderr.strip()[-2000:]}")
    return seconds, json.loads((out / "study.json").read_text(encoding="utf-8"))


def _check_same_result(name: str, fleet: dict[str, Any], alone: dict[str, Any]) -> None:
    """The same loss on the test items, whoever else was in the fleet."""
    together = next(run["metrics"]["nll"] for run in fleet["runs"] if run["name"] == name)
    single = next(run["metrics"]["nll"] for run in alone["runs"] if not run["baseline"])
    if abs(together - single) > TOLERANCE["bf16"].loss * single:
        raise RefusedError(f"bench: no ratio is given: {name} has a loss of {together} in the fleet and {single} alone")
