"""Law 8: the chunked loss equals the plain cross-entropy, value and gradient."""

import pytest
import torch
from tiny import packed_model
from torch import Tensor
from torch.nn.functional import cross_entropy

import pronk.model.loss
from pronk.model.forward import output_head
from pronk.model.loss import target_losses, weighted_loss

CLOSE = 1e-10
COUNT = 23


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, head, targets and weights: weights of very different size, one of them zero."""
    generator = torch.Generator().manual_seed(5)
    hidden_ND = torch.randn(COUNT, 16, generator=generator, dtype=torch.float64).to(dtype)
    head_VD = torch.randn(53, 16, generator=generator, dtype=torch.float64).to(dtype)
    targets_N = torch.randint(0, 53, (COUNT,), generator=generator)
    weights_N = torch.rand(COUNT, generator=generator, dtype=torch.float64) * torch.logspace(-3, 1, COUNT)
    weights_N[4] = 0
    return hidden_ND.requires_grad_(), head_VD, targets_N, weights_N


def plain(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, weights_N: Tensor) -> tuple[Tensor, Tensor]:
    losses_N = cross_entropy(hidden_ND @ head_VD.T, targets_N, reduction="none")
    return (losses_N * weights_N).sum(), losses_N


def gradients(function: object, upstream: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    hidden_ND, head_VD, targets_N, weights_N = inputs()
    total, losses_N = function(hidden_ND, head_VD, targets_N, weights_N)  # type: ignore[operator]
    (total * upstream).backward()
    assert hidden_ND.grad is not None
    return total.detach(), losses_N.detach(), hidden_ND.grad


def worst(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("chunk", [1, 2, 7, COUNT - 1, COUNT, 1000])
@pytest.mark.parametrize("upstream", [1.0, -2.5])
def test_value_and_gradient_are_those_of_cross_entropy(
    chunk: int, upstream: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pronk.model.loss, "chunk_size", lambda _: chunk)
    assert worst(gradients(weighted_loss, upstream), gradients(plain, upstream)) < CLOSE


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_losses_without_a_gradient_are_those_of_cross_entropy(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pronk.model.loss, "chunk_size", lambda _: chunk)
    hidden_ND, head_VD, targets_N, weights_N = inputs()
    with torch.no_grad():
        losses_N = target_losses(hidden_ND, head_VD, targets_N)
    assert (losses_N - plain(hidden_ND, head_VD, targets_N, weights_N)[1]).abs().max() < CLOSE


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Independent of any autograd but gradcheck's arithmetic."""
    hidden_ND, head_VD, targets_N, weights_N = inputs()
    assert torch.autograd.gradcheck(lambda h: weighted_loss(h, head_VD, targets_N, weights_N)[0], (hidden_ND,))


def test_extreme_logits_stay_finite() -> None:
    hidden_ND, head_VD, targets_N, weights_N = inputs()
    far = (hidden_ND.detach() * 1e4).requires_grad_()
    total, _ = weighted_loss(far, head_VD, targets_N, weights_N)
    total.backward()
    assert total.isfinite()
    assert torch.allclose(total, plain(far.detach(), head_VD, targets_N, weights_N)[0], rtol=1e-12)
    assert far.grad is not None
    assert far.grad.isfinite().all()


def test_half_precision_gives_losses_in_single_precision() -> None:
    """bf16 products have 8 bits: against fp32 on the same bf16 inputs, logits of size 4√16 err by 2⁻⁸ of that."""
    hidden_ND, head_VD, targets_N, weights_N = inputs(torch.bfloat16)
    total, losses_N = weighted_loss(hidden_ND, head_VD, targets_N, weights_N.float())
    total.backward()
    assert losses_N.dtype == total.dtype == torch.float32
    exact = hidden_ND.detach().float().requires_grad_()
    exact_total, exact_losses_N = plain(exact, head_VD.float(), targets_N, weights_N.float())
    exact_total.backward()
    assert (losses_N - exact_losses_N).abs().max() < 0.1
    assert total.item() == pytest.approx(exact_total.item(), rel=0.01)
    assert hidden_ND.grad is not None
    assert exact.grad is not None
    assert hidden_ND.grad.dtype == torch.bfloat16
    assert (hidden_ND.grad.float() - exact.grad).norm() < 0.02 * exact.grad.norm()


def test_a_model_s_loss_is_the_plain_one_over_all_logits() -> None:
    """Only target rows go through the head; the loss over all logits with a mask is the same."""
    model = packed_model()
    generator = torch.Generator().manual_seed(6)
    hidden_TD = torch.randn(11, model.config.hidden_size, dtype=torch.float64, generator=generator).requires_grad_()
    labels_T = torch.randint(0, model.config.vocab_size, (11,), generator=generator)
    learned = torch.arange(11) % 3 == 1
    total, _ = weighted_loss(hidden_TD[learned], output_head(model), labels_T[learned], torch.full((4,), 0.25).double())
    (ours,) = torch.autograd.grad(total, hidden_TD)
    masked = cross_entropy(model.lm_head(hidden_TD), labels_T.masked_fill(~learned, -100))
    (theirs,) = torch.autograd.grad(masked, hidden_TD)
    assert (total - masked).abs() < CLOSE
    assert (ours - theirs).abs().max() < CLOSE


@pytest.mark.parametrize("fault", ["weights", "targets", "last chunk"])
def test_a_fault_shows(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pronk.model.loss, "chunk_size", lambda _: 7)

    def faulty(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, weights_N: Tensor) -> tuple[Tensor, Tensor]:
        if fault == "weights":  # a mean of means: each chunk's own mean, averaged
            weights_N = torch.cat([part / part.sum() * weights_N.sum() / 4 for part in weights_N.split(7)])
        elif fault == "targets":
            targets_N = targets_N.roll(1)
        else:
            weights_N = weights_N * (torch.arange(COUNT) < 21)
        return weighted_loss(hidden_ND, head_VD, targets_N, weights_N)

    assert worst(gradients(faulty), gradients(plain)) > 1e6 * CLOSE
