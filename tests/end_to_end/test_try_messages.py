"""`pronk try`: where texts come from, how results are shown, and what can go wrong, in one message each."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pretrained_models as models
import pytest
from command_line import Told
from pretrained_models import ASKED, found

import pronk.ship.trying.classify as by_class
import pronk.ship.trying.translate as by_language

Pronk = Callable[..., Told]
pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of each sort."""
    return models.one_of_each(tmp_path_factory.mktemp("pretrained"))


# --- texts, and how they are shown ---------------------------------------------------------------


def test_texts_come_from_files_and_pipes(
    place: Path, tmp_path: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_text("\n".join(ASKED) + "\n\n", encoding="utf-8")
    table = tmp_path / "texts.csv"
    table.write_text("text,more\n" + "".join(f"{text},1\n" for text in ASKED), encoding="utf-8")
    base = ("try", "classify", "--base", str(place / "mood"), "--json")
    expected = found(pronk(*base, *ASKED))
    assert found(pronk(*base, "--file", str(lines))) == expected
    assert found(pronk(*base, "--file", str(table))) == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(ASKED)))
    assert found(pronk(*base)) == expected


def test_what_is_shown_fits_and_steers_no_terminal(place: Path, tmp_path: Path, pronk: Pronk) -> None:
    folder = models.classifier(tmp_path / "hostile", ["\x1b[31mred", "[bold]x[/bold]", *(f"n{i}" for i in range(7))])
    told = pronk("try", "classify", "--base", str(folder), "\x1b[2Jthe [red]red[/red] " + "dog " * 12)
    assert told.code == 0, told.err
    assert "\x1b" not in told.out
    assert "[red]red[/red]" in told.out
    assert "and 4 labels less likely" in told.out
    assert max(map(len, told.out.splitlines())) <= 80
    shown = pronk("try", "translate", "--base", str(place / "en-de"), ASKED[0])
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
    told = pronk("try", task, "--base", str(place / base), *ASKED)
    assert told.code == 130
    assert "of 3 texts are done" in told.err
    assert 0 < sum(text in told.out for text in ASKED) < 3
