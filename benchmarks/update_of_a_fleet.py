"""What a round of a fleet costs besides forward and backward, on a GPU: SmolLM2-135M's shape, rank 16, eight runs.

Prints milliseconds as JSON: of the fused update and of its parts, of torch.optim.AdamW run by run (the same numbers,
as it was done before), and gigabytes a second of the update kernel, which reads 16 and writes 12 bytes a weight.

    python benchmarks/update_of_a_fleet.py [--runs 8] [--rank 16] [--repeat 50]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import nn

from pronk.model.adapter import AdapterShape, WideAdapter, attach
from pronk.train.optimizer import FleetOptimizer, RunOptimizer, Settings

LAYERS = 30
SIZES = {
    "self_attn": {"q_proj": (576, 576), "k_proj": (576, 192), "v_proj": (576, 192), "o_proj": (576, 576)},
    "mlp": {"gate_proj": (576, 1536), "up_proj": (576, 1536), "down_proj": (1536, 576)},
}


def main(runs: int, rank: int, repeat: int) -> dict[str, float]:
    """Milliseconds of each part, the median of so many."""
    adapter = _adapter(runs, rank)
    settings = [Settings(1e-4, 0.01, 1.0, 1.0, "adamw")] * runs
    fused = FleetOptimizer(adapter, settings)
    fused.gradients.normal_()
    single = [RunOptimizer(adapter, slot, one) for slot, one in enumerate(settings)]
    losses_K = torch.ones(runs, dtype=torch.float64, device="cuda")
    norms_K = fused.norms()
    factors = dict.fromkeys(range(runs), 1.0)

    def together() -> None:
        norms_K = fused.norms()
        largest_K = fused.update(factors, losses_K, norms_K)
        adapter.settle()
        torch.stack([losses_K, norms_K, largest_K]).tolist()

    def one_by_one() -> None:
        norms = torch.stack([run.gradient_norm() for run in single]).tolist()
        for run, norm in zip(single, norms, strict=True):
            run.step(1.0, torch.tensor(norm, device="cuda"))
        torch.stack([run.largest_weight() for run in single]).tolist()

    values = len(adapter.storage.weights_N)
    update = _milliseconds(lambda: fused.update(factors, losses_K, norms_K), repeat)
    return {
        "weights": values,
        "all": _milliseconds(together, repeat),
        "zeroing gradients": _milliseconds(fused.gradients.zero_, repeat),
        "norms": _milliseconds(fused.norms, repeat),
        "update and largest weights": update,
        "rounding": _milliseconds(adapter.settle, repeat),
        "update, GB/s": values * 28 / update / 1e6,
        "run by run": _milliseconds(one_by_one, repeat),
    }


def _adapter(runs: int, rank: int) -> WideAdapter:
    layers = []
    for _ in range(LAYERS):
        parents = {
            parent: nn.ModuleDict({name: nn.Linear(*size, bias=False) for name, size in children.items()})
            for parent, children in SIZES.items()
        }
        layers.append(nn.ModuleDict(parents))
    model = nn.Sequential(*layers).to("cuda", torch.bfloat16)
    return attach(model, [AdapterShape(rank, 16.0)] * runs)


def _milliseconds(work: Callable[[], object], repeat: int) -> float:
    """The median time of a call, from its start until the device is done."""
    taken = []
    for _ in range(repeat + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(1e3 * (time.perf_counter() - start))
    return sorted(taken[3:])[repeat // 2]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=50)
    given = parser.parse_args()
    print(json.dumps(main(given.runs, given.rank, given.repeat), indent=2))
