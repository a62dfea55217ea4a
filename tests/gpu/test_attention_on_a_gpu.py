"""Every attention kernel that is there against float64; the padded way of fp32; slices without copies; same bits."""

import pytest
import torch
from test_on_a_gpu import _model, _plans

from pronk.model import attention
from pronk.model.attention import describe, kernels_of, packed_attention, packing
from pronk.model.attention_kernels import (
    CUDNN,
    CUDNN_RIGHT,
    FLASH_2,
    FLASH_3,
    FLASH_4,
    Choice,
    Heads,
    _installed,
    choose,
    even_trial,
    plain_attention,
    ragged_trial,
    values_and_gradients,
    what_is_wrong,
)
from pronk.model.attention_kernels import Segments as Borders
from pronk.model.determinism import deterministic
from pronk.train.fleet import Fleet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]

CUDA = torch.device("cuda")
RAGGED = {kernel.name: kernel for kernel in (FLASH_2, FLASH_3, FLASH_4)}
HEADS = [Heads(4, 4, 64), Heads(9, 3, 64), Heads(8, 2, 128)]
# odd lengths, one token, one segment alone, long ones; beginnings looked back at by many and few
PACKS = [
    ((7,), (-1,)),
    ((1, 9, 333, 10, 1, 64, 3), (-1,) * 7),
    ((1025, 2047), (-1, -1)),
    ((12, 5, 1, 7, 400, 3, 130, 17), (-1, 0, 0, 0, -1, 4, 4, -1)),
    ((40, *range(1, 60)), (-1, *(0,) * 59)),
]


def there(name):
    kernel = RAGGED[name]
    if not _installed(kernel.module):
        pytest.skip(f"{kernel.module} is not installed")
    return kernel


def slices(tokens, heads, groups, size, dtype):
    draw = torch.Generator().manual_seed(1)
    whole = torch.randn(tokens, (heads + 2 * groups) * size, generator=draw).to(CUDA, dtype)
    parts = whole.split((heads * size, groups * size, groups * size), 1)
    return [part.unflatten(1, (-1, size)) for part in parts]


def exactly(inputs, lengths, parents):
    """Values and gradients in float64, each segment's keys written out in front of it."""
    pack = packing(lengths, parents, CUDA)

    def attend(q, k, v, _, scale):
        if not (look := pack.lookback):
            return plain_attention(q, k, v, Borders(pack.borders, pack.borders, pack.longest, pack.longest), scale)
        seen = Borders(pack.borders, look.borders, pack.longest, look.longest)
        return plain_attention(q, k[look.source_L], v[look.source_L], seen, scale)

    return values_and_gradients(attend, [part.double() for part in inputs], None)


def ours(inputs, lengths, parents):
    pack = packing(lengths, parents, CUDA)
    return values_and_gradients(lambda q, k, v, _, scale: packed_attention(q, k, v, pack, scale), inputs, None)


def off(found, true):
    """Largest difference in roundings of the largest value."""
    worst = 0.0
    for one, other in zip(found, true, strict=True):
        error = (one.double() - other).abs().max() / other.abs().max()
        worst = max(worst, float(error) / torch.finfo(one.dtype).eps)
    return worst


@pytest.mark.parametrize("sure", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize(("lengths", "parents"), PACKS)
@pytest.mark.parametrize("name", RAGGED)
def test_a_kernel_equals_float64(monkeypatch, name, lengths, parents, heads, dtype, sure):
    kernel = there(name)
    monkeypatch.setattr(attention, "choose", lambda *_: Choice(kernel, None))
    inputs = slices(sum(lengths), *heads, dtype)
    with deterministic(sure):
        found = ours(inputs, lengths, parents)
    assert off(found, exactly(inputs, lengths, parents)) < 4


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize(("length", "count"), [(700, 3), (1023, 4)])
def test_cudnn_equals_float64(monkeypatch, heads, length, count):
    if (torch.backends.cudnn.version() or 0) < CUDNN_RIGHT or torch.cuda.get_device_capability()[0] not in (9, 10):
        pytest.skip("needs cuDNN 9.15.1 on a Hopper or Blackwell GPU")
    asked = []

    def attend(*args):
        asked.append(1)
        return CUDNN.attend(*args)

    even = attention.Kernel("cuDNN", attend, lambda: "")
    monkeypatch.setattr(attention, "choose", lambda *_: Choice(FLASH_2, even))
    inputs, lengths = slices(length * count, *heads, torch.bfloat16), (length,) * count
    assert off(ours(inputs, lengths, (-1,) * count), exactly(inputs, lengths, (-1,) * count)) < 4
    assert asked


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize(("lengths", "parents"), PACKS)
def test_fp32_padded_by_length_equals_float64(lengths, parents, heads):
    inputs = slices(sum(lengths), *heads, torch.float32)
    assert choose(CUDA, torch.float32, heads).ragged is None
    assert off(ours(inputs, lengths, parents), exactly(inputs, lengths, parents)) < 300


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_chosen_is_right(heads, dtype):
    choice = choose(CUDA, dtype, heads)
    print(choice, choice.passed_over)
    assert choice.ragged is not None
    assert what_is_wrong(choice.ragged.attend, ragged_trial, CUDA, dtype, heads) == ""
    if choice.even:
        assert what_is_wrong(choice.even.attend, even_trial, CUDA, dtype, heads) == ""


def test_slices_are_not_copied(monkeypatch):
    """Queries alone are as large as the output: a copy would show."""
    lengths = (2048,) * 4
    choices = [Choice(FLASH_2, None), Choice(FLASH_2, choose(CUDA, torch.bfloat16, Heads(32, 8, 128)).even)]
    for choice in choices:
        monkeypatch.setattr(attention, "choose", lambda *_, choice=choice: choice)
        q, k, v = slices(sum(lengths), 32, 8, 128, torch.bfloat16)
        pack = packing(lengths, (-1,) * 4, CUDA)
        with torch.no_grad():
            packed_attention(q, k, v, pack)
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            mixed = packed_attention(q, k, v, pack)
        assert mixed.is_contiguous()
        assert torch.cuda.max_memory_allocated() - before < 1.3 * mixed.nbytes


def test_shared_heads_are_not_repeated():
    """What is kept for the backward pass: the inputs, the output, and fp32 sums of a head's scores."""
    q, k, v = slices(8192, 32, 8, 128, torch.bfloat16)
    leaf = q.detach().requires_grad_()
    before = torch.cuda.memory_allocated()
    mixed = packed_attention(leaf, k, v, packing((100,) * 81 + (92,), (-1,) * 82, CUDA))
    assert torch.cuda.memory_allocated() - before < 1.1 * mixed.nbytes


@pytest.mark.parametrize(
    ("lengths", "parents"), [((1500, 2100, 400), (-1,) * 3), ((300, *(90,) * 40), (-1, *(0,) * 40))]
)
def test_attention_is_bit_equal_on_request(lengths, parents):
    inputs = slices(sum(lengths), 8, 2, 128, torch.bfloat16)
    with deterministic(True):
        first = ours(inputs, lengths, parents)
        for _ in range(20):
            assert all(torch.equal(*pair) for pair in zip(first, ours(inputs, lengths, parents), strict=True))


def _bits(dtype, beginning, optimizer):
    from dataclasses import replace

    plans = [replace(plan, optimizer=optimizer) for plan in _plans(beginning=beginning)]
    fleet = Fleet(_model(dtype), plans, 1024)
    losses = []
    fleet.train(lambda steps: losses.append([step.loss for step in steps]))
    assert not any(run.error for run in fleet.runs)
    return losses, [value for slot in range(len(plans)) for value in fleet.adapter.state(slot).values()]


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize("beginning", [0, 40])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_two_trainings_are_bit_equal_on_request(dtype, beginning, optimizer):
    with deterministic(True):
        losses, weights = _bits(dtype, beginning, optimizer)
        again, others = _bits(dtype, beginning, optimizer)
    assert losses == again
    assert all(torch.equal(*pair) for pair in zip(weights, others, strict=True))


def test_a_model_says_what_it_attends_with():
    assert "deterministic: no" in describe(_model(torch.bfloat16))
    assert describe(_model(torch.float32)) == "PyTorch's own, sequences padded by length, deterministic: no"
    with deterministic(True):
        model = _model(torch.bfloat16)
        assert "deterministic: yes" in describe(model)
        assert kernels_of(model).even is None
