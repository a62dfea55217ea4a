"""Bytes and seconds of a fleet's steps as functions of their size: the planner's model.

A micro-batch of T tokens through L layers, the first R of them recomputed, keeps of each layer what its backward
pass needs (or, recomputed, its input alone), and on top of that is for a moment

    at the loss                       logits and their gradient, for at most a chunk of targets
    in the backward of a kept layer   that layer's gradients
    in that of a recomputed one       its activations, computed again, and its gradients; by then the layers
                                      behind it are done

The largest of these moments, above what rests (weights, adapters, gradients, moments), is the peak.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pronk.model.rounding import ROUND_SEEN, ROUND_TARGETS, ROUND_TOKENS, Shape, round_up

# Memory is reserved in segments; what the last of each pool does not use, in bytes. Recordings have their own pool.
SEGMENTS = 22 * 2**20
# A micro-batch costs what so many more tokens cost (Llama-3-8B on an H200: 170 to 320). Only for comparing settings
# that nobody has measured.
BATCH_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Load:
    """A micro-batch. seen: keys that segments which look back see together, 0 where none does; pairs: queries times
    keys, which is what attention's time grows with."""

    tokens: int
    targets: int
    seen: int = 0
    pairs: int = 0


def padded(load: Load) -> Load:
    """A micro-batch in the shape that it is recorded in."""
    tokens, targets = round_up(load.tokens, ROUND_TOKENS), round_up(load.targets, ROUND_TARGETS)
    return Load(tokens, targets, round_up(load.seen, ROUND_SEEN), load.pairs)


@dataclass(frozen=True, slots=True)
class EvaluationLoad:
    """The largest batch of an evaluation. tokens: read at once; cells: rows times columns of keys and values."""

    tokens: int
    targets: int
    rows: int = 0
    cells: int = 0


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes for each token, for each key that is looked back at, and whatever the size."""

    token: float
    seen: float = 0.0
    constant: float = 0.0

    def of(self, load: Load) -> float:
        """Bytes of a micro-batch."""
        return self.token * load.tokens + self.seen * load.seen + self.constant


@dataclass(frozen=True, slots=True)
class Times:
    """What a micro-batch takes, in seconds (measured) or in FLOPs (not).

    again: what a recomputed layer takes more. update: of a round, whatever its size.
    """

    measured: bool
    batch: float = 0.0
    token: float = 0.0
    layer: float = 0.0
    layer_token: float = 0.0
    layer_pair: float = 0.0
    again: float = 0.0
    again_token: float = 0.0
    update: float = 0.0


@dataclass(frozen=True, slots=True)
class Costs:
    """What one fleet over one base takes. Bytes, of one layer where nothing else is said.

    outside: weights beside the layers, and the libraries' workspaces. layer: frozen weights.
    trained: adapters of all layers with gradients, moments and rounded copies; adapters: what an evaluation needs
    of that. loading: what loading takes beyond the weights.
    kept, backward, again: see the module's head; checkpoint: for each token of a recomputed layer.
    ends_token, ends_target, ends_constant: kept outside the layers (the last: the head's gradient, where that is
    trained); ends_again: in place of ends_token where layers are recomputed (the first layer over a frozen embedding
    keeps less than the others, unless it is recomputed).
    loss_target: for each target whose logits exist, at most chunk.
    reading_token, reading_constant: a forward pass that keeps nothing; reading_target: as loss_target, of its loss.
    cell: keys and values of a column; generating_cell: in use while a layer attends; row: logits of an answer's next
    token.
    slack, reading_slack: reserved beyond what is in use, for each token of a micro-batch or of a reading: what comes
    and goes leaves gaps. What layers keep leaves none, so it does not grow with their number.
    recorded: micro-batches are CUDA graphs, which have memory of their own: it is reserved, but in use while they are
    recorded only.
    """

    layers: int
    outside: float
    layer: float
    trained: float
    adapters: float
    kept: Footprint
    backward: Footprint
    again: Footprint
    checkpoint: float
    ends_token: float
    ends_again: float
    ends_target: float
    loss_target: float
    chunk: int
    reading_token: float
    reading_target: float
    cell: float
    generating_cell: float
    row: float
    times: Times
    ends_constant: float = 0.0
    reading_constant: float = 0.0
    loading: float = 0.0
    slack: float = 0.0
    reading_slack: float = 0.0
    recorded: bool = False
    calibrated: bool = False

    @property
    def weights(self) -> float:
        """Bytes of the base."""
        return self.outside + self.layers * self.layer

    def activations(self, load: Load, recompute: int) -> float:
        """Most bytes that a micro-batch needs at once, above what rests."""
        ends = (self.ends_again if recompute else self.ends_token) * load.tokens + self.ends_target * load.targets
        ends += self.ends_constant
        checkpoints = recompute * self.checkpoint * load.tokens
        stored = ends + checkpoints + (self.layers - recompute) * self.kept.of(load)
        moments = [stored + self.loss_target * min(load.targets, self.chunk)]
        if recompute < self.layers:
            moments.append(stored + self.backward.of(load))
        if recompute:
            moments.append(ends + checkpoints + self.again.of(load))
        return max(moments)

    def training_peak(self, loads: Sequence[Load], recompute: int, sequence: Sequence[tuple[Shape, Load]] = ()) -> int:
        """Reserved bytes while training. loads: the largest micro-batches; sequence: all of them, in their order and
        with the shapes that they are recorded in, where that is known."""
        if sequence and self._records(recompute):
            return self._reserved(self.weights + self.trained, self._played(sequence)[0])
        sizes, pool = self._steps(loads, recompute), self.recordings(loads, recompute)
        # beside the recording of the largest shape, one of another shape is played directly, or to warm up
        return self._reserved(self.weights + self.trained, pool + (sizes[1] if pool and len(sizes) > 1 else sizes[0]))

    def recordings(self, loads: Sequence[Load], recompute: int, sequence: Sequence[tuple[Shape, Load]] = ()) -> float:
        """Reserved bytes of all recordings, which share memory as only one of them is ever played; 0 where none is."""
        if not self._records(recompute):
            return 0.0
        return self._played(sequence)[1] if sequence else self._steps(loads, recompute)[0] + SEGMENTS

    def _records(self, recompute: int) -> bool:
        return self.recorded and not recompute

    def _played(self, sequence: Sequence[tuple[Shape, Load]]) -> tuple[float, float]:
        """Bytes above what rests, at most and of all recordings in the end. A shape is played directly when it comes
        first; when it comes again it is recorded, after a warm-up; from then on it takes no more (model/step.py)."""
        times, most, pool = Counter[Shape](), 0.0, 0.0
        for shape, load in sequence:
            times[shape] += 1
            if times[shape] <= 2:
                size = self._bytes(padded(load) if times[shape] == 2 else load, 0)
                most = max(most, pool + size)
            if times[shape] == 2:
                pool = max(pool, size + SEGMENTS)
                most = max(most, pool)
        return most, pool

    def loading_peak(self) -> int:
        """Reserved bytes while the base is loaded."""
        return self._reserved(self.weights, self.loading)

    def validation_peak(self, load: EvaluationLoad, recordings: float = 0.0) -> int:
        """Reserved bytes while answers are read between two rounds. recordings: bytes that stay with them."""
        return self._reserved(self.weights + self.trained, recordings + self._reading(load))

    def evaluation_peak(self, load: EvaluationLoad) -> int:
        """Reserved bytes while items are read, scored and answered."""
        cache = self.layers * self.cell * load.cells
        # A layer attends; the head answers. A token later keys need a column more, and find no room where the ones
        # before were: those stay reserved.
        gaps = self.generating_cell / 2 * load.cells if self.reading_slack else 0.0
        answering = max(self.generating_cell * load.cells + gaps, self.row * load.rows)
        return self._reserved(self.weights + self.adapters, cache + max(self._reading(load), answering))

    def without_slack(self) -> Costs:
        """The same, of memory in use."""
        return replace(self, slack=0.0, reading_slack=0.0)

    def batch_cost(self, batches: float, tokens: float, pairs: float, recompute: int) -> float:
        """Seconds (or FLOPs) of so many micro-batches that hold so many tokens and pairs together."""
        times = self.times
        each = times.batch + self.layers * times.layer + recompute * times.again
        token = times.token + self.layers * times.layer_token + recompute * times.again_token
        if not times.measured:
            each += BATCH_TOKENS * token
        return batches * each + tokens * token + pairs * self.layers * times.layer_pair

    def _steps(self, loads: Sequence[Load], recompute: int) -> list[float]:
        """Bytes of each micro-batch above what rests, the largest first."""
        if self._records(recompute):
            loads = [padded(load) for load in loads]
        return sorted((self._bytes(load, recompute) for load in loads), reverse=True)

    def _bytes(self, load: Load, recompute: int) -> float:
        return self.activations(load, recompute) + self.slack * load.tokens

    def _reading(self, load: EvaluationLoad) -> float:
        read = (self.reading_token + self.reading_slack) * load.tokens + self.reading_constant
        # by the time of the loss, of all layers only the last hidden states are there
        scored = self.checkpoint * load.tokens + self.reading_target * min(load.targets, self.chunk)
        return max(read, scored)

    def _reserved(self, resting: float, in_use: float) -> int:
        return int(resting + in_use) + SEGMENTS
