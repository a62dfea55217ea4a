"""Questions from texts and files; what is wrong is said with its line."""

from pathlib import Path

import pytest

from pronk.data.questions import SAMPLES, read_questions
from pronk.errors import DataError


def test_texts_and_files_in_the_order_given(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffOne?\n\n  Two?  \r\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(
        '{"instruction": "Rewrite.", "input": "It\u2028rains.", "output": "x"}\n{"question": "뭐야?", "input": null}\n',
        encoding="utf-8",
    )
    found = read_questions(["Zero?", str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")])
    assert [(one.text, one.context) for one in found] == [
        ("Zero?", ""), ("One?", ""), ("Two?", ""), ("Rewrite.", "It\u2028rains."), ("뭐야?", ""),
    ]  # fmt: skip
    assert [one.place for one in found] == ["question 1", "a.txt:1", "a.txt:3", "b.jsonl:1", "b.jsonl:2"]


@pytest.mark.parametrize("name", SAMPLES)
def test_six_samples_in_each_language(name: str) -> None:
    found = read_questions([name])
    assert len({one.text for one in found}) == 6
    assert sum(bool(one.context) for one in found) == 1
    assert all((max(one.text) >= "가") == (name == "korean") for one in found)


WRONG = {
    "broken": (b'{"question": "a"}\n{"question": \n', "q.jsonl:2: broken JSON"),
    "a list": (b'["a"]\n', "q.jsonl:1: expected an object"),
    "no question": (b'{"text": "a"}\n', "q.jsonl:1: found the keys 'text', expected one of `question`"),
    "two questions": (b'{"question": "a", "instruction": "b"}\n', "found both `question` and `instruction`"),
    "a number": (b'{"question": 3}\n', "q.jsonl:1: `question` must be text, found 3"),
    "a number as input": (b'{"question": "a", "input": 0}\n', "`input` must be text, found 0"),
    "empty": (b'{"question": "a"}\n\n{"question": " "}\n', "q.jsonl:3: the question is empty"),
    "half a character": (b'{"question": "\\ud83d"}\n', "q.jsonl:1: there is half a character"),
    "no line": (b"\n\n", "q.jsonl: there is no question in this file"),
    "Latin-1": (b'{"question": "a"}\n{"question": "caf\xe9"}\n', "q.jsonl:2: the byte at offset 35 is not UTF-8"),
    "nested too deeply": (b"[" * 100_000, "q.jsonl:1: broken JSON"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path: Path, case: str) -> None:
    content, message = WRONG[case]
    (tmp_path / "q.jsonl").write_bytes(content)
    with pytest.raises(DataError) as found:
        read_questions([str(tmp_path / "q.jsonl")])
    assert message in str(found.value)


def test_what_is_no_question(tmp_path: Path) -> None:
    for given, message in (
        (" ", "question 1 is empty"),
        (str(tmp_path), "this is a folder"),
        (str(tmp_path / "none.txt"), "there is no such file of questions"),
    ):
        with pytest.raises(DataError) as found:
            read_questions([given])
        assert message in str(found.value)
