"""A .gguf file becomes the same model: the tensors that went in come out, in transformers' order."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

import pronk.model.gguf as subject
from pronk.errors import BaseModelError

HEADS, GROUPS, HIDDEN, INNER, LAYERS, VOCABULARY = 4, 2, 64, 96, 2, 320
Q8, F16, F32 = (gguf.GGMLQuantizationType[name] for name in ("Q8_0", "F16", "F32"))

SHAPES = {
    "self_attn.q_proj": ("attn_q", (HIDDEN, HIDDEN)),
    "self_attn.k_proj": ("attn_k", (HIDDEN // HEADS * GROUPS, HIDDEN)),
    "self_attn.v_proj": ("attn_v", (HIDDEN // HEADS * GROUPS, HIDDEN)),
    "self_attn.o_proj": ("attn_output", (HIDDEN, HIDDEN)),
    "mlp.gate_proj": ("ffn_gate", (INNER, HIDDEN)),
    "mlp.up_proj": ("ffn_up", (INNER, HIDDEN)),
    "mlp.down_proj": ("ffn_down", (HIDDEN, INNER)),
    "input_layernorm": ("attn_norm", (HIDDEN,)),
    "post_attention_layernorm": ("ffn_norm", (HIDDEN,)),
}


def originals() -> dict[str, tuple[str, NDArray[np.float32]]]:
    """transformers' name → llama.cpp's name and random values."""
    generator = np.random.default_rng(0)
    shapes = {"model.embed_tokens": ("token_embd", (VOCABULARY, HIDDEN)), "model.norm": ("output_norm", (HIDDEN,)),
              "lm_head": ("output", (VOCABULARY, HIDDEN))}  # fmt: skip
    for layer in range(LAYERS):
        shapes |= {f"model.layers.{layer}.{ours}": (f"blk.{layer}.{theirs}", shape)
                   for ours, (theirs, shape) in SHAPES.items()}  # fmt: skip
    return {
        ours: (theirs, generator.standard_normal(shape).astype(np.float32)) for ours, (theirs, shape) in shapes.items()
    }


def permuted(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def as_stored(values: NDArray[np.float32], kind: gguf.GGMLQuantizationType) -> NDArray[np.float32]:
    """What is left of the values in this type. Its blocks lie inside rows, so it commutes with row orders."""
    return gguf.dequantize(gguf.quantize(values, kind), kind)


def write(
    path: Path, kind: gguf.GGMLQuantizationType, architecture: str = "llama", metadata: dict[str, Any] | None = None,
    theta: float = 10_000.0, **more: NDArray[np.float32],
) -> None:  # fmt: skip
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(theta)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCABULARY)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = [chr(number) for number in range(33, 127)]
    tokens += letters + [f"{a}{b}" for a in "abcdefghijklmnop" for b in "abcdefghijklmnop"][: VOCABULARY - 97]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges([f"{token[0]} {token[1]}" for token in tokens[97:]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    heads = {"attn_q": HEADS, "attn_k": GROUPS}
    for theirs, values in originals().values():
        count = heads.get(theirs.rpartition(".")[2])
        rows = np.ascontiguousarray(permuted(values, count)) if count else values
        stored = kind if rows.ndim > 1 else F32
        writer.add_tensor(f"{theirs}.weight", gguf.quantize(rows, stored), raw_dtype=stored)
    for key, value in (metadata or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_float32)(key, value)
    for name, values in more.items():
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def converted(tmp_path: Path, kind: gguf.GGMLQuantizationType) -> Path:
    write(tmp_path / "tiny.gguf", kind)
    folder = tmp_path / "folder"
    folder.mkdir()
    subject.convert(tmp_path / "tiny.gguf", folder)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


@pytest.mark.parametrize("kind", [F32, F16, Q8], ids=lambda kind: kind.name)
def test_tensors_are_the_originals(tmp_path: Path, kind: gguf.GGMLQuantizationType) -> None:
    found = tensors(converted(tmp_path, kind))
    wanted = {f"{ours}.weight": values for ours, (_, values) in originals().items()}
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        stored = as_stored(values, kind) if values.ndim > 1 else values
        assert torch.equal(found[name], torch.from_numpy(stored.copy())), name
        assert np.abs(stored - values).max() < 0.03


def test_the_folder_is_a_model_that_transformers_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = converted(tmp_path, F32)
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    config = model.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.hidden_size) == (HEADS, GROUPS, HIDDEN)
    assert (config.max_position_embeddings, config.tie_word_embeddings) == (128, False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.model_max_length == 128
    assert tokenizer.decode(tokenizer("abba").input_ids) == "abba"
    logits = model(input_ids=torch.arange(5)[None]).logits
    assert torch.isfinite(logits).all()


def test_several_shards_hold_what_one_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(subject, "SHARD_BYTES", 60_000)
    folder = converted(tmp_path, F16)
    shards = sorted(file.name for file in folder.glob("*.safetensors"))
    assert len(shards) > 4
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(shards)
    found = tensors(folder)
    assert index["metadata"]["total_size"] == sum(value.numel() * 4 for value in found.values())
    # no shard is larger than the limit, but for one that holds a single larger tensor
    for shard in shards:
        values = load_file(folder / shard).values()
        assert len(values) == 1 or sum(value.numel() * 4 for value in values) <= 60_000
    for ours, (_, values) in originals().items():
        stored = as_stored(values, F16) if values.ndim > 1 else values
        assert torch.equal(found[f"{ours}.weight"], torch.from_numpy(stored.copy()))
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(state[name], value) for name, value in found.items())


def test_large_models_become_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "FP32_PARAMETERS", 1000)
    folder = converted(tmp_path, F32)
    assert {value.dtype for value in tensors(folder).values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "other.gguf", F32, architecture="gemma")
    with pytest.raises(BaseModelError, match="'gemma'"):
        subject.convert(tmp_path / "other.gguf", tmp_path)


def test_tensors_that_a_llama_has_not_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "odd.gguf", F32, **{"blk.0.ffn_gate_exps": np.zeros((4, 4), np.float32)})
    with pytest.raises(BaseModelError, match="ffn_gate_exps"):
        subject.convert(tmp_path / "odd.gguf", tmp_path)


def test_biases_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gguf.GGUFWriter.add_tensor

    def add(self: Any, name: str, *arguments: Any, **options: Any) -> None:
        real(self, name.replace("attn_q.bias.weight", "attn_q.bias"), *arguments, **options)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", add)
    write(tmp_path / "odd.gguf", F32, **{"blk.0.attn_q.bias": np.zeros(HIDDEN, np.float32)})
    with pytest.raises(BaseModelError, match=r"blk\.0\.attn_q\.bias"):
        subject.convert(tmp_path / "odd.gguf", tmp_path)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.02, 0.1, 0.5, 0.999])
def test_files_that_end_too_soon_are_refused(tmp_path: Path, share: float) -> None:
    write(tmp_path / "whole.gguf", F32)
    content = (tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "part.gguf").write_bytes(content[: int(share * len(content))])
    with pytest.raises(BaseModelError, match=r"part\.gguf.*ends too soon; download it again"):
        subject.convert(tmp_path / "part.gguf", tmp_path)


@pytest.mark.parametrize("content", [b"", b"GG", b"hello, world\n" * 9])
def test_files_that_are_no_gguf_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.gguf").write_bytes(content)
    with pytest.raises(BaseModelError, match="not a readable GGUF file: it does not begin with the letters GGUF"):
        subject.convert(tmp_path / "other.gguf", tmp_path)


def test_one_of_several_parts_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "part.gguf", F32, metadata={"split.count": 3.0})
    with pytest.raises(BaseModelError, match=r"one of 3 parts.*llama-gguf-split --merge"):
        subject.convert(tmp_path / "part.gguf", tmp_path)


def test_types_that_cannot_be_dequantized_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: Any) -> None:
        raise NotImplementedError("Dequantization for F16 is not yet implemented")

    write(tmp_path / "tiny.gguf", F16)
    monkeypatch.setattr(gguf, "dequantize", cannot)
    with pytest.raises(BaseModelError, match=r"is of type F\d\d, which pronk cannot read"):
        subject.convert(tmp_path / "tiny.gguf", tmp_path)


def test_incomplete_metadata_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would take its defaults, those of Llama 2 7B."""
    monkeypatch.setattr(gguf.GGUFWriter, "add_context_length", lambda *_: None)
    write(tmp_path / "vague.gguf", F32)
    with pytest.raises(BaseModelError, match=r"vague\.gguf: its metadata lacks llama\.context_length"):
        subject.convert(tmp_path / "vague.gguf", tmp_path)


def test_a_tokenizer_of_an_unknown_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gguf.GGUFWriter.add_tokenizer_model
    monkeypatch.setattr(gguf.GGUFWriter, "add_tokenizer_model", lambda self, _: real(self, "rwkv"))
    monkeypatch.setattr(gguf.GGUFWriter, "add_token_merges", lambda *_: None)
    write(tmp_path / "odd.gguf", F32)
    with pytest.raises(BaseModelError, match="its tokenizer, of kind 'rwkv', cannot be read"):
        subject.convert(tmp_path / "odd.gguf", tmp_path)


def test_a_file_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "bare.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BaseModelError, match=r"bare\.gguf: there is no tokenizer in this GGUF file"):
        subject.convert(tmp_path / "bare.gguf", tmp_path)


# --- rotary frequencies ----------------------------------------------------------------------------


def frequencies(theta: float, factors: NDArray[np.float32] | None = None, **metadata: Any) -> Any:
    """Of the model that a file with these factors and metadata becomes, saved and loaded."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as name:
        source, folder = Path(name) / "long.gguf", Path(name) / "folder"
        named = {f"llama.rope.scaling.{key}": value for key, value in metadata.items()}
        write(source, F32, metadata=named, theta=theta, **({} if factors is None else {"rope_freqs": factors}))
        folder.mkdir()
        subject.convert(source, folder)
        return AutoModelForCausalLM.from_pretrained(folder).model.rotary_emb.inv_freq


def rotary(theta: float, **scaling: Any) -> Any:
    """transformers' own."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=HIDDEN, num_attention_heads=HEADS, max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": theta, **scaling},
    )  # fmt: skip
    return LlamaRotaryEmbedding(config).inv_freq


def llama_cpp_factors(factor: float, theta: float, size: int) -> NDArray[np.float32]:
    """LlamaModel.generate_extra_tensors of llama.cpp's convert_hf_to_gguf.py."""
    factors = []
    for frequency in 1.0 / theta ** (np.arange(0, size, 2, dtype=np.float32) / size):
        wavelength = 2 * math.pi / frequency
        if wavelength < 8192 / 4:
            factors.append(1.0)
        elif wavelength > 8192 / 1:
            factors.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_frequencies_of_llama_3_1_and_3_2(factor: float, theta: float) -> None:
    """A .gguf says in rope_freqs, and only there, by what each frequency is divided."""
    factors = llama_cpp_factors(factor, theta, HIDDEN // HEADS)
    assert (factors > 1).any()
    wanted = rotary(
        theta, rope_type="llama3", factor=factor, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )  # fmt: skip
    assert not torch.allclose(wanted, rotary(theta), rtol=1e-2)
    torch.testing.assert_close(frequencies(theta, factors), wanted)


def test_frequencies_without_scaling() -> None:
    for factors in (None, np.ones(HIDDEN // HEADS // 2, np.float32)):
        torch.testing.assert_close(frequencies(500_000.0, factors), rotary(500_000.0))
    torch.testing.assert_close(frequencies(10_000.0, type="none", factor=4.0), rotary(10_000.0))
    torch.testing.assert_close(frequencies(10_000.0, type="yarn", factor=1.0), rotary(10_000.0))


def test_linearly_scaled_frequencies() -> None:
    wanted = rotary(10_000.0, rope_type="linear", factor=4.0)
    torch.testing.assert_close(wanted, rotary(10_000.0) / 4)
    torch.testing.assert_close(frequencies(10_000.0, type="linear", factor=4.0), wanted)


def test_other_frequencies_are_refused() -> None:
    wrong = np.linspace(1, 8, HIDDEN // HEADS // 2).astype(np.float32)
    right = llama_cpp_factors(8.0, 10_000.0, HIDDEN // HEADS)
    refused = r"long\.gguf: its rotary positions are scaled in a way that pronk does not know \(%s"
    with pytest.raises(BaseModelError, match=refused % "factors in rope_freqs"):
        frequencies(10_000.0, wrong)
    with pytest.raises(BaseModelError, match=refused % "factors in rope_freqs"):
        frequencies(500_000.0, right)  # those of another theta
    with pytest.raises(BaseModelError, match=refused % "factors in rope_freqs"):
        frequencies(10_000.0, right[4:])
    with pytest.raises(BaseModelError, match=refused % r"rope\.scaling\.type yarn, factor 4"):
        frequencies(10_000.0, type="yarn", factor=4.0)
    with pytest.raises(BaseModelError, match=refused % r"rope\.scaling\.type linear, factor 2"):
        frequencies(10_000.0, right, type="linear", factor=2.0)


@pytest.mark.slow
def test_smollm2_is_what_transformers_reads(smollm2: Any) -> None:
    """Every weight of our conversion equals transformers' own reading of the file, bit for bit."""
    from transformers import AutoModelForCausalLM, GgufConfig
    from transformers.utils import logging

    from pronk.model.load import _embedded_file

    source = _embedded_file()
    logging.disable_progress_bar()
    theirs = AutoModelForCausalLM.from_pretrained(
        str(source.parent), gguf_file=source.name, quantization_config=GgufConfig(dequantize=True)
    ).state_dict()
    ours = AutoModelForCausalLM.from_pretrained(smollm2.location).state_dict()
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert values.dtype == torch.float32
        assert torch.equal(values, theirs[name].float()), name
