"""The figures of the planner's model from shapes alone, for models of the Llama family.

What a kept layer stores: its input, queries, keys and values, attention's output, the middle residual, gate and up,
and of each adapted product the few columns x Aᵀ. Everything else is computed again in the backward pass.
Letters: D hidden size, F size between, Q all query heads, G all key/value heads, V vocabulary, all in numbers of
a token; `size` is the bytes of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pronk.errors import BaseModelError
from pronk.model.adapter import AdapterShape, chosen_layers, linear_layers
from pronk.model.loss import CHUNK
from pronk.model.memory.costs import Costs, Footprint, Times
from pronk.model.quantize import quantized_bytes

# Adapter, gradient and the copy that products use; two moments, in fp32 or in blocks of 8 bits.
COPIES = 4 + 4 + 2
MOMENTS = {"adamw": 8.0, "adamw_8bit": 2.06}
WORKSPACE = 64 * 2**20  # of cuBLAS and its like
# Share of activations that is reserved beyond them.
SLACK = 0.02


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shapes of a base. linears: output and input features of each linear layer by name, without the head.
    beside: weights that are in no linear layer, head and embeddings among them."""

    layers: int
    hidden: int
    between: int
    queries: int
    keys: int
    heads: int
    vocabulary: int
    linears: Mapping[str, tuple[int, int]]
    beside: int

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.beside + sum(rows * columns for rows, columns in self.linears.values())


@dataclass(frozen=True, slots=True)
class Trainee:
    """A run as memory sees it. shape: None trains the whole model."""

    shape: AdapterShape | None
    optimizer: str = "adamw"
    dropout: bool = False


def architecture(model: Any) -> Architecture:
    """The shapes of a model without weights (model.load.outline).

    Raises BaseModelError for a model that is not built like a Llama.
    """
    config = model.config
    linears = {name: (one.out_features, one.in_features) for name, one in linear_layers(model).items()}
    try:
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        keys = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        known = (config.num_hidden_layers, config.hidden_size, config.intermediate_size)
        heads, vocabulary = config.num_attention_heads, config.vocab_size
    except AttributeError as error:
        raise BaseModelError(
            f"base: {config.model_type} is not built like a Llama, so its memory cannot be computed from shapes alone "
            f"({error}); run `pronk plan` on the machine with the GPU, which measures it"
        ) from None
    every = sum(weight.numel() for weight in model.parameters())
    return Architecture(
        *known, heads * size, keys * size, heads, vocabulary, linears,
        every - sum(rows * columns for rows, columns in linears.values()),
    )  # fmt: skip


def frozen_bytes(shape: tuple[int, int], quantize: str, double: bool, size: int) -> int:
    """What the weight of one linear layer takes. size: bytes of a number that is not quantized."""
    if quantize == "none":
        return shape[0] * shape[1] * size
    if quantize == "fp8":
        return shape[0] * shape[1] + 4 * shape[0]  # a scale for each row
    return quantized_bytes(shape, "nf4" if quantize.startswith("nf4") else "int8", double)


def analytic(one: Architecture, trainees: Sequence[Trainee], quantize: str, double: bool, size: int) -> Costs:
    """What a fleet takes, from shapes alone. size: bytes of a number in the base's products."""
    hidden, between, queries, keys = one.hidden, one.between, one.queries, one.keys
    columns, dropped = _adapted(one, trainees)
    stored = 2 * hidden + 2 * queries + 2 * keys + 2 * between
    kept = size * (stored + (columns + dropped) / one.layers) + 4 * one.heads + 8
    largest = max((rows * wide for rows, wide in one.linears.values()), default=0)
    # the two products that read x are made dense together
    dense = 0 if quantize == "none" else 2 * size * largest
    gradients = size * (4 * between + 3 * hidden)
    linear = sum(frozen_bytes(shape, quantize, double, size) for shape in one.linears.values())
    trained, adapters = _trained_bytes(one, trainees, size)
    products = sum(rows * wide for rows, wide in one.linears.values()) / one.layers
    return Costs(
        layers=one.layers,
        outside=one.beside * size + WORKSPACE,
        layer=linear / one.layers,
        trained=trained,
        adapters=adapters,
        kept=Footprint(kept, 2 * size * keys),
        backward=Footprint(gradients, 6 * keys, dense),
        again=Footprint(kept + gradients, 2 * size * keys + 6 * keys, dense),
        checkpoint=size * hidden,
        ends_token=4 * size * hidden,
        ends_again=5 * size * hidden,
        ends_target=2 * size * hidden,
        loss_target=8 * one.vocabulary + (0 if size == 2 else 4 * one.vocabulary),
        chunk=CHUNK,
        reading_token=size * (3 * between + 4 * hidden + queries + 2 * keys),
        cell=2 * size * keys,
        generating_cell=2 * size * (queries + keys),
        row=(size + 4) * one.vocabulary,
        # forward and backward through a frozen product: two FLOPs a weight each
        times=Times(False, layer_token=4 * products, again_token=2 * products),
        loading=0 if quantize == "none" else 4 * size * largest,
        slack=SLACK,
    )


def _adapted(one: Architecture, trainees: Sequence[Trainee]) -> tuple[float, float]:
    """Numbers of a token that are kept for the adapters of all layers: the columns x Aᵀ, and what dropout keeps."""
    columns, dropped = 0.0, 0.0
    dropping = any(trainee.dropout for trainee in trainees)
    chosen = [(t.shape.rank, chosen_layers([*one.linears], t.shape.targets)) for t in trainees if t.shape]
    for name, (_, wide) in one.linears.items():
        rank = sum(rank for rank, names in chosen if name in names)
        columns += rank
        dropped += wide if rank and dropping else 0
    return columns, dropped


def _trained_bytes(one: Architecture, trainees: Sequence[Trainee], size: int) -> tuple[float, float]:
    """Bytes of everything that is trained with all that belongs to it, and of the adapters alone."""
    trained, adapters = 0.0, 0.0
    for trainee in trainees:
        if trainee.shape is None:  # the copies that the model computes with are among its weights
            exact = 4 if size < 4 else 0
            trained += one.parameters * (4 + exact + MOMENTS[trainee.optimizer])
            continue
        names = chosen_layers([*one.linears], trainee.shape.targets)
        weights = trainee.shape.rank * sum(sum(one.linears[name]) for name in names)
        trained += weights * (COPIES + MOMENTS[trainee.optimizer])
        adapters += 4 * weights
    return trained, adapters
