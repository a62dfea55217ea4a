"""`pronk try`: a pretrained model as transformers itself would use it, one text at a time; and what can go wrong."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pretrained_models as models
import pytest
import torch
from command_line import Told
from pretrained_models import ASKED, found

import pronk.ship.trying.classify as by_class
import pronk.ship.trying.translate as by_language
from pronk.data.labels import default_instruction

Pronk = Callable[..., Told]
pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of each sort."""
    return models.one_of_each(tmp_path_factory.mktemp("pretrained"))


# --- classify ------------------------------------------------------------------------------------


def pipeline(task: str, folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return pipeline(task, model=model, tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu")


def own_labels_as_the_pipeline(pronk: Pronk, folder: Path) -> None:
    results = found(pronk("try", "classify", "--base", str(folder), *ASKED, "--json"))
    assert [one["text"] for one in results] == ASKED
    for one, theirs in zip(results, pipeline("text-classification", folder)(ASKED, top_k=None), strict=True):
        expected = {label["label"]: label["score"] for label in theirs}
        assert one["probabilities"] == pytest.approx(expected, abs=1e-5)
        assert one["label"] == max(expected, key=lambda label: expected[label])


@pytest.mark.parametrize("name", ["mood", "topics", "stars"])
def test_a_classifier_gives_its_own_labels_as_transformers_pipeline_does(name: str, place: Path, pronk: Pronk) -> None:
    """Labels that exclude each other, several at once, and a value without a scale."""
    if name == "stars":  # the pipeline squashes a single value unless told; ours says that it is none
        with torch.inference_mode():
            classify = pipeline("text-classification", place / name)
            theirs = [one["score"] for one in classify(ASKED, function_to_apply="none")]
        told = pronk("try", "classify", "--base", str(place / name), *ASKED, "--json")
        assert [one["probabilities"]["LABEL_0"] for one in found(told)] == pytest.approx(theirs, abs=1e-5)
        assert "no probability" in json.loads(told.out)["how"]
    else:
        own_labels_as_the_pipeline(pronk, place / name)


LABELS = ["sea", "cold", "dog"]


def inferred_as_the_pipeline(pronk: Pronk, place: Path) -> None:
    given = ("--labels", ",".join(LABELS), "--hypothesis", "it is {} .")
    results = found(pronk("try", "classify", "--base", str(place / "nli"), *ASKED, *given, "--json"))
    oracle = pipeline("zero-shot-classification", place / "nli")
    for one, text in zip(results, ASKED, strict=True):
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
    results = found(pronk("try", "classify", "--base", str(folder), *ASKED, "--labels", ", ".join(LABELS), "--json"))
    asked = default_instruction(LABELS)
    for one, text in zip(results, ASKED, strict=True):
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
    told = pronk("try", "translate", "--base", str(place / name), *WAYS[name][0], *ASKED, *new, "--json")
    expected = [translated_alone(place / name, name, text) for text in ASKED]
    assert [one["translation"] for one in found(told)] == expected
    assert [one["text"] for one in found(told)] == ASKED
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

    return [[written(text, chat) for text in ASKED] for chat in ways]


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
        told = pronk("try", "generate", "--base", str(folder), *ASKED, *options, *new)
        assert told.code == 0, told.err
        assert [one["answer"] for one in json.loads(told.out)["answers"]] == expected
        assert ("has no chat template" in told.err) == (folder in (bare, opt))


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
