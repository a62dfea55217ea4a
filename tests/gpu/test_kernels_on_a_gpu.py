"""Each kernel of a layer on a GPU is its plain form in fp32, to the rounding of its type."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pronk.model.kernels import cross_entropy, norm, rope, swiglu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]
EPS = 1e-5
HALF = [torch.bfloat16, torch.float16]
TOKENS = 77


def draw(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda").to(dtype)


def near(ours: Tensor, exact: Tensor) -> bool:
    """Within three roundings of the type, of a value or of a usual one."""
    step = torch.finfo(ours.dtype).eps
    return bool(((ours.float() - exact).abs() <= 3 * step * (exact.abs() + exact.square().mean().sqrt())).all())


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("features", [576, 4096, 8192])
def test_norm(dtype: torch.dtype, features: int) -> None:
    x, dy, more = (draw(TOKENS, features, seed=seed, dtype=dtype) for seed in range(3))
    weight = draw(features, seed=3, dtype=dtype)
    assert near(norm.rms_norm(x, weight, EPS), norm.rms_norm_plain(x.float(), weight.float(), EPS))
    ours = norm.rms_norm_backward(dy, x, weight, EPS, more)
    exact = norm.rms_norm_backward_plain(dy.float(), x.float(), weight.float(), EPS, more.float())
    assert all(near(one, other) for one, other in zip(ours, exact, strict=True))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(
    ("tokens", "features", "rank"), [(77, 1536, 16), (3000, 14336, 16), (77, 1000, 5), (2100, 1536, 32), (77, 1536, 0)]
)
def test_swiglu(dtype: torch.dtype, tokens: int, features: int, rank: int) -> None:
    both, slope = draw(tokens, 2 * features, seed=0, dtype=dtype), draw(tokens, features, seed=1, dtype=dtype)
    left = draw(tokens, 3 * rank, seed=2, dtype=dtype) / max(rank, 1) ** 0.5
    products = [(part, draw(rank, features, seed=3 + i, dtype=dtype)) for i, part in enumerate(left.chunk(3, 1))]
    exact_products = [(left.float(), right.float()) for left, right in products]
    product = swiglu.swiglu(both, products[:2] if rank else ())
    assert near(product, swiglu.swiglu_plain(both.float(), exact_products[:2] if rank else ()))
    given, same = (both.clone(), slope.clone()), (both.float(), slope.float())
    swiglu.swiglu_backward_(*given, products if rank else ())
    swiglu.swiglu_backward_plain_(*same, exact_products if rank else ())
    assert all(near(one, other) for one, other in zip(given, same, strict=True))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(("heads", "size"), [(12, 64), (40, 128)])
@pytest.mark.parametrize("back", [False, True])
def test_positions(dtype: torch.dtype, heads: int, size: int, back: bool) -> None:
    angle = draw(TOKENS, size // 2, seed=1, dtype=torch.float32).repeat(1, 2)
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    ours = draw(TOKENS, heads * size + 64, seed=0, dtype=dtype)
    exact = ours.float()
    rope.rotate_(ours[:, : heads * size], cos, sin, back)
    rope.rotate_plain_(exact[:, : heads * size], cos.float(), sin.float(), back)
    assert near(ours, exact)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("vocabulary", [49152, 128256, 1000])
def test_cross_entropy(dtype: torch.dtype, vocabulary: int) -> None:
    logits = draw(TOKENS, vocabulary, seed=0, dtype=dtype) * 4
    targets = torch.arange(TOKENS, device="cuda") * (vocabulary // TOKENS)
    weights = draw(TOKENS, seed=1, dtype=torch.float32).abs()
    exact = logits.float()
    losses, slope = cross_entropy.losses_and_slope_(logits, targets, weights), logits
    assert torch.allclose(losses, cross_entropy.losses_and_slope_plain_(exact, targets, weights), rtol=1e-5)
    assert torch.allclose(slope.float(), exact, rtol=4 * torch.finfo(dtype).eps, atol=1e-6)
