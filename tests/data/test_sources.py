"""Rows to conversations: what becomes of a row, and the one message for each thing that can be wrong."""

import pytest
from reading import ROWS, message_of, read

from pronk.data.conversation import Message
from pronk.data.labels import default_instruction

DEFAULT = "Classify the text as negative or positive. Answer with the label alone."


# --- classify ---------------------------------------------------------------------------------------


def test_classify_asks_with_the_default_instruction_and_answers_with_the_label(write):
    conversations, labels = read(write("a.jsonl", ROWS))
    assert labels == ("negative", "positive")
    assert conversations[0].messages == (
        Message("user", DEFAULT, "Sales rose."),
        Message("assistant", "positive"),
    )
    assert [(row.label, row.place) for row in conversations] == [
        ("positive", "a.jsonl:1"),
        ("negative", "a.jsonl:2"),
    ]


def test_default_instruction_enumerates_the_labels():
    assert default_instruction(["negative", "neutral", "positive"]) == (
        "Classify the text as negative, neutral or positive. Answer with the label alone."
    )


def test_own_instruction_and_system_message(write):
    conversations, _ = read(write("a.jsonl", ROWS), instruction="Good or bad?", system="You are a banker.")
    assert conversations[1].question == (
        Message("system", "You are a banker."),
        Message("user", "Good or bad?", "Sales fell."),
    )


@pytest.mark.parametrize("found", [0, "0", " 0 ", 0.0, "negative", "NEGATIVE", " Negative"])
def test_a_label_may_be_the_files_value_or_the_answers_word(write, found):
    path = write("a.jsonl", [{"text": "Sales fell.", "label": found}])
    conversations, labels = read(path, labels={"negative": 0, "positive": 1})
    assert (conversations[0].label, conversations[0].answer) == ("negative", "negative")
    assert labels == ("negative", "positive")


def test_whole_numbers_of_the_recipe_equal_text_in_csv(write):
    conversations, _ = read(write("a.csv", "text,label\nx,1\ny,0\n"), labels={"negative": 0, "positive": 1})
    assert [row.label for row in conversations] == ["positive", "negative"]


def test_labels_keep_the_order_of_the_recipe(write):
    assert read(write("a.jsonl", ROWS), labels=["positive", "negative"])[1] == ("positive", "negative")


def test_the_files_value_wins_over_another_labels_word(write):
    path = write("a.jsonl", [{"text": "x", "label": 1}])
    assert read(path, labels={"1": 0, "2": 1})[0][0].label == "2"


def test_found_labels_are_sorted_as_text(write):
    rows = [{"text": "x", "label": number} for number in (10, 2, 1)]
    assert read(write("a.jsonl", rows))[1] == ("1", "10", "2")


def test_unknown_label_names_line_label_and_labels(write):
    path = write("a.jsonl", [*ROWS, {"text": "x", "label": "postive"}])
    assert message_of(path, labels=["negative", "positive"]) == (
        "a.jsonl:3: the label 'postive' is not one of negative and positive; did you mean 'positive'?"
    )


def test_unknown_label_shows_the_files_values_and_counts_the_other_rows(write):
    path = write("a.csv", "text,label\nx,0\n" + "y,7\n" * 13)
    assert message_of(path, labels={"negative": 0, "positive": 1}) == (
        "a.csv:3: the label '7' is not one of negative (0) and positive (1) (and 12 more rows)"
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "A"], "data.labels: the label 'A' is given twice"),
        ({"a": 0, "b": 0}, "data.labels: the value in the file '0' is given twice"),
        ({"a": 0, "b": "0 "}, "data.labels: the value in the file '0' is given twice"),
        (["a", " "], "data.labels: a label is empty"),
        ({"a": "", "b": 1}, "data.labels: a value in the file is empty"),
    ],
)
def test_labels_of_the_recipe_must_differ(write, labels, message):
    assert message_of(write("a.jsonl", ROWS), labels=labels) == message


def test_one_found_label_is_too_few(write):
    message = message_of(write("a.jsonl", ROWS[:1] * 3))
    assert message.startswith("a.jsonl:1: all 3 rows have the label 'positive'")
    assert "data.labels" in message


def test_a_hundred_found_labels_are_enough_and_one_more_too_many(write):
    rows = [{"text": "x", "label": f"label {number}"} for number in range(101)]
    assert len(read(write("a.jsonl", rows[:100]))[1]) == 100
    message = message_of(write("a.jsonl", rows))
    assert message.startswith("a.jsonl:1: there are 101 different labels, such as 'label 0'; more than 100")
    assert "data.labels" in message


def test_found_labels_that_differ_only_in_case(write):
    message = message_of(write("a.jsonl", [*ROWS, {"text": "x", "label": "Positive"}]))
    assert message.startswith("a.jsonl:1: the label 'positive' and the label 'Positive' (a.jsonl:3) differ only")
    assert "data.labels" in message


# --- alpaca and pairs -------------------------------------------------------------------------------


def test_alpaca_keeps_instruction_and_input_apart(write):
    rows = [
        {"instruction": "Add.", "input": "1 + 1", "output": "2"},
        {"instruction": "Sing.", "input": "", "output": "La."},
        {"instruction": "Sing.", "output": "La."},
        {"instruction": "Sing.", "input": None, "output": "La."},
    ]
    conversations, labels = read(write("a.jsonl", rows), "alpaca", system="Be brief.")
    assert labels == ()
    assert conversations[0].messages == (
        Message("system", "Be brief."),
        Message("user", "Add.", "1 + 1"),
        Message("assistant", "2"),
    )
    assert [row.messages[1] for row in conversations[1:]] == [Message("user", "Sing.")] * 3
    assert {row.label for row in conversations} == {None}


def test_alpaca_csv_may_have_no_input_column(write):
    conversations, _ = read(write("a.csv", "instruction,output\nSing.,La.\n"), "alpaca")
    assert conversations[0].messages == (Message("user", "Sing."), Message("assistant", "La."))


def test_an_input_column_that_the_recipe_names_must_exist(write):
    csv_file = write("a.csv", "instruction,context,output\nSing.,,La.\n")
    assert message_of(csv_file, "alpaca", columns={"input": "contxt"}) == (
        "a.csv:1: there is no column 'contxt' for input; the columns are 'instruction', 'context' "
        "and 'output'; did you mean 'context'?"
    )
    rows = [{"instruction": "Sing.", "output": "La."}, {"instruction": "a", "output": "b", "context": "c"}]
    assert len(read(write("a.jsonl", rows), "alpaca", columns={"input": "context"})[0]) == 2
    message = message_of(write("a.jsonl", rows), "alpaca", columns={"input": "contexts"})
    assert message.startswith("a.jsonl:1: there is no column 'contexts' for input")


def test_pairs_with_and_without_an_instruction(write):
    path = write("a.csv", "prompt,response\nHello,Bonjour\n")
    assert read(path, "pairs")[0][0].messages == (Message("user", "Hello"), Message("assistant", "Bonjour"))
    asked, _ = read(path, "pairs", instruction="Translate.")
    assert asked[0].messages == (Message("user", "Translate.", "Hello"), Message("assistant", "Bonjour"))


def test_texts_are_kept_as_they_are(write):
    conversations, _ = read(write("a.jsonl", [{"prompt": " a\n", "response": "\tb "}]), "pairs")
    assert [message.content for message in conversations[0].messages] == [" a\n", "\tb "]


# --- columns ----------------------------------------------------------------------------------------


def test_columns_rename_fields(write):
    path = write("a.jsonl", [{"sentence": row["text"], "class": row["label"]} for row in ROWS])
    conversations, _ = read(path, columns={"text": "sentence", "label": "class"})
    assert [row.subject for row in conversations] == ["Sales rose.", "Sales fell."]


def test_a_field_that_the_format_does_not_have(write):
    assert message_of(write("a.jsonl", ROWS), columns={"txt": "sentence"}) == (
        "data.columns: the format classify has no field 'txt'; its fields are text and label; did you mean 'text'?"
    )


def test_two_fields_from_one_column(write):
    assert message_of(write("a.jsonl", ROWS), columns={"text": "label"}) == (
        "data.columns: text and label are both read from the column 'label'"
    )


def test_a_column_that_a_jsonl_file_does_not_have(write):
    assert message_of(write("a.jsonl", ROWS), columns={"text": "sentence"}) == (
        "a.jsonl:1: there is no column 'sentence' for text; the columns are 'text' and 'label'; "
        "see data.columns (and 1 more row)"
    )


def test_a_column_that_one_row_does_not_have(write):
    message = message_of(write("a.jsonl", [*ROWS, {"texts": "x", "label": "negative"}]))
    assert message == (
        "a.jsonl:3: there is no column 'text' for text; the columns are 'texts' and 'label'; did you mean 'texts'?"
    )


def test_a_column_that_a_csv_file_does_not_have(write):
    message = message_of(write("a.csv", "Sentence,label\nx,0\ny,1\n"), columns={"text": "sentence"})
    assert message == (
        "a.csv:1: there is no column 'sentence' for text; the columns are 'Sentence' and 'label'; "
        "did you mean 'Sentence'?"
    )


@pytest.mark.parametrize("key", ["instruction", "system"])
def test_empty_texts_of_the_recipe(write, key):
    assert message_of(write("a.jsonl", ROWS), **{key: " "}).startswith(f"data.{key} is empty")


# --- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, "null"),
        (5, "the number 5"),
        (0.5, "the number 0.5"),
        (True, "true"),
        ([], "a list"),
        ({}, "an object"),
    ],
)
@pytest.mark.parametrize(
    ("format", "field", "row"),
    [
        ("classify", "text", {"label": "a"}),
        ("alpaca", "instruction", {"output": "b"}),
        ("alpaca", "output", {"instruction": "a"}),
        ("pairs", "prompt", {"response": "b"}),
        ("pairs", "response", {"prompt": "a"}),
    ],
)
def test_values_must_be_text(write, format, field, row, value, found):
    path = write("a.jsonl", [{**row, field: value}])
    assert message_of(path, format) == f"a.jsonl:1: the {field} must be text; found {found}"


@pytest.mark.parametrize("value", [5, True, [], {}])
def test_an_input_must_be_text_too(write, value):
    path = write("a.jsonl", [{"instruction": "a", "output": "b", "input": value}])
    assert message_of(path, "alpaca").startswith("a.jsonl:1: the input must be text; found ")


@pytest.mark.parametrize(("value", "found"), [(None, "null"), (True, "true"), (0.5, "the number 0.5"), ([0], "a list")])
def test_labels_may_be_whole_numbers_but_nothing_else(write, value, found):
    path = write("a.jsonl", [*ROWS, {"text": "x", "label": value}])
    assert message_of(path) == f"a.jsonl:3: the label must be text; found {found}"


@pytest.mark.parametrize(
    ("format", "row", "field"),
    [
        ("classify", {"text": " ", "label": "a"}, "text"),
        ("classify", {"text": "x", "label": " \n"}, "label"),
        ("alpaca", {"instruction": "", "output": "b"}, "instruction"),
        ("alpaca", {"instruction": "a", "output": ""}, "output"),
        ("pairs", {"prompt": "", "response": "b"}, "prompt"),
        ("pairs", {"prompt": "a", "response": "\t"}, "response"),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_empty_values(write, format, row, field, suffix):
    content = [row] if suffix == ".jsonl" else ",".join(row) + "\n" + ",".join(f'"{v}"' for v in row.values())
    line = 1 if suffix == ".jsonl" else 2
    assert message_of(write("a" + suffix, content), format) == f"a{suffix}:{line}: the {field} is empty"


def test_the_column_is_named_where_it_differs_and_other_rows_are_counted(write):
    rows = [{"prompt": "a", "out": ""}, {"prompt": "a", "out": "b"}, {"prompt": "c", "out": ""}]
    assert message_of(write("a.jsonl", rows), "pairs", columns={"response": "out"}) == (
        "a.jsonl:1: the response (column 'out') is empty (and 1 more row)"
    )


def test_half_a_character(write):
    path = write("a.jsonl", '{"prompt": "\\ud83d", "response": "b"}\n')
    assert message_of(path, "pairs").startswith("a.jsonl:1: the prompt has half a character")
