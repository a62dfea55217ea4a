"""Tiny random models of the architectures that `pronk try` knows, saved as their own classes save them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from command_line import Told

TEXTS = [
    "the red house stands by the river", "a small dog runs to the market", "prices rose and people were glad",
    "the winter was long and cold", "she reads a book about the sea", "he sold his old car to a friend",
]  # fmt: skip
ASKED = ["the red house", "a small dog runs to the cold market", "prices"]  # what they are tried on
LETTERS = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
SPREAD = 0.5  # of random weights: large enough that different texts get different answers


def found(told: Told) -> list[dict[str, Any]]:
    """The results of a command that ended well, with --json."""
    assert told.code == 0, told.err
    results: list[dict[str, Any]] = json.loads(told.out)["results"]
    return results


def seeded(kind: Any, config: Any, seed: int = 0) -> Any:
    """A model of random weights."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(config)


def words(folder: Path) -> Path:
    """BERT's vocabulary of the words in TEXTS, letters for all others."""
    known = sorted({word for text in TEXTS for word in text.split()})
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *known,
        *LETTERS,
        *(f"##{letter}" for letter in LETTERS),
        ".",
    ]
    file = folder / "words.txt"
    file.write_text("\n".join(dict.fromkeys(pieces)) + "\n", encoding="utf-8")
    return file


def pieces(folder: Path) -> Path:
    """A SentencePiece model of TEXTS."""
    import sentencepiece

    text = folder / "texts.txt"
    text.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "pieces"), vocab_size=60, model_type="unigram", minloglevel=2,
        bos_id=0, eos_id=1, unk_id=2, hard_vocab_limit=False,
    )  # fmt: skip
    return folder / "pieces.model"


def piece_names(file: Path) -> list[str]:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    return [processor.id_to_piece(number) for number in range(processor.get_piece_size())][3:]


def classifier(folder: Path, labels: list[str], **more: Any) -> Path:
    """A BERT that classifies."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder.mkdir(parents=True)
    tokenizer = BertTokenizer(str(words(folder)))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=32, initializer_range=SPREAD, id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)}, **more,
    )  # fmt: skip
    seeded(BertForSequenceClassification, config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def marian(folder: Path, targets: tuple[str, ...] = ()) -> Path:
    """A Marian model from English to German, or to languages that are named before the text."""
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder.mkdir(parents=True)
    file = pieces(folder)
    names = ["</s>", "<unk>", *piece_names(file), *(f">>{code}<<" for code in targets), "<pad>"]
    vocabulary = folder / "given.json"
    vocabulary.write_text(json.dumps({name: number for number, name in enumerate(names)}), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        tokenizer = MarianTokenizer(
            str(file), str(file), str(vocabulary), source_lang="en", target_lang="mul" if targets else "de"
        )
    pad = tokenizer.pad_token_id
    config = MarianConfig(
        vocab_size=len(names), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, pad_token_id=pad,
        eos_token_id=0, decoder_start_token_id=pad, forced_eos_token_id=0, init_std=SPREAD,
    )  # fmt: skip
    model = seeded(MarianMTModel, config)
    model.generation_config.update(num_beams=3, max_length=24, bad_words_ids=[[pad]])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def m2m100(folder: Path) -> Path:
    """M2M100 with its 100 languages."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

    folder.mkdir(parents=True)
    file = pieces(folder)
    names = ["<s>", "<pad>", "</s>", "<unk>", *piece_names(file)]
    vocabulary = folder / "given.json"
    vocabulary.write_text(json.dumps({name: number for number, name in enumerate(names)}), encoding="utf-8")
    tokenizer = M2M100Tokenizer(str(vocabulary), str(file), src_lang="en", tgt_lang="fr")
    config = M2M100Config(**_sizes(len(names) + 100 + 8))
    _save(seeded(M2M100ForConditionalGeneration, config), folder, tokenizer)
    return folder


def nllb(folder: Path) -> Path:
    """NLLB: a model of M2M100's class, with codes such as fra_Latn."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    folder.mkdir(parents=True)
    names = ["<s>", "<pad>", "</s>", "<unk>", "▁", *LETTERS, *(f"▁{letter}" for letter in LETTERS)]
    merges = [("▁", letter) for letter in LETTERS]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = NllbTokenizer(vocab=vocabulary, merges=merges, src_lang="eng_Latn", tgt_lang="fra_Latn")
    _save(seeded(M2M100ForConditionalGeneration, M2M100Config(**_sizes(len(tokenizer)))), folder, tokenizer)
    return folder


def t5(folder: Path, translates: bool = True) -> Path:
    """T5, whose configuration says what it reads before a text."""
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    folder.mkdir(parents=True)
    names = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -2.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    tokenizer = T5Tokenizer(vocab=names, extra_ids=0)
    tasks = {"translation_en_to_de": {"prefix": "translate English to German: ", "num_beams": 4}}
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0,
        initializer_factor=20.0, task_specific_params=tasks if translates else None,
    )  # fmt: skip
    model = seeded(T5ForConditionalGeneration, config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def opt(folder: Path, tokens: Path) -> Path:
    """A causal model of an architecture that pronk does not write with itself. tokens: a folder with a tokenizer."""
    from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokens)
    tokenizer.chat_template = None
    config = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64,
        max_position_embeddings=256, word_embed_proj_dim=32, init_std=SPREAD,
    )  # fmt: skip
    seeded(OPTForCausalLM, config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def one_of_each(folder: Path) -> Path:
    """All that the tests try, each in a folder of its own."""
    classifier(folder / "mood", ["glad", "sad", "neither"])
    classifier(folder / "topics", ["sea", "money", "cold"], problem_type="multi_label_classification")
    classifier(folder / "stars", ["LABEL_0"])
    classifier(folder / "nli", ["contradiction", "neutral", "ENTAILMENT"])
    marian(folder / "en-de")
    marian(folder / "en-mul", ("fra", "spa"))
    m2m100(folder / "m2m100")
    nllb(folder / "nllb")
    t5(folder / "t5")
    t5(folder / "mute-t5", translates=False)
    return folder


def _sizes(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "init_std": SPREAD,
    }  # fmt: skip


def _save(model: Any, folder: Path, tokenizer: Any) -> None:
    model.generation_config.update(num_beams=4, max_length=20)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
