"""pronk's side of a bench: a fleet of one run, or of several with the same work."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from pronk import __version__
from pronk.doctor.environment import device_name, peak_memory
from pronk.doctor.gemm import gemm_rate
from pronk.doctor.peers.work import Result, Work, main
from pronk.errors import RefusedError
from pronk.model.adapter import AdapterShape
from pronk.model.load import find_base, linear_layer_sizes, load_for_fleet, load_model, resolve_dtype
from pronk.model.memory.sizes import release
from pronk.recipe import read_recipe
from pronk.study import plan_study
from pronk.tokens.pack import TOKEN_BUDGET
from pronk.tokens.prompt import Example
from pronk.train.fleet import Fleet, RunPlan


@dataclass(slots=True)
class _Played:
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def side(work: Work) -> Result:
    """Play the steps of the work, one round each."""
    device = torch.device(work.device)
    played = _play(work, device)
    peak = peak_memory(device)
    allocated = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Result(
        played.losses, played.norms, played.seconds, peak, __version__, allocated, device_name(device),
        _ceiling(work, device) if work.ceiling else None,
    )  # fmt: skip


def _play(work: Work, device: torch.device) -> _Played:
    budget = work.token_budget or TOKEN_BUDGET[device.type]
    fleet = Fleet(_model(work, device), _plans(work), budget, work.recompute)
    if work.start:
        start = load_file(work.start)
        for slot in range(work.runs):
            fleet.adapter.load(slot, start)
    played = _Played()
    for _ in range(work.steps):
        started = time.perf_counter()
        steps = fleet.play_round()
        if broken := [run.error for run in fleet.runs if run.error]:
            raise RefusedError(f"a run broke: {broken[0]}")
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        played.seconds.append(time.perf_counter() - started)
        played.losses.append(steps[0].loss)
        played.norms.append(steps[0].gradient_norm)
    return played


def _model(work: Work, device: torch.device) -> Any:
    """The base as `pronk run` loads it for the recipe, or as the work's own fields say."""
    dtype = resolve_dtype(work.dtype, device)
    if not work.recipe:
        return load_model(find_base(work.base), dtype, device)
    (fleet,) = plan_study(read_recipe(work.recipe)).fleets
    return load_for_fleet(fleet, find_base(fleet.base), dtype, device)


def _plans(work: Work) -> list[RunPlan]:
    """The work's run, and for a fleet others that differ in the order of their examples."""
    examples = [Example(np.array(ids), np.array(learned, dtype=bool)) for ids, learned in work.examples]
    targets = work.targets if isinstance(work.targets, str) else tuple(work.targets)
    return [
        RunPlan(
            name=f"bench-{slot}",
            examples=examples,
            shape=AdapterShape(work.rank, work.alpha, targets),
            steps=work.steps,
            batch_size=work.batch_size,
            learning_rate=work.learning_rate,
            optimizer=work.optimizer,
            schedule=work.schedule,
            warmup_steps=work.warmup_steps,
            weight_decay=work.weight_decay,
            clip=work.clip,
            seed=work.seed + slot,
        )
        for slot in range(work.runs)
    ]


def _ceiling(work: Work, device: torch.device) -> float:
    """Of the first layer's own shapes, with as many tokens as a micro-batch of the work has."""
    release(device)  # what has just been trained is gone
    sizes = linear_layer_sizes(find_base(work.base))
    layer = [size for name, size in sizes.items() if ".layers.0." in name] or list(sizes.values())
    longest = sum(len(ids) for ids, _ in work.examples[: work.batch_size]) * work.runs
    tokens = min(longest, work.token_budget or TOKEN_BUDGET[device.type])
    return gemm_rate(layer, tokens, resolve_dtype(work.dtype, device), device)


if __name__ == "__main__":
    main(side)
