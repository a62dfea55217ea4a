"""Text that streams is, put together, what decoding all tokens at once gives; nobody sees half a character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from real_tokenizers import renewed

from pronk.ask.asking import cut
from pronk.ask.writing import BROKEN, Writing

NAMES = ["smollm2", "llama2"]  # byte-level, and bytes spelled as tokens; Llama 3's is as SmolLM2's
TEXTS = [
    "공장이 문을 닫는다. 뷁 햏 쀍, 그리고 한글!",
    "👩‍👩‍👧‍👦 is a family, 🇰🇷 a flag, 🤷🏽‍♀️ a shrug; 𝔘𝔫𝔦𝔠𝔬𝔡𝔢.",
    "  two spaces, a\ttab,\r\nlines\n\n\n    and code: x[1:2] != -3.14",
    "漢字と仮名、العربية, हिन्दी, ไทย, e\u0301 and é, \ufeff and \u200d",
    "<b>bold</b> &amp; \x1b[31mred\x1b[0m 'quoted' n't we're ( a , b ) .",
]


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    """As `pronk generate` does it."""
    return tokenizer.batch_decode([list(ids)], skip_special_tokens=True, clean_up_tokenization_spaces=False)[0]


def streamed(tokenizer: Any, ids: Sequence[int], stops: Sequence[str] = ()) -> tuple[list[str], str]:
    """The text after each token, and at the end."""
    writing = Writing(tokenizer, stops)
    seen = []
    for token in ids:
        ended = writing.add(token)
        seen.append(writing.text)
        if ended:
            break
    return seen, writing.end(finished=True)


def check(tokenizer: Any, ids: Sequence[int], stops: Sequence[str] = ()) -> list[str]:
    seen, whole = streamed(tokenizer, ids, stops)
    assert whole == cut(decoded(tokenizer, ids), stops)[0]
    for shorter, longer in zip(seen, [*seen[1:], whole], strict=True):
        assert longer.startswith(shorter), (shorter, longer)
    return seen


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", TEXTS)
def test_whole_characters_and_the_whole_text(name: str, text: str) -> None:
    real = renewed(name)
    ids = real.tokenizer(text, add_special_tokens=False).input_ids
    seen = check(real.tokenizer, ids)
    assert not any(BROKEN in one for one in seen)
    assert len({one for one in seen if one}) > len(text.split())  # as it comes, not at the end


@pytest.mark.parametrize("name", NAMES)
def test_any_tokens_in_any_order(name: str) -> None:
    """Random ids: special tokens, broken characters, bytes in a row that are none."""
    tokenizer = renewed(name).tokenizer
    rng = np.random.default_rng(5)
    drawn = rng.integers(0, len(tokenizer), 5000).tolist()
    odd = [
        token
        for token, text in zip(drawn, tokenizer.batch_decode([[one] for one in drawn]), strict=True)
        if BROKEN in text
    ] or [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in range(128, 256)]
    special = list(tokenizer.added_tokens_decoder)
    for _ in range(40):
        pool = [rng.integers(0, len(tokenizer), 12), rng.choice(odd, 12), rng.choice(special, 6)]
        check(tokenizer, rng.permutation(np.concatenate(pool)).tolist())


@pytest.mark.parametrize("name", NAMES)
def test_of_a_stop_text_nothing_is_seen(name: str) -> None:
    tokenizer = renewed(name).tokenizer
    text = "한 문장입니다.\n\nUser: 다음 질문"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    for stop in ("\n\nUser:", "장입", "질문!", "한", "다음 질문"):
        seen = check(tokenizer, ids, [stop, "never written"])
        assert all(stop not in one for one in seen)
    assert all(not one.endswith("장") for one in check(tokenizer, ids, ["장입"]))
    # what may still become a stop text comes at the end, where it has not
    assert text.removesuffix("질문").startswith(check(tokenizer, ids, ["질문!"])[-1])


@pytest.mark.parametrize("name", NAMES)
def test_a_character_that_is_never_finished_is_left_out(name: str) -> None:
    tokenizer = renewed(name).tokenizer
    ids = tokenizer("닫 뷁", add_special_tokens=False).input_ids[:-1]
    writing = Writing(tokenizer)
    for token in ids:
        writing.add(token)
    assert writing.end(finished=False) in ("닫 ", "닫")
    assert BROKEN in writing.end(finished=True)


@pytest.mark.parametrize("name", NAMES)
def test_token_by_token_would_show(name: str) -> None:
    """The planted fault: each token decoded by itself."""
    tokenizer = renewed(name).tokenizer
    for text in TEXTS[:2]:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert "".join(decoded(tokenizer, [token]) for token in ids) != decoded(tokenizer, ids)


def test_a_byte_that_takes_characters_back_would_show() -> None:
    """The planted fault: SentencePiece's bytes shown as soon as they are a character, which the next one undoes."""
    tokenizer = renewed("llama2").tokenizer
    ids = [*tokenizer("뷁", add_special_tokens=False).input_ids, tokenizer.convert_tokens_to_ids("<0xFF>")]
    check(tokenizer, ids)
    writing = Writing(tokenizer)
    writing._spoiler = None
    for token in ids:
        writing.add(token)
    shown = writing.text
    assert not writing.end(finished=True).startswith(shown)
