"""`adapter.from` through the command line: a second study goes on where the first ended, or says why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Told, Workplace
from safetensors.torch import load_file, save_file

Pronk = Callable[..., Told]
Spoil = Callable[[Path], object]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, finish: Any) -> Workplace:
    """A finished study of one run: rank 4, alpha 6, rsLoRA, on two of the seven projections."""
    place = Workplace(tmp_path_factory.mktemp("first"), tiny_base)
    place.recipe["adapter"] = {"rank": 4, "alpha": 6, "use_rslora": True, "targets": ["q_proj", "down_proj"]}
    return finish(place)


@pytest.mark.parametrize("part", ["", "adapter", "checkpoints/step-6"])
def test_a_run_goes_on_from_where_another_ended(
    first: Workplace, workplace: Workplace, pronk: Pronk, part: str
) -> None:
    before = first.out / "runs" / "tuned"
    workplace.recipe["adapter"] = {"from": str(before / part)}
    workplace.recipe["train"] = {**workplace.recipe["train"], "learning_rate": 1e-3, "max_steps": 1}
    assert pronk(*workplace.arguments()).code == 0
    run = workplace.out / "runs" / "tuned"
    config = json.loads((run / "adapter" / CONFIG).read_text())
    assert config == json.loads((before / "adapter" / CONFIG).read_text())
    start, end = load_file(before / "adapter" / WEIGHTS), load_file(run / "adapter" / WEIGHTS)
    assert max((start[key] - end[key]).abs().max() for key in start) == pytest.approx(1e-3, rel=1e-2), "one Adam step"
    # the first loss is the trained adapter's, the rows and their order being those of the first study
    losses = [json.loads(line)["loss"] for line in (before / "metrics.jsonl").read_text().splitlines()[:1]]
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"] < losses[0] - 0.1
    assert pronk("run", str(run / "recipe.yaml"), "--out", str(workplace.folder / "again")).code == 0


@pytest.mark.parametrize(
    ("key", "value", "has"),
    [("rank", 8, "4"), ("alpha", 16.0, "6.0"), ("use_rslora", False, "True"), ("targets", "all-linear", "down_proj")],
)
def test_what_contradicts_the_adapter_is_refused(
    first: Workplace, workplace: Workplace, pronk: Pronk, key: str, value: Any, has: str
) -> None:
    run = str(first.out / "runs" / "tuned")
    workplace.recipe["adapter"] = {"from": run, key: value}
    told = pronk(*workplace.arguments())
    assert told.code == 2
    for fragment in (f"adapter.{key}: {value}", has, run, "adapter.from"):
        assert fragment in told.err
    assert not workplace.out.exists()


def configured(**changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, **changes}))

    return spoil


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Spoil:
    def spoil(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS)

    return spoil


def q_proj(side: str, layer: int = 0) -> str:
    return f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight"


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def a_whole_model(folder: Path) -> None:
    emptied(folder)
    (folder / "config.json").write_text("{}")


WRONG: dict[str, tuple[Spoil, list[str]]] = {
    "nothing there": (shutil.rmtree, ["there is no folder"]),
    "empty folder": (emptied, ["no adapter in PEFT's format", CONFIG]),
    "a whole model": (a_whole_model, ["a whole model", "`base: "]),
    "a whole study": (lambda f: (emptied(f), (f / "study.json").write_text("{}")), ["a whole study", "runs"]),
    "pickled": (pickled, ["adapter_model.bin", "can run anything", "safetensors"]),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), [f"no {WEIGHTS}"]),
    "cut weights": (lambda f: (f / WEIGHTS).write_bytes(b"nothing"), ["cannot be read"]),
    "config that is no JSON": (lambda f: (f / CONFIG).write_text("{"), [CONFIG, "cannot be read"]),
    "another kind": (configured(peft_type="IA3"), ["'IA3'", "LORA"]),
    "DoRA": (configured(use_dora=True), ["DoRA", "use_dora"]),
    "ranks by layer": (configured(rank_pattern={"q_proj": 8}), ["different ranks", "rank_pattern"]),
    "KaSA": (configured(kasa_config={"beta": 1e-4}), ["KaSA", "kasa_config"]),
    "biases": (configured(bias="all"), ["bias: all"]),
    "PiSSA": (configured(init_lora_weights="pissa_niter_4"), ["changed first", "pissa_niter_4"]),
    "no rank": (configured(r=None), ["r and lora_alpha"]),
    "embeddings": (
        weights(lambda s: s.update({"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(1)})),
        ["lora_embedding_A"],
    ),
    "half a layer": (weights(lambda s: s.pop(q_proj("B"))), ["lacks", q_proj("B")]),
    "a layer too few": (
        weights(lambda s: [s.pop(q_proj(side, 1)) for side in "AB"]), ["no weights for model.layers.1.self_attn.q_proj"]
    ),
    "a layer that is not named": (
        configured(target_modules=["q_proj"]), ["has weights for model.layers.0.mlp.down_proj", "does not name"]
    ),
    "a layer too many": (
        weights(lambda s: s.update({q_proj(side, 7): s[q_proj(side)].clone() for side in "AB"})),
        ["layers.7", "another base"],
    ),
    "a base of another size": (
        weights(lambda s: s.update({q_proj("A"): torch.ones(4, 72)})), ["64 × 72", "64 × 64", "another base"]
    ),
    "another rank": (configured(r=5), ["(4, 128)", "r: 5", "of another adapter"]),
    "endless alpha": (configured(lora_alpha=float("inf")), ["r and lora_alpha"]),
    "NaN": (weights(lambda s: s[q_proj("A")].fill_(float("nan"))), ["not finite"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_adapter_that_cannot_be_gone_on_with_is_refused(
    first: Workplace, workplace: Workplace, pronk: Pronk, case: str
) -> None:
    folder = workplace.folder / "adapter"
    shutil.copytree(first.out / "runs" / "tuned" / "adapter", folder)
    spoil, fragments = WRONG[case]
    spoil(folder)
    workplace.recipe["adapter"] = {"from": "adapter"}
    told = pronk(*workplace.arguments())
    assert told.code == 2, told.err
    assert "Traceback" not in told.err
    for fragment in ("adapter.from", str(folder), *fragments):
        assert fragment in told.err
    assert not workplace.out.exists()
