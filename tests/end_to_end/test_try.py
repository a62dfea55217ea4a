"""`pronk try`: a pretrained model as transformers itself would use it, one text at a time; and what can go wrong."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pretrained_models as models
import pytest
import torch
from command_line import Told

import pronk.ship.try_classify as by_class
import pronk.ship.try_translate as by_language
from pronk.data.labels import default_instruction

Pronk = Callable[..., Told]
TEXTS = ["the red house", "a small dog runs to the cold market", "prices"]
pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of each sort."""
    folder = tmp_path_factory.mktemp("pretrained")
    models.classifier(folder / "mood", ["glad", "sad", "neither"])
    models.classifier(folder / "topics", ["sea", "money", "cold"], problem_type="multi_label_classification")
    models.classifier(folder / "stars", ["LABEL_0"])
    models.classifier(folder / "nli", ["contradiction", "neutral", "ENTAILMENT"])
    models.marian(folder / "en-de")
    models.marian(folder / "en-mul", ("fra", "spa"))
    models.m2m100(folder / "m2m100")
    models.nllb(folder / "nllb")
    models.t5(folder / "t5")
    models.t5(folder / "mute-t5", translates=False)
    return folder


def found(told: Told) -> list[dict[str, Any]]:
    assert told.code == 0, told.err
    results: list[dict[str, Any]] = json.loads(told.out)["results"]
    return results


# --- classify ------------------------------------------------------------------------------------


def pipeline(task: str, folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return pipeline(task, model=model, tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu")


def own_labels_as_the_pipeline(pronk: Pronk, folder: Path) -> None:
    results = found(pronk("try", "classify", "--base", str(folder), *TEXTS, "--json"))
    assert [one["text"] for one in results] == TEXTS
    for one, theirs in zip(results, pipeline("text-classification", folder)(TEXTS, top_k=None), strict=True):
        expected = {label["label"]: label["score"] for label in theirs}
        assert one["probabilities"] == pytest.approx(expected, abs=1e-5)
        assert one["label"] == max(expected, key=lambda label: expected[label])


@pytest.mark.parametrize("name", ["mood", "topics", "stars"])
def test_a_classifier_gives_its_own_labels_as_transformers_pipeline_does(name: str, place: Path, pronk: Pronk) -> None:
    """Labels that exclude each other, several at once, and a value without a scale."""
    if name == "stars":  # the pipeline squashes a single value unless told; ours says that it is none
        with torch.inference_mode():
            classify = pipeline("text-classification", place / name)
            theirs = [one["score"] for one in classify(TEXTS, function_to_apply="none")]
        told = pronk("try", "classify", "--base", str(place / name), *TEXTS, "--json")
        assert [one["probabilities"]["LABEL_0"] for one in found(told)] == pytest.approx(theirs, abs=1e-5)
        assert "no probability" in json.loads(told.out)["how"]
    else:
        own_labels_as_the_pipeline(pronk, place / name)


LABELS = ["sea", "cold", "dog"]


def inferred_as_the_pipeline(pronk: Pronk, place: Path) -> None:
    given = ("--labels", ",".join(LABELS), "--hypothesis", "it is {} .")
    results = found(pronk("try", "classify", "--base", str(place / "nli"), *TEXTS, *given, "--json"))
    oracle = pipeline("zero-shot-classification", place / "nli")
    for one, text in zip(results, TEXTS, strict=True):
        theirs = oracle(text, LABELS, hypothesis_template="it is {} .")
        expected = dict(zip(theirs["labels"], theirs["scores"], strict=True))
        assert one["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_any_labels_by_inference_as_the_zero_shot_pipeline_does(place: Path, pronk: Pronk) -> None:
    inferred_as_the_pipeline(pronk, place)


def test_any_labels_by_a_causal_model_are_their_likelihood_as_answers(
    tiny_base: Path, tmp_path: Path, pronk: Pronk
) -> None:
    """Label and end token in full, after the question as the form writes it, read by pronk or by transformers."""
    likely_as_by_transformers(pronk, tiny_base)
    likely_as_by_transformers(pronk, models.opt(tmp_path / "opt", tiny_base))


ALPACA = (  # Taori et al. 2023
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)


def likely_as_by_transformers(pronk: Pronk, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    results = found(pronk("try", "classify", "--base", str(folder), *TEXTS, "--labels", ", ".join(LABELS), "--json"))
    asked = default_instruction(LABELS)
    for one, text in zip(results, TEXTS, strict=True):
        if tokenizer.chat_template:
            chat = [{"role": "user", "content": f"{asked}\n\n{text}"}]
            ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        else:
            ids = tokenizer(ALPACA.format(instruction=asked, input=text)).input_ids
        scores = []
        for label in LABELS:
            answer = [*tokenizer(label, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
            with torch.inference_mode():
                logits = model(torch.tensor([[*ids, *answer]])).logits[0, len(ids) - 1 : -1]
            log_probabilities = logits.log_softmax(-1)
            scores.append(sum(float(log_probabilities[at, token]) for at, token in enumerate(answer)))
        weights = [math.exp(score - max(scores)) for score in scores]
        expected = {label: weight / sum(weights) for label, weight in zip(LABELS, weights, strict=True)}
        assert one["probabilities"] == pytest.approx(expected, abs=1e-5)


# --- translate -----------------------------------------------------------------------------------

WAYS = {  # options; then what the oracle is told: the text's prefix, the tokenizer's source, the token to begin with
    "en-de": (("--from", "en", "--to", "de"), "", None, None),
    "en-mul": (("--to", "spa"), ">>spa<< ", None, None),
    "m2m100": (("--from", "fr", "--to", "en"), "", "fr", "__en__"),
    "nllb": (("--from", "eng_Latn", "--to", "kor_Hang"), "", "eng_Latn", "kor_Hang"),
    "t5": (("--from", "en", "--to", "de"), "translate English to German: ", None, None),
    "mute-t5": ((), "", None, None),
}
MORE = {"t5": {"num_beams": 4}}  # from its configuration, beside what its generation_config.json says


def translated_alone(folder: Path, name: str, text: str) -> str:
    """One text by transformers' own classes, told what each family's documentation says."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    _, prefix, source, begin = WAYS[name]
    tokenizer = AutoTokenizer.from_pretrained(folder, **({"src_lang": source} if source else {}))
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    more: dict[str, Any] = {**MORE.get(name, {}), **({"max_new_tokens": NEW} if name.endswith("t5") else {})}
    if begin:
        more["forced_bos_token_id"] = tokenizer.convert_tokens_to_ids(begin)
    ids = model.generate(**tokenizer(prefix + text, return_tensors="pt"), **more)[0]
    written: str = tokenizer.decode(ids, skip_special_tokens=True)
    return written.removeprefix(begin or "").strip()


NEW = 12


def translated_as_alone(pronk: Pronk, place: Path, name: str) -> None:
    new = ("--max-new-tokens", str(NEW)) if name.endswith("t5") else ()
    told = pronk("try", "translate", "--base", str(place / name), *WAYS[name][0], *TEXTS, *new, "--json")
    expected = [translated_alone(place / name, name, text) for text in TEXTS]
    assert [one["translation"] for one in found(told)] == expected
    assert [one["text"] for one in found(told)] == TEXTS
    assert told.err == ""


@pytest.mark.parametrize("name", WAYS)
def test_a_batch_is_translated_as_each_text_alone_by_transformers(name: str, place: Path, pronk: Pronk) -> None:
    translated_as_alone(pronk, place, name)


def test_languages_change_what_is_written(place: Path) -> None:
    """So that the oracle sees a language that was not passed on."""
    from transformers import AutoTokenizer

    for name, codes in {"m2m100": ("en", "fr"), "nllb": ("eng_Latn", "fra_Latn")}.items():
        tokenizer = AutoTokenizer.from_pretrained(place / name)
        known = by_language.language_codes(tokenizer)
        assert len(known) > 90
        assert len({known[code] for code in codes}) == 2


# --- generate ------------------------------------------------------------------------------------


def written_by_transformers(folder: Path, *ways: bool) -> list[list[str]]:
    """What stands behind each text, in each way: in the chat form, or as the text goes on."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def written(text: str, chat: bool) -> str:
        ids = tokenizer(text).input_ids
        if chat:
            asked = [{"role": "user", "content": text}]
            ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
        given = torch.tensor([ids])
        ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
        made = model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=NEW, **ends)
        text_behind: str = tokenizer.decode(made[0, len(ids) :], skip_special_tokens=True)
        return text_behind.rstrip("\ufffd")

    return [[written(text, chat) for text in TEXTS] for chat in ways]


@pytest.mark.slow
def test_a_base_writes_as_transformers_does(tiny_base: Path, tmp_path: Path, pronk: Pronk) -> None:
    """In its chat form; and going on with the text, because it was told so or has no such form; and of an architecture
    that pronk leaves to transformers."""
    opt = models.opt(tmp_path / "opt", tiny_base)
    bare = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    (bare / "chat_template.jinja").unlink()
    chat, plain = written_by_transformers(tiny_base, True, False)
    [by_opt] = written_by_transformers(opt, False)
    cases = [(tiny_base, (), chat), (tiny_base, ("--plain",), plain), (bare, (), plain), (opt, (), by_opt)]
    for folder, options, expected in cases:
        new = ("--max-new-tokens", str(NEW), "--json")
        told = pronk("try", "generate", "--base", str(folder), *TEXTS, *options, *new)
        assert told.code == 0, told.err
        assert [one["answer"] for one in json.loads(told.out)["answers"]] == expected
        assert ("has no chat template" in told.err) == (folder in (bare, opt))


# --- texts, and how they are shown ---------------------------------------------------------------


def test_texts_come_from_files_and_pipes(
    place: Path, tmp_path: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_text("\n".join(TEXTS) + "\n\n", encoding="utf-8")
    table = tmp_path / "texts.csv"
    table.write_text("text,more\n" + "".join(f"{text},1\n" for text in TEXTS), encoding="utf-8")
    base = ("try", "classify", "--base", str(place / "mood"), "--json")
    expected = found(pronk(*base, *TEXTS))
    assert found(pronk(*base, "--file", str(lines))) == expected
    assert found(pronk(*base, "--file", str(table))) == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(TEXTS)))
    assert found(pronk(*base)) == expected


def test_what_is_shown_fits_and_steers_no_terminal(place: Path, tmp_path: Path, pronk: Pronk) -> None:
    folder = models.classifier(tmp_path / "hostile", ["\x1b[31mred", "[bold]x[/bold]", *(f"n{i}" for i in range(7))])
    told = pronk("try", "classify", "--base", str(folder), "\x1b[2Jthe [red]red[/red] " + "dog " * 12)
    assert told.code == 0, told.err
    assert "\x1b" not in told.out
    assert "[red]red[/red]" in told.out
    assert "and 4 labels less likely" in told.out
    assert max(map(len, told.out.splitlines())) <= 80
    shown = pronk("try", "translate", "--base", str(place / "en-de"), TEXTS[0])
    assert shown.out.startswith("1. the red house\n  ")


# --- what goes wrong -----------------------------------------------------------------------------

WRONG = {
    ("translate", "mood", "x"): "use `pronk try classify --base",
    ("translate", "smollm2", "x"): "use `pronk try generate --base smollm2`",
    ("generate", "t5", "x"): "use `pronk try translate --base",
    ("generate", "mood", "x"): "use `pronk try classify --base",
    ("classify", "t5", "x"): "use `pronk try translate --base",
    ("classify", "smollm2", "x"): "has no labels of its own; name them: --labels a,b,c",
    ("classify", "mood", "x", "--labels", "a,b"): "the labels that it was trained on (glad, sad, neither)",
    ("classify", "nli", "x", "--labels", "a"): "expected two labels or more",
    ("classify", "nli", "x", "--labels", "a,a"): "'a' is given twice",
    ("classify", "nli", "x", "--labels", "a,b", "--hypothesis", "no place"): "has {} where a label belongs",
    ("classify", "mood", "dog " * 40): "text 1: the text takes 42 tokens",
    ("classify", "mood", "x", "--set", "quantize=nf4"): "only train.device and train.dtype count",
    ("classify", "mood", "x", "--prompt", "chat"): "is not asked in words",
    ("classify", "mood", ""): "text 1: the text is empty",
    ("classify", "mood", "x", "--file", "y.txt"): "give one of the two",
    ("classify", "mood", "--file", "nowhere.txt"): "nowhere.txt: cannot be read (No such file",
    ("translate", "en-de", "x", "--to", "fr"): "translates into de only; write --to de, or leave it out",
    ("translate", "en-de", "x", "--from", "fr"): "translates from en only",
    ("translate", "en-mul", "x"): "knows 2 languages and must be told which, such as fra, spa",
    ("translate", "nllb", "x", "--from", "en", "--to", "fra_Latn"): "near it: eng_Latn",
    ("translate", "nllb", "x", "--from", "eng_Latn", "--to", "fr"): "near it: fra_Latn",
    ("translate", "m2m100", "x", "--to", "fr"): "--from: ",
    ("translate", "t5", "x", "--from", "en", "--to", "ko"): "was trained on --from en --to de",
    ("translate", "mute-t5", "x", "--to", "ko"): "names no languages",
    ("generate", "smollm2", "x", "--plain", "--prompt", "chat"): "contradict each other",
}


@pytest.mark.usefixtures("smollm2")
@pytest.mark.parametrize("case", WRONG, ids=lambda case: " ".join(case)[:60])
def test_what_is_wrong_is_one_message_before_weights_are_read(
    case: tuple[str, ...], place: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (by_class, by_language):
        monkeypatch.setattr(room, "load_pretrained", lambda *_: pytest.fail("weights were read"))
    task, base, *more = case
    named = base if base == "smollm2" else str(place / base)
    told = pronk("try", task, "--base", named, *more)
    assert (told.code, told.out) == (2, "")
    assert WRONG[case] in told.err.replace("\n", "")
    assert "Traceback" not in told.err


def test_a_tokenizer_of_another_model_is_one_message(place: Path, tmp_path: Path, pronk: Pronk) -> None:
    """More ids than the model has embeddings."""
    folder = Path(shutil.copytree(place / "mood", tmp_path / "mixed"))
    (tmp_path / "words").mkdir()
    from transformers import BertTokenizer

    vocabulary = models.words(tmp_path / "words")
    with vocabulary.open("a", encoding="utf-8") as words:
        words.write("\n".join(f"word{i}" for i in range(99)) + "\n")
    BertTokenizer(str(vocabulary)).save_pretrained(folder)
    told = pronk("try", "classify", "--base", str(folder), "word98")
    assert told.code == 2
    assert "the model does not take what its tokenizer gives" in told.err


def test_what_was_tuned_is_asked_by_another_verb(tmp_path: Path, pronk: Pronk) -> None:
    (tmp_path / "recipe.yaml").write_text("base: smollm2\n", encoding="utf-8")
    assert f"`pronk generate {tmp_path}` asks it" in pronk("try", "generate", "--base", str(tmp_path), "x").err


def test_no_text_at_all(place: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert "there is no text: write one" in pronk("try", "classify", "--base", str(place / "mood")).err


def test_pickled_weights_are_refused_with_how_to_convert(place: Path, tmp_path: Path, pronk: Pronk) -> None:
    """By the class that the model is of."""
    for name, kind in {"mood": "AutoModelForSequenceClassification", "en-de": "AutoModelForSeq2SeqLM"}.items():
        folder = Path(shutil.copytree(place / name, tmp_path / name))
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        told = pronk("try", "classify" if name == "mood" else "translate", "--base", str(folder), "x")
        assert told.code == 2
        assert "opening a pickle can run anything" in told.err
        assert f"import {kind} as M" in told.err


def test_a_model_without_the_head_is_refused(place: Path, tmp_path: Path, pronk: Pronk) -> None:
    """transformers would draw one at random, and classify with it."""
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(place / "mood", tmp_path / "headless"))
    file = folder / "model.safetensors"
    save_file({name: one for name, one in load_file(file).items() if "classifier" not in name}, file, {"format": "pt"})
    told = pronk("try", "classify", "--base", str(folder), "x")
    assert told.code == 2
    assert "lacks 2 of the weights" in told.err
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}), encoding="utf-8")
    told = pronk("try", "classify", "--base", str(folder), "x")
    assert "says BertForMaskedLM, which neither writes text, nor classifies, nor translates" in told.err


@pytest.mark.parametrize(("task", "base"), [("classify", "mood"), ("translate", "en-de")])
def test_ctrl_c_keeps_what_is_done(
    task: str, base: str, place: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One text a batch; pressed while the second is read."""
    room = by_class if task == "classify" else by_language
    monkeypatch.setattr(room, "BATCH_TOKENS", 1)
    original, seen = room.load_pretrained, [0]

    def pressing(found: Any) -> Any:
        model = original(found)
        inner = model.forward

        def forward(*args: Any, **options: Any) -> Any:
            seen[0] += 1
            if seen[0] == (2 if task == "classify" else 40):
                os.kill(os.getpid(), signal.SIGINT)
            return inner(*args, **options)

        model.forward = forward
        return model

    monkeypatch.setattr(room, "load_pretrained", pressing)
    told = pronk("try", task, "--base", str(place / base), *TEXTS)
    assert told.code == 130
    assert "of 3 texts are done" in told.err
    assert 0 < sum(text in told.out for text in TEXTS) < 3


# --- planted faults ------------------------------------------------------------------------------


def no_source(patch: pytest.MonkeyPatch) -> None:
    """The tokenizer keeps the language that it was saved with."""
    original = by_language.direction
    patch.setattr(by_language, "direction", lambda *given: replace(original(*given), source=None))


def no_begin(patch: pytest.MonkeyPatch) -> None:
    """Translated into whatever language is likeliest."""
    original = by_language.direction
    patch.setattr(by_language, "direction", lambda *given: replace(original(*given), begin=None))


def no_mask(patch: pytest.MonkeyPatch) -> None:
    """Padding is read as if it were text."""
    from transformers import PreTrainedTokenizerBase

    original = PreTrainedTokenizerBase.pad

    def without(self: Any, *args: Any, **options: Any) -> Any:
        found = original(self, *args, **options)
        if isinstance(found["attention_mask"], torch.Tensor):
            found["attention_mask"] = torch.ones_like(found["attention_mask"])
        return found

    patch.setattr(PreTrainedTokenizerBase, "pad", without)


def contradicts(patch: pytest.MonkeyPatch) -> None:
    """The score of the wrong label of inference."""
    patch.setattr(by_class.ByHead, "entails", property(lambda _: 1, lambda *_: None), raising=False)


FAULTS: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Pronk, Path], None]]] = [
    (no_source, lambda pronk, place: translated_as_alone(pronk, place, "m2m100")),
    (no_begin, lambda pronk, place: translated_as_alone(pronk, place, "nllb")),
    (no_mask, lambda pronk, place: translated_as_alone(pronk, place, "t5")),
    (no_mask, lambda pronk, place: own_labels_as_the_pipeline(pronk, place / "mood")),
    (contradicts, inferred_as_the_pipeline),
]


@pytest.mark.parametrize(("fault", "law"), FAULTS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_planted_fault_shows(
    fault: Callable[..., None], law: Callable[..., None], place: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    law(pronk, place)
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law(pronk, place)
