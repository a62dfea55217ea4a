"""What differs on a GPU: one attention call for a pack, recorded steps, bf16. Run with `pytest -m gpu`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pronk.model.adapter import AdapterShape, attach
from pronk.model.attention import use_packed_attention
from pronk.model.forward import evaluation_losses, to_device, training_loss
from pronk.model.generate import score_and_answer
from pronk.tokens.pack import Member, pack, pack_prompts
from pronk.tokens.prompt import Example
from pronk.train.fleet import Fleet, RunPlan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]


def _model(dtype):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to("cuda", dtype).eval()
    use_packed_attention(model)
    return model


def _examples(count, seed=0, beginning=0):
    """Random ids; the first `beginning` of them are the same in all examples."""
    draw = np.random.default_rng(seed)
    common = draw.integers(3, 512, beginning)
    examples = []
    for _ in range(count):
        length = int(draw.integers(8, 90))
        ids = draw.integers(3, 512, length)
        target = np.arange(beginning + length) >= beginning + length - int(draw.integers(1, 5))
        examples.append(Example(np.concatenate([common, ids]), target))
    return examples


def _plans(count=3, dropout=0.0, beginning=0):
    examples = _examples(40, beginning=beginning)
    targets = ["all-linear", ("q_proj", "v_proj"), ("down_proj",)]
    return [
        RunPlan(
            f"run{k}", examples, AdapterShape(4 + 4 * k, 16.0, targets[k % 3]), 12, 8, 1e-3, dropout=dropout, seed=k
        )
        for k in range(count)
    ]


def _trained(dtype, record, plans=None):
    fleet = Fleet(_model(dtype), plans or _plans(), 1024)
    if not record:
        fleet._accumulate.records = False
    losses = []
    fleet.train(lambda steps: losses.append([step.loss for step in steps]))
    return fleet, losses


@pytest.mark.parametrize(("dropout", "beginning"), [(0.0, 0), (0.2, 0), (0.0, 40), (0.0, 150)])
def test_recorded_steps_equal_steps_called_directly(dropout, beginning):
    plans = _plans(dropout=dropout, beginning=beginning)
    recorded, losses = _trained(torch.bfloat16, True, plans=plans)
    direct, expected = _trained(torch.bfloat16, False, plans=plans)
    assert recorded._accumulate._recordings, "nothing was recorded, so nothing was tested"
    np.testing.assert_allclose(losses, expected, rtol=2e-2)
    for slot in range(3):
        for name, value in recorded.adapter.state(slot).items():
            difference = (value - direct.adapter.state(slot)[name]).norm() / value.norm()
            assert difference < 5e-2, name


def _gradients(model, batch, shared):
    """Gradients of an adapter from one micro-batch; without sharing every sequence is laid down whole."""
    adapter = attach(model, [AdapterShape(8, 16.0)])
    adapter.initialize({0: 1})
    for parameter in adapter.parameters:
        parameter.data.normal_(0, 0.05, generator=torch.Generator("cuda").manual_seed(parameter.numel()))
    adapter.settle()
    members = [replace(member, slot=0, key=None if shared else 0) for member in batch]
    (packed,) = pack(members, 100_000)
    assert (max(packed.parents_S) >= 0) == shared
    loss, _ = training_loss(model, adapter, to_device(packed, torch.device("cuda"), torch.float32))
    loss.backward()
    return torch.cat([parameter.grad.float().flatten() for parameter in adapter.parameters])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("beginning", [9, 64, 300])
def test_gradients_with_shared_beginnings_are_those_without(dtype, tolerance, beginning):
    batch = [Member(example, weight=0.1) for example in _examples(24, beginning=beginning)]
    shared, whole = (_gradients(_model(dtype), batch, sharing) for sharing in (True, False))
    assert (shared - whole).norm() < tolerance * whole.norm()
    # not by half of them: the gradient through the beginning is a part that counts
    assert (shared - whole).norm() < 0.1 * (whole - _gradients(_model(dtype), batch[:12], True)).norm()


def test_a_recording_that_forgets_to_copy_its_batch_is_caught(monkeypatch):
    import pronk.model.step as step

    original, first = step.staged, {}

    def faulty(tensors, pinned):
        piece = original(tensors, pinned)
        return first.setdefault(piece.numel(), piece)

    monkeypatch.setattr(step, "staged", faulty)
    _, losses = _trained(torch.bfloat16, True)
    monkeypatch.undo()
    _, expected = _trained(torch.bfloat16, False)
    assert not np.allclose(losses, expected, rtol=2e-2)


def test_one_attention_call_for_a_pack_equals_a_call_per_sequence():
    members = [Member(example) for example in _examples(20, seed=1)]
    (batch,) = pack(members, 4096)
    half, full = _model(torch.bfloat16), _model(torch.float32)
    losses = evaluation_losses(half, attach(half, []), batch)
    expected = evaluation_losses(full, attach(full, []), batch)
    assert (losses - expected).abs().mean() < 2e-2 * expected.mean()


def test_a_run_in_a_fleet_equals_the_same_run_alone_in_fp32():
    plans = _plans()
    fleet, _ = _trained(torch.float32, False, plans=plans)
    alone, _ = _trained(torch.float32, False, plans=[plans[1]])
    for name, value in alone.adapter.state(0).items():
        torch.testing.assert_close(fleet.adapter.state(1)[name], value, rtol=1e-3, atol=1e-5)


def test_scores_and_answers_in_bf16_follow_fp32():
    prompts = [example.ids[:-1].tolist() for example in _examples(12, seed=2)]
    labels = [[5, 2], [7, 9, 2], [11, 2]]
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        model = _model(dtype)
        answers = score_and_answer(model, attach(model, []), pack_prompts(prompts, [-1] * len(prompts)), labels, 4, 2)
        found[dtype] = answers.scores_NC.float().cpu()
    difference = (found[torch.bfloat16] - found[torch.float32]).abs().mean()
    assert difference < 0.05 * found[torch.float32].abs().mean()
