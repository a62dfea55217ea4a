"""Tiny bases whose tokenizers are broken in one way each; and a recipe's findings by name."""

from __future__ import annotations

import io
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pronk.data.finding import Finding
from pronk.doctor.checking import Checked, check_recipe
from pronk.recipe import read_recipe

CONTEXT = 1024
Check = Callable[..., Checked]


def by_name(checked: Checked) -> dict[str, Finding]:
    return {one.name: one for one in checked.findings}


@pytest.fixture
def check() -> Check:
    """The findings of a recipe's file."""

    def call(path: Path, *overrides: str) -> Checked:
        return check_recipe(read_recipe(path, overrides), Console(file=io.StringIO()))

    return call


@pytest.fixture(scope="session")
def bases(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function of a name in MADE (or `tiny`): the folder of such a base."""
    folder, made = tmp_path_factory.mktemp("broken"), {"tiny": tiny_base}

    def base(name: str) -> Path:
        if name not in made:
            made[name] = save(folder / name.replace(" ", "-"), *MADE[name](tiny_base))
        return made[name]

    return base


def save(folder: Path, tokenizer: Any, vocabulary: int) -> Path:
    """A random Llama of one layer with a tokenizer; as many embeddings as it is told."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=CONTEXT, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def letters(unknown: str | None = None, eos: str | None = "</s>", spare: bool = True) -> tuple[Any, int]:
    """A token for each ASCII letter; other letters are unknown, or lost where there is no token for that."""
    from tokenizers import AddedToken, Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    special = [name for name in (unknown, eos, "<pad>" if spare else None) if name]
    vocabulary = {name: number for number, name in enumerate([*special, *string.printable])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=unknown))
    raw.add_special_tokens([AddedToken(name, special=True) for name in special])
    roles = {"unk_token": unknown, "eos_token": eos, "pad_token": "<pad>" if spare else None}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **{key: name for key, name in roles.items() if name})
    return tokenizer, len(vocabulary)


def with_bos(tiny: Path) -> tuple[Any, int]:
    """SmolLM2's tokenizer, which here begins each text with a BOS, as Llama's do."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    return tokenizer, len(tokenizer)


def as_it_is(tiny: Path, vocabulary: int) -> tuple[Any, int]:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny), vocabulary


MADE: dict[str, Callable[[Path], tuple[Any, int]]] = {
    "bos": with_bos,
    "small vocabulary": lambda tiny: as_it_is(tiny, 300),
    "nothing to pad with": lambda _: letters(spare=False),
    "no end": lambda _: letters(eos=None),
    "words": lambda _: letters(unknown="<unk>"),
    "letters": lambda _: letters(),
}
