"""What the law tests share: a tiny random Llama, random examples, five unlike runs, and how to compare.

The model is float64 all through: transformers' own RMSNorm rounds to float32 on its way, which would
hide differences below 1e-7, so the tiny model has PyTorch's. It is the same model on both sides of
every comparison.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from pronk.model.adapter import AdapterShape
from pronk.model.attention import use_packed_attention
from pronk.tokens.prompt import Example
from pronk.train.fleet import Fleet, RunPlan, Step

VOCAB = 97
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TIGHT = 1e-8  # what DESIGN.md asks of laws 1 to 4, 6 and 8 in float64
# PEFT 0.21 asks a transformers 5.23 model by an old name; for pytest.mark.filterwarnings
PEFT_WARNS = "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"

State = dict[str, Tensor]


class TrueNorm(nn.Module):
    """RMSNorm in the model's own precision."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(weight.detach().clone()), eps

    def forward(self, hidden: Tensor) -> Tensor:
        return nn.functional.rms_norm(hidden, hidden.shape[-1:], self.weight, self.eps)


def plain_model(
    dtype: torch.dtype = torch.float64, layers: int = 2, seed: int = 7, tied: bool = False
) -> LlamaForCausalLM:
    """A random Llama with transformers' own attention. The same for the same arguments."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=tied,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, attn_implementation="sdpa",
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    model = LlamaForCausalLM(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():  # larger than Llama's 0.02: attention is to be far from uniform
            spread = 1 / parameter.shape[-1] ** 0.5 if parameter.dim() == 2 else 0.1
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise * spread + (parameter.dim() == 1))
        model.get_input_embeddings().weight.mul_(3)
    for name, module in list(model.named_modules()):
        if type(module).__name__ == "LlamaRMSNorm" and dtype == torch.float64:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, TrueNorm(module.weight, module.variance_epsilon))
    return model.eval().requires_grad_(False)


def packed_model(
    dtype: torch.dtype = torch.float64, layers: int = 2, seed: int = 7, tied: bool = False
) -> LlamaForCausalLM:
    """The same model, with pronk's packed attention."""
    model = plain_model(dtype, layers, seed, tied)
    use_packed_attention(model)
    return model


def make_examples(count: int, seed: int, shortest: int = 4, longest: int = 19, beginning: int = 0) -> list[Example]:
    """Random conversations: one to six prompt ids, then the answer and an end token (id 2).

    beginning: so many ids are the same before every one of them.
    """
    rng = np.random.default_rng(seed)
    common = np.random.default_rng(seed + 1000).integers(3, VOCAB, beginning).astype(np.int64)
    made = []
    for _ in range(count):
        length = int(rng.integers(shortest, longest))
        prompt = int(rng.integers(1, min(7, length - 2)))
        ids = rng.integers(3, VOCAB, length).astype(np.int64)
        ids[-1] = 2
        made.append(Example(np.concatenate([common, ids]), np.arange(beginning + length) >= beginning + prompt))
    return made


def five_plans() -> list[RunPlan]:
    """Five runs that differ in rank, alpha, targets, batch size, rate, dropout, clipping, seed and end.

    Their example counts are no multiples of the batch sizes, so epochs end in smaller batches. Most have
    examples that begin alike.
    """
    return [
        RunPlan(
            "attention", make_examples(13, 1, beginning=11),
            AdapterShape(4, 8, ("q_proj", "v_proj")), 50, 3, 1e-3, clip=1.0,
        ),
        RunPlan(
            "all", make_examples(14, 2, beginning=9),
            AdapterShape(6, 3), 50, 4, 1e-3, clip=None, dropout=0.1, seed=3,
        ),
        RunPlan(
            "down", make_examples(9, 3, beginning=15),
            AdapterShape(2, 16, ("down_proj",)), 37, 2, 2e-3, clip=0.2, seed=4,
        ),
        RunPlan(
            "mixed", make_examples(12, 4), AdapterShape(3, 3, ("k_proj", "o_proj", "gate_proj")), 50, 5, 5e-4,
            weight_decay=0.1, clip=0.05, dropout=0.3, seed=5,
        ),
        RunPlan(
            "short", make_examples(7, 5, beginning=8),
            AdapterShape(1, 2), 23, 1, 1e-3, clip=0.5, dropout=0.05, seed=2**32 - 5,
        ),
    ]  # fmt: skip


def shorter(plans: Sequence[RunPlan], steps: int) -> list[RunPlan]:
    """The same runs, none longer than `steps`."""
    return [replace(plan, steps=min(plan.steps, steps)) for plan in plans]


def random_state(state: Mapping[str, Tensor], name: str, size: float = 0.1) -> State:
    """A start with A and B both non-zero, drawn from names alone."""
    drawn = {}
    for key, value in state.items():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{name}/{key}".encode()))
        drawn[key] = (torch.randn(value.shape, generator=generator, dtype=torch.float64) * size).to(value)
    return drawn


def start_fleet(model: Any, plans: Sequence[RunPlan], token_budget: int) -> Fleet:
    """A fleet whose runs start from random adapters that depend on their names only."""
    fleet = Fleet(model, plans, token_budget)
    for slot, plan in enumerate(plans):
        fleet.adapter.load(slot, random_state(fleet.adapter.state(slot), plan.name))
    return fleet


def train(fleet: Fleet) -> tuple[dict[str, State], dict[str, list[Step]]]:
    """Play to the end. Final adapters and all steps, by the runs' names."""
    steps: dict[str, list[Step]] = {run.plan.name: [] for run in fleet.runs}

    def note(round_: Sequence[Step]) -> None:
        for step in round_:
            steps[fleet.runs[step.slot].plan.name].append(step)

    fleet.train(note)
    return {run.plan.name: fleet.adapter.state(slot) for slot, run in enumerate(fleet.runs)}, steps


def train_plans(plans: Sequence[RunPlan], token_budget: int, dtype: torch.dtype = torch.float64) -> dict[str, State]:
    """Final adapters of the runs, trained together on a fresh tiny model."""
    fleet = start_fleet(packed_model(dtype), plans, token_budget)
    trained, _ = train(fleet)
    assert not any(run.error for run in fleet.runs), [run.error for run in fleet.runs]
    return trained


def apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest absolute difference of two adapters."""
    assert one.keys() == other.keys()
    assert one
    return max(float((one[key].double() - other[key].double()).abs().max()) for key in one)


def farthest(one: Mapping[str, State], other: Mapping[str, State]) -> tuple[float, str]:
    """The largest difference over all runs, and the run's name."""
    assert one.keys() == other.keys()
    return max((apart(one[name], other[name]), name) for name in one)


def peft_model(base: Any, shape: AdapterShape, state: Mapping[str, Tensor]) -> Any:
    """PEFT's model with the same adapter, as the oracle; dropout off."""
    targets = list(LINEARS) if shape.targets == "all-linear" else list(shape.targets)
    config = LoraConfig(
        r=shape.rank, lora_alpha=shape.alpha, target_modules=targets, task_type="CAUSAL_LM", use_rslora=shape.use_rslora
    )
    model = get_peft_model(base, config)
    put_state(model, state)
    return model


def put_state(model: Any, state: Mapping[str, Tensor]) -> None:
    """Copy A and B into a PEFT model; every one of its adapter weights must be given."""
    given = {key.replace(".weight", ".default.weight"): value for key, value in state.items()}
    held = {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}
    assert held.keys() == given.keys()
    with torch.no_grad():
        for name, parameter in held.items():
            assert parameter.dtype == given[name].dtype
            parameter.copy_(given[name])


def read_state(model: Any) -> State:
    """The adapter of a PEFT model, under the names of WideAdapter.state."""
    return {
        name.replace(".default.weight", ".weight"): parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }
