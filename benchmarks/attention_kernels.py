"""Which attention kernel is the fastest on this GPU: times every one that is installed, forward and with backward.

    python benchmarks/attention_kernels.py

The orders in src/pronk/model/attention_kernels.py (FASTEST, FASTEST_EVEN) should agree with what this prints. Each
kernel takes slices of one tensor, in bf16, and is compared with fp32: the error is the largest difference, of output
and gradients, in parts of the largest value. Under a minute on an H200; FlashAttention 4 compiles first.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pronk.model.attention_kernels import CUDNN, FLASH_2, FLASH_3, FLASH_4, Attend, Kernel, Segments, _installed
from pronk.model.attention_padded import attend_padded
from pronk.model.determinism import deterministic

RAGGED = (FLASH_2, FLASH_3, FLASH_4)
WARM_UP, REPEATS = 3, 15


@dataclass(frozen=True)
class Shape:
    """A pack: what to call it, query heads, key heads, head size, lengths of its segments."""

    name: str
    heads: int
    groups: int
    size: int
    lengths: tuple[int, ...]

    def flops(self) -> float:
        """Of the forward pass: two products over the half of the scores that is seen."""
        return 4 * self.heads * self.size * sum(length * (length + 1) / 2 for length in self.lengths)


def alpaca_like(tokens: int, mean: float = 130.0) -> tuple[int, ...]:
    """Lengths with a long tail and this mean, filling so many tokens."""
    draw, lengths = random.Random(0), []
    while (left := tokens - sum(lengths)) > 0:
        lengths.append(min(left, 1 + round(draw.lognormvariate(math.log(mean) - 0.25, 0.7))))
    return tuple(lengths)


SHAPES = [
    Shape("Llama 8B, 4 x 2048", 32, 8, 128, (2048,) * 4),
    Shape("Llama 8B, 4 x 2047", 32, 8, 128, (2047,) * 4),
    Shape("Llama 8B, 16384 Alpaca-like", 32, 8, 128, alpaca_like(16384)),
    Shape("SmolLM2, 10240 Alpaca-like", 9, 3, 64, alpaca_like(10240)),
    Shape("SmolLM2, 4 x 2048", 9, 3, 64, (2048,) * 4),
]


def main() -> None:
    """Print a Markdown table."""
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}\n")
    print("| pack | kernel | forward ms | TFLOP/s | with backward ms | TFLOP/s | error |")
    print("|---|---|---|---|---|---|---|")
    for shape in SHAPES:
        inputs, segments = make(shape)
        true = run(padded(shape), [part.float() for part in inputs], segments)
        for name, attend, sure in ways(shape):
            with deterministic(sure):
                print(f"| {shape.name} | {name} | {row(attend, inputs, segments, true, shape)} |", flush=True)
        del inputs, true
        torch.cuda.empty_cache()


def ways(shape: Shape) -> list[tuple[str, Attend, bool]]:
    """Everything that is installed, by name; true: asked to be deterministic."""
    kernels: list[Kernel] = [kernel for kernel in RAGGED if _installed(kernel.module)]
    if len(set(shape.lengths)) == 1:
        kernels.append(CUDNN)
    found = [(kernel.name, kernel.attend, False) for kernel in kernels]
    found += [(f"{kernel.name}, deterministic", kernel.attend, True) for kernel in kernels if kernel.deterministic]
    return [*found, ("padded by length", padded(shape), False)]


def padded(shape: Shape) -> Attend:
    """The way of types that no kernel takes."""
    parents = (-1,) * len(shape.lengths)
    return lambda q, k, v, _, scale: attend_padded(q, k, v, shape.lengths, parents, scale)


def make(shape: Shape) -> tuple[list[Tensor], Segments]:
    """Queries, keys and values as slices of one tensor, and where the segments lie."""
    torch.manual_seed(0)
    heads = (shape.heads, shape.groups, shape.groups)
    whole = torch.randn(sum(shape.lengths), sum(heads), shape.size, device="cuda", dtype=torch.bfloat16)
    ends = torch.tensor([0, *shape.lengths]).cumsum(0).to("cuda", torch.int32)
    longest = max(shape.lengths)
    return list(whole.split(heads, dim=1)), Segments(ends, ends, longest, longest)


def run(attend: Attend, inputs: list[Tensor], segments: Segments) -> list[Tensor]:
    """Output and gradients, under a gradient that is the same for every kernel."""
    leaves = [part.detach().requires_grad_() for part in inputs]
    mixed = attend(*leaves, segments, None)
    slope = torch.linspace(-1, 1, mixed.shape[-1], device="cuda", dtype=mixed.dtype).expand_as(mixed).contiguous()
    return [mixed.detach(), *torch.autograd.grad(mixed, leaves, slope)]


def row(attend: Attend, inputs: list[Tensor], segments: Segments, true: list[Tensor], shape: Shape) -> str:
    """A kernel's cells, or why it has none."""
    try:
        found = run(attend, inputs, segments)
        with torch.no_grad():
            forward = milliseconds(lambda: attend(*inputs, segments, None))
        both = milliseconds(lambda: run(attend, inputs, segments))
    except Exception as error:  # the next kernel may do better
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100]} | | | | "
    errors = [
        float((ours.float() - other).abs().max() / other.abs().max()) for ours, other in zip(found, true, strict=True)
    ]
    flops = shape.flops() / 1e9  # a millisecond's at a TFLOP/s
    # the backward pass has five products to the forward's two
    return f"{forward:.3f} | {flops / forward:.0f} | {both:.3f} | {3.5 * flops / both:.0f} | {max(errors):.4f}"


def milliseconds(work: Callable[[], object]) -> float:
    """The median of some calls, measured on the GPU."""
    times = []
    for number in range(WARM_UP + REPEATS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        if number >= WARM_UP:
            times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2]


if __name__ == "__main__":
    main()
