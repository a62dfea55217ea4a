"""Recomputing layers changes memory and time, and not one bit of a result."""

import itertools
from typing import Any

import pytest
import torch
from test_law_6_peft import our_logits
from tiny import five_plans, make_examples, packed_model, random_state, shorter, train

from pronk.errors import RecipeError
from pronk.model.generate import score_and_answer
from pronk.model.recompute import Recompute
from pronk.tokens.pack import pack_prompts
from pronk.train.fleet import Fleet

LAYERS = 4


def started(recompute: int | str, steps: int = 3) -> Fleet:
    plans = shorter(five_plans(), steps)
    fleet = Fleet(packed_model(torch.float32, LAYERS), plans, 60, recompute)
    for slot, plan in enumerate(plans):
        fleet.adapter.load(slot, random_state(fleet.adapter.state(slot), plan.name))
    return fleet


def kept_in_a_round(recompute: int | str) -> int:
    """Bytes that are saved for the backward passes of a round, weights left out, shared ones counted each time."""
    fleet = started(recompute)
    own = {parameter.untyped_storage().data_ptr() for parameter in fleet.model.parameters()}
    kept = [0]

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[0] += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        fleet.play_round()
    return kept[0]


@pytest.mark.parametrize("recompute", [1, 3, "all"])
def test_losses_norms_and_weights_are_the_same_bits(recompute: int | str) -> None:
    """Five unlike runs, three of them with dropout, three steps: moments of former steps count from the second on."""
    (ours, steps), (plain, plain_steps) = train(started(recompute)), train(started("none"))
    assert steps == plain_steps
    assert all(torch.equal(ours[name][key], value) for name, state in plain.items() for key, value in state.items())


def test_each_layer_that_is_recomputed_keeps_less() -> None:
    sizes = [kept_in_a_round(layers) for layers in range(LAYERS + 1)]
    assert sizes == sorted(sizes, reverse=True)
    steps = [before - after for before, after in itertools.pairwise(sizes)]
    assert min(steps) > 0.15 * sizes[0]
    assert kept_in_a_round("all") == sizes[-1] < 0.3 * sizes[0]
    assert kept_in_a_round("none") == sizes[0]


def test_dropout_drawn_anew_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: what is recomputed is not what was computed."""
    from pronk.model import wide

    original, calls = wide.keep_mask, [0]

    def faulty(keys: Any, module: int, *rest: Any) -> torch.Tensor:
        calls[0] += 1
        return original(keys, module + calls[0], *rest)

    monkeypatch.setattr(wide, "keep_mask", faulty)
    ours = train(started("all", 2))[0]
    calls[0] = 0
    plain = train(started("none", 2))[0]
    assert not all(torch.equal(ours[name][key], value) for name, state in plain.items() for key, value in state.items())


def test_generation_between_two_rounds_keeps_its_cache() -> None:
    """Where a layer recomputes, transformers takes its cache away; that must not reach into an evaluation."""
    plain, fleet = started("none"), started("all")
    prompts = [example.ids[:4].tolist() for example in make_examples(4, 8)]
    answers = []
    for one in (plain, fleet):
        one.play_round()
        found = score_and_answer(one.model, one.adapter, pack_prompts(prompts, [0, 1, -1, 2]), [[5, 6], [7]], 8, 2)
        ids = torch.arange(3, 12)
        answers.append((found.ids, found.scores_NC, our_logits(one.model, one.adapter, 1, ids)))
        one.play_round()
    assert answers[0][0] == answers[1][0]
    assert torch.equal(answers[0][1], answers[1][1])
    assert torch.equal(answers[0][2], answers[1][2])
    assert not any(layer.training or getattr(layer, "recompute", False) for layer in fleet.model.model.layers)


def test_more_layers_than_there_are() -> None:
    with pytest.raises(RecipeError, match=r"train\.recompute: 5, but this base has 4 layers"):
        started(5)


def test_a_model_that_cannot() -> None:
    model = packed_model()
    model.supports_gradient_checkpointing = False
    with pytest.raises(RecipeError, match=r"train\.recompute: transformers cannot"):
        Recompute(model, "all")


def test_a_later_fleet_on_the_same_model_recomputes_as_it_asks() -> None:
    model = packed_model(torch.float32, LAYERS)
    assert [len(Recompute(model, how).layers) for how in ("all", 2, 0)] == [4, 2, 0]
    Recompute(model, 2)
    assert [layer.gradient_checkpointing for layer in model.model.layers] == [True, True, False, False]
