"""What is written to a .gguf file: read back by the gguf package, and by pronk's own conversion of such files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf_models import LLAMA3_ROPE, byte_tokenizer, tiny_model
from safetensors.torch import load_file, save_file

import pronk.model.gguf
from pronk.errors import BaseModelError, ResourceError
from pronk.ship.gguf import writer as gguf_writer
from pronk.ship.gguf.writer import Labels, write_model

LABELS = Labels("tuned", base="tiny", license="apache-2.0", description="a test")
LINEAR = {"rope_type": "linear", "rope_theta": 5_000.0, "factor": 4.0}
SHAPES: dict[str, dict[str, Any]] = {
    "llama3": {"rope_parameters": LLAMA3_ROPE | {"original_max_position_embeddings": 8192}},
    "linear, tied": {"rope_parameters": LINEAR, "tie_word_embeddings": True},
    "mistral": {"kind": "mistral", "sliding_window": 128},
    "heads wider than the model": {"head_dim": 32, "num_key_value_heads": 1},
}


def written(folder: Path, quantization: str = "f32", **settings: Any) -> tuple[Any, Any]:
    """A tiny model written to model.gguf; the model, and the file as the gguf package reads it."""
    tokenizer = byte_tokenizer()
    model = tiny_model(folder, tokenizer, **settings)
    write_model(folder, folder / "model.gguf", quantization, tokenizer, LABELS)
    return model, gguf.GGUFReader(folder / "model.gguf")


def their_rows(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, _ = written(tmp_path, **SHAPES[name])
    back = tmp_path / "back"
    back.mkdir()
    pronk.model.gguf.convert(tmp_path / "model.gguf", back)
    again = AutoModelForCausalLM.from_pretrained(back)
    # a Mistral without its window is a Llama: what is longer is cut there
    assert again.config.max_position_embeddings == (128 if name == "mistral" else 256)
    assert again.config.tie_word_embeddings == model.config.tie_word_embeddings
    assert again.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    ids = torch.arange(60)[None] % 300
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, again(input_ids=ids).logits, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(back)
    text = "the cat 2024 안녕 🙂\n\n  x"
    assert tokenizer(text).input_ids == byte_tokenizer()(text).input_ids


def test_names_order_and_metadata_are_llama_cpp_s(tmp_path: Path) -> None:
    model, reader = written(tmp_path, **SHAPES["llama3"])
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    for theirs, ours, heads in (("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2)):
        wanted = their_rows(state[f"model.layers.1.self_attn.{ours}.weight"], heads)
        assert np.array_equal(tensors[f"blk.1.{theirs}.weight"].data, wanted)
    assert np.array_equal(tensors["blk.0.attn_v.weight"].data, state["model.layers.0.self_attn.v_proj.weight"])
    factors = []  # as LlamaModel.generate_extra_tensors of convert_hf_to_gguf.py has them
    for frequency in 1.0 / 10_000.0 ** (np.arange(0, 16, 2) / 16):
        length = 2 * math.pi / frequency
        smooth = (8192 / length - 1) / 3
        factors.append(1.0 if length < 2048 else 8.0 if length > 8192 else 1 / ((1 - smooth) / 8 + smooth))
    assert np.allclose(tensors["rope_freqs.weight"].data, factors, rtol=1e-6)
    said = {key: field.contents() for key, field in reader.fields.items() if not key.startswith(("GGUF", "tokenizer"))}
    assert said == {
        "general.architecture": "llama", "general.type": "model", "general.name": "tuned", "general.file_type": 0,
        "general.description": "a test", "general.license": "apache-2.0", "general.base_model.count": 1,
        "general.base_model.0.name": "tiny", "general.quantization_version": 2, "llama.vocab_size": 313,
        "llama.context_length": 256, "llama.embedding_length": 64, "llama.block_count": 2,
        "llama.feed_forward_length": 96, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 16, "llama.attention.value_length": 16, "llama.rope.dimension_count": 16,
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-6), "llama.rope.freq_base": 10_000.0,
    }  # fmt: skip


@pytest.mark.parametrize("quantization", ["f16", "bf16", "q8_0"])
def test_types_are_those_of_the_gguf_package(tmp_path: Path, quantization: str) -> None:
    model, reader = written(tmp_path, quantization, intermediate_size=80)
    kind = gguf.GGMLQuantizationType[quantization.upper()]
    for tensor in reader.tensors:
        ours = {"blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
                "blk.0.ffn_gate.weight": "model.layers.0.mlp.gate_proj.weight",
                "output_norm.weight": "model.norm.weight"}.get(tensor.name)  # fmt: skip
        if ours:
            one_row = tensor.name.endswith("norm.weight")
            # a block of q8_0 is 32 numbers of a row
            uneven = quantization == "q8_0" and "down" in tensor.name
            wanted = gguf.GGMLQuantizationType.F32 if one_row else gguf.GGMLQuantizationType.F16 if uneven else kind
            assert tensor.tensor_type == wanted, tensor.name
            values = model.state_dict()[ours].numpy()
            assert np.array_equal(tensor.data, gguf.quantize(values, wanted)), tensor.name


def test_words_of_the_vocabulary_stay_whole_as_in_llama_3(tmp_path: Path) -> None:
    """Pieces that no merges come to: llama.cpp takes them whole, and so does a base that is read from the file."""
    from tokenizers import Regex, models, pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = byte_tokenizer()
    words = {**tokenizer.get_vocab(), "zebra": len(tokenizer), "Ġa": len(tokenizer) + 1}
    merges = [("Ġ", "a")]
    tokenizer.backend_tokenizer.model = models.BPE(vocab=words, merges=merges, ignore_merges=True)
    split = pre_tokenizers.Split(Regex(pronk.model.gguf.LLAMA3_SPLIT), behavior="isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    tiny_model(tmp_path, tokenizer)
    write_model(tmp_path, tmp_path / "model.gguf", "f16", tokenizer, LABELS)
    (tmp_path / "back").mkdir()
    pronk.model.gguf.convert(tmp_path / "model.gguf", tmp_path / "back")
    ids = AutoTokenizer.from_pretrained(tmp_path / "back")("zebra the zebras").input_ids
    assert ids == tokenizer("zebra the zebras").input_ids
    assert ids[0] == words["zebra"]


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Put tensors of these names, with `__` for dots, in place of those that are saved; None takes one away."""
    state = load_file(folder / "model.safetensors")
    state |= {name.replace("__", "."): value for name, value in tensors.items() if value is not None}
    for name, value in tensors.items():
        if value is None:
            state.pop(name.replace("__", "."))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("tensors", "quantization", "message"),
    [
        ({"model__norm__weight": torch.full((64,), float("nan"))}, "f16", r"output_norm.*nan.*training went wrong"),
        ({"lm_head__weight": torch.full((313, 64), 1e5)}, "f16", r"output\.weight: its .* 100000, .*--quant bf16"),
        ({"model__norm__bias": torch.zeros(64)}, "f32", r"a tensor that a Llama model has not: model\.norm\.bias"),
        ({"model__norm__weight": None}, "f32", r"lacks model\.norm\.weight"),
    ],
)  # fmt: skip
def test_what_a_file_cannot_hold_leaves_no_file(
    tmp_path: Path, tensors: dict[str, torch.Tensor | None], quantization: str, message: str
) -> None:
    tokenizer = byte_tokenizer()
    tiny_model(tmp_path, tokenizer)
    change(tmp_path, **tensors)
    with pytest.raises(BaseModelError, match=message):
        write_model(tmp_path, tmp_path / "model.gguf", quantization, tokenizer, LABELS)
    assert list(tmp_path.glob("*gguf*")) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention_bias": True}, "its layers have biases"),
        ({"hidden_act": "gelu"}, "its activation is gelu"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "scaled by 'dynamic'"),
    ],
)
def test_models_that_llama_cpp_computes_otherwise_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(BaseModelError, match=rf"cannot be written to a \.gguf file: .*{message}.*out of --to"):
        written(tmp_path, **settings)


def test_a_full_disk_and_ctrl_c_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_tokenizer()
    tiny_model(tmp_path, tokenizer)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_model(tmp_path, tmp_path / "model.gguf", "f16", tokenizer, LABELS, advance=stop)
    monkeypatch.setattr(gguf_writer.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ResourceError, match=r"model\.gguf takes 0 MiB, and 0 MiB are free"):
        write_model(tmp_path, tmp_path / "model.gguf", "f16", tokenizer, LABELS)
    assert list(tmp_path.glob("*gguf*")) == []
