"""pronk against TRL on the same work, and a fleet against its runs one by one.

Each side runs in a process of its own. A ratio is printed only if both sides did the same: losses
that agree step by step, and gradients that are not zero.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from pronk.doctor.peers.work import Result, Work
from pronk.errors import InputError, RecipeError, RefusedError
from pronk.recipe import Recipe, read_recipe
from pronk.study import plan_study

if TYPE_CHECKING:
    from pronk.tokens.prompt import Example

WARM_UP = 3  # steps before the clock counts: first allocations, first kernels
# Largest difference of a step's loss that is still rounding: |ours - theirs| / theirs.
AGREEMENT = {"fp32": 1e-3, "bf16": 5e-2}


def bench_training(path: Path, overrides: Sequence[str], steps: int, console: Console) -> dict[str, Any]:
    """One run's step against TRL's, as JSON and as a Markdown table.

    Raises RefusedError if the two sides did not compute the same.
    """
    if importlib.util.find_spec("trl") is None:
        raise InputError('bench train measures against TRL, which is not installed: pip install "pronk[bench]"')
    with tempfile.TemporaryDirectory() as folder:
        work = make_work(read_recipe(path, overrides), WARM_UP + steps, Path(folder) / "start.safetensors")
        sides = {name: run_side(name, work, Path(folder), console) for name in ("ours", "trl")}
    _check_agreement(sides["ours"], sides["trl"], work.dtype)
    tokens = _tokens_per_step(work)
    speeds = {name: _speed(result, tokens) for name, result in sides.items()}
    share = _share_read(work)
    return {
        "json": {
            "ratio": speeds["ours"] / speeds["trl"],
            "tokens_per_second": speeds,
            "share_of_tokens_read": share,
            "largest_loss_difference": _largest_difference(sides["ours"], sides["trl"]),
            "work": {key: value for key, value in asdict(work).items() if key not in ("examples", "start")},
            "sides": {name: asdict(result) for name, result in sides.items()},
        },
        "markdown": _training_table(work, sides, speeds, share),
    }


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
    lines = [f"| {name} alone | {seconds:.1f} |" for name, seconds in alone.items()]
    table = ["| from command to report | seconds |", "|---|---|", *lines]
    table += [
        f"| all alone | {sum(alone.values()):.1f} |",
        f"| one fleet | {together:.1f} |",
        f"| ratio | {ratio:.2f} |",
    ]
    return {"json": {"ratio": ratio, "fleet_seconds": together, "alone_seconds": alone}, "markdown": "\n".join(table)}


def make_work(recipe: Recipe, steps: int, start: Path) -> Work:
    """The first run of a recipe as work for both sides, its initial adapter written to `start`.

    Raises InputError where the two sides could not do the same: a quantized base, full: true, LoRA+, dropout.
    """
    from safetensors.torch import save_file

    from pronk.data.detect import with_found_formats
    from pronk.data.split import read_splits
    from pronk.model.adapter import attach
    from pronk.model.load import find_base, load_model, resolve_device, resolve_dtype
    from pronk.train.session import adapter_shape, load_examples

    run = plan_study(with_found_formats(recipe)).runs[0].recipe
    _check_both_can(run)
    base, train, shape = find_base(run.base), run.train, adapter_shape(run)
    assert shape is not None
    examples = load_examples(base, [run], *read_splits(run.data))
    rows = examples.train(train.max_length, train.train_on_prompt)
    # TRL's batches are all full, so ours must be too
    rows = rows[: len(rows) // train.batch_size * train.batch_size]
    if not rows:
        raise InputError(f"bench: {train.batch_size} training rows are needed for one full batch")
    device = resolve_device(train.device)
    adapter = attach(load_model(base, resolve_dtype(train.dtype, device), device), [shape])
    adapter.initialize(0, train.seed)
    save_file(adapter.state(0), start)
    return work_of(run, rows, steps, str(start))


def _check_both_can(run: Recipe) -> None:
    """What pronk does and TRL's side of a bench does not."""
    if run.quantize != "none":
        raise InputError("bench train: both sides train on the base as it is; leave quantize out of this recipe")
    if run.full:
        raise RecipeError("full: `pronk bench train` measures adapters; leave full: true out")
    adapter = run.adapter
    for key, found, usual in (
        ("adapter.from", adapter.from_, None), ("adapter.dropout", adapter.dropout, 0.0),
        ("adapter.use_rslora", adapter.use_rslora, False), ("train.lora_plus_ratio", run.train.lora_plus_ratio, 1.0),
    ):  # fmt: skip
        if found != usual:
            raise RecipeError(f"{key}: a bench against TRL does not know {found}; leave it out of this recipe")


def work_of(run: Recipe, rows: Sequence[Example], steps: int, start: str = "") -> Work:
    """A run's training as work for both sides. start: where its initial adapter lies; else each side's own."""
    from pronk.model.load import resolve_device, resolve_dtype

    train, device = run.train, resolve_device(run.train.device)
    return Work(
        base=run.base,
        examples=[(example.ids.tolist(), example.target.tolist()) for example in rows],
        batch_size=train.batch_size,
        seed=train.seed,
        steps=steps,
        rank=run.adapter.rank,
        alpha=run.adapter.alpha,
        targets=run.adapter.targets,
        learning_rate=train.learning_rate,
        clip=train.clip,
        weight_decay=train.weight_decay,
        dtype="bf16" if resolve_dtype(train.dtype, device).itemsize == 2 else "fp32",
        device=device.type,
        optimizer=train.optimizer,
        schedule=train.schedule,
        warmup_steps=train.warmup_steps,
        recompute="none" if train.recompute == "auto" else train.recompute,  # nobody plans memory here
        start=start,
    )


def run_side(name: str, work: Work, folder: Path, console: Console) -> Result:
    """The work done by `ours` or `trl`, in a process of its own. Raises RefusedError with what it said if it failed."""
    source, target = folder / "work.json", folder / f"{name}.json"
    source.write_text(json.dumps(asdict(work)), encoding="utf-8")
    with console.status(f"{work.steps} steps by {name}"):
        command = [sys.executable, "-m", f"pronk.doctor.peers.{name}", str(source), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(f"bench: the side {name} failed:\n{done.stderr.strip()[-2000:]}")
    return Result(**json.loads(target.read_text(encoding="utf-8")))


def _check_agreement(ours: Result, theirs: Result, dtype: str) -> None:
    """No ratio between two sides that did not compute the same."""
    for name, result in (("ours", ours), ("TRL's", theirs)):
        if not all(norm > 0 for norm in result.gradient_norms):
            raise RefusedError(f"bench: no ratio is given: {name} gradients are zero or not numbers")
    if len(ours.losses) != len(theirs.losses):
        raise RefusedError(f"bench: no ratio is given: {len(ours.losses)} steps against {len(theirs.losses)}")
    if (difference := _largest_difference(ours, theirs)) > AGREEMENT[dtype]:
        raise RefusedError(
            f"bench: no ratio is given: the losses differ by {difference:.1%}, more than {AGREEMENT[dtype]:.1%}\n"
            f"ours: {ours.losses}\nTRL:  {theirs.losses}"
        )


def _largest_difference(ours: Result, theirs: Result) -> float:
    return max(abs(a - b) / b for a, b in zip(ours.losses, theirs.losses, strict=True))


def _tokens_per_step(work: Work) -> list[int]:
    """Real tokens of each step: all ids of its examples, no padding."""
    from pronk.train.order import batch_indices

    sizes = [len(ids) for ids, _ in work.examples]
    return [
        sum(sizes[index] for index in batch_indices(len(sizes), work.batch_size, work.seed, step))
        for step in range(work.steps)
    ]


def _speed(result: Result, tokens: Sequence[int]) -> float:
    """Median real tokens a second over the steps after the warm-up."""
    pairs = zip(tokens[WARM_UP:], result.seconds[WARM_UP:], strict=True)
    return statistics.median(count / seconds for count, seconds in pairs)


def _training_table(work: Work, sides: dict[str, Result], speeds: dict[str, float], share_read: float) -> str:
    rows = [
        f"| {name} {result.version} | {speeds[key]:,.0f} | {speeds[key] / speeds['trl']:.2f} "
        f"| {result.losses[0]:.4f} → {result.losses[-1]:.4f} | {result.peak_memory_bytes / 2**30:.1f} GiB |"
        for key, name in (("ours", "pronk"), ("trl", "TRL"))
        for result in [sides[key]]
    ]
    head = [
        f"{work.base}, rank {work.rank} on {work.targets}, batch {work.batch_size}, {work.dtype}, {work.device}, "
        f"median of {work.steps - WARM_UP} steps",
        "",
        "| | real tokens/s | ratio | loss, first → last step | peak memory |",
        "|---|---|---|---|---|",
    ]
    shared = 1 - share_read
    note = ["", f"{shared:.0%} of pronk's tokens lie in beginnings that examples share, which it reads once."]
    return "\n".join([*head, *rows, *(note if shared >= 0.005 else [])])


def _share_read(work: Work) -> float:
    """Which share of the tokens pronk's step reads, beginnings that are the same counted once."""
    from pronk.tokens.pack import TOKEN_BUDGET, Member, pack
    from pronk.tokens.prompt import Example

    members = [Member(Example(np.array(ids), np.array(learned, dtype=bool))) for ids, learned in work.examples]
    batches = [members[start : start + work.batch_size] for start in range(0, len(members), work.batch_size)]
    read = sum(len(packed.ids_T) for batch in batches for packed in pack(batch, TOKEN_BUDGET[work.device]))
    return read / sum(len(member.example.ids) - 1 for member in members)


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
    if abs(together - single) > AGREEMENT["bf16"] * single:
        raise RefusedError(f"bench: no ratio is given: {name} has a loss of {together} in the fleet and {single} alone")
