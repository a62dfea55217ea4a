"""The condition on rows: it agrees with Python on what both know, and refuses all that is no comparison."""

import operator
import random

import pytest
from reading import message_of, read, told

import pronk.data.where as where_module
from pronk.data.rows import Problems, Row
from pronk.data.where import Where
from pronk.errors import DataError

ROWS = [
    {"text": text, "size": size, "done": done, "note": note, "tags": tags}
    for text, size, done, note, tags in [
        ("rise", 3, True, None, ["a", "b"]),
        ("", -1, False, "x", []),
        ("fall fast", 0, True, "", ["b"]),
        ("Ölpreis", 12.5, False, None, ["a"]),
        ("a" * 50, 7, True, "rise", ["c", "a"]),
    ]
]


def kept(text, rows=ROWS):
    problems, where = Problems(), Where(text)
    found = [row for number, row in enumerate(rows) if where.keeps(Row(row, f"row {number}"), problems)]
    problems.raise_first()
    return found


def expression(generator, depth=3):
    """A random condition, in the words that Python and `where` have in common."""
    if depth and generator.random() < 0.6:
        a, b = expression(generator, depth - 1), expression(generator, depth - 1)
        return generator.choice([f"({a} and {b})", f"({a} or {b})", f"not ({a})"])
    text = generator.choice(["'rise'", "''", "'Ölpreis'", "'a'", "text"])
    number = generator.choice(["0", "3", "-1", "12.5", "size", "len(text)", "len(tags)"])
    return generator.choice(
        [
            f"text {generator.choice(['==', '!=', '<', '<=', '>', '>='])} {text}",
            f"size {generator.choice(['==', '!=', '<', '<=', '>', '>='])} {number}",
            f"-1 <= size < {number}",
            f"{text} {generator.choice(['in', 'not in'])} text",
            f"'a' {generator.choice(['in', 'not in'])} tags",
            f"text in ['rise', {text}, 'zzz']",
            f"size not in (0, 3, {number})",
            generator.choice(
                ["note", "done", "text", "tags", "size", f"note == {text}", "done == True", "note != None"]
            ),
        ]
    )


def disagreements(count=500):
    """Conditions on which Python keeps other rows than we do."""
    generator = random.Random(0)
    conditions = [expression(generator) for _ in range(count)]
    return [
        condition
        for condition in conditions
        if kept(condition) != [row for row in ROWS if eval(condition, {"len": len, **row})]  # our own text, in a test
    ]


def test_agrees_with_python():
    assert disagreements() == []


LESS = dict.fromkeys(where_module.ORDERINGS, operator.lt)
FAULTS = {
    "== is always true": ("_equal", lambda *_: True),
    "in finds nothing": ("_contained", lambda *_: False),
    "< <= > >= are one": ("ORDERINGS", LESS),
    "everything is one letter long": ("_length", lambda _: 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_would_be_seen(monkeypatch, fault):
    monkeypatch.setattr(where_module, *FAULTS[fault])
    assert disagreements()


def test_functions_and_words_that_python_does_not_have():
    assert kept("lower(text) == 'ölpreis'") == [ROWS[3]]
    assert kept("note == null and done == true") == [ROWS[0]]
    assert kept("number(size) > 7") == [ROWS[3]]
    assert kept("column('a b') == 'x'", [{"a b": "x"}, {"a b": "y"}]) == [{"a b": "x"}]
    assert kept("number(score) >= 0.5", [{"score": "0.7"}, {"score": " .2"}]) == [{"score": "0.7"}]
    assert kept("text ==\n 'rise'\n") == [ROWS[0]]


def test_an_absent_value_is_null():
    rows = [{"a": 1, "b": 2}, {"a": 1}, {"a": 1, "b": None}]
    assert kept("b == null", rows) == rows[1:]
    assert kept("not b", rows) == rows[1:]
    assert kept("b and b > 1", rows) == rows[:1]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("__import__('os').system('x')", "is not a function that is here at character 1"),
        ("text.__class__", "text.__class__ is not allowed at character 1"),
        ("text == open('x')", "open() is not a function that is here at character 9"),
        ("tags[0] == 'a'", "tags[0] is not allowed at character 1"),
        ("size ** 9 ** 9 ** 9 > 1", "size ** 9 ** 9 ** 9 is not allowed at character 1"),
        ("size + 1 > 1", "size + 1 is not allowed"),
        ("[t for t in tags]", "is not allowed at character 1"),
        ("(lambda: 1)()", "is not a function that is here"),
        ("f'{text}' == 'a'", "is not allowed at character 1"),
        ("(a := 1) == 1", "is not allowed"),
        ("b'a' == text", "b'a' is not allowed at character 1"),
        ("text is 'a'", "`is` is not allowed (write == or !=) at character 1"),
        ("'ö' == text and {1}", "{1} is not allowed at character 17"),
        ("len(text, note) > 1", "len() takes one value at character 1"),
        ("len(*tags) > 1", "*tags is not allowed"),
        ("column(text) == 'a'", "column() takes a column's name in quotation marks at character 1"),
        ("text = 'a'", "is not a condition at character 6: invalid syntax"),
        ("text == 'a' &&", "is not a condition at character "),
        ("text == 'a", "is not a condition at character 9"),
        ("import os", "is not a condition"),
        ("(" * 500, "is not a condition"),
        ("not " * 499 + "x y", "is not a condition"),
        ("text == '\0'", "is not a condition"),
        ("x" * 2001, "has 2,001 letters; 2,000 are the most"),
        (" ", "is empty"),
    ],
)
def test_what_is_refused_with_its_position(text, what):
    with pytest.raises(DataError) as caught:
        Where(text)
    message = str(caught.value)
    assert message.startswith("data.where")
    assert what in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size == '3'", "row 0: data.where: size == '3': the number 3 is compared with the text '3' ('1' is a text"),
        ("text < 3", "row 0: data.where: text < 3: the text 'rise' is compared with the number 3"),
        ("done == 1", "row 0: data.where: done == 1: true is compared with the number 1"),
        ("len(note) > 1", "row 0: data.where: len(note): only texts and lists have a length, not null; where a value"),
        (
            "note > 'a'",
            "row 0: data.where: note > 'a': null is compared with the text 'a'; where a value may be missing",
        ),
        (
            "size in ['3', '4']",
            "row 0: data.where: size in ['3', '4']: the number 3 is looked for in a list of the text",
        ),
        ("'a' in size", "row 0: data.where: 'a' in size: the text 'a' is looked for in the number 3; only texts"),
        ("number(text) > 1", "row 0: data.where: number(text): the text 'rise' is no number (and 4 more rows)"),
        ("lower(size) == 'a'", "row 0: data.where: lower(size): only texts can be lowered, not the number 3"),
    ],
)
def test_what_cannot_be_compared_names_the_row(text, message):
    with pytest.raises(DataError) as caught:
        kept(text)
    assert str(caught.value).startswith(message)


# --- as a key of the recipe -------------------------------------------------------------------------

PAIRS = [{"prompt": f"p{n}", "response": "r", "lang": "ko" if n % 3 else "en"} for n in range(9)]


def test_rows_are_kept_and_counted(write):
    conversations, lines = told(write("a.jsonl", PAIRS), "pairs", where="lang == 'en'")
    assert [row.place for row in conversations] == ["a.jsonl:1", "a.jsonl:4", "a.jsonl:7"]
    assert lines == ["""a.jsonl: "lang == 'en'" keeps 3 of 9 rows"""]


def test_rows_that_are_left_out_need_not_be_right(write):
    rows = [*PAIRS, {"prompt": "", "response": None, "lang": "xx"}]
    assert len(read(write("a.jsonl", rows), "pairs", where="lang != 'xx'")[0]) == 9


def test_no_row_is_left(write):
    assert message_of(write("a.jsonl", PAIRS), "pairs", where="lang == 'fr'") == (
        "data.where: \"lang == 'fr'\" keeps none of the 9 rows of a.jsonl"
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_an_unknown_column(write, name):
    content = PAIRS if name == "a.jsonl" else "prompt,response,lang\na,b,c\n"
    assert message_of(write(name, content), "pairs", where="langs == 'en'") == (
        f"{name}:1: data.where: there is no column 'langs'; the columns are 'prompt', 'response' and 'lang'; "
        "did you mean 'lang'?"
    )
    assert "(a text stands in quotation marks: 'qqq')" in message_of(write(name, content), "pairs", where="qqq == lang")


def test_a_column_that_only_later_rows_have(write):
    rows = [{"prompt": "a", "response": "b"}, {"prompt": "a", "response": "b", "input": "c"}]
    assert len(read(write("a.jsonl", rows), "pairs", where="not input")[0]) == 1
