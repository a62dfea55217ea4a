"""Where A and B of all runs lie: neighbours that read one input are one matrix, and copies are what was settled."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pronk.model.adapter import AdapterShape, WideAdapter, attach
from pronk.model.storage import ALIGNMENT, Place, adjoining, lay_out
from pronk.model.wide import side_by_side

SAME = [AdapterShape(3, 6.0, ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")), AdapterShape(2, 1.0)]
PARTS = [AdapterShape(3, 6.0, ("q_proj", "v_proj")), AdapterShape(2, 1.0)]


class Layer(nn.Module):
    """The linear layers of a Llama layer, by the same names: o_proj reads as many features as q_proj does."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        sizes = {
            "self_attn": {"q_proj": (24, 24), "k_proj": (24, 8), "v_proj": (24, 8), "o_proj": (24, 24)},
            "mlp": {"gate_proj": (24, 40), "up_proj": (24, 40), "down_proj": (40, 24)},
        }
        for parent, children in sizes.items():
            layers = {name: nn.Linear(i, o, bias=False, dtype=dtype) for name, (i, o) in children.items()}
            setattr(self, parent, nn.ModuleDict(layers))


def attached(shapes: list[AdapterShape], dtype: torch.dtype = torch.float32) -> WideAdapter:
    torch.manual_seed(0)
    adapter = attach(nn.Sequential(Layer(dtype), Layer(dtype)), shapes)
    for slot in range(len(shapes)):
        adapter.initialize({slot: slot})
    return adapter


def test_nothing_overlaps_and_blocks_are_aligned() -> None:
    blocks = [[(3, 24), (2, 24)], [(5, 7)], [(64, 64)]]
    places, length = lay_out(blocks)
    assert [place.start for place in places] == [0, 72, 128, 192]
    assert length % ALIGNMENT == 0
    assert length >= places[-1].stop == 192 + 64 * 64


def test_every_matrix_is_a_part_of_one_tensor_and_padding_stays_zero() -> None:
    adapter = attached(SAME, torch.bfloat16)
    storage, covered = adapter.storage, torch.zeros(len(adapter.storage.weights_N))
    flat = adapter.allocate_gradients()
    for layer in adapter.layers.values():
        for place, weight in zip(layer.places, (layer.A_RI, layer.B_RO), strict=True):
            assert place.start % ALIGNMENT == 0 or layer.name.endswith(("k_proj", "v_proj", "o_proj", "up_proj"))
            place.of(covered).add_(1)
            assert torch.equal(place.of(storage.weights_N), weight.data)
            assert weight.dtype == torch.float32
            assert weight.grad is not None
            assert weight.grad.data_ptr() == place.of(flat).data_ptr()
    assert int(covered.max()) == 1
    assert int(covered.sum()) == sum(adapter.size(slot) for slot in range(len(SAME)))
    assert not storage.weights_N[covered == 0].any()


def test_layers_that_read_one_input_are_one_matrix() -> None:
    adapter = attached(SAME, torch.bfloat16)
    for names in (("q_proj", "k_proj", "v_proj"), ("q_proj", "k_proj"), ("k_proj", "v_proj", "o_proj")):
        layers = [adapter.layers[f"1.self_attn.{name}"] for name in names]
        found = side_by_side(layers)
        assert found is not None
        together = found.of(adapter.storage.copy(torch.bfloat16))
        assert torch.equal(together, torch.cat([layer.A_RI.data.bfloat16() for layer in layers]))
        assert together.data_ptr() == layers[0].A_product.data_ptr()
    flat = adapter.allocate_gradients()
    torch.nn.init.normal_(flat)
    layers = [adapter.layers[f"0.mlp.{name}"] for name in ("gate_proj", "up_proj")]
    found = side_by_side(layers)
    assert found is not None
    assert torch.equal(found.of(flat), torch.cat([layer.gradients()[0] for layer in layers]))


@pytest.mark.parametrize(
    ("shapes", "names"),
    [
        (SAME, ("self_attn.q_proj", "self_attn.v_proj")),  # k_proj lies between
        (SAME, ("self_attn.k_proj", "self_attn.q_proj")),
        (SAME, ("mlp.up_proj", "mlp.down_proj")),  # another input
        (PARTS, ("self_attn.q_proj", "self_attn.k_proj")),  # other runs
    ],
)
def test_what_is_no_one_matrix_is_not_given_as_one(shapes: list[AdapterShape], names: tuple[str, ...]) -> None:
    adapter = attached(shapes)
    assert side_by_side([adapter.layers[f"0.{name}"] for name in names]) is None


def test_matrices_with_a_gap_or_of_other_width_do_not_adjoin() -> None:
    assert adjoining([Place(0, 2, 8), Place(16, 1, 8)]) == Place(0, 3, 8)
    assert adjoining([Place(0, 2, 8), Place(64, 1, 8)]) is None
    assert adjoining([Place(0, 2, 8), Place(16, 2, 4)]) is None


@pytest.mark.parametrize("change", ["initialize", "load", "clear", "settle"])
def test_products_read_what_was_set_last(change: str) -> None:
    adapter = attached(SAME, torch.bfloat16)
    if change == "initialize":
        adapter.initialize({0: 9})
    elif change == "load":
        adapter.load(0, {name: value + 1.001 for name, value in adapter.state(0).items()})
    elif change == "clear":
        adapter.clear(0)
    else:
        adapter.storage.weights_N.mul_(1.37)
        unsettled = adapter.layers["0.mlp.up_proj"]
        assert not torch.equal(unsettled.A_product, unsettled.A_RI.bfloat16())
        adapter.settle()
    for layer in adapter.layers.values():
        assert torch.equal(layer.A_product, layer.A_RI.bfloat16())
        assert torch.equal(layer.B_product, layer.B_RO.bfloat16())


def test_where_dtypes_agree_there_is_no_copy() -> None:
    for layer in attached(SAME).layers.values():
        assert layer.A_product.data_ptr() == layer.A_RI.data_ptr()
        assert layer.B_product.data_ptr() == layer.B_RO.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_add_up_in_the_flat_tensor(dtype: torch.dtype) -> None:
    """Two backward passes against autograd over plain matrices; for bf16 within its products' rounding."""
    adapter = attached([SAME[1]], dtype)
    layer = adapter.layers["0.mlp.up_proj"]
    layer.B_RO.data.copy_(torch.linspace(-1, 1, layer.B_RO.numel()).view_as(layer.B_RO))
    adapter.settle()
    flat, plain = adapter.allocate_gradients(), [layer.A_RI.detach().double(), layer.B_RO.detach().double()]
    A, B = (value.requires_grad_() for value in plain)
    for seed in range(2):
        x = torch.randn(7, 24, generator=torch.Generator().manual_seed(seed)).to(dtype)
        adapter.routing.set(torch.zeros(7, dtype=torch.int64))
        (layer(x).square().sum() / 2).backward()
        dense = layer.linear.weight.double()
        ((x.double() @ dense.T + x.double() @ A.T @ B * 0.5).square().sum() / 2).backward()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for ours, theirs in zip(layer.gradients(), (A.grad, B.grad), strict=True):
        assert theirs is not None
        assert ours.dtype == torch.promote_types(dtype, torch.float32)
        assert (ours - theirs).norm() < tolerance * theirs.norm()
    only = [place.of(flat).count_nonzero() for place in layer.places]
    assert flat.count_nonzero() == sum(only), "no other layer got a gradient"
