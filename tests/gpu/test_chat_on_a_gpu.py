"""Conversations on a GPU: a later turn that goes on from keys and values answers as one that reads everything anew."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from pronk.model.adapter import AdapterShape, attach
from pronk.model.load import find_base, load_model
from pronk.model.sampling import likeliest
from pronk.model.turns import Turns
from pronk.tokens.pack import BASE_SLOT, pack_prompts

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]
SLOTS = [BASE_SLOT, 0]
NEW = 16


def answered(turns: Turns, prompts: list[list[int]]) -> list[list[int]]:
    written: list[list[int]] = [[] for _ in prompts]

    def watch(members: list[int], tokens: list[int]) -> list[bool]:
        for member, token in zip(members, tokens, strict=True):
            written[member].append(token)
        return [False] * len(members)

    for _ in turns.answer(prompts, NEW, -1, likeliest, watch):
        pass
    return written


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_going_on_is_reading_anew(small_base: Path, dtype: torch.dtype) -> None:
    """fp32: the same tokens in each of four turns. bf16: both are written, and most tokens agree."""
    model = load_model(find_base(str(small_base)), dtype, torch.device("cuda"))
    adapter = attach(model, [AdapterShape(8, 16)])
    for _, wide, rows in adapter.rows(0):
        wide.data[rows] = torch.randn_like(wide.data[rows]) * 0.02
    adapter.settle()
    going, same, seconds = Turns(model, adapter, SLOTS, pack_prompts), 0, 0.0
    draw = torch.Generator().manual_seed(5)
    prompts = [torch.randint(20, 40_000, (60 + 9 * slot,), generator=draw).tolist() for slot in range(2)]
    for turn in range(4):
        began = time.perf_counter()
        answers = answered(going, prompts)
        seconds += time.perf_counter() - began
        anew = answered(Turns(model, adapter, SLOTS, pack_prompts), prompts)
        same += answers == anew
        assert turn == 0 or going.read < sum(map(len, prompts)) / 2
        more = [torch.randint(20, 40_000, (5 + turn + slot,), generator=draw).tolist() for slot in range(2)]
        prompts = [[*prompt, *answer, *ids] for prompt, answer, ids in zip(prompts, answers, more, strict=True)]
    print(f"{dtype}: {4 * NEW / seconds:.0f} steps/s, two models side by side")
    assert same == 4 or dtype != torch.float32
    assert same >= 1
