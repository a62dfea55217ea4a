"""Special tokens: which there are, which begins a text, which one is free to pad with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pronk.errors import BaseModelError

# Tokens that a vocabulary sets aside and no text contains: any of them can be the padding.
UNUSED_TOKENS = (
    "<pad>", "<|pad|>", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>",
    "<unk>", "<|endoftext|>", "<reponame>",
)  # fmt: skip


def padding_token(tokenizer: Any, end_ids: Sequence[int]) -> str:
    """A token to pad with: one the vocabulary already has, and never an end token.

    With pad = end token many trainers mask the end token, and the model never learns to stop.
    The embeddings keep their size, since a token is only chosen, never added.
    """
    forbidden = {*end_ids, tokenizer.eos_token_id, tokenizer.bos_token_id}
    vocabulary = tokenizer.get_vocab()
    special = [token for token in tokenizer.all_special_tokens if token not in UNUSED_TOKENS]
    for token in (tokenizer.pad_token, *UNUSED_TOKENS, *special):
        if token in vocabulary and vocabulary[token] not in forbidden:
            return str(token)
    raise BaseModelError(
        "the base model's vocabulary has no token that is free to pad with but its end token, which padding would "
        "hide from training; add one to its tokenizer (tokenizer.add_tokens) and save both again",
        "pad-is-end-token",
    )


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """All special tokens, also those without a role: Llama 3's <|eot_id|> is in no list of transformers' own."""
    added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))


def adds_bos(tokenizer: Any) -> bool:
    """Whether the base model was trained with a BOS before its text: its tokenizer adds one itself."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a").input_ids[:1] == [bos]


def end_of_text(tokenizer: Any) -> int:
    """The id of the end token. Raises BaseModelError if there is none."""
    if tokenizer.eos_token_id is None:
        raise BaseModelError(
            "the base model's tokenizer has no end token (eos_token), so a model could not learn to stop; name one in "
            "its tokenizer_config.json",
            "end-token-not-supervised",
        )
    return int(tokenizer.eos_token_id)


def required_ids(kind: str, needed: Sequence[str], tokenizer: Any) -> list[int]:
    """The ids of the tokens that a prompt form writes. Raises BaseModelError that names those which are missing."""
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in needed if token not in vocabulary]
    if missing:
        own = "`prompt: chat` (the base's own template) or " if getattr(tokenizer, "chat_template", None) else ""
        raise BaseModelError(
            f"prompt: {kind} needs tokens that the base model's vocabulary does not have: {', '.join(missing)}; "
            f"use {own}`prompt: alpaca`, which needs none"
        )
    return [int(vocabulary[token]) for token in needed]
