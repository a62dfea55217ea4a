"""Multiple choice: its columns found, its answer in every way that files write it, and what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reading import message_of, read, real, told

from pronk.data.split import question_key, split_conversations
from pronk.errors import RecipeError
from pronk.recipe import Split
from pronk.recipe.schema import validated

ROW = {"question": "Which is a llama? ", "choices": ["a pronk", "Pako", "a sheep"], "answer": 1}


def only(write: Any, row: dict[str, Any], **keys: Any) -> Any:
    (found,), labels = read(write("a.jsonl", [row]), "choice", **keys)
    assert labels == ()
    return found


FORMS = {
    "listed": ("Which is a llama?\n\nA. a pronk\nB. Pako\nC. a sheep", "Pako", ("a pronk", "Pako", "a sheep")),
    "letters": ("Which is a llama?\n\nA. a pronk\nB. Pako\nC. a sheep", "B", ("A", "B", "C")),
    "unlisted": ("Which is a llama? ", "Pako", ("a pronk", "Pako", "a sheep")),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form, write):
    """The forms of docs/recipe.md, letter by letter."""
    asked, answer, choices = FORMS[form]
    found = only(write, ROW, choices=form)
    assert [(one.role, one.content) for one in found.messages] == [("user", asked), ("assistant", answer)]
    assert found.choices == choices


def test_listed_is_the_usual_form_and_an_instruction_stands_before_it(write):
    assert only(write, ROW) == only(write, ROW, choices="listed")
    found = only(write, ROW, instruction="Answer with a choice.", system="Be brief.")
    assert [one.content for one in found.messages[:2]] == ["Be brief.", "Answer with a choice."]
    assert found.subject == FORMS["listed"][0]


ANSWERS = {"a place": 1, "a place with a point": 1.0, "a letter": "B", "a text": "Pako", "a text in spaces": " Pako "}


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers(kind, write):
    assert only(write, {**ROW, "answer": ANSWERS[kind]}).answer == "Pako"


def test_numbers_are_choices_and_a_number_is_a_place(write):
    assert only(write, {**ROW, "choices": [0, 4, 2.0, 6], "answer": 1}).answer == "4"
    assert only(write, {**ROW, "choices": ["0", "4", "2"], "answer": "2"}).answer == "2"  # a text is a text


def test_arc_writes_texts_and_labels(write):
    row = {"question": "Which?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}
    path = write("arc.jsonl", [row])
    found = read(path, "choice", columns={"answer": "answerKey"})[0][0]
    assert (found.answer, found.choices) == ("y", ("x", "y"))
    assert "format: choice   # a question, its choices and the answer\n  columns: {answer: answerKey}" in message_of(
        path, None
    )


WRONG = {
    "a.jsonl:1: the choices must be a list of texts; found a text": {"choices": "a, b"},
    "a.jsonl:1: there must be 2 to 26 choices; found 1": {"choices": ["a"]},
    "a.jsonl:1: there must be 2 to 26 choices; found 27": {"choices": [str(n) for n in range(27)]},
    "a.jsonl:1: choice 2 must be a text; found null": {"choices": ["a", None]},
    "a.jsonl:1: choice 2 is empty": {"choices": ["a", " "]},
    "a.jsonl:1: choice 1 has half a character (a lone \\ud… escape)": {"choices": ["\ud800", "b"]},
    "a.jsonl:1: the answer 3 is no place among 3 choices; they are counted from 0 to 2": {"answer": 3},
    "a.jsonl:1: the answer -1 is no place among 3 choices; they are counted from 0 to 2": {"answer": -1},
    "a.jsonl:1: the answer 'D' is none of the choices, and no letter from A to C": {"answer": "D"},
    "a.jsonl:1: the answer must be a place, a letter or a text; found true": {"answer": True},
    "a.jsonl:1: the answer must be a place, a letter or a text; found null": {"answer": None},
    "a.jsonl:1: the answer is empty": {"answer": " "},
    "a.jsonl:1: the answer 'A' is one choice's text and another's letter; name a place": {
        "choices": ["B", "A"], "answer": "A",
    },
    "a.jsonl:1: the question is empty": {"question": ""},
    "a.jsonl:1: the choices must be as many texts as labels": {"choices": {"text": ["a", "b"], "label": ["A"]}},
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_wrong_rows(message, write):
    assert message_of(write("a.jsonl", [{**ROW, **WRONG[message]}]), "choice") == message


def test_a_column_that_is_missing(write):
    said = message_of(write("a.jsonl", [{"question": "?", "options": ["a", "b"], "answer": 0}]), "choice")
    assert said == (
        "a.jsonl:1: there is no column 'choices' for choices; the columns are 'question', 'options' and 'answer'; "
        "see data.columns"
    )


# --- real sets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mmlu_test_8x57", "mmlu_dev"])
def test_mmlu_as_it_is(name):
    """mmlu_dev has a question in which two wrong choices are the same."""
    path = real(f"eval/{name}.jsonl")
    found, lines = told(path, None)
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    assert lines == [f"{name}.jsonl: read as choice, from the columns 'question', 'choices' and 'answer'"]
    assert [one.answer for one in found] == [row["choices"][row["answer"]].strip() for row in rows]
    assert {len(one.choices) for one in found} == {4}


def test_gsm8k_is_no_choice():
    assert "format: pairs" in message_of(real("eval/gsm8k_test_300.jsonl"), None)


# --- what hangs on it --------------------------------------------------------------------------


def test_one_question_with_other_choices_asks_something_else(write):
    rows = [ROW, {**ROW, "choices": ["a pronk", "Pako", "no"]}, {**ROW, "answer": 2}]
    found, _ = read(write("a.jsonl", rows), "choice", choices="unlisted")
    assert question_key(found[0]) != question_key(found[1])
    assert question_key(found[0]) == question_key(found[2])  # and another answer to it is a duplicate
    more, _ = read(write("b.jsonl", [{**ROW, "question": f"{n}?"} for n in range(9)]), "choice")
    splits = split_conversations([*more, *found], (), Split(test=3, validation=0))
    assert splits.duplicates_removed == 1
    assert all(item["choices"] == [*row.choices] for item, row in zip(splits.test_items(), splits.test, strict=True))


REFUSED = {
    "data.choices: only the format choice has choices, not pairs": {"data": {"format": "pairs", "choices": "letters"}},
    "data.labels: only the format classify has labels, not choice": {
        "data": {"format": "choice", "labels": ["a", "b"]}
    },
    "evaluate: choice needs data.format: choice, not pairs": {"data": {"format": "pairs"}, "evaluate": ["choice"]},
    "evaluate: classify needs data.format: classify, not choice": {
        "data": {"format": "choice"}, "evaluate": ["classify"],
    },
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_refused_before_anything_is_read(message):
    plain = {**REFUSED[message], "data": {"source": "a.jsonl", **REFUSED[message]["data"]}}
    with pytest.raises(RecipeError) as caught:
        validated(plain, "recipe.yaml")
    assert str(caught.value) == f"recipe.yaml: {message}"


def test_what_is_measured_when_the_recipe_does_not_say():
    assert validated({"data": {"source": "a.jsonl", "format": "choice"}}, "").evaluations == ("likelihood", "choice")
    mixed = {"source": [{"path": "a.jsonl", "format": "choice"}, {"path": "b.jsonl", "format": "pairs"}]}
    assert validated({"data": mixed}, "").evaluations == ("likelihood",)
