"""`pronk try` on a GPU: the same labels and translations as on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pronk.data.questions import Question
from pronk.ship.trying.classify import classify
from pronk.ship.trying.translate import translate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]
TEXTS = [Question(text, "", text) for text in ("a b c", "c a b a b c a b", "b")]
CPU, GPU = ["train.device=cpu", "train.dtype=fp32"], ["train.device=cuda", "train.dtype=fp32"]


def test_labels_are_those_of_the_cpu(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    (tmp_path / "words.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n")
    tokenizer = BertTokenizer(str(tmp_path / "words.txt"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.5, num_labels=3, **sizes)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = [classify(str(tmp_path), TEXTS, None, None, None, where, Console(stderr=True)) for where in (CPU, GPU)]
    for one, other in zip(found[0].results, found[1].results, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-3)


def test_translations_are_those_of_the_cpu(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    letters = [("▁", -2.0), *((letter, -3.0) for letter in "abcdefghij")]
    tokenizer = T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -2.0), *letters], extra_ids=0)
    torch.manual_seed(1)  # of others, some end at once
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0,
        initializer_factor=20.0,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    said = [translate(str(tmp_path), TEXTS, None, None, 12, where, Console(stderr=True)) for where in (CPU, GPU)]
    assert [one.text for one in said[0].results] == [one.text for one in said[1].results]
    assert json.dumps([one.text for one in said[1].results]) != '["", "", ""]'
