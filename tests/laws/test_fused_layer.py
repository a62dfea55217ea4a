"""A fused layer with every way that its adapters can take gives the loss and gradients of PEFT's own model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import PEFT_WARNS, TIGHT, make_examples, packed_model, peft_model, plain_model, random_state
from torch import Tensor

from pronk.model import wide
from pronk.model.adapter import AdapterShape, attach, linear_layers
from pronk.model.forward import to_device, training_loss
from pronk.model.quantize import quantize_linear
from pronk.model.recompute import Recompute
from pronk.tokens.pack import Member, pack

pytestmark = pytest.mark.filterwarnings(PEFT_WARNS)
SHAPES = [
    AdapterShape(4, 8),  # multiplied inside SwiGLU, A's side by side
    AdapterShape(wide.MOST_RANKS + 4, 8),  # too many ranks for that
    AdapterShape(4, 8, ("q_proj", "v_proj", "up_proj")),  # gaps
    AdapterShape(3, 6, ("down_proj",)),
]
Fault = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pronk.model.route.MOST_STRETCHES", 0)


def ours(shape: AdapterShape, recompute: int | str, model: Any = None) -> tuple[float, dict[str, Tensor]]:
    model = packed_model() if model is None else model
    adapter = attach(model, [shape])
    adapter.load(0, random_state(adapter.state(0), "same"))
    adapter.allocate_gradients()
    (batch,) = pack([Member(example, 0, 0.1, None) for example in make_examples(3, 1)], 4096)
    with Recompute(model, recompute):
        loss, _ = training_loss(model, adapter, to_device(batch, torch.device("cpu"), torch.float64))
        loss.backward()
    gradients = {}
    for name, layer in adapter.layers.items():
        dA_RI, dB_RO = layer.gradients()
        gradients |= {f"{name}.lora_A": dA_RI, f"{name}.lora_B": dB_RO.T}
    return loss.item(), gradients


def theirs(shape: AdapterShape) -> tuple[float, dict[str, Tensor]]:
    model = packed_model()
    adapter = attach(model, [shape])
    peft = peft_model(plain_model(), shape, random_state(adapter.state(0), "same"))
    total = torch.zeros((), dtype=torch.float64)
    for example in make_examples(3, 1):
        ids = torch.tensor(example.ids)[None]
        losses = torch.nn.functional.cross_entropy(peft(ids).logits[0][:-1], ids[0, 1:], reduction="none")
        total = total + 0.1 * losses[torch.tensor(example.target[1:])].sum()
    total.backward()
    named = {name.removeprefix("base_model.model."): one.grad for name, one in peft.named_parameters()}
    return total.item(), {
        name.removesuffix(".default.weight"): grad for name, grad in named.items() if grad is not None
    }


def farthest(shape: AdapterShape, recompute: int | str = "none") -> float:
    (loss, gradients), (true, exact) = ours(shape, recompute), theirs(shape)
    assert gradients.keys() == exact.keys()
    return max(abs(loss - true), *(float((gradients[name] - exact[name]).abs().max()) for name in exact))


@pytest.mark.parametrize("recompute", ["none", "all"])
@pytest.mark.parametrize("shape", SHAPES, ids=["on the way", "many ranks", "gaps", "down alone"])
def test_loss_and_gradients_are_those_of_peft(shape: AdapterShape, recompute: str) -> None:
    assert farthest(shape, recompute) < TIGHT


def test_in_fp8_what_is_added_on_the_way_is_what_products_of_their_own_add(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, gradients = ours(SHAPES[0], "none", model_in_fp8())
    monkeypatch.setattr(wide, "MOST_RANKS", 0)
    other_loss, others = ours(SHAPES[0], "none", model_in_fp8())
    assert loss == pytest.approx(other_loss, rel=1e-6)
    assert max(float((gradients[name] - others[name]).abs().max()) for name in others) < 1e-6
    assert all(bool(gradient.any()) for gradient in gradients.values())


def model_in_fp8() -> Any:
    model = packed_model()
    for name, linear in linear_layers(model).items():
        model.set_submodule(name, quantize_linear(linear, "fp8", True, True))
    return model


def nothing_added(patch: pytest.MonkeyPatch) -> None:
    """What SwiGLU multiplies for gate and up is zero."""
    original = wide.Group.additions
    patch.setattr(wide.Group, "additions", lambda *a: [(left, 0 * right) for left, right in original(*a)])


def slopes_of_the_first(patch: pytest.MonkeyPatch) -> None:
    """Side by side, every layer gets the slope of the first."""
    original = wide.Group._slopes_side_by_side

    def faulty(self: wide.Group, *rest: object) -> Tensor:
        first, *others = original(self, *rest).chunk(len(self.wide), dim=1)  # type: ignore[arg-type]
        return torch.cat([first, *(first for _ in others)], dim=1)

    patch.setattr(wide.Group, "_slopes_side_by_side", faulty)


@pytest.mark.parametrize("fault", [nothing_added, slopes_of_the_first])
def test_a_fault_shows(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert farthest(SHAPES[0]) > 1e3 * TIGHT
