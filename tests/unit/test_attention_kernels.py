"""Which kernel attends to a pack: tried on a small pack, passed over with a reason, chosen once; and the padded way."""

import sys
import types

import pytest
import torch
from torch.nn import attention as switches
from torch.nn.attention import varlen

from pronk.model import attention, attention_kernels, attention_padded
from pronk.model.attention_kernels import (
    FASTEST,
    FASTEST_EVEN,
    OTHERS,
    Choice,
    Heads,
    Kernel,
    Segments,
    choose,
    even_trial,
    first_right,
    plain_attention,
    ragged_trial,
    values_and_gradients,
    what_is_wrong,
)  # fmt: skip
from pronk.model.determinism import deterministic

CPU, HALF, HEADS = torch.device("cpu"), torch.bfloat16, Heads(4, 2, 32)


def kernel(attend, name="fake", module="torch", **options):
    return Kernel(name, attend, lambda: "1.0", module, **options)


def right(q_THD, k_LGD, v_LGD, segments, scale):
    """What a good kernel gives: plain attention, rounded."""
    return plain_attention(q_THD.double(), k_LGD.double(), v_LGD.double(), segments, scale).to(q_THD.dtype)


def sees_others(q_THD, k_LGD, v_LGD, segments, scale):
    whole = Segments(segments.queries[[0, -1]], segments.keys[[0, -1]], len(q_THD), len(k_LGD))
    return right(q_THD, k_LGD, v_LGD, whole, scale)


def beginnings_misplaced(q_THD, k_LGD, v_LGD, segments, scale):
    """Causal from the top left: the first query sees the first key alone, whatever lies in front."""
    own = torch.cat([torch.arange(s, s + n) for s, n in zip(segments.keys, segments.queries.diff(), strict=False)])
    cut = Segments(segments.queries, segments.queries, segments.longest_query, segments.longest_query)
    return right(q_THD, k_LGD[own], v_LGD[own], cut, scale)


def heads_in_turn(q_THD, k_LGD, v_LGD, segments, scale):
    """Query heads share key heads in turn instead of in groups."""
    k_LHD, v_LHD = (part.repeat(1, q_THD.shape[1] // part.shape[1], 1) for part in (k_LGD, v_LGD))
    return right(q_THD, k_LHD, v_LHD, segments, scale)


def keys_unlearned(q_THD, k_LGD, v_LGD, segments, scale):
    return right(q_THD, k_LGD.detach() + 0 * k_LGD, v_LGD, segments, scale)


def other_scale(q_THD, k_LGD, v_LGD, segments, _):
    return right(q_THD, k_LGD, v_LGD, segments, 1.2 * q_THD.shape[-1] ** -0.5)


def not_finite(q_THD, k_LGD, v_LGD, segments, scale):
    return right(q_THD, k_LGD, v_LGD, segments, scale) * torch.nan


def strides_forgotten(q_THD, k_LGD, v_LGD, segments, scale):
    """Takes the keys for a tensor of their own, though they are a slice."""
    wrong = torch.as_strided(k_LGD, k_LGD.shape, (k_LGD.shape[1] * k_LGD.shape[2], k_LGD.shape[2], 1))
    return right(q_THD, wrong, v_LGD, segments, scale)


def trembling(q_THD, k_LGD, v_LGD, segments, scale):
    """Right, but not to the last bit, as sums in no fixed order are."""
    return right(q_THD, k_LGD, v_LGD, segments, scale) * (1 + 0.008 * torch.randint(0, 2, (len(q_THD), 1, 1)))


def broken(*_):
    raise RuntimeError("  \nno kernel image is available\nfor this device")


FAULTS = [
    sees_others, beginnings_misplaced, heads_in_turn, keys_unlearned, other_scale, not_finite, strides_forgotten,
]  # fmt: skip


def per_segment(lengths, parents):
    """SDPA called for each segment, as on a CPU: an oracle of its own."""
    packing = attention.Packing(lengths, parents, max(lengths))
    return lambda q, k, v, _, scale: attention._call_per_segment(q, k, v, scale, packing)


def slices(tokens, heads, groups, size, dtype=torch.float64):
    """Queries, keys and values as slices of one tensor (T, (H + 2G) · D)."""
    draw = torch.Generator().manual_seed(1)
    whole = torch.randn(tokens, (heads + 2 * groups) * size, generator=draw, dtype=dtype)
    return [part.unflatten(1, (-1, size)) for part in whole.split((heads * size, groups * size, groups * size), 1)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("trial", [ragged_trial, even_trial])
def test_a_right_kernel_passes(dtype, trial):
    assert what_is_wrong(right, trial, CPU, dtype, HEADS, deterministic=True) == ""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_kernel_is_found_out(fault):
    told = what_is_wrong(fault, ragged_trial, CPU, HALF, HEADS)
    assert told.startswith("its ")
    assert told.endswith(" is wrong on a small pack")
    assert ("gradient for k" in told) == (fault is keys_unlearned)


def test_the_reason_is_the_first_line_of_an_error():
    assert what_is_wrong(broken, ragged_trial, CPU, HALF, HEADS) == "RuntimeError: no kernel image is available"


def test_what_differs_from_call_to_call_is_wrong_on_request_only():
    assert what_is_wrong(trembling, ragged_trial, CPU, HALF, HEADS) == ""
    told = what_is_wrong(trembling, ragged_trial, CPU, HALF, HEADS, deterministic=True)
    assert told.endswith("differs from call to call")


def test_the_first_right_one_is_taken_and_the_others_are_remembered_with_their_reasons():
    kernels = [
        kernel(right, "absent", "no_such_package.inside"), kernel(broken, "broken"), kernel(sees_others, "wrong"),
        kernel(right, "good"), kernel(right, "slower"),
    ]  # fmt: skip
    found, passed_over = first_right(kernels, ragged_trial, CPU, HALF, HEADS, deterministic=False)
    assert found is kernels[3]
    reasons = dict(passed_over)
    assert list(reasons) == ["broken", "wrong"]
    assert reasons["broken"] == "RuntimeError: no kernel image is available"
    assert reasons["wrong"] == "its output is wrong on a small pack"


def test_none_is_left():
    found, passed_over = first_right([kernel(broken)], ragged_trial, CPU, HALF, HEADS, deterministic=False)
    assert found is None
    assert len(passed_over) == 1


def test_a_deterministic_one_on_request():
    kernels = [kernel(right, "fast", deterministic=False), kernel(right, "sure")]
    assert first_right(kernels, ragged_trial, CPU, HALF, HEADS, deterministic=False) == (kernels[0], ())
    assert first_right(kernels, ragged_trial, CPU, HALF, HEADS, deterministic=True) == (kernels[1], ())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_evaluation_may_be_the_first_to_ask(mode):
    with mode():
        assert what_is_wrong(right, ragged_trial, CPU, HALF, HEADS) == ""


def test_the_choice_is_made_once_and_anew_for_what_is_deterministic(monkeypatch):
    tried = []

    def counted(*args):
        tried.append(1)
        return right(*args)

    one = kernel(counted, "one", deterministic=False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.no_grad())
    monkeypatch.setitem(FASTEST, 9, (one,))
    monkeypatch.setitem(FASTEST_EVEN, 9, ())
    monkeypatch.setattr(attention_kernels, "_inputs", on_cpu(attention_kernels._inputs))
    attention_kernels._choose.cache_clear()
    try:
        for _ in range(3):
            assert choose(torch.device("cuda"), HALF, HEADS).ragged is one
            assert choose(torch.device("cuda:0"), HALF, HEADS).ragged is one
        assert len(tried) == 1
        assert choose(torch.device("cuda"), torch.float32, HEADS) == Choice(None, None)
        with deterministic(True):
            assert choose(torch.device("cuda"), HALF, HEADS).ragged is None
    finally:
        attention_kernels._choose.cache_clear()


def on_cpu(inputs):
    return lambda trial, _, dtype, heads: inputs(trial, CPU, dtype, heads)


def test_every_order_ends_with_what_pytorch_brings():
    assert not FASTEST[7]
    for order in (FASTEST[9], FASTEST[10], OTHERS):
        assert order[-1] is attention_kernels.FLASH_2
    assert not any(kernel.deterministic for order in FASTEST_EVEN.values() for kernel in order)


def test_words():
    fast, even = kernel(right, "Fast"), kernel(right, "Even")
    assert str(Choice(fast, even)) == "Fast (1.0), Even (1.0) for sequences of one length"
    assert str(Choice(fast, None)) == "Fast (1.0)"
    assert str(Choice(None, None)) == "PyTorch's own, sequences padded by length"
    by_hand = Kernel("Fast", right, attention_kernels._package_version("no-such-distribution"))
    assert str(Choice(by_hand, None)) == "Fast"


def test_a_model_is_described(monkeypatch):
    choice = Choice(kernel(right, "Good"), None, (("Better", "ValueError: too many values"),))
    monkeypatch.setattr(attention, "kernels_of", lambda _: choice)
    line = "Good (1.0), deterministic: no; Better is installed but not used: ValueError: too many values"
    assert attention.describe(None) == line
    with deterministic(True):
        assert "Good (1.0), deterministic: yes" in attention.describe(None)


# lengths with a single token, lengths alike and unlike; segments that look back at short and long beginnings
PACKS = [
    ((7,), (-1,)),
    ((16, 16, 16), (-1, -1, -1)),
    ((1, 9, 33, 10, 1, 64, 3), (-1,) * 7),
    ((12, 5, 1, 7, 40, 3, 30, 17), (-1, 0, 0, 0, -1, 4, 4, -1)),
]


@pytest.mark.parametrize(("lengths", "parents"), PACKS)
def test_plain_and_padded_attention_equal_a_call_per_segment(lengths, parents):
    inputs = slices(sum(lengths), 6, 2, 8)
    borders = attention.borders(lengths)
    segments = Segments(borders, borders, max(lengths), max(lengths))
    true = values_and_gradients(per_segment(lengths, parents), inputs, segments)

    def padded(q, k, v, _, scale):
        return attention_padded.attend_padded(q, k, v, lengths, parents, scale)

    def plain(q, k, v, _, scale):
        look = attention._lookback(lengths, parents)
        seen = Segments(borders, look.borders, max(lengths), look.longest)
        return plain_attention(q, k[look.source_L], v[look.source_L], seen, scale)

    for attend in (padded, plain):
        for name, ours, theirs in zip("oqkv", values_and_gradients(attend, inputs, segments), true, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12, msg=f"{attend.__name__} {name}")


def test_what_is_padded_is_at_most_doubled():
    lengths = tuple(torch.randint(1, 500, (60,), generator=torch.Generator().manual_seed(0)).tolist())
    plan = attention_padded._plan(lengths, (-1,) * 60, CPU)
    assert len(plan.buckets) <= 9
    assert sum(len(bucket.queries) for bucket in plan.buckets) < 2 * sum(lengths)
    assert torch.equal(torch.cat([bucket.queries for bucket in plan.buckets])[plan.place_T], torch.arange(sum(lengths)))


def test_what_an_evaluation_laid_out_serves_training():
    lengths, parents = (11, 13, 2), (-1, 0, -1)
    inputs = slices(26, 4, 4, 8)
    with torch.inference_mode():
        attention_padded.attend_padded(*inputs, lengths, parents, None)
    found = values_and_gradients(
        lambda q, k, v, _, scale: attention_padded.attend_padded(q, k, v, lengths, parents, scale), inputs, None
    )
    assert all(part.isfinite().all() for part in found)


def even(lengths, parents=None, lookback=None):
    borders = attention.borders(lengths) if lengths else None
    packing = attention.Packing(lengths, parents or (-1,) * len(lengths), max(lengths, default=2048), borders, lookback)
    return attention._is_even(packing)


def test_an_even_kernel_is_for_long_sequences_of_one_length():
    assert even((2047,) * 4)
    assert even((512,) * 2)
    assert not even((2047, 2047, 2046))
    assert not even((130,) * 20)
    assert not even((4000,))  # the next is of another length
    assert not even(())  # a recording
    look = attention.Lookback.of(torch.arange(3), torch.arange(2), 3, 3)
    assert not even((600, 600), (-1, 0), look)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ("query key value return_aux scale window_size", {"scale": 0.5, "window_size": (-1, 0)}),
        ("query scale window_size enable_gqa", {"scale": 0.5, "window_size": (-1, 0), "enable_gqa": True}),
    ],
)
def test_varlen_attn_is_told_what_its_version_knows(monkeypatch, known, expected):
    told = []
    monkeypatch.setattr(varlen, "varlen_attn", lambda query, *_, **options: told.append(options) or query)
    monkeypatch.setattr(attention_kernels, "_parameters", lambda _: frozenset(known.split()))
    borders = attention.borders((3, 4))
    attention_kernels.flash_2(*slices(7, 4, 2, 8), Segments(borders, borders, 4, 4), 0.5)
    assert told == [expected]


def test_varlen_attn_still_has_the_names_we_use():
    names = attention_kernels._parameters(varlen.varlen_attn)
    assert {"query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k", "scale", "window_size"} <= names


def test_the_switch_is_thrown_for_each_kernel(monkeypatch):
    log = []

    class Handle:
        def remove(self):
            log.append("off")

    def register():
        log.append("on")
        return Handle()

    monkeypatch.setitem(switches._registry._FLASH_ATTENTION_IMPLS, "FA3", register)
    monkeypatch.setattr(varlen, "varlen_attn", lambda query, *_, **__: query)
    borders = attention.borders((7,))
    call = (*slices(7, 4, 2, 8), Segments(borders, borders, 7, 7), None)
    for attend in (attention_kernels.flash_3, attention_kernels.flash_3, attention_kernels.flash_2):
        attend(*call)
    assert log == ["on", "off"]
    assert switches.current_flash_attention_impl() is None


def test_flash_4_is_told_all_it_must_know(monkeypatch):
    told = {}

    def flash_attn_varlen_func(query, *_, **options):
        told.update(options)
        return query, None

    package, module = types.ModuleType("flash_attn"), types.ModuleType("flash_attn.cute")
    module.flash_attn_varlen_func = flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.cute", module)
    queries, keys = attention.borders((3, 4)), attention.borders((3, 7))
    q, k, v = slices(7, 4, 2, 8)
    with deterministic(True):
        assert attention_kernels.flash_4(q, k, v, Segments(queries, keys, 4, 7), None) is q
    assert told.pop("cu_seqlens_q") is queries
    assert told.pop("cu_seqlens_k") is keys
    wanted = {"max_seqlen_q": 4, "max_seqlen_k": 7, "softmax_scale": None, "causal": True, "deterministic": True}
    assert told == wanted


def test_determinism_ends_where_it_was_asked_for(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    filled = torch.utils.deterministic.fill_uninitialized_memory
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    with pytest.raises(KeyError), deterministic(True):
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == filled
