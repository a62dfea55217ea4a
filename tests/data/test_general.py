"""General text: the packaged paragraphs, files of one's own, and what stands in the training rows left out."""

import pytest

from pronk.data.conversation import Conversation, Message
from pronk.data.general import general_text
from pronk.errors import DataError


def row(text):
    return Conversation((Message("user", "?"), Message("assistant", text)), "rows.jsonl:1")


def test_the_packaged_text_is_english_and_korean_prose():
    passages = general_text(None, [])
    english, korean = ([one for one in passages if f".{name}." in one.place] for name in ("en", "ko"))
    assert (len(english), len(korean)) == (36, 26)
    assert len({one.text for one in passages}) == 62
    assert all(100 < len(one.text) < 400 and one.text.isascii() for one in english)
    assert all(60 < len(one.text) < 400 and any("가" <= letter <= "힣" for letter in one.text) for one in korean)


def test_paragraphs_of_a_text_file(write):
    path = write("notes.txt", "\ufeff\r\n\nOne line,\r\nand another.\n \n\nSecond.\n\n\nThird\u2028still third.")
    found = general_text(path, [])
    assert [(one.text, one.place) for one in found] == [
        ("One line,\nand another.", "notes.txt:3"), ("Second.", "notes.txt:7"),
        ("Third\u2028still third.", "notes.txt:10"),
    ]  # fmt: skip


def test_json_lines(write):
    found = general_text(write("a.jsonl", [{"text": "One.", "id": 4}, {"text": "Two.\n\nTwo."}]), [])
    assert [(one.text, one.place) for one in found] == [("One.", "a.jsonl:1"), ("Two.\n\nTwo.", "a.jsonl:2")]


def test_what_training_sees_is_no_general_text(write):
    lines = []
    path = write("a.txt", "Seen  before.\n\nNew.")
    found = general_text(path, [row("He said: Seen before. And left.")], lines.append)
    assert [one.text for one in found] == ["New."]
    assert lines == ["general text: 1 paragraph also stands in the rows to train on; left out"]
    with pytest.raises(DataError, match="all paragraphs of .*a.txt stand in the rows to train on"):
        general_text(path, [row("Seen before. New.")])


WRONG = {
    "forgetting.text: there is no file": ("none.txt", None),
    "holds no text": ("empty.txt", "\n \n"),
    'a.jsonl:2: expected an object such as {"text": "…"}, found {"body": 1}': ("a.jsonl", '{"text": "a"}\n{"body": 1}'),
    "b.jsonl:1: expected an object": ("b.jsonl", "[1"),
    "c.txt:2: not UTF-8 text": ("c.txt", b"a\n\xff"),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_files(message, write, tmp_path):
    name, content = WRONG[message]
    path = str(tmp_path / name) if content is None else write(name, content)
    with pytest.raises(DataError) as caught:
        general_text(path, [])
    assert message in str(caught.value)
