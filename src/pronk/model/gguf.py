"""A .gguf file → a folder that transformers loads, tensor by tensor.

The whole model never lies dequantized in memory: tensors are read through a memory map,
dequantized, put in transformers' order and written in shards of two GiB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pronk.errors import BaseModelError

SHARD_BYTES = 2 * 2**30
# Above this many parameters the folder holds bf16 instead of fp32: an 8B model takes 16 GB, not 32.
FP32_PARAMETERS = 1_000_000_000
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def convert(source: Path, folder: Path) -> None:
    """Write config, tokenizer and weights of a Llama .gguf file into an existing, empty folder.

    Raises BaseModelError if the file is not a Llama GGUF.
    """
    from gguf import GGUFReader
    from transformers import AutoConfig

    try:
        reader = GGUFReader(str(source))
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise BaseModelError(f"{source}: not a readable GGUF file ({error})") from None
    architecture = _text(reader, "general.architecture")
    if architecture != "llama":
        raise BaseModelError(
            f"{source}: a GGUF of architecture {architecture!r}; pronk reads GGUF files of Llama models"
        )
    config = AutoConfig.from_pretrained(str(source.parent), gguf_file=source.name)
    parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)
    dtype = torch.float32 if parameters < FP32_PARAMETERS else torch.bfloat16
    config.dtype = dtype
    config.architectures = ["LlamaForCausalLM"]
    _tokenizer(source, reader, config).save_pretrained(folder)
    _write_shards(folder, _tensors(reader, config, dtype))
    config.save_pretrained(folder)


def _tokenizer(source: Path, reader: Any, config: Any) -> Any:
    """The file's tokenizer, with what its conversion loses put back."""
    from tokenizers import Regex, pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    splitting = {
        "smollm": [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ],
        "llama-bpe": [pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"), bytes_only],
    }.get(_text(reader, "tokenizer.ggml.pre"))
    if splitting:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splitting)
    tokenizer.model_max_length = config.max_position_embeddings
    return tokenizer


def _text(reader: Any, key: str) -> str:
    field = reader.get_field(key)
    return str(field.contents()) if field is not None else ""


def _tensors(reader: Any, config: Any, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Each tensor under transformers' name, dequantized, in transformers' row order."""
    from gguf import MODEL_ARCH, dequantize, get_tensor_name_map

    layers = config.num_hidden_layers
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, layers)
    ours = [*_layer_names(layers), "model.embed_tokens", "model.norm", "lm_head"]
    theirs = {names.get_name(name): name for name in ours}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for tensor in reader.tensors:
        stem, _, suffix = tensor.name.rpartition(".")
        if stem not in theirs:
            if stem == "rope_freqs":
                continue  # computed from the config
            raise BaseModelError(f"the GGUF file has a tensor that a Llama model has not: {tensor.name}")
        values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type))).to(dtype)
        count = heads.get(stem.rsplit(".", 1)[-1])
        yield f"{theirs[stem]}.{suffix}", _rotary_halves(values, count) if count else values


def _layer_names(layers: int) -> Iterator[str]:
    parts = [f"self_attn.{part}_proj" for part in "qkvo"] + [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    for layer in range(layers):
        for part in [*parts, "input_layernorm", "post_attention_layernorm"]:
            yield f"model.layers.{layer}.{part}"


def _rotary_halves(rows: Tensor, heads: int) -> Tensor:
    """Rows of q and k from llama.cpp's order (rotary pairs side by side) to transformers' (pairs half a head apart)."""
    pairs = rows.view(heads, -1, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)


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
