"""pronk's side of a bench: a fleet of one run."""

from __future__ import annotations

import time

import numpy as np
import torch
from safetensors.torch import load_file

from pronk import __version__
from pronk.doctor.environment import peak_memory
from pronk.doctor.peers.work import Result, Work, main
from pronk.model.adapter import AdapterShape
from pronk.model.load import find_base, load_model, resolve_dtype
from pronk.tokens.pack import TOKEN_BUDGET
from pronk.tokens.prompt import Example
from pronk.train.fleet import Fleet, RunPlan


def side(work: Work) -> Result:
    """Play the steps of the work, one round each."""
    device = torch.device(work.device)
    model = load_model(find_base(work.base), resolve_dtype(work.dtype, device), device)
    examples = [Example(np.array(ids), np.array(learned, dtype=bool)) for ids, learned in work.examples]
    plan = RunPlan(
        name="bench",
        examples=examples,
        shape=AdapterShape(
            work.rank, work.alpha, work.targets if isinstance(work.targets, str) else tuple(work.targets)
        ),
        steps=work.steps,
        batch_size=work.batch_size,
        learning_rate=work.learning_rate,
        optimizer=work.optimizer,
        schedule=work.schedule,
        warmup_steps=work.warmup_steps,
        weight_decay=work.weight_decay,
        clip=work.clip,
        seed=work.seed,
    )
    fleet = Fleet(model, [plan], TOKEN_BUDGET[device.type], work.recompute)
    fleet.adapter.load(0, load_file(work.start))
    losses, norms, seconds = [], [], []
    for _ in range(work.steps):
        started = time.perf_counter()
        (step,) = fleet.play_round()  # reads losses and weights back, so the device has finished
        seconds.append(time.perf_counter() - started)
        losses.append(step.loss)
        norms.append(step.gradient_norm)
    return Result(losses, norms, seconds, peak_memory(device), __version__)


if __name__ == "__main__":
    main(side)
