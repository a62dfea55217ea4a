"""Models and tokenizers to write to .gguf files: tiny ones made here, and real ones."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

SHARED = Path(os.environ.get("PRONK_TEST_DATA") or Path(__file__).parents[3] / "shared")
STORIES, STORIES_PIECES = SHARED / "models" / "stories260K.bin", SHARED / "models" / "tok512.bin"
SENTENCES = (
    "the cat sat on the mat and the hat",
    "they thought that 12 cats then sat there",
    "안녕하세요 안녕 the end",
)
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_tokenizer(bos: bool = False) -> Any:
    """A byte-level tokenizer of a few hundred pieces that splits as SmolLM2's does. bos: whether it adds one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(SENTENCES, trainer)
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|im_start|>", eos_token="<|im_end|>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = ("{{ bos_token }}" if bos else "") + TEMPLATE
    return tokenizer


def tiny_model(folder: Path, tokenizer: Any, kind: str = "llama", **settings: Any) -> Any:
    """A random model of two layers, saved with its tokenizer; its attention is far from uniform."""
    from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 8, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "head_dim": 16,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "initializer_range": 0.2,
    }  # fmt: skip
    make = (MistralConfig, MistralForCausalLM) if kind == "mistral" else (LlamaConfig, LlamaForCausalLM)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = make[1](make[0](**(sizes | settings))).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "q_proj" in name or "k_proj" in name:
                    weight.mul_(3)
                elif "norm" in name:
                    weight.add_(torch.randn_like(weight), alpha=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def stories(folder: Path) -> tuple[Any, Any]:
    """stories260K, trained with llama2.c: its model and tokenizer in transformers' form, saved too."""
    from transformers import LlamaConfig, LlamaForCausalLM

    content = STORIES.read_bytes()
    dim, hidden, layers, heads, groups, pieces, context = struct.unpack("7i", content[:28])
    values = torch.from_numpy(np.frombuffer(content, np.float32, offset=28).copy())
    inner = dim // heads * groups
    shapes = {
        "embed": (pieces, dim), "input_layernorm": (layers, dim), "self_attn.q_proj": (layers, dim, dim),
        "self_attn.k_proj": (layers, inner, dim), "self_attn.v_proj": (layers, inner, dim),
        "self_attn.o_proj": (layers, dim, dim), "post_attention_layernorm": (layers, dim),
        "mlp.gate_proj": (layers, hidden, dim), "mlp.down_proj": (layers, dim, hidden),
        "mlp.up_proj": (layers, hidden, dim), "norm": (dim,),
    }  # fmt: skip
    state: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        part, values = values[: np.prod(shape)].view(shape), values[np.prod(shape) :]
        if name in ("embed", "norm"):
            state["model.embed_tokens.weight" if name == "embed" else "model.norm.weight"] = part
            continue
        for layer in range(layers):
            rows = part[layer]
            if name[-6:] in ("q_proj", "k_proj"):  # llama2.c turns neighbours, transformers turns halves
                count = heads if "q_proj" in name else groups
                rows = rows.view(count, dim // heads // 2, 2, dim).transpose(1, 2).reshape(rows.shape)
            state[f"model.layers.{layer}.{name}.weight"] = rows
    config = LlamaConfig(
        vocab_size=pieces, hidden_size=dim, intermediate_size=hidden, num_hidden_layers=layers, rms_norm_eps=1e-5,
        num_attention_heads=heads, num_key_value_heads=groups, max_position_embeddings=context, bos_token_id=1,
        tie_word_embeddings=True, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    found = model.load_state_dict(state, strict=False)
    assert found.missing_keys in ([], ["lm_head.weight"])
    assert not found.unexpected_keys
    tokenizer = stories_tokenizer()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def stories_pieces() -> list[tuple[float, str]]:
    """Score and text of each piece of tok512.bin, spaces as SentencePiece writes them."""
    content, at, found = STORIES_PIECES.read_bytes(), 4, []
    while at < len(content):
        score, size = struct.unpack("fi", content[at : at + 8])
        found.append((score, content[at + 8 : at + 8 + size].decode().strip("\n") or "\n"))
        at += 8 + size
    return [(score, text.replace(" ", "▁") if not text.startswith("<") else text) for score, text in found]


def stories_tokenizer() -> Any:
    """The tokenizer of stories260K: pieces are joined in the order of their scores."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = stories_pieces()
    vocabulary = {text: number for number, (_, text) in enumerate(pieces)}
    ordered = sorted((score, text) for score, text in pieces if len(text) > 1 and not text.startswith("<"))[::-1]
    merges = [
        (text[:at], text[at:]) for _, text in ordered for at in range(1, len(text))
        if text[:at] in vocabulary and text[at:] in vocabulary
    ]  # fmt: skip
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )


def log_probabilities(model: Any, ids: list[int]) -> np.ndarray[Any, Any]:
    """transformers' own, of the next token after each of the ids (T, V)."""
    with torch.no_grad():
        found: np.ndarray[Any, Any] = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1).numpy()
    return found


def divergence(wanted_TV: np.ndarray[Any, Any], found_TV: np.ndarray[Any, Any]) -> float:
    """Kullback and Leibler's, in nats, the mean over T."""
    wanted, found = wanted_TV.astype(np.float64), found_TV.astype(np.float64)
    return float((np.exp(wanted) * (wanted - found)).sum(-1).mean())
