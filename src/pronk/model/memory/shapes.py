"""The figures of the planner's model from shapes alone, for models of the Llama family.

What a kept layer of ours (model/fused.py) stores: its input, queries, keys and values, attention's output, the middle
residual, gate and up, and of each adapted product the few columns x Aᵀ. Everything else is computed again in the
backward pass. Layers of transformers, which stay where a whole model is trained, store more.
Letters: D hidden size, F size between, Q all query heads, G all key/value heads, V vocabulary, all in numbers of
a token; `size` is the bytes of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pronk.errors import BaseModelError
from pronk.model.adapter import AdapterShape, chosen_layers, linear_layers
from pronk.model.fused import can_fuse
from pronk.model.loss import chunk_of
from pronk.model.memory.costs import Costs, Footprint, Times
from pronk.model.quantize import quantized_bytes
from pronk.recipe import Quantize

# An adapter and its gradient, in fp32 (the rounded copy that products read comes to it); two moments, in fp32 or in
# blocks of 8 bits.
COPIES = 4 + 4
MOMENTS = {"adamw": 8.0, "adamw_8bit": 2.06}
WORKSPACE = 64 * 2**20  # of cuBLAS and its like
# Of what a layer needs at once, the share that is reserved beyond it.
SLACK = 0.25


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shapes of a base. linears: output and input features of each linear layer by name, without the head.
    beside: weights that are in no linear layer, head and embeddings among them. fused: whether its layers can be ours.
    """

    layers: int
    hidden: int
    between: int
    queries: int
    keys: int
    heads: int
    vocabulary: int
    linears: Mapping[str, tuple[int, int]]
    beside: int
    fused: bool = True

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
        every - sum(rows * columns for rows, columns in linears.values()), any(map(can_fuse, model.modules())),
    )  # fmt: skip


def frozen_bytes(shape: tuple[int, int], quantize: Quantize, double: bool, size: int, fp8_products: bool) -> int:
    """What the weight of one linear layer takes. size: bytes of a number that is not quantized."""
    if quantize == "none":
        return shape[0] * shape[1] * size
    return quantized_bytes(shape, quantize, double, fp8_products)


def analytic(
    one: Architecture, trainees: Sequence[Trainee], quantize: Quantize, double: bool, size: int,
    fp8_products: bool = False,
) -> Costs:  # fmt: skip
    """What a fleet takes, from shapes alone. size: bytes of a number in the base's products."""
    hidden, between, queries, keys = one.hidden, one.between, one.queries, one.keys
    in_fp8, whole = fp8_products or quantize == "fp8", any(trainee.shape is None for trainee in trainees)
    kept = _stored(one, size, fused=one.fused and not whole) + size * _columns(one, trainees) / one.layers
    largest = max((rows * wide for rows, wide in one.linears.values()), default=0)
    # gate and up are made dense together, in FP8 a byte each
    dense = 0 if quantize == "none" else 2 * largest * (1 if in_fp8 else size)
    gradients = _gradients(one, size, in_fp8, one.fused and not whole)
    if any(trainee.dropout for trainee in trainees):
        gradients += 2 * size * between  # a mask and what it leaves
    reading = size * (3 * between + 4 * hidden + queries + 2 * keys)
    linear = sum(frozen_bytes(shape, quantize, double, size, fp8_products) for shape in one.linears.values())
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
        ends_constant=4 * one.vocabulary * hidden if whole else 0,
        reading_constant=dense,
        loss_target=size * one.vocabulary,  # logits, which become their own gradient
        chunk=chunk_of(one.vocabulary, size),
        reading_token=reading,
        reading_target=size * one.vocabulary,  # logits, overwritten
        cell=2 * size * keys,
        generating_cell=2 * size * (queries + keys),
        row=size * one.vocabulary,
        # forward and backward through a frozen product: two FLOPs a weight each
        times=Times(False, layer_token=4 * products, again_token=2 * products),
        loading=0 if quantize == "none" else 4 * size * largest,
        slack=SLACK * gradients,
        reading_slack=SLACK * reading,
    )


def _stored(one: Architecture, size: int, fused: bool) -> float:
    """Bytes of a token that a kept layer stores, adapters apart."""
    heads = 4 * one.heads  # attention's logarithms of sums, in fp32
    if fused:
        return size * (2 * one.hidden + 2 * one.queries + 2 * one.keys + 2 * one.between) + heads
    # of each norm its input in fp32, the unit vector and the output; of SwiGLU gate, its SiLU, up and the product
    return 2 * (4 + 2 * size) * one.hidden + size * (2 * one.queries + 2 * one.keys + 4 * one.between) + heads


def _gradients(one: Architecture, size: int, in_fp8: bool, fused: bool) -> float:
    """Bytes of a token in the backward pass of a layer, beyond what is stored, where most is there at once."""
    hidden, between = one.hidden, one.between
    if not fused:
        return size * (4 * between + 3 * hidden)
    # of what down gives and of its input; then, of gate and up in place, those of the norm's two sides and the norm
    most = [size * (between + hidden), size * 4 * hidden]
    if in_fp8:
        most.append(size * 2 * hidden + 2 * between)  # gradients of gate and up, a byte each
    return max(most)


def _columns(one: Architecture, trainees: Sequence[Trainee]) -> int:
    """Numbers of a token that are kept for the adapters of all layers: the columns x Aᵀ."""
    chosen = [(t.shape.rank, chosen_layers([*one.linears], t.shape.targets)) for t in trainees if t.shape]
    return sum(rank for name in one.linears for rank, names in chosen if name in names)


def _trained_bytes(one: Architecture, trainees: Sequence[Trainee], size: int) -> tuple[float, float]:
    """Bytes of everything that is trained with all that belongs to it, and of the adapters alone."""
    trained, adapters, rounded = 0.0, 0.0, size if size < 4 else 0
    # moments in fp32 lie in one tensor for all runs, if any run has them
    flat = MOMENTS["adamw"] if any(trainee.optimizer == "adamw" for trainee in trainees) else 0.0
    for trainee in trainees:
        if trainee.shape is None:  # the copies that the model computes with are among its weights
            exact = 4 if size < 4 else 0
            trained += one.parameters * (4 + exact + MOMENTS[trainee.optimizer])
            continue
        names = chosen_layers([*one.linears], trainee.shape.targets)
        weights = trainee.shape.rank * sum(sum(one.linears[name]) for name in names)
        own = 0.0 if trainee.optimizer == "adamw" else MOMENTS[trainee.optimizer]
        trained += weights * (COPIES + rounded + flat + own)
        adapters += weights * (4 + rounded)
    return trained, adapters
