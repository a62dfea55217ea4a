"""What weights leave in a GPU's memory that nobody can use: loading, closing up and fusing, in a replayed segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from segments import FREE, USED, Segment

from pronk.doctor.shapes import base_shape
from pronk.model.close_up import PART, STRETCH, _size, _stretches

GROUPS = (("q", "k", "v"), ("gate", "up"))


@dataclass
class Lying:
    """A weight that lies in a segment."""

    nbytes: int
    place: int


def layer_sizes(shape: Any) -> dict[str, int]:
    """Weights of the linear layers of a decoder layer: bytes in FP8."""
    hidden, middle = shape.hidden, shape.intermediate
    narrow = hidden // shape.heads * shape.key_value_heads
    sides = {"q": hidden, "k": narrow, "v": narrow, "o": hidden, "gate": middle, "up": middle, "down": middle}
    return {name: side * hidden for name, side in sides.items()}


def loaded(shape: Any, segment: Segment, order: list[str]) -> list[dict[str, Lying]]:
    """Layers that are quantized one by one: each beside its dense weight, in bf16. Head and embedding come last."""
    layers = []
    for _ in range(shape.layers):
        layer = {}
        for name in order:
            size = layer_sizes(shape)[name]
            dense = segment.allocate(2 * size)
            layer[name] = Lying(size, segment.allocate(size))
            segment.free(dense)
        layers.append(layer)
    for _ in range(1 if shape.tied else 2):
        segment.allocate(2 * shape.vocabulary * shape.hidden)
    segment.give_back()
    return layers


def move_together(segment: Segment, pieces: list[list[Any]]) -> None:
    """Lay tensors into one, as `close_up` and `lay_side_by_side` do."""
    segment.allocate(sum(map(_size, pieces)))
    for piece in pieces:
        for tensor in piece:
            segment.free(tensor.place)


def close_up(segment: Segment, layers: list[dict[str, Lying]]) -> None:
    """What `pronk.model.close_up.close_up` does, in the stretches that it takes."""
    pieces: list[Any] = [[layer[name] for name in group] for layer in layers for group in GROUPS]
    pieces += [[layer[name]] for layer in layers for name in ("o", "down")]
    pieces.sort(key=lambda piece: min(tensor.place for tensor in piece))
    for stretch in _stretches(pieces, min(STRETCH, sum(map(_size, pieces)) // PART)):
        move_together(segment, stretch)
        segment.give_back()


def gaps(segment: Segment) -> float:
    """What is reserved and not in use, as a part of what is in use."""
    return segment.bytes(FREE) / segment.bytes(USED)


ORDERS = [["q", "k", "v", "o", "gate", "up", "down"], ["down", "gate", "k", "o", "q", "up", "v"]]  # a model's, a file's


@pytest.mark.parametrize("order", ORDERS, ids=["model", "file"])
@pytest.mark.parametrize("name", ["llama3-8b", "llama2-7b", "llama3-1b"])
def test_weights_that_are_closed_up_in_groups_leave_no_gaps(name: str, order: list[str]) -> None:
    segment = Segment()
    close_up(segment, loaded(base_shape(name), segment, order))
    assert gaps(segment) < 0.03


@pytest.mark.parametrize(("name", "measured"), [("llama3-8b", 0.075), ("llama3-1b", 0.173)])
def test_laid_side_by_side_later_they_leave_what_was_measured(name: str, measured: float) -> None:
    """The planted fault. On an H200 0.69 of 9.16 GB and 0.27 of 1.57 were found; 0.06 each are of other things."""
    segment = Segment()
    for layer in loaded(base_shape(name), segment, ORDERS[0]):
        for group in GROUPS:
            move_together(segment, [[layer[one] for one in group]])
    segment.give_back()
    assert 0.7 * measured < gaps(segment) < 1.3 * measured
