"""The figures of the planner's model from measurements of one and two layers.

Bytes are exact, so differences between one and two layers are too; what grows with tokens, and with keys that are
looked back at, is fitted by least squares without negative figures, so that more work never seems to need less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pronk.model.memory.costs import SEGMENTS, Costs, Footprint, Load, Times


@dataclass(frozen=True, slots=True)
class Resting:
    """Bytes in use between steps. model: base alone; fleet: with all that training holds; adapters: what an evaluation
    holds instead, once it has read."""

    layers: int
    model: int
    fleet: int
    adapters: int


@dataclass(frozen=True, slots=True)
class Played:
    """One micro-batch: bytes above what rests, and seconds.

    stored: after the forward pass and the loss. backward: most in the backward pass. peak, reserved: most in all,
    in use and reserved.
    """

    layers: int
    recompute: int
    load: Load
    stored: int
    backward: int
    peak: int
    reserved: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Read:
    """One forward pass with few targets: most bytes above what rests, in use and reserved."""

    tokens: int
    peak: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured. floor: bytes in use before any model is there, by libraries. loss, reading_loss: targets and
    bytes of the loss alone, with a gradient and without. reading: forward passes that keep nothing. updates: seconds of
    a round beside its micro-batches, by rising number of layers.
    """

    floor: int
    resting: Sequence[Resting]
    played: Sequence[Played]
    loss: tuple[int, int]
    reading_loss: tuple[int, int]
    reading: Sequence[Read]
    updates: Sequence[float]


def fitted(start: Costs, measured: Measurements, layers: int) -> Costs:
    """The model of a base with so many layers. start: from shapes alone, for what is not measured (keys and values,
    rows of logits), which follows from shapes exactly."""
    one, two = sorted(measured.resting, key=lambda resting: resting.layers)
    layer = two.model - one.model
    trained_layer = (two.fleet - two.model) - (one.fleet - one.model)
    reading_token, reading_constant = _line([(one.tokens, one.peak) for one in measured.reading])
    kept, ends_token, ends_target, ends_constant = _kept([one for one in measured.played if not one.recompute])
    again = [one for one in measured.played if one.recompute]
    checkpoint, ends_again = _checkpoints(again, ends_target, ends_constant)
    return replace(
        start,
        layers=layers,
        outside=measured.floor + one.model - layer,
        layer=layer,
        trained=(one.fleet - one.model) + (layers - 1) * trained_layer,
        adapters=one.adapters + (layers - 1) * (two.adapters - one.adapters),
        kept=kept,
        checkpoint=checkpoint,
        ends_token=ends_token,
        ends_again=ends_again,
        ends_target=ends_target,
        ends_constant=ends_constant,
        backward=_backward(measured.played),
        again=_again(again, checkpoint, ends_again, ends_target, ends_constant),
        loss_target=measured.loss[1] / measured.loss[0],
        reading_token=reading_token,
        reading_constant=reading_constant,
        reading_target=measured.reading_loss[1] / measured.reading_loss[0],
        times=_times(measured, layers),
        slack=_slack([(one.load.tokens, one.peak, one.reserved) for one in _deepest(measured.played)]),
        reading_slack=_slack([(one.tokens, one.peak, one.reserved) for one in measured.reading]),
        calibrated=True,
    )


def _line(points: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Bytes a token, and whatever the size: weights made dense are among them, as many for few tokens as for many."""
    slope, constant = _least_squares([[size, 1] for size, _ in points], [found for _, found in points])
    return slope, constant


def _kept(played: Sequence[Played]) -> tuple[Footprint, float, float, float]:
    """What a kept layer stores, and what is stored outside the layers: for each token, each target, and anyway."""
    rows = [
        [one.layers * one.load.tokens, one.layers * one.load.seen, one.load.tokens, one.load.targets, 1]
        for one in played
    ]
    token, seen, ends_token, ends_target, ends_constant = _least_squares(rows, [one.stored for one in played])
    return Footprint(token, seen), ends_token, ends_target, ends_constant


def _checkpoints(played: Sequence[Played], ends_target: float, ends_constant: float) -> tuple[float, float]:
    """What a recomputed layer stores, and what is stored outside the layers then, for each token."""
    rows = [[one.recompute * one.load.tokens, one.load.tokens] for one in played]
    found = [one.stored - ends_target * one.load.targets - ends_constant for one in played]
    checkpoint, ends_again = _least_squares(rows, found)
    return checkpoint, ends_again


def _backward(played: Sequence[Played]) -> Footprint:
    """Beyond what is stored. Of the deepest model: the first layer of a frozen base has less to do."""
    deepest = [one for one in _deepest(played) if not one.recompute]
    rows = [[one.load.tokens, one.load.seen, 1] for one in deepest]
    return Footprint(*_least_squares(rows, [one.backward - one.stored for one in deepest]))


def _again(
    played: Sequence[Played], checkpoint: float, ends_again: float, ends_target: float, ends_constant: float
) -> Footprint:
    """Beyond the checkpoints and what is stored outside the layers."""
    rows, found = [], []
    for one in _deepest(played):
        tokens, targets = one.load.tokens, one.load.targets
        rows.append([tokens, one.load.seen, 1])
        below = (one.recompute * checkpoint + ends_again) * tokens + ends_target * targets + ends_constant
        found.append(one.backward - below)
    return Footprint(*_least_squares(rows, found))


def _deepest(played: Sequence[Played]) -> list[Played]:
    layers = max(one.layers for one in played)
    return [one for one in played if one.layers == layers]


def _times(measured: Measurements, layers: int) -> Times:
    first, last = measured.updates[0], measured.updates[-1]
    update = first + (layers - 1) * max(last - first, 0.0)
    rows, found = [], []
    for one in measured.played:
        load, deep, anew = one.load, one.layers, one.recompute
        rows.append([1, load.tokens, deep, deep * load.tokens, deep * load.pairs, anew, anew * load.tokens])
        found.append(one.seconds)
    batch, token, layer, layer_token, layer_pair, again, again_token = _least_squares(rows, found)
    return Times(True, batch, token, layer, layer_token, layer_pair, again, again_token, update)


def _slack(peaks: Sequence[tuple[int, int, int]]) -> float:
    """Bytes a token that are reserved beyond what is in use, from (tokens, in use, reserved); of the largest
    micro-batches the one that leaves most gaps, as a study has many."""
    most = max(tokens for tokens, _, _ in peaks)
    return max(max(reserved - used - SEGMENTS, 0) / tokens for tokens, used, reserved in peaks if 2 * tokens > most)


def _least_squares(rows: Any, found: Any) -> list[float]:
    """Figures that are not negative; columns are scaled, so that bytes a token and constants weigh alike."""
    from scipy.optimize import nnls

    matrix, wanted = np.asarray(rows, dtype=float), np.asarray(found, dtype=float)
    scales = np.abs(matrix).max(axis=0)
    scales[scales == 0] = 1.0
    solution, _ = nnls(matrix / scales, wanted)
    return [float(one) for one in solution / scales]
