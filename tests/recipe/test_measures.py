"""The sections exact and forgetting, and what of `evaluate` goes with what."""

from __future__ import annotations

from pathlib import Path

import pytest

from pronk.errors import RecipeError
from pronk.recipe import ANSWERING, read_recipe

DATA = "data: {source: a.jsonl, format: FORMAT}\n"


@pytest.fixture
def read(tmp_path: Path):
    def _read(text: str, *overrides: str, format: str = "pairs"):
        path = tmp_path / "recipe.yaml"
        path.write_text(DATA.replace("FORMAT", format) + text, encoding="utf-8")
        return read_recipe(path, overrides)

    return _read


def test_a_recipe_written_out_reads_the_same(read, tmp_path: Path) -> None:
    for text in ("", "evaluate: [exact, forgetting]\nexact: {compare: number, pattern: '#### (.+)'}\n"):
        recipe = read(text)
        (tmp_path / "again.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        assert read_recipe(tmp_path / "again.yaml") == recipe


def test_the_general_text_lies_beside_the_recipe(read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read("evaluate: [forgetting]\nforgetting: {text: texts/notes.txt}\n")
    assert recipe.forgetting.text == str(tmp_path / "texts" / "notes.txt")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    recipe = read("evaluate: [forgetting]\n", "forgetting.text=notes.jsonl")
    assert recipe.forgetting.text == str(tmp_path / "here" / "notes.jsonl")


@pytest.mark.parametrize("measure", ANSWERING)
def test_what_answers_freely(read, measure: str) -> None:
    assert read(f"evaluate: [{measure}]\nmax_new_tokens: 40\n").max_new_tokens == 40
    with pytest.raises(RecipeError, match=f"evaluate: {measure} needs questions to answer, and rows of the"):
        read(f"evaluate: [{measure}]", format="text")


REFUSED = {
    "exact: evaluate does not measure it; add evaluate: [exact], or leave exact out": "exact: {compare: number}",
    "forgetting: evaluate does not measure it; add evaluate: [forgetting], or leave forgetting out": (
        "evaluate: [likelihood]\nforgetting: {text: a.txt}"
    ),
    "forgetting.text: found '": ("evaluate: [forgetting]\nforgetting: {text: a.csv}"),
    "exact.compare: found 'numbers', expected one of text, number": "evaluate: [exact]\nexact: {compare: numbers}",
    "unknown key exact.regex": "evaluate: [exact]\nexact: {regex: a}",
    "evaluate: a measure appears twice in ['exact', 'exact']": "evaluate: [exact, exact]",
    "evaluate: choice needs data.format: choice, not pairs": "evaluate: [choice]",
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message: str, read) -> None:
    with pytest.raises(RecipeError) as caught:
        read(REFUSED[message])
    assert str(caught.value).split("recipe.yaml: ", 1)[1].startswith(message)
