"""`pronk bench`: figures only for sides that did the same, and every planted difference is refused."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_sides import Sides, in_process
from command_line import Told
from rich.console import Console

import pronk.doctor.bench as bench
import pronk.doctor.bench_fleet as bench_fleet
from pronk.cli import benches
from pronk.doctor.agreement import COARSE, TOLERANCE, disagreement
from pronk.doctor.bench_work import Request, named_works, read_variant
from pronk.doctor.measured import flop_per_token, speed, tokens_per_step
from pronk.doctor.peers.work import Answer, Result, Work
from pronk.doctor.shapes import SHAPES, weight_shapes
from pronk.doctor.sides import PEERS, choose_peers, run_side
from pronk.errors import OptionError, RecipeError, RefusedError

CONSOLE = Console(stderr=True)
SMALL = Request(base_shape="tiny", lengths="3x24", overrides=["train.device=cpu"], peers=["trl"], steps=2)
FINE = Result([2.0, 1.9], [0.5, 0.4], [1.0, 1.0], 0, "1")


def fault(**changes: Any) -> Callable[[str, Work], Work]:
    """TRL's side of the work, changed."""
    return lambda name, work: replace(work, **changes) if name == "trl" else work


def measure(monkeypatch: pytest.MonkeyPatch, sides: Sides, request: Request = SMALL) -> dict[str, Any]:
    monkeypatch.setattr(bench, "run_side", sides)
    return bench.bench_training(request, CONSOLE)


SETTINGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "padded, fp32": ({}, []),
    "packed, bf16": ({"layout": "packed", "lengths": "3xalpaca"}, ["train.dtype=bf16"]),
    "some targets, layers recomputed": ({"lengths": "3x24:5"}, ["train.recompute=all"]),
    "nf4": ({}, ["quantize=nf4"]),
    "two layers, 8-bit AdamW": ({}, ["adapter.targets=[q_proj, v_proj]", "train.optimizer=adamw_8bit"]),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.usefixtures("one_thread")
def test_the_sides_agree(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, more = SETTINGS[setting]
    request = replace(SMALL, **changes, overrides=[*SMALL.overrides, *more])
    found = measure(monkeypatch, in_process(), request)
    assert found["problems"] == []
    assert found["json"]["ratio"] == pytest.approx(found["json"]["ratios"]["ours"]["trl"], rel=1e-3)
    assert found["json"]["differences"]["trl"]["loss"] < 1e-3
    assert found["json"]["matrix_products_flop_per_second"] > 0
    low = "bf16" in setting or "nf4" in setting  # with NF4 TRL keeps its adapter in bf16
    assert found["json"]["differences"]["trl"]["gradient_norm"] < (1e-2 if low else 1e-4)


@pytest.mark.parametrize(
    ("planted", "why"),
    [
        ({"rank": 4, "start": ""}, "gradient norms differ"),
        ({"alpha": 32.0}, "gradient norms differ"),
        ({"start": ""}, "gradient norms differ"),  # B is zero at first, so A has no gradient
        ({"targets": ["q_proj", "v_proj"]}, "gradient norms differ"),
        ({"seed": 7}, "differ"),  # other rows
        ({"steps": 4}, "4 steps and pronk 5"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("one_thread")
def test_a_side_that_does_something_else_gets_no_ratio(
    planted: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure(monkeypatch, in_process(fault(**planted)))
    assert found["json"]["ratio"] is None
    assert found["json"]["ratios"]["ours"] == {}
    assert "trl" not in found["json"]["tokens_per_second"]
    (problem,) = found["problems"]
    assert why in problem
    (row,) = [line for line in found["markdown"].splitlines() if line.startswith("| TRL")]
    assert "no ratio" in row
    assert not any(character.isdigit() for character in row.partition("|")[2].partition("|")[2])


def test_a_peer_that_fails_is_named_and_the_others_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def sides(name: str, work: Work, *_: Any) -> Answer:
        if name == "trl":
            return "Traceback:\nno kernel image is available"
        seconds = [1.0] * work.steps
        return Result([2.0] * len(seconds), [0.5] * len(seconds), seconds, 2**30, "1", matrix_products=1e12)

    monkeypatch.setattr(bench, "choose_peers", lambda *_: ["trl", "unsloth"])
    found = measure(monkeypatch, sides)
    assert found["json"]["ratios"] == {"ours": {"unsloth": 1.0}}
    assert found["problems"] == ["TRL: no ratio is given: it failed:\nTraceback:\nno kernel image is available"]
    assert "| Unsloth 1 | 1.00 | 72 |" in found["markdown"]
    used = 72 * flop_per_token(named_works(SMALL, tmp_path)["ours"]) / 1e12
    assert found["json"]["matrix_product_utilisation"]["unsloth"] == pytest.approx(used)


def test_our_own_failure_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError, match="pronk's own side failed:\nout of luck"):
        measure(monkeypatch, lambda *_: "out of luck")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gradient_norms": [0.5, 0.0]}, "zero or not numbers"),
        ({"gradient_norms": [0.5, float("nan")]}, "zero or not numbers"),
        ({"losses": [2.0, float("nan")]}, "losses differ"),
        ({"losses": [2.03, 1.9]}, "first losses differ by 1.50%"),
        ({"losses": [2.0, 2.1]}, "losses differ by 10.53%"),
        ({"gradient_norms": [0.5, 0.45]}, "gradient norms differ"),
        ({"losses": [2.0], "gradient_norms": [0.5]}, "made 1 steps and pronk 2"),
    ],
    ids=str,
)
def test_figures_that_do_not_agree(changes: dict[str, Any], why: str) -> None:
    assert why in disagreement(replace(FINE, **changes), FINE, TOLERANCE["bf16"])
    assert disagreement(FINE, replace(FINE, **changes), TOLERANCE["bf16"])


def test_figures_that_agree() -> None:
    near = replace(FINE, losses=[2.001, 1.95], gradient_norms=[0.51, 0.405])
    assert disagreement(near, FINE, TOLERANCE["bf16"]) == ""
    assert disagreement(near, FINE, TOLERANCE["fp32"])
    assert disagreement(replace(near, gradient_norms=[0.58, 0.45]), FINE, COARSE) == ""


@pytest.mark.usefixtures("one_thread")
def test_a_variant_stands_beside_with_ratios_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(monkeypatch, in_process(), replace(SMALL, variants=["int8:quantize=int8"]))
    assert found["problems"] == []
    assert set(found["json"]["ratios"]) == {"ours", "int8"}
    assert "| pronk, int8 " in found["markdown"]
    assert "int8 ÷" in found["markdown"]
    works = found["json"]["sides"]
    assert works["int8"]["losses"] != works["ours"]["losses"]


@pytest.mark.usefixtures("one_thread")
def test_a_fleet_is_measured_against_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "run_side", in_process())
    found = bench_fleet.bench_fleet_training(SMALL, 3, None, CONSOLE)
    assert found["problems"] == []
    speeds = found["json"]["tokens_per_second"]
    assert found["json"]["ratios"]["fleet"] == {
        name: pytest.approx(speeds["fleet"] / speeds[name], rel=1e-3) for name in ("ours", "trl")
    }
    assert found["json"]["differences"]["fleet"]["loss"] < 1e-5  # the first run is the single run
    assert "a fleet of 3" in found["markdown"]
    assert "TRL, 3 single runs" in found["markdown"]
    assert {side["matrix_products"] for side in found["json"]["sides"].values()} == {None}  # nobody asked for them


@pytest.mark.usefixtures("one_thread")
def test_a_run_that_depends_on_its_company_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = in_process(lambda _, work: replace(work, alpha=32.0) if work.runs > 1 else work)
    monkeypatch.setattr(bench, "run_side", sides)
    found = bench_fleet.bench_fleet_training(replace(SMALL, peers=[]), 2, None, CONSOLE)
    assert found["json"]["ratios"] == {"ours": {"ours": 1.0}}
    assert "gradient norms differ" in found["problems"][0]


@pytest.mark.usefixtures("one_thread")
def test_a_single_run_may_have_longer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "run_side", in_process())
    found = bench_fleet.bench_fleet_training(replace(SMALL, lengths="1x24", peers=[]), 3, "3x24", CONSOLE)
    assert found["problems"] == []
    assert found["json"]["work"]["ours"]["batch_size"] == 3
    assert found["json"]["work"]["fleet"]["batch_size"] == 1
    assert set(found["json"]["ratios"]["fleet"]) == {"ours"}


def test_tokens_are_counted_for_every_run_in_its_own_order(tmp_path: Path) -> None:
    work = named_works(replace(SMALL, lengths="2xalpaca"), tmp_path)["ours"]
    sizes = [len(ids) for ids, _ in work.examples]
    one = tokens_per_step(work)
    assert sum(one) == sum(sizes)
    two = tokens_per_step(replace(work, runs=2))
    assert sum(two) == 2 * sum(sizes)
    assert two[0] != 2 * one[0]  # the second run has another order
    seconds = [9.0, 9.0, 9.0, 1.0, 1.0]
    assert speed(Result([], [], seconds, 0, ""), work) == pytest.approx((one[3] + one[4]) / 2)


def test_the_flop_of_a_token_are_four_for_each_weight_but_the_embedding_s(tmp_path: Path) -> None:
    work = named_works(SMALL, tmp_path)["ours"]
    shape = SHAPES["tiny"]
    matrices = sum(rows * columns for rows, columns in (s for s in weight_shapes(shape).values() if len(s) == 2))
    embedding = head = shape.vocabulary * shape.hidden
    learned = 23 / 24  # the first id of a row is no target
    assert flop_per_token(work) == pytest.approx(4 * (matrices - embedding - head + learned * head))
    assert pytest.approx(7.5, rel=0.001) == 4 * (8_030_261_248 - 128256 * 4096) / 4e9  # the 7.5 GFLOP


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"base_shape": None}, "either a recipe or"),
        ({"recipe": Path("a.yaml")}, "either a recipe or"),
        ({"base_shape": None, "recipe": Path("a.yaml")}, "go with --base-shape"),
        ({"layout": "loose"}, "expected padded or packed"),
        ({"steps": 0}, "at least one step"),
        ({"peers": ["axolotl"]}, "axolotl"),
        ({"base_shape": "llama4"}, "llama3-8b"),
        ({"lengths": "many"}, "4x2048"),
    ],
    ids=str,
)
def test_requests_that_cannot_work(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        replace(SMALL, **changes)


@pytest.mark.parametrize(
    ("overrides", "error", "why"),
    [
        (["train.recompute=1"], OptionError, "all or none"),
        (["full=true"], RecipeError, "full"),
        (["adapter.dropout=0.1"], RecipeError, "adapter.dropout"),
        (["quantize=nf5"], RecipeError, "nf4"),
        (["base=smollm2"], OptionError, "--set base=smollm2"),
        (["quantize=nf4", "double_quantization=false"], OptionError, "Unsloth always"),
    ],
    ids=str,
)
def test_what_other_tools_cannot_do_is_said(
    overrides: list[str], error: type[Exception], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "choose_peers", lambda *_: ["trl", "unsloth"])
    with pytest.raises(error, match=why):
        bench.bench_training(replace(SMALL, overrides=[*SMALL.overrides, *overrides]), CONSOLE)


def test_peers_are_chosen_by_what_is_installed_and_what_they_can() -> None:
    assert choose_peers(None, "cpu", "none")[:1] == ["trl"]
    assert choose_peers([], "cuda", "none") == []
    with pytest.raises(OptionError, match="does not know quantize: fp8"):
        choose_peers(["trl"], "cpu", "fp8")
    with pytest.raises(OptionError, match=r"trl\+liger needs"):
        choose_peers(["trl+liger"], "cpu", "none")
    assert set(PEERS) == {"trl", "trl+liger", "unsloth"}


def test_nothing_is_written_before_all_is_read(tmp_path: Path) -> None:
    wrong = replace(SMALL, base_folder=tmp_path / "base", variants=["eight:quantize=int9"])
    with pytest.raises(RecipeError, match="int9"):
        named_works(wrong, tmp_path)
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("key", ["train.learning_rate=1e-3", "adapter.rank=4", "train.dtype=bf16", "data.format=text"])
def test_a_variant_that_asks_for_other_work_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"{key.partition('=')[0].removesuffix('.rank').removesuffix('.format')} is"):
        named_works(replace(SMALL, variants=[f"other:{key}"]), tmp_path)


def test_variants_are_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="two sides called trl"):
        named_works(replace(SMALL, variants=["trl:quantize=int8"]), tmp_path)
    assert read_variant("int8:quantize=int8,train.clip=2") == ("int8", ["quantize=int8", "train.clip=2"])
    assert read_variant("qv:adapter.targets=[q_proj,v_proj]") == ("qv", ["adapter.targets=[q_proj,v_proj]"])
    for wrong in ("int8", "int8:", ":quantize=int8", "int8:quantize"):
        with pytest.raises(OptionError, match="NAME:KEY=VALUE"):
            read_variant(wrong)


@pytest.mark.slow
def test_a_process_that_fails_gives_its_own_words(tmp_path: Path) -> None:
    work = named_works(SMALL, tmp_path)["ours"]
    assert isinstance(run_side("ours", work, tmp_path, CONSOLE), Result)
    # what the side wrote before is not taken for its answer now
    answer = run_side("ours", replace(work, base=str(tmp_path / "nowhere"), recipe=""), tmp_path, CONSOLE)
    assert isinstance(answer, str)
    assert "nowhere" in answer
    assert run_side("ours", work, tmp_path, CONSOLE, timeout=1) == "it did not end within 1 seconds"


def test_the_command_prints_a_table_or_json(
    pronk: Callable[..., Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["bench", "train", "--base-shape", "tiny", "--lengths", "3x24", "--steps", "2", "--peers", "trl"]
    given += ["--set", "train.device=cpu", "--base-folder", str(tmp_path / "base"), "--quantize", "nf4"]
    monkeypatch.setattr(bench, "run_side", in_process())
    done = pronk(*given)
    assert done.code == 0, done.err
    assert "| TRL " in done.out
    assert f"`pronk {' '.join(given[:4])}" in done.out
    monkeypatch.setattr(bench, "run_side", in_process(fault(alpha=32.0)))
    refused = pronk(*given, "--json")
    assert refused.code == 1
    assert "TRL: no ratio is given" in refused.err
    found = json.loads(refused.out[refused.out.index("{\n") :])
    assert found["ratio"] is None
    assert found["work"]["quantize"] == "nf4"
    assert "torch" in found["versions"]
    assert found["command"].startswith("pronk bench train --base-shape tiny")


TRAINING_ONLY = {
    "runs": "2", "single-lengths": "3x24", "base-shape": "tiny", "base-folder": "b", "lengths": "3x24", "peers": "none",
    "layout": "padded", "steps": "12", "timeout": "9",
}  # fmt: skip


@pytest.mark.parametrize("option", TRAINING_ONLY)
def test_whole_studies_refuse_what_belongs_to_training_alone(
    option: str, pronk: Callable[..., Told], tmp_path: Path
) -> None:
    """Also where the value is the default: who writes it expects it to count."""
    recipe = tmp_path / "recipe.yaml"
    done = pronk("bench", "fleet", str(recipe), f"--{option}", TRAINING_ONLY[option])
    assert done.code == 2
    assert f"bench fleet: only with --training-only: --{option}; add it" in " ".join(done.err.split())


def test_every_option_of_a_fleets_bench_is_taken_or_refused(
    pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []

    def measured(*given: Any) -> dict[str, Any]:
        taken.extend(given[:2])
        return {"json": {}, "markdown": "", "problems": []}

    monkeypatch.setattr(bench_fleet, "bench_fleets", measured)
    done = pronk("bench", "fleet", "r.yaml", "--quantize", "nf4", "--recompute", "all", "--set", "train.epochs=1")
    assert (done.code, taken[0]) == (0, Path("r.yaml"))
    assert taken[1] == ["train.epochs=1", "quantize=nf4", "train.recompute=all"]
    options = set(inspect.signature(benches.bench_fleet).parameters) - {"context", "recipe", "training_only", "as_json"}
    assert options - {"quantize", "recompute", "overrides"} == {name.replace("-", "_") for name in TRAINING_ONLY}
    assert "--training-only" in pronk("bench", "fleet", "--json").err
