"""Bases and rows by shape alone: every tool's own loader must read them, and the sizes must be the real models'."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from pronk.doctor.gemm import gemm_rate
from pronk.doctor.shapes import SHAPES, Lengths, draw_examples, read_lengths, weight_shapes, write_base
from pronk.errors import OptionError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of the shape tiny."""
    folder = tmp_path_factory.mktemp("shapes") / "tiny"
    write_base("tiny", folder)
    return folder


def test_transformers_finds_every_weight_in_its_place(tiny: Path) -> None:
    model, found = AutoModelForCausalLM.from_pretrained(tiny, output_loading_info=True)
    assert not any(found.values()), found
    assert {name: tuple(weight.shape) for name, weight in model.named_parameters()} == weight_shapes(SHAPES["tiny"])
    weights = dict(model.named_parameters())
    assert weights["model.layers.1.mlp.up_proj.weight"].float().std().item() == pytest.approx(0.02, rel=0.05)
    assert weights["model.layers.1.mlp.up_proj.weight"].dtype == torch.bfloat16
    assert (weights["model.norm.weight"] == 1).all()


def test_the_tokenizer_loads_and_pads_with_what_is_not_its_end(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert tokenizer("w5 w6", add_special_tokens=False).input_ids == [5, 6]


# The published models: meta-llama/Meta-Llama-3-8B, Llama-2-7b, Llama-3.2-1B, HuggingFaceTB/SmolLM2-135M.
@pytest.mark.parametrize(
    ("name", "parameters", "theta"),
    [
        ("llama3-8b", 8_030_261_248, 500_000), ("llama2-7b", 6_738_415_616, 10_000),
        ("llama3-1b", 1_235_814_400, 500_000), ("smollm2-135m", 134_515_008, 100_000),
    ],
)  # fmt: skip
def test_shapes_are_those_of_the_published_models(name: str, parameters: int, theta: float) -> None:
    assert sum(math.prod(size) for size in weight_shapes(SHAPES[name]).values()) == parameters
    assert SHAPES[name].rope_theta == theta


def test_the_rope_base_arrives_in_transformers(tiny: Path) -> None:
    config: Any = AutoConfig.from_pretrained(tiny)
    assert config.rope_parameters["rope_theta"] == SHAPES["tiny"].rope_theta


def test_a_base_is_written_once_and_a_foreign_folder_left_alone(tiny: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny.iterdir()}
    write_base("tiny", tiny)
    assert {path: path.stat().st_mtime_ns for path in tiny.iterdir()} == before
    with pytest.raises(OptionError, match="another shape than smollm2-135m"):
        write_base("smollm2-135m", tiny)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OptionError, match="holds other files"):
        write_base("tiny", tmp_path)
    with pytest.raises(OptionError, match="llama3-8b"):
        write_base("llama4", tmp_path / "new")


def test_the_index_names_the_files_there_are(tiny: Path) -> None:
    index = json.loads((tiny / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert set(index["weight_map"].values()) == {path.name for path in tiny.glob("*.safetensors")}


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("4x2048", Lengths(4, 2048)), ("16x80:4", Lengths(16, 80, 4)), ("alpaca", Lengths(64, None)),
        ("8xalpaca", Lengths(8, None)),
    ],
)  # fmt: skip
def test_lengths_are_read(text: str, lengths: Lengths) -> None:
    assert read_lengths(text) == lengths


@pytest.mark.parametrize("text", ["2048", "4x", "x4", "0x80", "4x1", "4x8:8", "4x8:0", "llama", "4×8"])
def test_other_lengths_are_one_message(text: str) -> None:
    with pytest.raises(OptionError, match="--lengths"):
        read_lengths(text)


def test_rows_are_the_same_for_the_same_seed_and_learned_but_for_the_first_id() -> None:
    rows = draw_examples(Lengths(2, 16), 100, 3, seed=1)
    again = draw_examples(Lengths(2, 16), 100, 3, seed=1)
    assert len(rows) == 6
    assert all((a.ids == b.ids).all() for a, b in zip(rows, again, strict=True))
    assert all(row.target.tolist() == [False] + [True] * 15 for row in rows)
    assert not (rows[0].ids == rows[1].ids).all()
    (short,) = draw_examples(Lengths(1, 16, learned=4), 100, 1, seed=1)
    assert short.target.tolist() == [False] * 12 + [True] * 4


def test_alpaca_s_lengths_have_the_mean_and_spread_they_are_said_to_have() -> None:
    sizes = np.array([len(row.ids) for row in draw_examples(read_lengths("alpaca"), 1000, 40, seed=0)])
    assert sizes.mean() == pytest.approx(129, rel=0.03)
    assert np.median(sizes) == pytest.approx(108, rel=0.05)


def test_the_rate_of_products_is_no_more_than_a_machine_can_do() -> None:
    rate = gemm_rate([(64, 64), (64, 128)], 32, torch.float32, torch.device("cpu"))
    assert 1e6 < rate < 1e14
