"""A .gguf file → a folder that transformers loads, tensor by tensor.

The whole model never lies dequantized in memory: tensors are read through a memory map,
dequantized, put in transformers' order and written in shards of two GiB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pronk.errors import BaseModelError

SHARD_BYTES = 2 * 2**30
# Above this many parameters the folder holds bf16 instead of fp32: an 8B model takes 16 GB, not 32.
FP32_PARAMETERS = 1_000_000_000
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What a Llama model holds beside its layers, by transformers' names.
AROUND = ("model.embed_tokens", "model.norm", "lm_head")
# llama.cpp's names of tokenizers that take a word of the vocabulary whole, whatever its merges say.
WHOLE_WORDS = ("llama-bpe",)

NEEDED = (
    "llama.block_count", "llama.context_length", "llama.embedding_length", "llama.feed_forward_length",
    "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon",
)  # fmt: skip
SPECIAL_TOKENS = {
    "bos_token": "tokenizer.ggml.bos_token_id", "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id", "pad_token": "tokenizer.ggml.padding_token_id",
}  # fmt: skip
# How Llama 3.1 (8) and Llama 3.2 (32) stretch their context.
LLAMA3_FACTORS = (8.0, 32.0)
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
# What GGUFReader says when it has read past the end.
TOO_SHORT = re.compile(r"larger dtype|cannot reshape|not enough values|out of bounds")


def convert(source: Path, folder: Path) -> None:
    """Write config, tokenizer and weights of a Llama .gguf file into an existing, empty folder.

    Raises BaseModelError if the file is not a Llama GGUF.
    """
    from transformers import AutoConfig

    reader = _read(source)
    _check(source, reader)
    try:
        config = AutoConfig.from_pretrained(str(source.parent), gguf_file=source.name)
    except Exception as error:  # transformers checks the values with errors of its own
        raise BaseModelError(f"{source}: its metadata is not that of a Llama model ({error})") from error
    config.rope_parameters = _rope_parameters(source, reader, config)
    parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)
    dtype = torch.float32 if parameters < FP32_PARAMETERS else torch.bfloat16
    config.dtype = dtype
    config.architectures = ["LlamaForCausalLM"]
    _tokenizer(source, reader, config.max_position_embeddings).save_pretrained(folder)
    _write_shards(folder, _tensors(source, reader, config, dtype))
    config.save_pretrained(folder)


def read_tokenizer(source: Path) -> Any:
    """The tokenizer of a Llama .gguf file; its weights are not read. Raises BaseModelError as `convert` does."""
    reader = _read(source)
    _check(source, reader)
    return _tokenizer(source, reader, int(_number(reader, "llama.context_length")))


def _read(source: Path) -> Any:
    from gguf import GGUFReader

    try:
        return GGUFReader(str(source))
    except (ValueError, OSError, IndexError, KeyError, OverflowError) as error:
        with source.open("rb") as file:
            begins_well = file.read(4) == b"GGUF"
        if not begins_well:
            why = "it does not begin with the letters GGUF"
        elif isinstance(error, IndexError) or TOO_SHORT.search(str(error)):
            why = "the file ends too soon; download it again"
        else:
            why = str(error)
        raise BaseModelError(f"{source}: not a readable GGUF file: {why}") from None


def _check(source: Path, reader: Any) -> None:
    """That the file is a whole Llama model with its tokenizer."""
    architecture = _text(reader, "general.architecture")
    if architecture != "llama":
        raise BaseModelError(
            f"{source}: a GGUF of architecture {architecture!r}; pronk reads GGUF files of Llama models"
        )
    if (parts := _number(reader, "split.count")) > 1:
        raise BaseModelError(
            f"{source}: one of {parts:.0f} parts; join them with llama.cpp's `llama-gguf-split --merge` first"
        )
    if reader.get_field("tokenizer.ggml.tokens") is None or not _text(reader, "tokenizer.ggml.model"):
        raise BaseModelError(
            f"{source}: there is no tokenizer in this GGUF file (tokenizer.ggml.tokens); use another file of the "
            "model, or the folder that it was made from"
        )
    if absent := [key for key in NEEDED if reader.get_field(key) is None]:
        raise BaseModelError(
            f"{source}: its metadata lacks {', '.join(absent)}; use another file of the model, or the folder that "
            "it was made from"
        )


def _rope_parameters(source: Path, reader: Any, config: Any) -> dict[str, Any]:
    """The rotary frequencies: plain, or changed by rope_freqs or by metadata, else the model would be another."""
    plain = {"rope_type": "default", "rope_theta": config.rope_parameters["rope_theta"]}
    kind = _text(reader, "llama.rope.scaling.type") or "linear"  # llama.cpp's default
    factor = _number(reader, "llama.rope.scaling.factor") or _number(reader, "llama.rope.scale_linear") or 1.0
    scaled = kind != "none" and factor != 1.0
    divisors = next((tensor.data for tensor in reader.tensors if tensor.name == "rope_freqs.weight"), None)
    if divisors is None or np.allclose(divisors, 1.0):
        if not scaled:
            return plain
        if kind == "linear":
            return {**plain, "rope_type": "linear", "factor": factor}
    elif not scaled:
        for stretch in LLAMA3_FACTORS:
            llama3 = {**plain, **LLAMA3_ROPE, "rope_type": "llama3", "factor": stretch}
            wanted = rope_divisors(config, llama3)
            if divisors.shape == wanted.shape and np.allclose(divisors, wanted, rtol=1e-3):
                return llama3
    found = f"rope.scaling.type {kind}, factor {factor:g}" if scaled else "factors in rope_freqs"
    raise BaseModelError(
        f"{source}: its rotary positions are scaled in a way that pronk does not know ({found}); it knows linear "
        "scaling and those of Llama 3.1, 3.2 and 3.3; use the folder that the file was made from"
    )


def rope_divisors(config: Any, rope_parameters: dict[str, Any]) -> NDArray[np.float64]:
    """By what a rotary type of transformers' divides each plain frequency (half of head_dim)."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    size = config.head_dim
    scaled = LlamaConfig(
        hidden_size=size, num_attention_heads=1, head_dim=size, rope_parameters=dict(rope_parameters),
        max_position_embeddings=config.max_position_embeddings,
    )  # fmt: skip
    frequencies, _ = ROPE_INIT_FUNCTIONS[rope_parameters["rope_type"]](scaled)
    plain = rope_parameters["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    divisors: NDArray[np.float64] = (plain / frequencies).numpy()
    return divisors


def _tokenizer(source: Path, reader: Any, context: int) -> Any:
    """The file's tokenizer, with what its conversion loses put back."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(source.parent), gguf_file=source.name, clean_up_tokenization_spaces=False
        )
    except Exception as error:  # the tokenizers library raises plain ones
        kind = _text(reader, "tokenizer.ggml.model")
        raise BaseModelError(
            f"{source}: its tokenizer, of kind {kind!r}, cannot be read; use the folder that the file was made from"
        ) from error
    pre = _text(reader, "tokenizer.ggml.pre")
    if pre in (known := splittings()):
        tokenizer.backend_tokenizer.pre_tokenizer = known[pre]
    if pre in WHOLE_WORDS:
        tokenizer.backend_tokenizer.model.ignore_merges = True
    for name, key in SPECIAL_TOKENS.items():  # transformers 5.17 takes the first special token for the end
        if reader.get_field(key) is not None:
            token = tokenizer.convert_ids_to_tokens(int(_number(reader, key)))
            if token != getattr(tokenizer, name):
                setattr(tokenizer, name, token)
    tokenizer.model_max_length = context
    return tokenizer


def splittings() -> dict[str, Any]:
    """How byte-level tokenizers split text before they merge, by llama.cpp's names (tokenizer.ggml.pre)."""
    from tokenizers import Regex, pre_tokenizers

    words = pre_tokenizers.ByteLevel(add_prefix_space=False)  # with GPT-2's pattern
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated")
    return {
        "gpt-2": words,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words]),
        "llama-bpe": pre_tokenizers.Sequence([split, bytes_only]),
    }


def _text(reader: Any, key: str) -> str:
    field = reader.get_field(key)
    return str(field.contents()) if field is not None else ""


def _number(reader: Any, key: str) -> float:
    field = reader.get_field(key)
    return float(field.contents()) if field is not None else 0.0


def _tensors(source: Path, reader: Any, config: Any, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Each tensor under transformers' name, dequantized, in transformers' row order."""
    from gguf import MODEL_ARCH, dequantize, get_tensor_name_map

    layers = config.num_hidden_layers
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, layers)
    theirs = {names.get_name(name): name for name in (*layer_names(layers), *AROUND)}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for tensor in reader.tensors:
        stem, _, suffix = tensor.name.rpartition(".")
        if stem == "rope_freqs":
            continue  # read into the config
        if stem not in theirs or suffix != "weight":
            raise BaseModelError(f"{source}: has a tensor that a Llama model has not: {tensor.name}")
        try:
            values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type))).to(dtype)
        except NotImplementedError:
            raise BaseModelError(
                f"{source}: {tensor.name} is of type {tensor.tensor_type.name}, which pronk cannot read; use a file "
                "of another quantization, such as Q4_K_M or Q8_0"
            ) from None
        count = heads.get(stem.rsplit(".", 1)[-1])
        yield f"{theirs[stem]}.{suffix}", rotary_halves(values, count) if count else values


def layer_names(layers: int) -> Iterator[str]:
    """transformers' names of what the layers of a Llama model hold, without `.weight`."""
    parts = [f"self_attn.{part}_proj" for part in "qkvo"] + [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    for layer in range(layers):
        for part in [*parts, "input_layernorm", "post_attention_layernorm"]:
            yield f"model.layers.{layer}.{part}"


def rotary_halves(rows: Tensor, heads: int) -> Tensor:
    """Rows of q and k from llama.cpp's order (rotary pairs side by side) to transformers' (pairs half a head apart)."""
    pairs = rows.view(heads, -1, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)


def rotary_pairs(rows: Tensor, heads: int) -> Tensor:
    """The inverse of `rotary_halves`."""
    halves = rows.view(heads, 2, -1, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def _write_shards(folder: Path, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """Safetensors shards and their index, never more than one shard in memory."""
    from safetensors.torch import save_file

    shard: dict[str, Tensor] = {}
    where: dict[str, str] = {}
    number = total = held = 0

    def flush() -> None:
        nonlocal number, held
        number += 1
        name = f"model-{number:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        where.update(dict.fromkeys(shard, name))
        shard.clear()
        held = 0

    for name, values in tensors:
        size = values.numel() * values.element_size()
        if shard and held + size > SHARD_BYTES:
            flush()
        shard[name] = values
        held, total = held + size, total + size
    flush()
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
