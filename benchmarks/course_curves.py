"""Law 2 on the recipes of the courses: the loss curves of pronk and of TRL's SFTTrainer lie on one another.

Both sides train the recipe's first run from the same initial adapter, on the same ids, masks and order, with the
same optimizer, schedule, warm-up, weight decay and recompute, each in a process of its own. Prints JSON; ends
with 1 where a step's loss differs by more than the tolerance, as a share of TRL's.

    python benchmarks/course_curves.py RECIPE [--steps N] [--tolerance X] KEY=VALUE …

The recipe's own number of steps is taken where --steps is absent. The Alpaca recipe and the Korean one, on one GPU:

    python benchmarks/course_curves.py recipes/alpaca-qlora.yaml base=smollm2 quantize=none \\
        double_quantization=null data.source=alpaca_cleaned_5000.jsonl train.dtype=fp32 train.device=cuda
    python benchmarks/course_curves.py recipes/korean-news-summarization.yaml base=smollm2 quantize=none \\
        prompt=alpaca data.source=sci_news_sum_50.jsonl data.split.test=5 data.split.validation=0 \\
        train.max_length=8192 train.dtype=fp32 train.device=cuda
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from pronk.data.detect import with_found_formats
from pronk.doctor.agreement import TOLERANCE
from pronk.doctor.bench_work import check_peers_can, make_work
from pronk.doctor.peers.work import Result, Work
from pronk.doctor.sides import run_side
from pronk.errors import PronkError, RefusedError
from pronk.recipe import Recipe, read_recipe
from pronk.study import plan_study
from pronk.train.order import steps_per_epoch


def main(path: str, overrides: Sequence[str], steps: int | None, tolerance: float | None) -> dict[str, Any]:
    """Both curves and how far they lie apart; agrees: whether that is within the tolerance."""
    console = Console(stderr=True)
    recipe = read_recipe(path, overrides)
    with tempfile.TemporaryDirectory() as folder:
        run = plan_study(with_found_formats(recipe)).runs[0].recipe
        check_peers_can(run)
        # B is zero at first, as in the recipe's own run
        work = make_work(run, steps or 1, Path(folder) / "start.safetensors", spread=0.0)
        work = replace(work, steps=steps or _recipe_steps(recipe, len(work.examples)))
        sides = {name: _result(name, work, Path(folder), console) for name in ("ours", "trl")}
    return comparison(work, sides["ours"], sides["trl"], TOLERANCE[work.dtype].loss if tolerance is None else tolerance)


def _result(name: str, work: Work, folder: Path, console: Console) -> Result:
    answer = run_side(name, work, folder, console)
    if isinstance(answer, str):
        raise RefusedError(f"the side {name} failed:\n{answer}")
    return answer


def comparison(work: Work, ours: Result, theirs: Result, tolerance: float) -> dict[str, Any]:
    """What is printed. Gradients of zero, or losses that are no numbers, never agree."""
    apart = _apart(ours.losses, theirs.losses)
    largest = max(apart)
    learned = all(norm > 0 for norm in (*ours.gradient_norms, *theirs.gradient_norms))
    return {
        "agrees": learned and all(one <= tolerance for one in apart),
        "tolerance": tolerance,
        "largest_loss_difference": largest,
        "at_step": apart.index(largest) + 1,
        "largest_gradient_norm_difference": max(_apart(ours.gradient_norms, theirs.gradient_norms)),
        "work": {key: value for key, value in asdict(work).items() if key not in ("examples", "start")},
        "examples": len(work.examples),
        "losses": {"pronk": ours.losses, "trl": theirs.losses},
        "gradient_norms": {"pronk": ours.gradient_norms, "trl": theirs.gradient_norms},
        "seconds": {"pronk": sum(ours.seconds), "trl": sum(theirs.seconds)},
        "versions": {"pronk": ours.version, "trl": theirs.version},
    }


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Differences as shares of theirs, step by step."""
    return [abs(a - b) / b if b else math.inf for a, b in zip(ours, theirs, strict=True)]


def _recipe_steps(recipe: Recipe, rows: int) -> int:
    return recipe.train.max_steps or recipe.train.epochs * steps_per_epoch(rows, recipe.train.batch_size)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--tolerance", type=float, help="default: 0.001 in fp32, 0.05 in bf16")
    given = parser.parse_intermixed_args()
    try:
        found = main(given.recipe, given.overrides, given.steps, given.tolerance)
    except PronkError as error:
        print(f"course_curves: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(json.dumps(found, indent=1))
    sys.exit(0 if found["agrees"] else 1)
