"""The format found from the columns: taken where nothing else fits, asked for where something does."""

import pytest
from reading import message_of, read, told

from pronk.data.detect import with_found_formats
from pronk.errors import RecipeError
from pronk.recipe import Data, Recipe

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
FOUND = {
    "classify": ({"text": "x", "label": "a", "id": 5}, "classify", "columns 'text' and 'label'"),
    "alpaca": (
        {"instruction": "x", "input": "", "output": "y"},
        "alpaca",
        "columns 'instruction', 'input' and 'output'",
    ),
    "alpaca without input": ({"instruction": "x", "output": "y"}, "alpaca", "columns 'instruction' and 'output'"),
    "alpaca with its prompt as text": (
        {"instruction": "x", "input": "", "output": "y", "text": "x y"},
        "alpaca",
        "columns 'instruction', 'input' and 'output'",
    ),
    "pairs": ({"prompt": "x", "response": "y"}, "pairs", "columns 'prompt' and 'response'"),
    "messages": ({"messages": TURNS, "prompt": "a"}, "messages", "column 'messages'"),
    "sharegpt": ({"conversations": SHAREGPT}, "sharegpt", "column 'conversations'"),
    "OpenAI's turns under ShareGPT's name": ({"conversations": TURNS}, "messages", "column 'conversations'"),
    "turns under a name of their own": ({"id": 1, "dialog": SHAREGPT}, "sharegpt", "column 'dialog'"),
    "text": ({"text": "x"}, "text", "column 'text'"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_found_and_told(write, case):
    row, format, columns = FOUND[case]
    rows = [row, {**row, "label": "b"}] if format == "classify" else [row]
    conversations, lines = told(write("a.jsonl", rows), None)
    assert lines == [f"a.jsonl: read as {format}, from the {columns}"]
    field = columns.rsplit("'", 2)[1]
    named = {"messages": field} if format == "messages" else {"conversations": field} if format == "sharegpt" else {}
    assert conversations == read(write("a.jsonl", rows), format, columns=named)[0]


def test_the_recipes_columns_count(write):
    path = write("a.csv", "sentence,mood,body\nx,a,b\ny,b,c\n")
    assert len(read(path, None, columns={"text": "sentence", "label": "mood"})[1]) == 2
    assert read(path, None, columns={"text": "body"})[0][0].answer == "b"
    assert read(path, None, columns={"prompt": "body", "response": "mood"})[0][0].answer == "a"


def test_labels_and_instruction_decide(write):
    path = write("a.csv", "text,label,prompt,response\nx,a,p,r\ny,b,p,r\n")
    assert read(path, None, labels=["a", "b"])[1] == ("a", "b")
    both = "a.csv can be read in more than one way: its columns are 'text', 'label', 'prompt' and 'response'"
    assert message_of(path, None) == (
        f"{both}; write one of these under data: in the recipe\n"
        "  format: classify   # a text and its label\n  format: pairs   # a prompt and its response"
    )
    alpaca = write("b.csv", "instruction,output,prompt,response\ni,o,p,r\n")
    assert "more than one way" in message_of(alpaca, None)
    assert read(alpaca, None, instruction="Do.")[0][0].answer == "r"


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        (
            "sentence,sentiment",
            "  format: classify   # a text and its label\n  columns: {text: sentence, label: sentiment}\n"
            "  format: text   # plain text to go on with\n  columns: {text: sentence}",
        ),
        (
            "Document,SUMMARY",
            "  format: pairs   # a prompt and its response\n  columns: {prompt: Document, response: SUMMARY}\n"
            "  format: text   # plain text to go on with\n  columns: {text: Document}",
        ),
        ("text,url", "  format: text   # plain text to go on with"),
        ("a,b", "  columns: {text: COLUMN, label: COLUMN}\n"),
    ],
)
def test_a_question_with_the_lines_to_write(write, header, lines):
    message = message_of(write("a.csv", f"{header}\nx,y\n"), None)
    assert message.startswith("a.csv does not say which format it has: its columns are '")
    assert lines in message


def test_the_lines_of_a_question_can_be_written(write):
    path = write("a.csv", "sentence,sentiment\nx,a\ny,b\n")
    import yaml

    offer = message_of(path, None).split("\n", 1)[1].split("  format: text")[0]
    assert len(read(path, **yaml.safe_load(offer))[1]) == 2


def test_each_source_by_itself(write):
    sources = [write("a.jsonl", [{"messages": TURNS}]), write("b.jsonl", [{"dialog": SHAREGPT}])]
    (first, second), lines = told(sources, None)
    assert first.messages == second.messages
    assert len(lines) == 2
    mixed = [*sources, write("c.csv", "text,label\nx,a\ny,b\n")]
    with pytest.raises(RecipeError, match="rows to classify and rows of the format messages cannot be mixed"):
        read(mixed, None)


def test_a_source_may_have_a_format_and_columns_of_its_own(write):
    pairs = write("b.csv", "q,a\nHi,Hello\n")
    sources = [
        write("a.jsonl", [{"messages": TURNS}]),
        {"path": pairs, "format": "pairs", "columns": {"prompt": "q", "response": "a"}},
    ]
    assert [row.answer for row in read(sources, None)[0]] == ["b", "Hello"]
    assert [row.answer for row in read(sources, "messages")[0]] == ["b", "Hello"]


def test_no_rows_to_find_a_format_in(write):
    path = write("a.jsonl", "")
    assert message_of(path, None) == f"{path}: the file has no rows"


# --- what hangs on the format -----------------------------------------------------------------------


def found(path, **recipe):
    return with_found_formats(Recipe(data=Data(source=path), **recipe))


def test_what_hangs_on_the_format_is_settled_once_it_is_found(write):
    labelled = found(write("a.csv", "text,label\nx,a\ny,b\n"))
    assert (labelled.data.format, labelled.evaluations) == ("classify", ("likelihood", "classify"))
    assert found(write("b.csv", "prompt,response\na,b\n")).evaluations == ("likelihood",)


def test_a_found_format_must_go_with_the_rest_of_the_recipe(write):
    path = write("a.csv", "prompt,response\na,b\n")
    with pytest.raises(RecipeError) as caught:
        found(path, evaluate=["classify"])
    assert str(caught.value) == (
        "with the format pairs, found from the columns: evaluate: classify needs data.format: classify, not pairs"
    )
    assert found(write("b.csv", "text,label\nx,a\ny,b\n"), evaluate=["classify"]).evaluations == ("classify",)
