"""Which vocabulary a .gguf file gets: found by what the tokenizer does, refused where llama.cpp does otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from gguf_models import SHARED, byte_tokenizer, stories_pieces, stories_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from pronk.errors import BaseModelError
from pronk.model.gguf import LLAMA3_SPLIT
from pronk.ship.gguf.tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, read_vocabulary

WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def splitting(*parts: Any) -> Any:
    """The tiny tokenizer, splitting so."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(parts))
    return tokenizer


def test_the_splitting_is_found_by_what_it_does() -> None:
    assert read_vocabulary(byte_tokenizer(), 320).pre == "smollm"
    assert read_vocabulary(splitting(WORDS), 320).pre == "gpt-2"
    # the same in other words
    digits = pre_tokenizers.Split(Regex(r"\p{N}"), behavior="isolated")
    assert read_vocabulary(splitting(digits, WORDS), 320).pre == "smollm"


def test_another_splitting_is_refused_not_guessed() -> None:
    qwen = pre_tokenizers.Split(Regex(LLAMA3_SPLIT.replace("{1,3}", "")), behavior="isolated")
    with pytest.raises(BaseModelError, match=r"splits or changes text.*gpt-2, smollm, llama-bpe.*out of --to"):
        read_vocabulary(splitting(qwen, BYTES), 320)
    composed = byte_tokenizer()
    composed.backend_tokenizer.normalizer = normalizers.NFC()
    with pytest.raises(BaseModelError, match="splits or changes text"):
        read_vocabulary(composed, 320)


def test_whole_words_matter_only_where_merges_do_not_make_them() -> None:
    llama3 = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated")
    tokenizer = splitting(llama3, BYTES)
    assert read_vocabulary(tokenizer, 320).pre == "llama-bpe"  # all its pieces come of merges
    tokenizer.backend_tokenizer.model = models.BPE(vocab=tokenizer.get_vocab(), merges=[])
    with pytest.raises(BaseModelError, match=r"splits text as llama-bpe does, but never takes words such as"):
        read_vocabulary(tokenizer, 320)


def test_added_tokens_and_embeddings_without_a_token() -> None:
    tokenizer = byte_tokenizer()
    size = len(tokenizer)
    tokenizer.add_tokens(["~~tool~~", AddedToken("<|call|>", special=True)])
    tokenizer.add_special_tokens({"pad_token": "<|endoftext|>"})
    found = read_vocabulary(tokenizer, size + 4, end_id=size + 1)
    assert found.pieces[size:] == ["~~tool~~", "<|call|>", f"[PAD{size + 2}]", f"[PAD{size + 3}]"]
    assert found.types[size:] == [USER_DEFINED, CONTROL, UNUSED, UNUSED]
    assert found.types[:4] == [CONTROL, CONTROL, CONTROL, NORMAL]
    assert found.ids == {"bos": 1, "eos": 2, "pad": 0, "eot": size + 1}
    assert (found.bos, found.eos, found.prefix) == (False, False, False)
    with pytest.raises(BaseModelError, match=rf"the id {size + 1}, but the model has only {size} embeddings"):
        read_vocabulary(tokenizer, size)
    tokenizer.add_tokens([AddedToken("<|wide|>", lstrip=True)])
    with pytest.raises(BaseModelError, match=r"'<\|wide\|>' has lstrip set"):
        read_vocabulary(tokenizer, size + 4)


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason=f"{SHARED}/models is not there (PRONK_TEST_DATA)")
def test_sentencepiece_pieces_keep_the_order_of_their_scores() -> None:
    tokenizer = stories_tokenizer()
    found = read_vocabulary(tokenizer, 512)
    assert (found.model, found.pre, found.prefix, found.bos) == ("llama", "default", True, True)
    assert found.types[:4] == [UNKNOWN, CONTROL, CONTROL, BYTE]
    assert found.types[259] == NORMAL
    joined = [number for number, (_, text) in enumerate(stories_pieces()) if number > 258 and len(text) > 1]
    assert sorted(joined, key=lambda number: -stories_pieces()[number][0]) == sorted(
        joined, key=lambda number: -found.scores[number]
    )


def test_merges_that_come_from_no_scores_are_refused() -> None:
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: number for number, piece in enumerate(["<unk>", "a", "b", "c", "ab", "bc", "abc"])}
    merges = [("ab", "c"), ("b", "c"), ("a", "bc"), ("a", "b")]
    model = models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), unk_token="<unk>")
    with pytest.raises(BaseModelError, match="merges to 'abc' do not stand together"):
        read_vocabulary(tokenizer, 7)


def test_other_kinds_of_tokenizers_are_refused() -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram([("<unk>", 0.0)], unk_id=0)))
    with pytest.raises(BaseModelError, match="of the kind Unigram"):
        read_vocabulary(tokenizer, 1)
