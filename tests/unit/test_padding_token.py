"""Padding is a token that is already there, and never one that ends an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from pronk.errors import BaseModelError
from pronk.tokens.prompt import Prompt, padding_token


@dataclass
class FakeTokenizer:
    """As much of a tokenizer as the choice of a padding token looks at."""

    vocabulary: Sequence[str]
    eos_token: str
    bos_token: str | None = None
    pad_token: str | None = None
    specials: Sequence[str] = field(default_factory=list)

    def get_vocab(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.vocabulary)}

    @property
    def all_special_tokens(self) -> list[str]:
        named = [token for token in (self.bos_token, self.eos_token, self.pad_token) if token]
        return list(dict.fromkeys([*named, *self.specials]))

    @property
    def eos_token_id(self) -> int:
        return self.get_vocab()[self.eos_token]

    @property
    def bos_token_id(self) -> int | None:
        return self.get_vocab().get(self.bos_token or "")


LLAMA2 = {"vocabulary": ["<unk>", "<s>", "</s>", "a"], "eos_token": "</s>", "bos_token": "<s>", "specials": ["<unk>"]}
LLAMA3 = {
    "vocabulary": ["a", "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|eot_id|>"],
    "eos_token": "<|end_of_text|>", "bos_token": "<|begin_of_text|>",
}  # fmt: skip
LLAMA31 = {**LLAMA3, "vocabulary": [*LLAMA3["vocabulary"], "<|finetune_right_pad_id|>"]}
SMOLLM2 = {
    "vocabulary": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<reponame>", "a"],
    "eos_token": "<|im_end|>", "bos_token": "<|im_start|>", "specials": ["<|endoftext|>", "<reponame>"],
}  # fmt: skip

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "Llama 2": (LLAMA2, "<unk>"),
    "Llama 2 padding with its end token": ({**LLAMA2, "pad_token": "</s>"}, "<unk>"),
    "Llama 3": (LLAMA3, "<|reserved_special_token_0|>"),
    "Llama 3 padding with its end token": ({**LLAMA3, "pad_token": "<|end_of_text|>"}, "<|reserved_special_token_0|>"),
    "Llama 3.1": (LLAMA31, "<|finetune_right_pad_id|>"),
    "SmolLM2": (SMOLLM2, "<|endoftext|>"),
    "SmolLM2 padding with its end token": ({**SMOLLM2, "pad_token": "<|im_end|>"}, "<|endoftext|>"),
    "a padding token of its own": (
        {"vocabulary": ["<mask>", "</s>", "<unk>"], "eos_token": "</s>", "pad_token": "<mask>"},
        "<mask>",
    ),
    "a padding token that is not in the vocabulary": ({**LLAMA2, "pad_token": "[PAD]"}, "<unk>"),
    "padding with the token that begins": ({**LLAMA2, "pad_token": "<s>"}, "<unk>"),
    "only another special token": (
        {"vocabulary": ["</s>", "<sep>"], "eos_token": "</s>", "specials": ["<sep>"]},
        "<sep>",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_padding_token(case: str) -> None:
    facts, wanted = CASES[case]
    assert padding_token(FakeTokenizer(**facts), []) == wanted


def test_the_end_of_a_reply_is_never_the_padding() -> None:
    """<|eot_id|> ends Llama 3's replies though it is not its eos token."""
    facts = {**LLAMA3, "pad_token": "<|eot_id|>"}
    end = FakeTokenizer(**facts).get_vocab()["<|eot_id|>"]
    assert padding_token(FakeTokenizer(**facts), [end]) == "<|reserved_special_token_0|>"


def test_a_vocabulary_without_a_free_token_is_refused() -> None:
    with pytest.raises(BaseModelError, match="pad"):
        padding_token(FakeTokenizer(vocabulary=["a", "</s>"], eos_token="</s>"), [])


def test_the_prompt_sets_it_and_adds_no_token(smollm2: Any) -> None:
    from pronk.model.load import load_tokenizer

    for kind in ("alpaca", "chat"):
        tokenizer = load_tokenizer(smollm2)
        size = len(tokenizer)
        prompt = Prompt(kind, tokenizer)
        assert tokenizer.pad_token == "<|endoftext|>"
        assert len(tokenizer) == size
        assert tokenizer.pad_token_id not in (prompt.end_id, tokenizer.eos_token_id)
