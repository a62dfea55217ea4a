"""Does FP8 cost quality? One recipe with three seeds over four bases: bf16, FP8, NF4, and NF4 with FP8 products.

Prints a Markdown table of the held-out losses (nats per answer token) and how far each kind lies from bf16, seed by
seed; the rows, their order and each adapter's start are the same in every column. Ends with 1 where the mean over
the seeds of FP8, or of NF4 with FP8 products, lies more than 0.5% from bf16's. The last table says what FP8 products
alone do to NF4.

    python benchmarks/fp8_earns_its_place.py alpaca_cleaned_5000.jsonl --base smollm2

The seeds of a kind train together, as one fleet. A few minutes on one GPU that has FP8; on a CPU FP8 is only imitated,
so slowly that --train 64 --test 32 is enough.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

import pronk
from pronk.errors import PronkError

KINDS: dict[str, dict[str, Any]] = {
    "bf16": {"quantize": "none"},
    "FP8": {"quantize": "fp8"},
    "NF4": {"quantize": "nf4"},
    "NF4, FP8 products": {"quantize": "nf4", "fp8_products": True},
}
LIMIT = 0.005  # of bf16's held-out loss
Losses = dict[str, list[float]]  # kind → loss of each seed


def recipe(given: argparse.Namespace, kind: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of one kind of base."""
    return {
        "base": given.base,
        "quantize": kind["quantize"],
        "data": {
            "source": str(Path(given.data).resolve()),
            "format": "alpaca",
            "split": {"train": given.train, "test": given.test, "seed": 42},
        },
        "prompt": "alpaca",
        "adapter": {"rank": 16, "alpha": 16},
        "train": {
            "epochs": given.epochs, "batch_size": 16, "learning_rate": 2e-4, "schedule": "constant_with_warmup",
            "warmup_steps": 20, "max_length": 512, "dtype": "bf16", "device": given.device, "trackers": [], "keep": 1,
            "fp8_products": kind.get("fp8_products", False),
        },
        "evaluate": ["likelihood"],
        "study": {"train.seed": list(range(1, given.seeds + 1))},
    }  # fmt: skip


def held_out(given: argparse.Namespace, name: str, folder: Path) -> tuple[float, list[float]]:
    """The loss of the untouched base, and of each seed's run."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(given, KINDS[name]), sort_keys=False), encoding="utf-8")
    began = time.perf_counter()
    study = pronk.run(path, out=folder / "study")
    print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    failed = [f"{run.name}: {run.message}" for run in study.runs if run.status != "finished"]
    if failed:
        raise PronkError(f"{name}: " + "; ".join(failed))
    losses = [run.metrics["nll"] for run in study.runs if not run.baseline]
    return next(run.metrics["nll"] for run in study.runs if run.baseline), losses


def table(bases: Mapping[str, float], losses: Losses, against: str) -> str:
    """Held-out losses and differences from one kind, as Markdown."""
    seeds = range(1, len(losses[against]) + 1)
    lines = ["| base | untouched | " + " | ".join(f"seed {seed}" for seed in seeds) + f" | mean, against {against} |"]
    lines.append("|---" * (3 + len(seeds)) + "|")
    for name, found in losses.items():
        cells = [f"{a:.4f} ({a / b - 1:+.2%})" for a, b in zip(found, losses[against], strict=True)]
        off = difference(losses, name, against)
        lines.append(f"| {name} | {bases[name]:.4f} | " + " | ".join(cells) + f" | {mean(found):.4f} ({off:+.2%}) |")
    return "\n".join(lines)


def difference(losses: Losses, name: str, against: str) -> float:
    """How far a kind's mean loss lies above another's, as a share of it."""
    return mean(losses[name]) / mean(losses[against]) - 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything, print the tables; 0 where FP8 earns its place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a file of Alpaca rows (.jsonl)")
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--train", type=int, default=4000, help="training rows")
    parser.add_argument("--test", type=int, default=500, help="held-out rows")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    bases: dict[str, float] = {}
    losses: Losses = {}
    with tempfile.TemporaryDirectory() as place:
        for name in KINDS:
            folder = Path(place) / name.replace(", ", "_").replace(" ", "_")
            folder.mkdir()
            bases[name], losses[name] = held_out(given, name, folder)
    print(table(bases, losses, "bf16"))
    print("\nWhat FP8 products alone change:\n")
    print(table(bases, {name: losses[name] for name in ("NF4", "NF4, FP8 products")}, "NF4"))
    earned = all(abs(difference(losses, name, "bf16")) <= LIMIT for name in ("FP8", "NF4, FP8 products"))
    print(f"\nWithin {LIMIT:.1%} of bf16: {'yes' if earned else 'no'}")
    return 0 if earned else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PronkError as error:
        print(f"fp8_earns_its_place: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
