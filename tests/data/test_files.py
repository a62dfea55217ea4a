"""Files to rows: every kind, every place, and the one message for each file that cannot be read."""

import json

import pytest
from reading import ROWS, message_of, read

# --- files ------------------------------------------------------------------------------------------


def test_several_files_of_both_kinds_in_order(write):
    paths = [write("b.jsonl", ROWS), write("a.csv", "label,text\nnegative,x\n")]
    conversations, _ = read(paths)
    assert [row.place for row in conversations] == ["b.jsonl:1", "b.jsonl:2", "a.csv:2"]


def test_files_of_one_name_are_told_apart(write, tmp_path):
    (tmp_path / "more").mkdir()
    paths = [write("a.jsonl", ROWS), write("more/a.jsonl", ROWS)]
    assert [row.place for row in read(paths)[0]] == [f"{path}:{line}" for path in paths for line in (1, 2)]


def test_suffixes_in_capitals(write):
    assert read(write("A.JSONL", ROWS))[0][1].place == "A.JSONL:2"
    assert read(write("A.CSV", "text,label\nx,a\ny,b\n"))[0][1].place == "A.CSV:3"


def test_other_suffixes(write, tmp_path):
    path = write("a.xlsx", b"PK")
    assert message_of(path) == (
        f"{path}: a file ending in .xlsx cannot be read; give a file ending in .jsonl, .json, .csv or .parquet, "
        "or a hub data set (owner/name)"
    )
    assert "a file without an ending cannot be read" in message_of(str(tmp_path / "phrasebank"))


def test_no_file_at_all():
    assert message_of([]) == "data.source names no file"


def test_a_missing_file(write, tmp_path):
    write("train.jsonl", ROWS)
    path = str(tmp_path / "tran.jsonl")
    assert message_of(path) == f"{path}: there is no such file; did you mean 'train.jsonl'?"
    path = str(tmp_path / "nowhere" / "a.jsonl")
    assert message_of(path) == f"{path}: there is no such file"


@pytest.mark.parametrize("name", ["folder", "folder.jsonl"])
def test_a_folder(tmp_path, name):
    (tmp_path / name).mkdir()
    assert "this is a folder" in message_of(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", ""), ("a.jsonl", "\n \n"), ("a.csv", ""), ("a.csv", "text,label\n")]
)
def test_an_empty_file(write, name, content):
    path = write(name, content)
    assert message_of([write("good.jsonl", ROWS), path]) == f"{path}: the file has no rows"


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_bytes_that_are_not_utf8(write, name):
    path = write(name, b"{}\nsecond\n" + "Nestlé\n".encode("latin-1"))
    assert message_of(path) == (f"{path}:3: the byte 0xe9 at offset 15 is not UTF-8 text; save the file as UTF-8")


def test_utf16_is_recognised(write):
    assert "(it looks like UTF-16); save the file as UTF-8" in message_of(
        write("a.csv", "text,label\n".encode("utf-16"))
    )


def test_a_byte_order_mark_is_accepted(write):
    jsonl = "".join(json.dumps(row) + "\n" for row in ROWS).encode("utf-8-sig")
    assert read(write("a.jsonl", jsonl))[0][0].place == "a.jsonl:1"
    assert len(read(write("a.csv", "text,label\nx,a\ny,b\n".encode("utf-8-sig")))[0]) == 2


def test_an_offset_counts_the_byte_order_mark(write):
    path = write("a.csv", b"\xef\xbb\xbfab\xff")
    assert f"{path}:1: the byte 0xff at offset 5 " in message_of(path)


# --- JSON lines -------------------------------------------------------------------------------------


def test_blank_lines_are_skipped_and_counted(write):
    lines = "\n\r\n".join(json.dumps(row) for row in ROWS)
    assert [row.place for row in read(write("a.jsonl", f"\n{lines}\n\n"))[0]] == ["a.jsonl:2", "a.jsonl:4"]


def test_unicode_line_separators_do_not_end_a_line(write):
    row = '{"prompt": "a\u2028b\x85c", "response": "d"}'
    assert read(write("a.jsonl", row), "pairs")[0][0].subject == "a\u2028b\x85c"


def test_broken_json(write):
    path = write("a.jsonl", json.dumps(ROWS[0]) + '\n{"text": "x" "label": 1}\n{"text": \n')
    assert message_of(path) == ("a.jsonl:2: broken JSON: Expecting ',' delimiter at column 14 (and 1 more line)")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": NaN}', "broken JSON: NaN is not a JSON value"),
        ('{"text": -Infinity}', "broken JSON: -Infinity is not a JSON value"),
        ('{"text": ' + "9" * 5000 + "}", "broken JSON: Exceeds the limit"),
        ('{"text": ' + "[" * 100_000, "broken JSON: brackets are nested too deeply"),
        ('"text"', "expected a JSON object, found a text"),
        ("[1, 2]", "expected a JSON object, found a list"),
        ("null", "expected a JSON object, found null"),
    ],
)
def test_lines_that_are_no_row(write, line, problem):
    message = message_of(write("a.jsonl", json.dumps(ROWS[0]) + f"\n\n{line}\n"))
    assert message.startswith(f"a.jsonl:3: {problem}")


def test_a_json_list_in_a_jsonl_file(write):
    message = message_of(write("a.jsonl", json.dumps(ROWS, indent=2)))
    assert (
        message == "a.jsonl:1: a .jsonl file has one JSON object on each line; this one is a JSON list (name it .json)"
    )


# --- CSV --------------------------------------------------------------------------------------------


def test_csv_lines_are_those_of_the_file_after_quoted_newlines(write):
    path = write("a.csv", 'text,label\n"one\ntwo\n\nthree",a\n\nplain,b\r\n"say ""hi"", now",a\n')
    conversations, _ = read(path)
    assert [row.place for row in conversations] == ["a.csv:2", "a.csv:7", "a.csv:8"]
    assert [row.subject for row in conversations] == ["one\ntwo\n\nthree", "plain", 'say "hi", now']


@pytest.mark.parametrize(("row", "count"), [("x,y,a", 3), ("x", 1)])
def test_csv_rows_with_another_number_of_fields(write, row, count):
    path = write("a.csv", f'text,label\n"x\ny",a\n{row}\n{row}\nx,b\n')
    assert message_of(path) == (f"a.csv:4: the header has 2 columns, but this row has {count} (and 1 more row)")


def test_csv_with_two_columns_of_one_name(write):
    assert message_of(write("a.csv", "text,label,text\nx,a,y\n")) == ("a.csv:1: two columns have the name 'text'")


def test_csv_separated_by_something_else(write):
    assert message_of(write("a.csv", "text;label\nx, and y;a\n")) == (
        "a.csv:1: no comma in 'text;label'; the columns of a .csv file are separated by commas"
    )


@pytest.mark.parametrize("row", ['"never closed,a\nx,b\n', '"one" two,a\nx,b\n'])
def test_csv_with_broken_quotes_names_the_line_where_the_row_starts(write, row):
    message = message_of(write("a.csv", f"text,label\nx,a\n{row}"))
    assert message.startswith("a.csv:3: broken CSV: ")
    assert "quotation mark" in message


# --- JSON and Parquet -------------------------------------------------------------------------------

MIXED = [
    {"prompt": 'a\nb, "c"', "response": "Größe"},
    {"prompt": " kept ", "response": "a\u2028b"},
    {"prompt": "한국어", "response": "yes"},
]


def written(rows, name, folder):
    """A file written by the `datasets` library, which knows nothing of ours."""
    from datasets import Dataset

    path = str(folder / name)
    dataset = Dataset.from_list(rows)
    {".jsonl": dataset.to_json, ".csv": dataset.to_csv, ".parquet": dataset.to_parquet}.get(
        path[path.rindex(".") :], lambda path: dataset.to_json(path, lines=False)
    )(path)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_the_same_rows_from_every_kind_of_file(tmp_path, name):
    conversations, _ = read(written(MIXED, name, tmp_path), "pairs")
    assert [[turn.content for turn in row.messages] for row in conversations] == [list(row.values()) for row in MIXED]


@pytest.mark.parametrize("name", ["a.json", "a.parquet"])
def test_rows_of_json_and_parquet_are_numbered(tmp_path, name):
    rows = [*MIXED, {"prompt": "", "response": "b"}, {"prompt": "", "response": "c"}]
    assert message_of(written(rows, name, tmp_path), "pairs") == f"{name}, row 4: the prompt is empty (and 1 more row)"


def test_parquet_in_many_pieces(tmp_path):
    rows = [{"prompt": f"p{n}", "response": f"r{n}"} for n in range(2503)]
    conversations, _ = read(written(rows, "a.parquet", tmp_path), "pairs")
    assert [row.answer for row in conversations] == [row["response"] for row in rows]
    assert conversations[-1].place == "a.parquet, row 2503"


def test_a_json_object_with_one_list(write):
    assert len(read(write("a.json", json.dumps({"version": 1, "data": ROWS})))[0]) == 2


def test_json_lines_in_a_json_file(write):
    assert [row.place for row in read(write("a.json", ROWS))[0]] == ["a.json:1", "a.json:2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "a.json: a .json file is a list of objects, or an object with one list; this object has none"),
        (
            '{"train": [], "test": []}',
            "a.json: a .json file is a list of objects, or an object with one list; "
            "this object has 2 ('train' and 'test')",
        ),
        ("5", "a.json: a .json file is a list of objects; this one is the number 5"),
        ('[\n{"text": "a",\n', "a.json:3: broken JSON: "),
        ("[" * 100_000, "a.json: broken JSON: brackets are nested too deeply"),
        ('[{"text": "a", "label": "b"}, 5]', "a.json, row 2: expected a JSON object, found the number 5"),
        ('{"text": NaN}', "a.json: broken JSON: NaN is not a JSON value"),
    ],
)
def test_json_files_that_are_no_table(write, content, message):
    assert message_of(write("a.json", content)).startswith(message)


@pytest.mark.parametrize("content", ["", " \n", "[]", '{"data": []}'])
def test_an_empty_json_file(write, content):
    path = write("a.json", content)
    assert message_of(path) == f"{path}: the file has no rows"


def test_parquet_without_rows_and_without_a_column(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    assert message_of(path, "text") == f"{path}: the file has no rows"
    assert message_of(path, "classify").startswith("a.parquet: there is no column 'label' for label; the columns are")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text,label\n" * 40])
def test_a_file_that_is_no_parquet(write, content):
    assert message_of(write("a.parquet", content)).startswith("a.parquet: not a readable Parquet file (")


def test_a_damaged_parquet_file(tmp_path):
    from pathlib import Path

    path = Path(written([{"prompt": f"{n} {n * n}", "response": "x"} for n in range(5000)], "a.parquet", tmp_path))
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    assert message_of(str(path), "pairs").startswith("a.parquet: the Parquet file is damaged (")


def labelled_parquet(folder):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["negative", "positive"])})
    path = str(folder / "a.parquet")
    Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]}, features=features).to_parquet(path)
    return path


@pytest.mark.parametrize("labels", [None, ["negative", "positive"], {"negative": 0, "positive": 1}])
def test_class_labels_are_read_by_name_or_by_number(tmp_path, labels):
    conversations, names = read(labelled_parquet(tmp_path), labels=labels)
    assert ([row.label for row in conversations], names) == (["positive", "negative"], ("negative", "positive"))


def test_a_field_too_long_for_csv(write):
    message = message_of(write("a.csv", f"text,label\nx,a\n{'y' * 200_000},b\n"))
    assert message.startswith("a.csv:3: a field is longer than 131,072 letters")
