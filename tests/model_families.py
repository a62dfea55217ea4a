"""Tiny random models of many families, as transformers builds them from a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
GPT_LIKE: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
NEOX_LIKE = {key: value for key, value in LLAMA_LIKE.items() if key != "num_key_value_heads"}
FALCON = {key: value for key, value in NEOX_LIKE.items() if key != "intermediate_size"}
OPT = {**FALCON, "ffn_dim": 128, "word_embed_proj_dim": 64}
EXPERTS = {**LLAMA_LIKE, "num_local_experts": 4}
WIDE = {**LLAMA_LIKE, "head_dim": 32}  # heads that are wider together than the hidden state

# the class of a configuration, and what it is built with
WORK: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("GemmaConfig", WIDE),
    "gemma3_text": ("Gemma3TextConfig", {**WIDE, "layer_types": ["sliding_attention", "full_attention"]}),
    "glm4": ("Glm4Config", WIDE),
    "gpt2": ("GPT2Config", GPT_LIKE),
    "gpt_neox": ("GPTNeoXConfig", NEOX_LIKE),
    "granite": ("GraniteConfig", {**LLAMA_LIKE, "attention_multiplier": 0.1, "residual_multiplier": 0.3}),
    "llama": ("LlamaConfig", LLAMA_LIKE),
    "mistral": ("MistralConfig", LLAMA_LIKE),
    "mixtral": ("MixtralConfig", EXPERTS),
    "olmo2": ("Olmo2Config", LLAMA_LIKE),
    "opt": ("OPTConfig", OPT),
    "phi3": ("Phi3Config", LLAMA_LIKE),
    "qwen2": ("Qwen2Config", LLAMA_LIKE),
    "qwen3": ("Qwen3Config", WIDE),
    "qwen3_moe": (
        "Qwen3MoeConfig", {**WIDE, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    "smollm3": ("SmolLM3Config", LLAMA_LIKE),
    "starcoder2": ("Starcoder2Config", LLAMA_LIKE),
}  # fmt: skip
# not told by their type: read both ways before anything is done
ALSO_WORK: dict[str, tuple[str, dict[str, Any]]] = {
    "arcee": ("ArceeConfig", LLAMA_LIKE),
    "biogpt": ("BioGptConfig", NEOX_LIKE),
    "olmoe": ("OlmoeConfig", {**LLAMA_LIKE, "num_experts": 4, "num_experts_per_tok": 2}),
    "opt-350m": ("OPTConfig", {**OPT, "word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    "persimmon": ("PersimmonConfig", NEOX_LIKE),
}
ROW, LOGITS = "cannot read several texts in one row", "changes its logits after the output head"
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "bloom": ("BloomConfig", {"hidden_size": 64, "n_layer": 2, "n_head": 4}, "has no max_position_embeddings"),
    "cohere": ("CohereConfig", LLAMA_LIKE, LOGITS),
    "falcon": ("FalconConfig", FALCON, ROW),
    "gemma2": ("Gemma2Config", WIDE, LOGITS),
    "gemma2-scores": ("Gemma2Config", {**WIDE, "final_logit_softcapping": None}, "caps its scores"),
    "gpt_neo": (
        "GPTNeoConfig",
        {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
         "max_position_embeddings": 256},
        ROW,
    ),
    "gpt_oss": ("GptOssConfig", {**EXPERTS, "head_dim": 16}, "has sinks"),
    "lfm2": ("Lfm2Config", {**LLAMA_LIKE, "layer_types": ["conv", "full_attention"]}, ROW),
    "phi": ("PhiConfig", LLAMA_LIKE, LOGITS),
    "stablelm": ("StableLmConfig", LLAMA_LIKE, ROW),
}  # fmt: skip


def build(folder: Path, kind: str, values: dict[str, Any], vocabulary: int = 512) -> None:
    """Save a model whose attention and experts do not all but cancel out, as those of new models do."""
    import transformers

    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = getattr(transformers, kind)(vocab_size=vocabulary, **special, **values)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.mul_(3 if "emb" in name or "wte" in name else 6)
            elif name.endswith("bias"):
                weight.normal_(0, 0.3)
    model.save_pretrained(folder)
