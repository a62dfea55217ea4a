"""Questions from texts and files; what is wrong is said with its line."""

import os
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


def test_several_turns_and_their_ids(tmp_path: Path) -> None:
    """MT-bench's form and messages ask the same; an id hangs on what is asked, and on nothing else."""
    (tmp_path / "a.jsonl").write_text(
        '{"question_id": 81, "turns": ["Tell.", "Again."]}\n'
        '{"messages": [{"role": "user", "content": "Tell."}, {"role": "assistant", "content": "x"}, '
        '{"role": "user", "content": "Again."}]}\n{"turns": ["Tell."]}\n{"question": "Tell."}\n',
        encoding="utf-8",
    )
    found = read_questions([str(tmp_path / "a.jsonl"), "Tell."], several_turns=True)
    assert [one.turns for one in found] == [("Tell.", "Again."), ("Tell.", "Again."), *[("Tell.",)] * 3]
    assert [found[0].id, *[found[2].id] * 3] == [one.id for one in found[1:]]
    assert found[0].id != found[2].id


def test_mt_bench_as_it_is() -> None:
    shared = Path(os.environ.get("PRONK_TEST_DATA") or Path(__file__).parents[3] / "shared")
    path = shared / "data" / "mtbench" / "mt_bench_question.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    found = read_questions([str(path)], several_turns=True)
    assert (len(found), {len(one.turns) for one in found}, len({one.id for one in found})) == (80, {2}, 80)


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
    "two questions": (
        b'{"question": "a", "instruction": "b"}\n',
        "found `question` and `instruction`, expected",
    ),
    "a number": (b'{"question": 3}\n', "q.jsonl:1: `question` must be text, found 3"),
    "a number as input": (b'{"question": "a", "input": 0}\n', "`input` must be text, found 0"),
    "empty": (b'{"question": "a"}\n\n{"question": " "}\n', "q.jsonl:3: the question is empty"),
    "no turns": (b'{"turns": []}\n', "q.jsonl:1: `turns` must be a list of texts, found []"),
    "a turn that is no text": (b'{"turns": ["a", null]}\n', "`turns` must be text, found null"),
    "an empty turn": (b'{"turns": ["a", " "]}\n', "q.jsonl:1: the question is empty"),
    "an answer last": (
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
        "q.jsonl:1: the roles are user, assistant; expected",
    ),
    "a system message": (b'{"messages": [{"role": "system", "content": "a"}]}\n', "a system message cannot be asked"),
    "messages that are none": (b'{"messages": ["a"]}\n', "`messages` are no messages"),
    "several turns": (b'{"turns": ["a", "b"]}\n', "q.jsonl:1: this question has 2 turns, and only one is asked here"),
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
