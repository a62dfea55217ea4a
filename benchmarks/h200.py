"""The figures of docs/performance.md for one large GPU: pronk against Unsloth and TRL, as ratios within one run.

    python benchmarks/h200.py OUT [--half 1|2] [--weights DIR] [--minutes 9] [--fp8 KEY=VALUE]

Needs Unsloth (half 1) and TRL (half 2) installed, some 40 GB of disk and 60 GB of GPU memory; no network, no data:
bases have random weights of the real sizes. Each half takes four to eight minutes on an H200 and can be run by
itself; OUT then holds the JSON of each command, log.txt with all that was said, and table.md, which is printed last
and counts all JSON files that OUT holds. A side that fails is named, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEPS = 8  # timed, after 3
SIDE = 180  # seconds at most for one side's process
LEAST = 45  # seconds under which no further command is begun
LARGE = "--base-shape llama3-8b --quantize nf4"


@dataclass(frozen=True)
class Case:
    """A command of `pronk bench`; its JSON goes to OUT/NAME.json."""

    name: str
    half: int
    command: str
    fp8: bool = False  # measure FP8 products beside


CASES = (
    Case("kept", 1, f"train {LARGE} --lengths 4x2048 --recompute none --peers unsloth", fp8=True),
    Case(
        "recomputed",
        1,
        f"train {LARGE} --lengths 4x2048 --recompute all --token-budget 4096 --peers unsloth",
        fp8=True,
    ),
    Case("alpaca", 1, f"train {LARGE} --lengths alpaca --recompute none --peers unsloth --layout packed", fp8=True),
    Case("small-fleet", 2, "fleet --training-only --base-shape smollm2-135m --lengths 16x80:4 --runs 8 --peers trl"),
    Case("large-fleet", 2, f"fleet --training-only {LARGE} --lengths 1x2048 --single-lengths 8x2048 --peers none"),
)

Found = dict[str, Any]  # the JSON of each case by its name


@dataclass(frozen=True)
class Line:
    """A line of the table: what it says, the bound, and where the figure is."""

    text: str
    bound: float
    figure: Callable[[Found], float]
    at_least: bool = True


def ratio(case: str, ours: str, theirs: str, kind: str = "ratios") -> Callable[[Found], float]:
    """A ratio in a case's JSON; a KeyError or TypeError where it is not there."""
    return lambda found: float(found[case][kind][ours][theirs])


LINES = (
    Line("NF4, 4 × 2,048, nothing recomputed: pronk / Unsloth, bf16 products", 1.15, ratio("kept", "ours", "unsloth")),
    Line("the same, FP8 products", 1.6, ratio("kept", "fp8", "unsloth")),
    Line("all layers recomputed: pronk / Unsloth, bf16 products", 1.15, ratio("recomputed", "ours", "unsloth")),
    Line("the same, FP8 products", 1.5, ratio("recomputed", "fp8", "unsloth")),
    Line("… its memory / Unsloth's, bf16", 1.1, ratio("recomputed", "ours", "unsloth", "memory_ratios"), False),
    Line("… its memory / Unsloth's, FP8", 1.1, ratio("recomputed", "fp8", "unsloth", "memory_ratios"), False),
    Line("Alpaca-like lengths packed: pronk / Unsloth packed, bf16", 1.7, ratio("alpaca", "ours", "unsloth")),
    Line("the same, FP8 products", 2.2, ratio("alpaca", "fp8", "unsloth")),
    Line("SmolLM2-135M, 16 × 80 (4 learned): a fleet of 8 / 8 single runs", 6, ratio("small-fleet", "fleet", "ours")),
    Line("a single run / TRL", 1.6, ratio("small-fleet", "ours", "trl")),
    Line("a fleet of 8 / 8 runs of TRL", 12, ratio("small-fleet", "fleet", "trl")),
    Line("NF4 8B, 16,384 tokens: a fleet of 8 / a single run", 0.97, ratio("large-fleet", "fleet", "ours")),
    Line("memory, nothing recomputed, 8,192 tokens: pronk / Unsloth", 0.9,
         ratio("kept", "ours", "unsloth", "memory_ratios"), False),
    Line("of the rate of bf16 matrix products, nothing recomputed", 0.75,
         lambda found: float(found["kept"]["matrix_product_utilisation"]["ours"])),
)  # fmt: skip


def run(case: Case, out: Path, weights: Path, fp8: str, deadline: float) -> None:
    """Run a case; its JSON goes to OUT, and what it says to OUT/log.txt."""
    left = deadline - time.monotonic()
    if left < LEAST:
        _log(out, f"== {case.name}: not run, the minutes are up")
        return
    shape = case.command.partition("--base-shape ")[2].split()[0]
    command = [sys.executable, "-m", "pronk", "bench", *shlex.split(case.command), "--steps", str(STEPS), "--json"]
    command += ["--base-folder", str(weights / shape), "--timeout", str(int(min(SIDE, max(left - 15, 30))))]
    if "smollm2" in shape:
        command += ["--set", "train.dtype=bf16"]
    if case.fp8:
        command += ["--variant", f"fp8:{fp8}"]
    _log(out, f"== {case.name}: {shlex.join(command)}")
    started = time.monotonic()
    printed, said = played(command, left)
    _log(out, f"{said}\n{case.name}: {time.monotonic() - started:.0f} s")
    if printed.lstrip().startswith("{"):
        (out / f"{case.name}.json").write_text(printed, encoding="utf-8")


def played(command: list[str], seconds: float) -> tuple[str, str]:
    """What a command printed, and what it said; given up after so long, its sides with it."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    ) as process:
        try:
            return process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return "", "given up: the minutes were up"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # its own session: it and the sides that it has started


def table(found: Found) -> str:
    """The Markdown table of all lines; what could not be measured says so."""
    rows = ["| | at least / at most | measured | |", "|---|---|---|---|"]
    for line in LINES:
        bound = f"{'≥' if line.at_least else '≤'} {line.bound:g}"
        try:
            figure = line.figure(found)
        except (KeyError, TypeError):
            rows.append(f"| {line.text} | {bound} | not measured, see log.txt | |")
            continue
        reached = figure >= line.bound if line.at_least else figure <= line.bound
        rows.append(f"| {line.text} | {bound} | {figure:.3f} | {'reached' if reached else 'missed'} |")
    return "\n".join([*rows, "", *_speeds(found)])


def _speeds(found: Found) -> list[str]:
    """Tokens a second and memory of every side, one line a case."""
    lines = []
    for name, case in found.items():
        memory = {side: result["peak_memory_bytes"] / 2**30 for side, result in case["sides"].items()}
        sides = [f"{side} {rate:,.0f} ({memory[side]:.1f} GiB)" for side, rate in case["tokens_per_second"].items()]
        apart = max((one["gradient_norm"] for one in case["differences"].values()), default=0.0)
        lines.append(f"{name}: {', '.join(sides)} tokens/s; gradient norms within {apart:.2%}")
    return lines


def read(out: Path) -> Found:
    """The JSON files that OUT holds."""
    files = {case.name: out / f"{case.name}.json" for case in CASES}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}


def _log(out: Path, text: str) -> None:
    with (out / "log.txt").open("a", encoding="utf-8") as log:
        log.write(text + "\n")
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run the cases that were asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--half", type=int, choices=(1, 2), help="both by default")
    parser.add_argument("--only", nargs="*", choices=[case.name for case in CASES], help="these cases alone")
    parser.add_argument("--weights", type=Path, help="where bases lie between runs; a temporary folder by default")
    parser.add_argument("--minutes", type=float, help="begin nothing after these; default: 9 for a half, 18 for both")
    parser.add_argument("--fp8", default="train.fp8_products=true", help="what makes products FP8 in the recipe")
    given = parser.parse_args()
    deadline = time.monotonic() + 60 * (given.minutes or (9 if given.half else 18))
    given.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with tempfile.TemporaryDirectory() as temporary:
        weights = given.weights or Path(temporary)
        for case in CASES:
            if case.half == (given.half or case.half) and case.name in (given.only or [case.name]):
                run(case, given.out, weights, given.fp8, deadline)
                (given.out / "table.md").write_text(table(read(given.out)) + "\n", encoding="utf-8")
    print(table(read(given.out)))


if __name__ == "__main__":
    main()
