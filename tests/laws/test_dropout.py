"""Dropout masks are as good as random, and hang on nothing but run, step, example and place."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy import stats
from tiny import farthest, five_plans, packed_model, random_state, shorter, train_plans
from torch import Tensor

import pronk.model.dropout
from pronk.model.adapter import AdapterShape, attach
from pronk.model.dropout import DropoutKeys, keep_mask, token_keys

FEATURES = 64
SIGMAS = 5.0  # a fair generator strays farther once in two million looks; these are the same bits every time
UNLIKELY = 1e-5  # p-value below which a chi-square is taken for a fault


def keys(
    share: float, tokens: int = 4096, seed: int = 42, step: int = 0, example: int = 0, first: int = 0
) -> DropoutKeys:
    """Tokens of one example, at positions from `first`."""
    position_T = torch.arange(first, first + tokens)
    same = [torch.full_like(position_T, value) for value in (seed, step, example)]
    return DropoutKeys(token_keys(*same, position_T), torch.full((tokens,), share))


def kept(share: float, module: int = 1, features: int = FEATURES, **place: int) -> Tensor:
    """1 where a feature is kept, float64 (T × I)."""
    return (keep_mask(keys(share, **place), module, features, torch.float64) != 0).double()


def correlation(one: Tensor, other: Tensor) -> float:
    """In units of what chance allows."""
    table = torch.stack([one.flatten(), other.flatten()])
    return float(torch.corrcoef(table)[0, 1]) * one.numel() ** 0.5


def mixed(word: int) -> int:
    """lowbias32 of the word and a constant, in numbers without a sign and without an end."""
    word = (word + 0x9E3779B9) % 2**32
    word = (word ^ word >> 16) * 0x7FEB352D % 2**32
    word = (word ^ word >> 15) * 0x846CA68B % 2**32
    return word ^ word >> 16


PLACES = [(0, 0, 0, 0, 0, 0), (42, 7, 3, 19, 0x7FFFFFFF, 5), (2**40 + 1, 99, 2**31, 2047, 0x80000000, 1535),
          (2**32 - 5, 2**20, 2**33 + 1, 1, 0xDEADBEEF, 63)]  # fmt: skip


@pytest.mark.parametrize("words", ["array", "tensor"])
@pytest.mark.parametrize("place", PLACES)
def test_each_bit_is_that_of_whole_numbers(place: tuple[int, ...], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is computed: in arrays as on a CPU, in tensors as on a GPU. A share a little above or below the
    word, as near as fp32 comes to it, drops the feature or keeps it."""
    if words == "tensor":
        monkeypatch.setattr(pronk.model.dropout, "_words", lambda key_N: key_N.int())
    *of_token, module, feature = place
    key = 0
    for part in of_token:
        key = mixed(mixed(key ^ part % 2**32) + (part >> 32))
    assert int(token_keys(*(torch.tensor([part]) for part in of_token))) == key
    share = mixed(mixed(key ^ module) ^ mixed(feature)) / 2**32
    for value, keeps in ((share - 1e-7, True), (share + 1e-7, False)):
        made = DropoutKeys(torch.tensor([key]), torch.tensor([value]))
        assert (keep_mask(made, module, feature + 1, torch.float32)[0, feature] != 0) == keeps


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_share_and_mean(share: float) -> None:
    mask = keep_mask(keys(share), 1, FEATURES, torch.float64)
    n, spread = mask.numel(), (share * (1 - share)) ** 0.5
    assert abs((mask == 0).double().mean() - share) < SIGMAS * spread / n**0.5
    assert abs(mask.mean() - 1) < SIGMAS * spread / (1 - share) / n**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_the_scale_is_that_of_torch(share: float, dtype: torch.dtype) -> None:
    """PEFT's dropout is nn.Dropout: 1 / (1 - p). Up to the last bit, and the last bit of fp32 in fp64."""
    ours = keep_mask(keys(share, 64), 1, FEATURES, dtype).unique().double()
    theirs = torch.nn.functional.dropout(torch.ones(64, FEATURES, dtype=dtype), share).unique().double()
    assert ours.tolist() == pytest.approx(theirs.tolist(), rel=max(torch.finfo(dtype).eps, 2.0**-22))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_share_of_zero_keeps_everything_as_it_is(dtype: torch.dtype) -> None:
    mixed = keys(0.0, 200)
    mixed.share_T[::2] = 0.9
    mask = keep_mask(mixed, 1, FEATURES, dtype)
    assert (mask[1::2] == 1).all()
    assert (mask[::2] == 0).double().mean() > 0.8


NEIGHBOURS = {
    "module": {"module": 2},
    "distant module": {"module": 0xDEADBEEF},
    "seed": {"seed": 43},
    "seed of two words": {"seed": 42 + (1 << 32)},
    "step": {"step": 1},
    "distant step": {"step": 1000},
    "example": {"example": 1},
    "position": {"first": 1},
    "distant position": {"first": 4096},
    "feature": {},
}


def neighbours(name: str, share: float) -> tuple[Tensor, Tensor]:
    """Two masks whose places differ in one coordinate."""
    if name == "feature":
        mask = kept(share)
        return mask[:, 1:], mask[:, :-1]
    return kept(share), kept(share, **NEIGHBOURS[name])


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("name", list(NEIGHBOURS))
def test_neighbours_are_not_correlated(name: str, share: float) -> None:
    assert abs(correlation(*neighbours(name, share))) < SIGMAS


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(("seed", "step", "example"), 2)))
def test_coordinates_are_not_interchangeable(first: str, second: str) -> None:
    """Step 7 of example 3 is not step 3 of example 7."""
    one, other = kept(0.5, **{first: 7, second: 3}), kept(0.5, **{first: 3, second: 7})
    assert abs(correlation(one, other)) < SIGMAS


def chi_square(mask: Tensor) -> float:
    """The smallest p-value: of kept features per token, of kept tokens per feature, of eight neighbours
    together as bytes, along features and along tokens. For a share of one half."""
    tokens, features = mask.shape
    rows = float(((mask.sum(1) - features / 2) ** 2 / (features / 4)).sum())
    columns = float(((mask.sum(0) - tokens / 2) ** 2 / (tokens / 4)).sum())
    values = 2.0 ** torch.arange(8, dtype=torch.float64)
    found = [stats.chi2.sf(rows, tokens), stats.chi2.sf(columns, features),
             stats.chi2.cdf(rows, tokens), stats.chi2.cdf(columns, features)]  # fmt: skip
    for bits in (mask.reshape(-1, 8), mask.T.reshape(-1, 8)):
        counts = torch.bincount((bits @ values).long(), minlength=256).double()
        found.append(stats.chisquare(counts.numpy()).pvalue)
    return min(float(p) for p in found)


@pytest.mark.parametrize(("module", "seed"), [(1, 42), (2, 42), (0xFFFFFFFF, 0), (0, 0), (77, 1)])
def test_bits_are_uniform(module: int, seed: int) -> None:
    assert chi_square(kept(0.5, module, seed=seed)) > UNLIKELY


def test_bits_along_steps_are_uniform() -> None:
    """One place in the model, over many steps of a run."""
    over_steps = torch.cat([kept(0.5, tokens=1, step=step) for step in range(2048)])
    assert chi_square(over_steps) > UNLIKELY


def test_the_order_of_tokens_does_not_matter() -> None:
    """A token's mask goes with the token, wherever it lies in a pack."""
    straight = keys(0.3, 300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    turned = DropoutKeys(straight.keys_T[order], straight.share_T[order])
    mask = keep_mask(straight, 5, FEATURES, torch.float32)
    assert torch.equal(keep_mask(turned, 5, FEATURES, torch.float32), mask[order])
    assert torch.equal(keep_mask(straight, 5, FEATURES // 2, torch.float32), mask[:, : FEATURES // 2])


def _no_position(patch: pytest.MonkeyPatch) -> None:
    original = pronk.model.dropout.token_keys
    patch.setitem(globals(), "token_keys", lambda s, t, e, p: original(s, t, e, torch.zeros_like(p)))


def _no_step(patch: pytest.MonkeyPatch) -> None:
    original = pronk.model.dropout.token_keys
    patch.setitem(globals(), "token_keys", lambda s, t, e, p: original(s, torch.zeros_like(t), e, p))


def _no_module(patch: pytest.MonkeyPatch) -> None:
    original = pronk.model.dropout.keep_mask
    patch.setitem(globals(), "keep_mask", lambda k, _m, f, d: original(k, 0, f, d))


def _poor_hash(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pronk.model.dropout, "_mix", lambda word: word * (0x9E3779B9 - 2**32))


@pytest.mark.parametrize(
    ("fault", "name"),
    [(_no_position, "position"), (_no_step, "step"), (_no_module, "module"), (_poor_hash, "feature")],
)
def test_a_fault_shows(fault: Callable[[pytest.MonkeyPatch], None], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    worst = max(abs(correlation(*neighbours(name, 0.5))), 0.0)
    assert worst > SIGMAS or chi_square(kept(0.5)) < UNLIKELY


def test_a_layer_drops_its_adapters_input_only() -> None:
    """With A and B of one entry each, what the adapter adds is scaling · x · mask, as in PEFT; the base
    product is untouched. Value and gradients against plain PyTorch."""
    model = packed_model()
    adapter = attach(model, [AdapterShape(32, 64, ("q_proj",)), AdapterShape(3, 6, ("q_proj",))])
    layer = adapter.layers["model.layers.0.self_attn.q_proj"]
    state = adapter.state(0)
    adapter.load(0, {key: torch.eye(32, dtype=torch.float64) for key in state})
    adapter.load(1, random_state(adapter.state(1), "other"))
    slots_T = torch.tensor([0, 1, -1]).repeat(40)
    adapter.routing.set(slots_T, keys(0.25, len(slots_T)))
    x_TI = torch.randn(len(slots_T), 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x_TI.requires_grad_()
    y_TO = layer(x_TI)
    added = (y_TO - x_TI @ layer.linear.weight.T).detach()
    mask = added[slots_T == 0] / x_TI.detach()[slots_T == 0] / 2
    assert torch.minimum(mask.abs(), (mask - 4 / 3).abs()).max() < 1e-6
    share = (mask.abs() < 0.5).double().mean()
    assert abs(share - 0.25) < SIGMAS * (0.25 * 0.75 / mask.numel()) ** 0.5
    assert not added[slots_T == -1].any()
    # other tokens lose other features: no row repeats
    assert len(mask.round(decimals=3).unique(dim=0)) == len(mask)
    # the gradient goes through the same mask
    weight_TO = torch.randn(y_TO.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((y_TO * weight_TO).sum(), x_TI)
    through = gradient - weight_TO @ layer.linear.weight
    expected = 2 * weight_TO[slots_T == 0] * mask
    assert (through[slots_T == 0] - expected).abs().max() < 1e-6
    assert through[slots_T == -1].abs().max() < 1e-12


def test_on_average_dropout_changes_nothing() -> None:
    """The mean over many steps is the output without dropout."""
    model = packed_model()
    adapter = attach(model, [AdapterShape(4, 8, ("q_proj",))])
    adapter.load(0, random_state(adapter.state(0), "mean", 0.3))
    layer = adapter.layers["model.layers.0.self_attn.q_proj"]
    x_TI = torch.randn(5, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slots_T = torch.zeros(5, dtype=torch.int64)
    with torch.no_grad():
        adapter.routing.set(slots_T)
        plain = layer(x_TI)
        drawn = []
        for step in range(2000):
            adapter.routing.set(slots_T, keys(0.4, 5, step=step))
            drawn.append(layer(x_TI))
    table = torch.stack(drawn)
    strays = (table.mean(0) - plain) / (table.std(0) / len(drawn) ** 0.5)
    assert strays.abs().max() < SIGMAS
    assert table.std(0).min() > 0.01


@pytest.mark.parametrize("slot", [0, 2])
def test_a_run_without_dropout_does_not_feel_that_of_others(slot: int) -> None:
    plans = shorter(five_plans(), 10)
    assert plans[slot].dropout == 0
    company = [plans[slot], plans[1], plans[3]]
    dry = train_plans([plans[slot], *(replace(plan, dropout=0.0) for plan in company[1:])], 60)
    wet = train_plans(company, 60)
    name = plans[slot].name
    assert farthest({name: wet[name]}, {name: dry[name]})[0] < 1e-12
    # and the others do feel their own
    assert farthest(wet, dry)[0] > 1e-3
