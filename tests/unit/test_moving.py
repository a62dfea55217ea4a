"""A micro-batch on its way to a GPU: in one piece of memory, padded to a rounded shape before it goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pronk.doctor.workload import shape_of
from pronk.model.attention import packing_on_host
from pronk.model.forward import on_host, staged, unstaged
from pronk.model.step import _pad, _rounded
from pronk.tokens.pack import Member, MicroBatch, pack
from pronk.tokens.prompt import Example

GPU = torch.device("cuda")


def batch(beginning: int) -> MicroBatch:
    """Two runs' sequences; those of a run begin alike."""
    draw, members = np.random.default_rng(0), []
    for slot in (0, 1):
        common = draw.integers(3, 90, beginning)
        for _ in range(5):
            ids = np.concatenate([common, draw.integers(3, 90, int(draw.integers(4, 12)))])
            members.append(Member(Example(ids, np.arange(len(ids)) >= len(ids) - 2), slot, 0.1 + slot))
    (made,) = pack(members, 10_000)
    return made


@pytest.mark.parametrize("beginning", [0, 20])
def test_a_batch_comes_out_as_it_went_in(beginning: int) -> None:
    made = on_host(batch(beginning), GPU, torch.float32)
    assert len(made.tensors) == (13 if beginning else 9)
    piece = staged(made.tensors, pinned=False)
    moved = made.replaced(unstaged(piece.clone(), made.tensors))
    for one, other in zip(moved.tensors, made.tensors, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
        assert one.data_ptr() % 16 == 0
    assert moved.packing.longest == made.packing.longest
    assert torch.equal(moved.owners_N, moved.slots_T[moved.rows_N])


@pytest.mark.parametrize("beginning", [0, 20])
def test_the_planner_knows_the_shape_that_is_recorded(beginning: int) -> None:
    one = batch(beginning)
    assert shape_of(one) == _rounded(on_host(one, GPU, torch.float32))
    assert bool(shape_of(one).seen) == bool(beginning)


@pytest.mark.parametrize("beginning", [0, 20])
def test_padding_belongs_to_nobody_and_weighs_nothing(beginning: int) -> None:
    made = on_host(batch(beginning), GPU, torch.float32)
    padded = _pad(made, _rounded(made))
    tokens, targets = len(made.ids_T), len(made.rows_N)
    assert torch.equal(padded.ids_T[:tokens], made.ids_T)
    assert set(padded.slots_T[tokens:].tolist()) == {-1}
    assert torch.equal(padded.owners_N[:targets], made.owners_N)
    assert set(padded.owners_N[targets:].tolist()) == {-1}
    assert not padded.weights_N[targets:].any()
    assert padded.packing.borders is not None
    assert int(padded.packing.borders[-1]) == len(padded.ids_T)


def test_what_segments_look_back_at_is_their_beginning_and_themselves() -> None:
    lengths, parents = (4, 3, 2, 5, 1), (-1, 0, 0, -1, 3)
    look = packing_on_host(lengths, parents, GPU).lookback
    assert look is not None
    tokens = torch.arange(sum(lengths)).split(lengths)
    wanted = [
        own if parent < 0 else torch.cat([tokens[parent], own]) for own, parent in zip(tokens, parents, strict=True)
    ]
    assert torch.equal(look.source_L, torch.cat(wanted))
    assert look.borders.tolist() == [0, 4, 11, 17, 22, 28]
    assert look.borders.dtype == torch.int32
    assert look.longest == 7
    back = [look.order_L[start:end].tolist() for start, end in zip(look.starts_T, look.starts_T[1:], strict=False)]
    assert back == [torch.nonzero(look.source_L == token).flatten().tolist() for token in range(sum(lengths))]


def test_the_way_back_is_made_for_gradients_alone() -> None:
    with torch.no_grad():
        look = packing_on_host((4, 3), (-1, 0), GPU).lookback
    assert look is not None
    assert (len(look.source_L), len(look.order_L), len(look.starts_T)) == (11, 0, 0)
