"""Which kernel attends to a pack on a GPU: the fastest that is installed and right, chosen once.

A *ragged* kernel takes segments of any lengths, laid end to end; an *even* one takes segments of one
length. FASTEST is the one place that says which is tried first. What is tried must give the values and
gradients of plain attention on a small pack, or it is passed over with its reason.
Shapes: H query heads, G key/value heads, D head size, T query tokens, L keys as the segments see them, S segments.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pronk.model.hub import first_line


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the segments' queries and keys begin and end: int32 (S + 1) each; no segment is longer than its longest.

    A segment's last query sees all of its keys, the one before that all but the last, and so on.
    """

    queries: Tensor
    keys: Tensor
    longest_query: int
    longest_key: int


class Heads(NamedTuple):
    """How many query heads and key/value heads a model has, and their size. Kernels are compiled for them."""

    queries: int
    keys: int
    size: int

    @classmethod
    def of(cls, config: Any) -> Heads:
        """Those of a model with this configuration; OPT and its like name no heads for keys."""
        count = config.num_attention_heads
        shared = getattr(config, "num_key_value_heads", None) or count
        return cls(count, shared, getattr(config, "head_dim", None) or config.hidden_size // count)


# (q_THD, k_LGD, v_LGD, segments, scale) → (T, H, D); a scale of None is 1/√D
Attend = Callable[[Tensor, Tensor, Tensor, Segments, float | None], Tensor]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A way to attend to a pack. module: what must be there to import; without it the kernel is not spoken of."""

    name: str
    attend: Attend
    version: Callable[[], str]
    module: str = "torch"
    deterministic: bool = True  # on request


@dataclass(frozen=True, slots=True)
class Choice:
    """What a device attends with. No ragged kernel: sequences are padded. passed_over: names, each with its reason."""

    ragged: Kernel | None
    even: Kernel | None
    passed_over: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self.ragged is None:
            return "PyTorch's own, sequences padded by length"
        even = f", {_named(self.even)} for sequences of one length" if self.even else ""
        return _named(self.ragged) + even


def flash_2(q_THD: Tensor, k_LGD: Tensor, v_LGD: Tensor, segments: Segments, scale: float | None) -> Tensor:
    """PyTorch's varlen_attn: the FlashAttention 2 kernels that it is built with."""
    return _varlen(None, q_THD, k_LGD, v_LGD, segments, scale)


def flash_3(q_THD: Tensor, k_LGD: Tensor, v_LGD: Tensor, segments: Segments, scale: float | None) -> Tensor:
    """PyTorch's varlen_attn, switched to the FlashAttention 3 kernels of flash_attn_interface."""
    return _varlen("FA3", q_THD, k_LGD, v_LGD, segments, scale)


def flash_4(q_THD: Tensor, k_LGD: Tensor, v_LGD: Tensor, segments: Segments, scale: float | None) -> Tensor:
    """FlashAttention 4's own function.

    Not through PyTorch's switch: there 2.11 refuses varlen_attn's backward pass, and up to 2.13 it expects two
    results of a forward that by now (4.0.0b36) returns five.
    """
    if "flash_attn.cute" not in sys.modules:  # before it is read: compiled code is kept, among our own files
        from pronk.model.places import cache_folder

        os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")
        os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", str(cache_folder() / "flash-attention-4"))
    from flash_attn.cute import flash_attn_varlen_func

    mixed = flash_attn_varlen_func(
        q_THD, k_LGD, v_LGD,
        cu_seqlens_q=segments.queries, cu_seqlens_k=segments.keys,
        max_seqlen_q=segments.longest_query, max_seqlen_k=segments.longest_key,
        softmax_scale=scale, causal=True, deterministic=torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip
    return torch.as_tensor(mixed[0] if isinstance(mixed, tuple) else mixed)


def cudnn(q_THD: Tensor, k_LGD: Tensor, v_LGD: Tensor, segments: Segments, scale: float | None) -> Tensor:
    """cuDNN through scaled_dot_product_attention: segments of one length that see themselves only.

    Not for other segments: varlen_attn has cuDNN switched off in PyTorch 2.11 to 2.13, and refuses it shared heads.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if (torch.backends.cudnn.version() or 0) < CUDNN_RIGHT:
        raise RuntimeError("before 9.15.1 cuDNN is wrong on lengths that are no multiple of 128 (pytorch#169849)")
    q_SHTD, k_SGTD, v_SGTD = (
        part.unflatten(0, (-1, segments.longest_query)).transpose(1, 2) for part in (q_THD, k_LGD, v_LGD)
    )
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        mixed_SHTD = scaled_dot_product_attention(
            q_SHTD, k_SGTD, v_SGTD, is_causal=True, scale=scale, enable_gqa=q_THD.shape[1] != k_LGD.shape[1]
        )
    return mixed_SHTD.transpose(1, 2).flatten(0, 1)


def _varlen(
    switch: str | None, q_THD: Tensor, k_LGD: Tensor, v_LGD: Tensor, segments: Segments, scale: float | None
) -> Tensor:
    from torch.nn.attention import (
        activate_flash_attention_impl,
        current_flash_attention_impl,
        restore_flash_attention_impl,
    )
    from torch.nn.attention.varlen import varlen_attn

    if current_flash_attention_impl() != switch:
        activate_flash_attention_impl(switch) if switch else restore_flash_attention_impl()
    options: dict[str, Any] = {"scale": scale, "window_size": (-1, 0)}
    # 2.11 takes shared key heads without being told, later ones want to be
    if "enable_gqa" in _parameters(varlen_attn):
        options["enable_gqa"] = q_THD.shape[1] != k_LGD.shape[1]
    mixed = varlen_attn(
        q_THD, k_LGD, v_LGD,
        segments.queries, segments.keys, segments.longest_query, segments.longest_key, **options,
    )  # fmt: skip
    return torch.as_tensor(mixed)


@cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _cudnn_version() -> str:
    number = torch.backends.cudnn.version() or 0
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _torch_version() -> str:
    return f"PyTorch {torch.__version__.split('+')[0]}"


def _package_version(distribution: str) -> Callable[[], str]:
    return lambda: f"{distribution} {importlib.metadata.version(distribution)}"


FLASH_2 = Kernel("FlashAttention 2", flash_2, _torch_version)
FLASH_3 = Kernel("FlashAttention 3", flash_3, lambda: "PyTorch's switch", "flash_attn_interface")
FLASH_4 = Kernel("FlashAttention 4", flash_4, _package_version("flash-attn-4"), "flash_attn.cute")
CUDNN = Kernel("cuDNN", cudnn, _cudnn_version, deterministic=False)

# Fastest first, by the major number of the compute capability; benchmarks/attention_kernels.py measures it.
FASTEST: dict[int, tuple[Kernel, ...]] = {
    7: (),  # FlashAttention begins with 8.0
    9: (FLASH_3, FLASH_4, FLASH_2),
    10: (FLASH_4, FLASH_2),
}
FASTEST_EVEN: dict[int, tuple[Kernel, ...]] = {9: (CUDNN,), 10: (CUDNN,)}
OTHERS = (FLASH_2,)  # capabilities that are not named
HALF = (torch.bfloat16, torch.float16)
CUDNN_RIGHT = 91501
# An even kernel builds a plan for each shape, a good part of a second: worth it for long sequences that were cut at
# one length, as that shape comes again. Two that long are hardly ever of one length by chance.
EVEN_SEGMENTS, EVEN_LENGTH = 2, 512


def choose(device: torch.device, dtype: torch.dtype, heads: Heads) -> Choice:
    """The kernels for a device, found at the first call; deterministic ones while PyTorch is told to be so."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return _choose(torch.device("cuda", index), dtype, heads, torch.are_deterministic_algorithms_enabled())


@cache
def _choose(device: torch.device, dtype: torch.dtype, heads: Heads, deterministic: bool) -> Choice:
    if dtype not in HALF:
        return Choice(None, None)
    major = torch.cuda.get_device_capability(device)[0]
    with torch.cuda.device(device):
        ragged, passed = first_right(FASTEST.get(major, OTHERS), ragged_trial, device, dtype, heads, deterministic)
        even, more = first_right(FASTEST_EVEN.get(major, ()), even_trial, device, dtype, heads, deterministic)
    return Choice(ragged, even if ragged else None, (*passed, *more))


@dataclass(frozen=True, slots=True)
class Trial:
    """A small pack: lengths of the segments' own tokens and of the keys that each sees; the seen in front are
    of an earlier segment's beginning."""

    queries: tuple[int, ...]
    keys: tuple[int, ...]


# lengths around the kernels' tiles of 64 and 128, one token, none (as recordings have), looking back at much and little
ragged_trial = Trial((5, 64, 1, 133, 70, 128, 0), (5, 64, 6, 197, 70, 261, 0))
even_trial = Trial((255,) * 3, (255,) * 3)


def first_right(
    kernels: Sequence[Kernel], trial: Trial, device: torch.device, dtype: torch.dtype, heads: Heads,
    deterministic: bool,
) -> tuple[Kernel | None, tuple[tuple[str, str], ...]]:  # fmt: skip
    """The first of the kernels that is installed and right, and why those before it were passed over."""
    passed_over: list[tuple[str, str]] = []
    for kernel in kernels:
        if not _installed(kernel.module):
            continue
        if deterministic and not kernel.deterministic:
            continue
        if fault := what_is_wrong(kernel.attend, trial, device, dtype, heads, deterministic):
            passed_over.append((kernel.name, fault))
        else:
            return kernel, tuple(passed_over)
    return None, tuple(passed_over)


def what_is_wrong(
    attend: Attend, trial: Trial, device: torch.device, dtype: torch.dtype, heads: Heads, deterministic: bool = False
) -> str:
    """Compare a kernel with plain attention on a small pack, values and gradients; empty when they agree.

    Queries, keys and values are slices of one tensor.
    """
    with torch.inference_mode(False), torch.enable_grad():  # an evaluation may be the first to ask
        inputs, segments = _inputs(trial, device, dtype, heads)
        try:
            found = values_and_gradients(attend, inputs, segments)
            again = values_and_gradients(attend, inputs, segments) if deterministic else found
        except Exception as error:  # another's code, which may raise whatever it likes
            return f"{type(error).__name__}: {first_line(error)[:200]}"
        exact = values_and_gradients(plain_attention, [part.double() for part in inputs], segments)
    for name, ours, twice, true in zip(("output", *"qkv"), found, again, exact, strict=True):
        named = "its output" if name == "output" else f"its gradient for {name}"
        # four roundings of the largest value; what sees too much or too little is off by the value itself
        if not (ours.double() - true).abs().max() <= 4 * torch.finfo(dtype).eps * true.abs().max():
            return f"{named} is wrong on a small pack"
        if not torch.equal(ours, twice):
            return f"{named} differs from call to call"
    return ""


def values_and_gradients(attend: Attend, inputs: Sequence[Tensor], segments: Segments) -> list[Tensor]:
    """Output and gradients for q, k and v, under a loss that weighs every value otherwise."""
    q_THD, k_LGD, v_LGD = (part.detach().requires_grad_() for part in inputs)
    mixed_THD = attend(q_THD, k_LGD, v_LGD, segments, None)
    weights = torch.linspace(-1, 1, mixed_THD.numel(), dtype=torch.float64, device=mixed_THD.device)
    gradients = torch.autograd.grad(mixed_THD, (q_THD, k_LGD, v_LGD), weights.view_as(mixed_THD).to(mixed_THD.dtype))
    return [mixed_THD.detach(), *gradients]


def plain_attention(q_THD: Tensor, k_LGD: Tensor, v_LGD: Tensor, segments: Segments, scale: float | None) -> Tensor:
    """Attention written out, segment by segment: what every kernel must agree with."""
    k_LHD, v_LHD = (part.repeat_interleave(q_THD.shape[1] // part.shape[1], dim=1) for part in (k_LGD, v_LGD))
    starts, key_starts = segments.queries.tolist(), segments.keys.tolist()
    parts = []
    for start, end, key_start, key_end in zip(starts, starts[1:], key_starts, key_starts[1:], strict=False):
        tokens, keys = end - start, key_end - key_start
        seen_TL = torch.ones(tokens, keys, dtype=torch.bool, device=q_THD.device).tril(keys - tokens)
        scores_HTL = torch.einsum("thd,lhd->htl", q_THD[start:end], k_LHD[key_start:key_end])
        shares_HTL = (scores_HTL * (scale or q_THD.shape[-1] ** -0.5)).masked_fill(~seen_TL, -torch.inf).softmax(-1)
        parts.append(torch.einsum("htl,lhd->thd", shares_HTL, v_LHD[key_start:key_end]))
    return torch.cat(parts)


def _inputs(trial: Trial, device: torch.device, dtype: torch.dtype, heads: Heads) -> tuple[list[Tensor], Segments]:
    """Random queries, keys and values, as the segments see them."""
    draw = torch.Generator().manual_seed(0)
    tokens, keys = sum(trial.queries), sum(trial.keys)
    q_THD, k_LGD, v_LGD = (
        torch.randn(max(tokens, keys), heads.queries + 2 * heads.keys, heads.size, generator=draw)
        .to(device, dtype)
        .split((heads.queries, heads.keys, heads.keys), dim=1)
    )
    ends, key_ends = (
        torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32) for lengths in (trial.queries, trial.keys)
    )
    return [q_THD[:tokens], k_LGD[:keys], v_LGD[:keys]], Segments(ends, key_ends, max(trial.queries), max(trial.keys))


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, OSError, ValueError):  # the package around it is not there, or not whole
        return False


def _named(kernel: Kernel) -> str:
    try:
        version = kernel.version()
    except importlib.metadata.PackageNotFoundError:  # built by hand
        return kernel.name
    return f"{kernel.name} ({version})"
