"""Three real tokenizers, and their own libraries as oracles: SmolLM2, Llama 2, Llama 3.

SmolLM2's is the embedded model's. Llama 2's SentencePiece model lies in $PRONK_TEST_DATA/tokenizers.
Llama 3's BPE file is in the package llama-models, which `make` installs without its dependencies.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pronk.errors import BaseModelError
from pronk.model.load import find_base, load_tokenizer

DATA = Path(os.environ.get("PRONK_TEST_DATA") or Path(__file__).parents[3] / "shared")
LLAMA2 = DATA / "tokenizers" / "llama2_tokenizer.model"

# Llama 2's chat form, shortened from the template that Meta ships: its text begins with the BOS.
LLAMA2_CHAT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# The chat template of meta-llama/Meta-Llama-3-8B-Instruct.
LLAMA3_CHAT = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA3_SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
    "<|eot_id|>", "<|python_tag|>", "<|image|>", *(f"<|reserved_special_token_{2 + i}|>" for i in range(244)),
]  # fmt: skip


@dataclass
class Real:
    """A tokenizer and its oracle. encode: plain text to ids; bos: whether it puts one before a text."""

    name: str
    tokenizer: Any
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    bos: bool
    vocabulary: int
    chat_template: str = field(init=False)

    def __post_init__(self) -> None:
        self.chat_template = self.tokenizer.chat_template


def smollm2() -> Real:
    """A new tokenizer of SmolLM2, whose chat template is ChatML."""
    try:
        tokenizer = load_tokenizer(find_base("smollm2"))
    except BaseModelError as error:
        pytest.skip(str(error))
    raw = tokenizer.backend_tokenizer
    # byte-level BPE: the ids' bytes, one after the other, are the text
    return Real(
        "smollm2", tokenizer, lambda text: raw.encode(text, add_special_tokens=False).ids,
        lambda ids: raw.decode(ids, skip_special_tokens=False), False, len(tokenizer),
    )  # fmt: skip


def llama2() -> Real:
    """A new tokenizer of Llama 2; the SentencePiece library is its oracle."""
    if not LLAMA2.is_file():
        pytest.skip(f"{LLAMA2} is not there; PRONK_TEST_DATA names the folder that holds tokenizers/")
    import sentencepiece
    from tokenizers import normalizers
    from transformers import LlamaTokenizer

    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(LLAMA2, Path(folder) / "tokenizer.model")
        tokenizer = LlamaTokenizer.from_pretrained(folder, add_bos_token=True)
    # as in the tokenizer.json on the hub; transformers' own conversion loses a reply's leading space
    raw = tokenizer.backend_tokenizer
    raw.pre_tokenizer = None
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.chat_template = LLAMA2_CHAT
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(LLAMA2))

    def encode(text: str) -> list[int]:
        # of spaces in a row the two libraries make other pieces of the same text
        if text.startswith(" "):
            return raw.encode(text, add_special_tokens=False).ids
        return oracle.encode(text)

    return Real("llama2", tokenizer, encode, oracle.decode, True, 32000)


def llama3() -> Real:
    """A new tokenizer of Llama 3; ids of plain text are those in its BPE file, joined by rank."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    ranks = llama3_ranks()
    raw = _llama3_backend()
    begin = "<|begin_of_text|>"
    raw.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, len(ranks))])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=begin, eos_token="<|end_of_text|>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = LLAMA3_CHAT
    pieces = {rank: piece for piece, rank in ranks.items()}

    def decode(ids: list[int]) -> str:
        return b"".join(pieces[token] for token in ids).decode()

    # another one, since a tokenizer changes settings of its own while it works
    plain = _llama3_plain()
    return Real("llama3", tokenizer, lambda text: plain.encode(text).ids, decode, True, len(ranks) + 256)


def llama3_file() -> Path:
    """The BPE file that llama-models carries; the test is skipped where it is not installed."""
    spec = importlib.util.find_spec("llama_models")
    if spec is None:
        pytest.skip("llama-models is not installed: pip install --no-deps llama-models==0.3.0")
    return Path(spec.submodule_search_locations[0]) / "llama3" / "tokenizer.model"


@functools.cache
def llama3_ranks() -> dict[bytes, int]:
    """Rank of every piece of Llama 3's vocabulary."""
    lines = llama3_file().read_text(encoding="utf-8").splitlines()
    return {base64.b64decode(piece): int(rank) for piece, rank in (line.split() for line in lines)}


def _llama3_backend() -> Any:
    import tokenizers

    return tokenizers.Tokenizer.from_str(_llama3_json())


@functools.cache
def _llama3_plain() -> Any:
    return _llama3_backend()


@functools.cache
def _llama3_json() -> str:
    from transformers.convert_slow_tokenizer import TikTokenConverter

    class Converter(TikTokenConverter):
        """Reads the file without the package tiktoken, which transformers wants for that alone."""

        @staticmethod
        def load_tiktoken_bpe(_: str) -> dict[bytes, int]:
            return llama3_ranks()

    return Converter(vocab_file=str(llama3_file()), extra_special_tokens=LLAMA3_SPECIAL).converted().to_str()


@functools.cache
def shared(name: str) -> Real:
    """One tokenizer for many tests, since Llama 3's takes seconds to make; `renewed` before each use."""
    return REAL[name]()


def renewed(name: str) -> Real:
    """The shared tokenizer as it was made: a prompt changes its chat template and its padding."""
    real = shared(name)
    real.tokenizer.chat_template = real.chat_template
    return real


REAL = {"smollm2": smollm2, "llama2": llama2, "llama3": llama3}
