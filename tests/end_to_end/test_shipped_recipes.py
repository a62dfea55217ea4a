"""Every recipe in recipes/ runs: two steps each on a tiny base and rows made here, all else as the recipe says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Told

import pronk.data.checks as pronk_checks
from pronk.recipe import Recipe, read_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted(ROOT.glob("recipes/**/*.yaml"))
REAL_DATA = Path(os.environ.get("PRONK_TEST_DATA", ROOT.parent / "shared")) / "data"
LLAMA3_TOKENS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
ROWS = 40


@pytest.fixture(scope="module")
def base(small_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama that reads 8192 tokens, with the small tokenizer and the special tokens of Llama 3."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("bases") / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer)
    tokenizer.add_tokens(LLAMA3_TOKENS, special_tokens=True)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8192, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def made_row(recipe: Recipe, number: int) -> dict[str, Any]:
    """A row as the recipe's data has them; of three that meet its condition one does not."""
    (source,) = recipe.data.sources
    kept, columns = number % 4 > 0, source.columns or {}
    if source.format == "classify":
        labels = recipe.data.labels
        values = list(labels.values()) if isinstance(labels, dict) else labels
        assert values is not None
        return {columns["text"]: f"Item {number}: sales moved by {7 * number}", columns["label"]: values[number % 3]}
    if source.format == "alpaca":
        return {"instruction": f"Add {number} and 1.", "input": "" if kept else "Shortly", "output": f"{number + 1}"}
    if source.format == "pairs":
        return {columns["prompt"]: f"코스피는 {number} 올랐다. 거래도 늘었다.", columns["response"]: f"{number} 상승."}
    turns = [f"What is {number}?", "A number.", "And the next?", f"{number + 1}."]
    roles = ["user", "assistant"] * 2
    messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True)]
    return {"category": "Chat" if kept else "Coding", "messages": messages}


def overrides(recipe: Recipe, base: Path, rows: Path) -> dict[str, Any]:
    """What is replaced: base, data and its size, length, device."""
    size = {"data.split.train": 18, "data.split.validation": 3, "data.split.test": 6}
    key, value = ("study.base", f"[{base}]") if "base" in recipe.study else ("base", base)
    length = {} if "train.epochs" in recipe.study else {"train.max_steps": 2}
    return {key: value, "data.source": rows, **size, **length, "train.device": "cpu"}


def run(path: Path, base: Path, rows: Path, out: Path, pronk: Callable[..., Told], **more: Any) -> dict[str, Any]:
    replaced = overrides(read_recipe(path), base, rows) | more
    told = pronk("run", str(path), "--out", str(out), *(p for k, v in replaced.items() for p in ("--set", f"{k}={v}")))
    assert told.code == 0, told.err
    found: dict[str, Any] = json.loads((out / "study.json").read_text(encoding="utf-8"))
    assert [one["status"] for one in found["runs"]] == ["finished"] * len(found["runs"])
    warned = {line.split(":")[1].strip() for line in told.err.splitlines() if line.startswith("warning:")}
    # true of two steps over some twenty rows
    assert {name.split(" (")[0] for name in warned} <= {
        "warmup-never-ends",
        "batch-larger-than-data",
        "exact-duplicates",
    }
    return found


def values(recipe: Recipe) -> dict[str, Any]:
    """All keys of a recipe in dotted names."""
    from pronk.train.trackers import flat

    return flat(recipe.model_dump())


def test_all_recipes_are_found() -> None:
    assert len(RECIPES) == 12


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs(path: Path, base: Path, tmp_path: Path, pronk: Callable[..., Told]) -> None:
    recipe, rows, out = read_recipe(path), tmp_path / "rows.jsonl", tmp_path / "study"
    lines = [json.dumps(made_row(recipe, number), ensure_ascii=False) for number in range(ROWS)]
    rows.write_text("\n".join(lines), encoding="utf-8")
    study = run(path, base, rows, out, pronk)
    tuned = [one for one in study["runs"] if not one["baseline"]]
    assert len(tuned) == len(study["runs"]) - 1
    for one in tuned:
        ran, meant = values(read_recipe(out / "runs" / one["name"] / "recipe.yaml")), values(recipe)
        changed = {key for key in {*ran, *meant} if ran.get(key) != meant.get(key)}
        varied = {"base", *overrides(recipe, base, rows), *recipe.study}
        unexplained = {key for key in changed if not key.startswith(("study", "data.source", *varied))}
        assert not unexplained
        assert one["steps"] == (2 if "train.epochs" not in recipe.study else one["settings"]["train.epochs"])
    expected = {"likelihood": {"nll", "perplexity"}, "classify": {"accuracy"}, "similarity": {"rouge_l", "chrf"}}
    for one in study["runs"]:
        assert one["metrics"].keys() >= set().union(*(expected[name] for name in read_recipe(path).evaluations))
    assert (out / "runs" / tuned[0]["name"] / ("model" if recipe.full else "adapter")).is_dir()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_passes_the_check(path: Path, base: Path, tmp_path: Path, pronk: Callable[..., Told]) -> None:
    """With enough rows for its batches and its warm-up nothing is to be said of its prompts, tokens and settings."""
    recipe, rows = read_recipe(path), tmp_path / "rows.jsonl"
    lines = [json.dumps(made_row(recipe, number), ensure_ascii=False) for number in range(2500)]
    rows.write_text("\n".join(lines), encoding="utf-8")
    key, value = ("study.base", f"[{base}]") if "base" in recipe.study else ("base", base)
    replaced = {key: value, "data.source": rows, "data.split.train": 1750, "data.split.test": 60}
    sets = [part for name, value in replaced.items() for part in ("--set", f"{name}={value}")]
    told = pronk("check", str(path), "--json", *sets)
    of_rows = getattr(pronk_checks, "DATA_FINDINGS", ())  # rows made of one sentence are much alike
    found = {one["name"] for one in json.loads(told.out)["findings"] if one["severity"] != "note"}
    assert found <= {*of_rows}


REAL = {
    "alpaca-qlora": ("alpaca/alpaca_cleaned_5000.jsonl", {}),
    "korean-news-summarization": (
        # the small vocabulary needs some four tokens for a syllable
        "ko/sci_news_sum_50.jsonl", {"train.max_length": 8192, "data.where": "len(document) < 1000"},
    ),
    "multi-turn-chat": ("chat/oasst1_messages.jsonl", {"train.max_length": 4096, "data.where": "null"}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_recipe_runs_on_real_rows(name: str, base: Path, tmp_path: Path, pronk: Callable[..., Told]) -> None:
    rows, more = REAL[name]
    if not (REAL_DATA / rows).is_file():
        pytest.skip(f"the data is not here: {REAL_DATA / rows}")
    more = {"data.split.test": 3, **({} if name == "alpaca-qlora" else {"max_new_tokens": 16}), **more}
    first = (REAL_DATA / rows).read_text(encoding="utf-8").split("\n")[:200]
    (tmp_path / "rows.jsonl").write_text("\n".join(first), encoding="utf-8")
    study = run(ROOT / "recipes" / f"{name}.yaml", base, tmp_path / "rows.jsonl", tmp_path / "study", pronk, **more)
    assert study["data"]["train"] == 15


def test_the_recipes_of_a_pair_differ_where_they_say_so() -> None:
    def differing(a: str, b: str) -> set[str]:
        one, other = (values(read_recipe(ROOT / "recipes" / f"{name}.yaml")) for name in (a, b))
        return {key for key in {*one, *other} if one.get(key) != other.get(key)}

    assert differing("alpaca-qlora", "alpaca-int8") == {"quantize", "double_quantization"}
    assert {key.split(".")[1] for key in differing("financial-sentiment", "financial-sentiment-hub")} == {
        "source", "labels",
    }  # fmt: skip
    assert differing("korean-news-summarization", "korean-market-reports") == {
        "data.source", "data.columns.prompt", "data.split.validation", "data.split.test",
    }  # fmt: skip


def test_the_alpaca_recipe_is_that_of_the_courses() -> None:
    found = values(read_recipe(ROOT / "recipes" / "alpaca-qlora.yaml"))
    expected = {
        "quantize": "nf4", "double_quantization": True, "train.dtype": "bf16", "prompt": "alpaca", "adapter.rank": 16,
        "adapter.alpha": 16, "adapter.dropout": 0, "train.batch_size": 16, "train.max_steps": 100,
        "train.evaluate_every": 10, "train.save_every": 50, "train.learning_rate": 1e-4, "train.warmup_steps": 50,
        "train.schedule": "constant_with_warmup", "train.optimizer": "adamw_8bit", "train.weight_decay": 0.01,
        "train.recompute": "all", "train.max_length": 2048, "train.seed": 42, "data.split.seed": 42,
        "data.split.test": 0.01, "data.source": "yahma/alpaca-cleaned", "data.where": "input == ''",
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert len(found["adapter.targets"]) == 7


def test_the_korean_recipe_is_that_of_the_courses() -> None:
    found = values(read_recipe(ROOT / "recipes" / "korean-news-summarization.yaml"))
    expected = {
        "base": "beomi/Llama-3-Open-Ko-8B", "data.source": "daekeun-ml/naver-news-summarization-ko",
        "prompt": "llama3", "data.instruction": "다음 글을 요약해주세요: ", "quantize": "nf4",
        "train.learning_rate": 2e-5, "train.batch_size": 8, "train.epochs": 3, "train.weight_decay": 0.01,
        "train.evaluate_every": "epoch", "evaluate": ["likelihood", "similarity"],
        "data.columns.prompt": "document", "data.columns.response": "summary",
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


def test_a_recipe_with_a_key_that_is_gone_shows(tmp_path: Path, pronk: Callable[..., Told]) -> None:
    """The planted fault: a shipped recipe that today's schema does not know."""
    text = (ROOT / "recipes" / "early-stopping.yaml").read_text(encoding="utf-8")
    path, rows = tmp_path / "old.yaml", tmp_path / "rows.jsonl"
    path.write_text(text.replace("patience:", "patience_of_old:"), encoding="utf-8")
    told = pronk("run", str(path), "--out", str(tmp_path / "study"), "--set", f"data.source={rows}")
    assert told.code == 2
    assert "patience_of_old" in told.err
