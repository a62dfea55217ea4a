"""Law 4: packed equals unpacked: no sequence sees another, positions restart, each has its own adapter.

The oracle is transformers' own model with its own attention, and PEFT for the adapters, run on each
sequence alone.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tiny import PEFT_WARNS, TIGHT, make_examples, peft_model, plain_model, random_state
from torch import Tensor
from torch.nn.functional import cross_entropy

from pronk.model import attention
from pronk.model.adapter import AdapterShape, attach
from pronk.model.attention import use_packed_attention
from pronk.model.attention_kernels import Kernel, plain_attention
from pronk.model.attention_padded import attend_padded
from pronk.model.forward import evaluation_losses, loss_precision, to_device, training_loss
from pronk.tokens.pack import BASE_SLOT, Member, MicroBatch, pack
from pronk.tokens.prompt import Example

pytestmark = pytest.mark.filterwarnings(PEFT_WARNS)

SHAPES = [AdapterShape(4, 8, ("q_proj", "v_proj")), AdapterShape(3, 6), AdapterShape(2, 5, ("down_proj", "k_proj"))]
# Single precision: hidden states of size 1 to 10 after two layers, rounded at 1e-7 in each product.
SINGLE = 1e-4


def members() -> list[Member]:
    """Sequences of all runs and of the base model, mixed, one of a single input token; unequal weights.

    Some begin alike, in two ways; in one of them the whole prompt is the same but for a token.
    """
    made = make_examples(9, 11)
    made.append(Example(np.array([5, 2]), np.array([False, True])))
    made += make_examples(8, 12, beginning=14)
    made += [Example(np.array([*range(30, 42), 5 + i, 2]), np.arange(14) > 10) for i in range(4)]
    slots = [0, 1, BASE_SLOT, 2, 1, 0, BASE_SLOT, 2, 1, 0, 0, 0, 1, 1, 1, BASE_SLOT, BASE_SLOT, 2, 0, 0, 1, 2]
    return [Member(example, slot, 0.1 + 0.05 * i) for i, (example, slot) in enumerate(zip(made, slots, strict=True))]


@dataclass
class Seen:
    """By member: last hidden states. Then the loss, and gradients of adapters and embeddings by name."""

    hidden: list[Tensor]
    losses: list[Tensor]
    total: float
    gradients: dict[str, Tensor]


def stretching(model: torch.nn.Module) -> None:
    """Give a tiny model rotary frequencies that depend on the length, as dynamic scaling has them."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = model.config
    config.max_position_embeddings = 40
    config.rope_parameters = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    model.model.rotary_emb = LlamaRotaryEmbedding(config)


Prepare = Callable[[torch.nn.Module], None]


def nothing(_: torch.nn.Module) -> None:
    """The tiny model as it is."""


def packed(
    change: Callable[[MicroBatch], MicroBatch] = lambda batch: batch,
    budget: int = 10_000, dtype: torch.dtype = torch.float64, prepare: Prepare = nothing,
) -> Seen:  # fmt: skip
    """All members through pronk's model, in as many packs as the budget makes."""
    model = plain_model(dtype)
    prepare(model)
    use_packed_attention(model)
    adapter = attach(model, SHAPES)
    for slot in range(len(SHAPES)):
        adapter.load(slot, random_state(adapter.state(slot), f"run {slot}", 0.2))
    model.get_input_embeddings().weight.requires_grad_()
    outputs: list[Tensor] = []
    model.base_model.register_forward_hook(lambda _m, _a, out: outputs.append(out.last_hidden_state.detach()[0]))
    chosen = members()
    hidden: list[Tensor] = [torch.empty(0)] * len(chosen)
    losses: list[Tensor] = [torch.empty(0)] * len(chosen)
    total = 0.0
    for batch in pack(chosen, budget):
        moved = to_device(change(batch), torch.device("cpu"), loss_precision(model))
        loss, losses_N = training_loss(model, adapter, moved)
        loss.backward()
        total += loss.item()
        assert torch.allclose(losses_N, evaluation_losses(model, adapter, change(batch)), rtol=0, atol=1e-5)
        for member, states in whole_sequences(batch, outputs[-2]).items():
            hidden[member] = states
            losses[member] = losses_N[torch.from_numpy(batch.members_N == member)]
    gradients = {"embeddings": model.get_input_embeddings().weight.grad}
    for slot in range(len(SHAPES)):
        for name, wide, rows in adapter.rows(slot):
            gradients[f"{slot}/{name}"] = wide.grad[rows]
    return Seen(hidden, losses, total, gradients)


def whole_sequences(batch: MicroBatch, hidden_TD: Tensor) -> dict[int, Tensor]:
    """The hidden states of each member of a batch, its beginning's in front."""
    parts = hidden_TD.split(batch.lengths_S)
    ends = np.cumsum(batch.lengths_S)
    found = {}
    for member, row in zip(batch.members_N.tolist(), batch.rows_N, strict=True):
        segment = int(np.searchsorted(ends, row, side="right"))
        parent = batch.parents_S[segment]
        found[member] = parts[segment] if parent < 0 else torch.cat([parts[parent], parts[segment]])
    return found


def unpacked(dtype: torch.dtype = torch.float64, prepare: Prepare = nothing) -> Seen:
    """Each member alone through transformers and PEFT."""
    template = attach(plain_model(dtype), SHAPES)
    models = {}
    for slot in (BASE_SLOT, *range(len(SHAPES))):
        base = plain_model(dtype)
        prepare(base)
        if slot != BASE_SLOT:
            base = peft_model(base, SHAPES[slot], random_state(template.state(slot), f"run {slot}", 0.2))
        base.get_input_embeddings().weight.requires_grad_()
        models[slot] = base.eval()
    seen = Seen([], [], 0.0, {})
    for member in members():
        ids = torch.from_numpy(member.example.ids)
        output = models[member.slot](input_ids=ids[None, :-1], output_hidden_states=True, use_cache=False)
        learned = torch.from_numpy(member.example.target[1:])
        losses_N = cross_entropy(output.logits[0][learned], ids[1:][learned], reduction="none")
        (losses_N.sum() * member.weight).backward()
        seen.hidden.append(output.hidden_states[-1].detach()[0])
        seen.losses.append(losses_N.detach())
        seen.total += losses_N.sum().item() * member.weight
    seen.gradients["embeddings"] = sum(model.get_input_embeddings().weight.grad for model in models.values())
    for slot in range(len(SHAPES)):
        for name, parameter in models[slot].named_parameters():
            if "lora_" in name:
                layer, part = name.removeprefix("base_model.model.").removesuffix(".default.weight").split(".lora_")
                seen.gradients[f"{slot}/{layer}.{part}"] = parameter.grad if part == "A" else parameter.grad.T
    return seen


def differences(ours: Seen, theirs: Seen) -> dict[str, float]:
    """Largest absolute differences: hidden states, losses of single targets, total loss, gradients."""

    def largest(one: list[Tensor], other: list[Tensor]) -> float:
        return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))

    assert ours.gradients.keys() == theirs.gradients.keys()
    names = list(theirs.gradients)
    return {
        "hidden": largest(ours.hidden, theirs.hidden),
        "losses": largest(ours.losses, theirs.losses),
        "total": abs(ours.total - theirs.total),
        "gradients": largest([ours.gradients[n] for n in names], [theirs.gradients[n] for n in names]),
    }


@pytest.mark.parametrize("budget", [1, 40, 10_000])
@pytest.mark.parametrize("prepare", [nothing, stretching])
def test_packed_equals_each_sequence_alone(budget: int, prepare: Prepare) -> None:
    found = differences(packed(budget=budget, prepare=prepare), unpacked(prepare=prepare))
    assert max(found.values()) < TIGHT, found


def padded_by_length(q: Tensor, k: Tensor, v: Tensor, scale: float | None, packing: attention.Packing) -> Tensor:
    """What a GPU does in fp32."""
    return attend_padded(q, k, v, packing.lengths_S, packing.parents_S, scale)


def by_a_kernel(q: Tensor, k: Tensor, v: Tensor, scale: float | None, packing: attention.Packing) -> Tensor:
    """What a GPU does in half precision: beginnings repeated in front of the keys, and one call for all."""
    lookback = attention._lookback(packing.lengths_S, packing.parents_S)
    packing = dataclasses.replace(packing, borders=attention.borders(packing.lengths_S), lookback=lookback)
    plain = Kernel("plain", plain_attention, lambda: "")
    return attention._by_kernel(plain, q, k, v, scale, packing)


@pytest.mark.parametrize("way", [padded_by_length, by_a_kernel])
@pytest.mark.parametrize("budget", [40, 10_000])
def test_the_ways_of_a_gpu_equal_each_sequence_alone(
    monkeypatch: pytest.MonkeyPatch, way: Callable[..., Tensor], budget: int
) -> None:
    """In double precision but for the sum of a beginning's gradients, which a GPU sums in fp32."""
    monkeypatch.setattr(attention, "_call_per_segment", way)
    found = differences(packed(budget=budget), unpacked())
    gradients = found.pop("gradients")
    assert max(found.values()) < TIGHT, found
    assert gradients < (TIGHT if way is padded_by_length else SINGLE)
    if budget > 40:
        faulty = differences(packed(beginning_of_another_run), unpacked())
        assert min(faulty.values()) > 1e5 * TIGHT, faulty


def test_beginnings_are_shared() -> None:
    """What is nowhere shared would agree for no reason."""
    (batch,) = pack(members(), 10_000)
    assert sum(parent >= 0 for parent in batch.parents_S) > 8
    assert len({parent for parent in batch.parents_S if parent >= 0}) > 3


def test_every_gradient_is_there() -> None:
    """What is zero on both sides would agree for no reason."""
    assert min(float(gradient.abs().max()) for gradient in unpacked().gradients.values()) > 1e-3


def test_packed_equals_each_sequence_alone_in_single_precision() -> None:
    found = differences(packed(dtype=torch.float32), unpacked(dtype=torch.float32))
    assert max(found.values()) < SINGLE, found


def positions_run_on(batch: MicroBatch) -> MicroBatch:
    return dataclasses.replace(batch, positions_T=np.arange(len(batch.ids_T)))


def attention_across(batch: MicroBatch) -> MicroBatch:
    return dataclasses.replace(batch, lengths_S=(len(batch.ids_T),), parents_S=(-1,))


def beginnings_unseen(batch: MicroBatch) -> MicroBatch:
    return dataclasses.replace(batch, parents_S=(-1,) * len(batch.parents_S))


def beginning_of_another_run(batch: MicroBatch) -> MicroBatch:
    first = next(parent for parent in batch.parents_S if parent >= 0)
    return dataclasses.replace(batch, parents_S=tuple(first if parent >= 0 else -1 for parent in batch.parents_S))


def positions_restart_behind_beginnings(batch: MicroBatch) -> MicroBatch:
    positions = np.concatenate([np.arange(length) for length in batch.lengths_S])
    return dataclasses.replace(batch, positions_T=positions)


def borders_shifted(batch: MicroBatch) -> MicroBatch:
    first, second, *rest = batch.lengths_S
    return dataclasses.replace(batch, lengths_S=(first + 1, second - 1, *rest))


def mask_shifted(batch: MicroBatch) -> MicroBatch:
    return dataclasses.replace(batch, rows_N=np.maximum(batch.rows_N - 1, 0))


def slots_shifted(batch: MicroBatch) -> MicroBatch:
    return dataclasses.replace(batch, slots_T=np.roll(batch.slots_T, 1))


FAULTS = [
    attention_across, beginnings_unseen, beginning_of_another_run, positions_restart_behind_beginnings,
    borders_shifted, slots_shifted,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(fault: Callable[[MicroBatch], MicroBatch]) -> None:
    found = differences(packed(fault), unpacked())
    assert min(found.values()) > 1e5 * TIGHT, found


def test_a_shifted_loss_mask_shows() -> None:
    """Hidden states are right; losses and gradients are not."""
    found = differences(packed(mask_shifted), unpacked())
    assert min(found[key] for key in ("losses", "total", "gradients")) > 1e5 * TIGHT, found


def test_positions_that_run_on_show() -> None:
    """With plain rotary positions only differences count, and this fault is no more than the rounding of
    larger angles to float32; where frequencies depend on the length it is a fault like any other."""
    rounding = differences(packed(positions_run_on), unpacked())
    assert rounding["hidden"] > 5 * TIGHT, rounding
    gross = differences(packed(positions_run_on, prepare=stretching), unpacked(prepare=stretching))
    assert min(gross.values()) > 1e5 * TIGHT, gross
