"""Real files, as they are found in the world, and many rows in little memory."""

import collections
import json
import sys
import tracemalloc
from pathlib import Path

import pytest
from reading import read, real, told

import pronk.data.sources as sources
import pronk.data.turns as turns_module


def contents(conversations):
    return [[(turn.role, turn.content) for turn in row.messages] for row in conversations]


def test_financial_phrasebank():
    conversations, labels = read(real("fpb/Sentences_50Agree.jsonl"), columns={"text": "sentence"})
    assert labels == ("negative", "neutral", "positive")
    assert len(conversations) == 4846
    assert len({row.subject for row in conversations}) == 4838
    assert conversations[-1].place == "Sentences_50Agree.jsonl:4846"


def test_alpaca_rows():
    conversations, labels = read(real("alpaca/rasbt_instruction_1100.jsonl"), None)
    assert (len(conversations), labels) == (1100, ())
    assert conversations[0].subject == "freind --> friend"
    assert any(not row.messages[0].context for row in conversations)


def test_alpaca_rows_with_empty_input():
    path = real("alpaca/alpaca_cleaned_5000.jsonl")
    conversations, lines = told(path, None, where="input == ''")
    rows = map(json.loads, Path(path).read_text(encoding="utf-8").strip().split("\n"))
    expected = [row["output"] for row in rows if not row["input"]]
    assert [row.answer for row in conversations] == expected
    assert lines[-1].endswith("keeps 3,010 of 5,000 rows")  # 1,990 with an input, says the manifest


def test_korean_rows():
    conversations, _ = read(real("ko/koalpaca_v1_5000.jsonl"), None)
    assert len(conversations) == 5000
    assert conversations[0].subject == "원자의 구조를 설명하세요."
    news, _ = read(
        real("ko/sci_news_sum_50.jsonl"), "pairs",
        columns={"prompt": "document", "response": "summary"}, instruction="다음 글을 요약해주세요: ",
    )  # fmt: skip
    assert len(news) == 50
    assert news[0].messages[0].content == "다음 글을 요약해주세요: "
    assert news[0].subject.startswith("소두증을 유발한다고")


def test_gsm8k():
    conversations, _ = read(
        real("eval/gsm8k_test_300.jsonl"), "pairs", columns={"prompt": "question", "response": "answer"}
    )
    assert len(conversations) == 300
    assert conversations[0].answer.endswith("#### 3")


def readings_of_oasst():
    """The same conversations, published in both spellings."""
    messages = read(real("chat/oasst1_messages.jsonl"), None)[0]
    return contents(messages), contents(read(real("chat/oasst1_sharegpt.jsonl"), None)[0])


def test_both_spellings_of_the_same_conversations():
    messages, sharegpt = readings_of_oasst()
    assert messages == sharegpt
    # 517 conversations of one question and answer, 414 of two, 22 of three
    assert collections.Counter(map(len, messages)) == {2: 517, 4: 414, 6: 22}


@pytest.mark.parametrize("fault", ["roles swapped", "one turn lost"])
def test_a_fault_in_one_reading_would_be_seen(monkeypatch, fault):
    if fault == "roles swapped":
        swapped = {**turns_module.ROLES["sharegpt"], "human": "assistant", "gpt": "user"}
        monkeypatch.setitem(turns_module.ROLES, "sharegpt", swapped)
        with pytest.raises(Exception, match="a user turn has to come first"):
            readings_of_oasst()
        return
    original = turns_module.read_turns

    def lossy(value, format):
        turns, unanswered = original(value, format)
        return (turns[-2:] if format == "sharegpt" else turns), unanswered

    monkeypatch.setattr("pronk.data.formats.read_turns", lossy)
    messages, sharegpt = readings_of_oasst()
    assert messages != sharegpt


def test_sharegpt_in_a_json_file():
    conversations, _ = read(real("chat/fastchat_dummy_conversation.json"), None)
    assert collections.Counter(len(row.messages) for row in conversations) == {2: 167, 4: 166, 6: 167}


# --- many rows --------------------------------------------------------------------------------------


@pytest.fixture
def many_rows(write):
    turns = [{"role": role, "content": f"{role} says " + "some words " * 30} for role in ("user", "assistant") * 2]
    line = json.dumps({"messages": turns})
    return lambda count: write(
        "a.jsonl", "".join(line.replace("user says", f"user {n}", 1) + "\n" for n in range(count))
    )


def calls_of(path):
    """How many calls reading a file makes, of Python's functions and of C's."""
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        assert read(path, "messages")[0]
    finally:
        sys.setprofile(None)
    return calls


def growth(many_rows):
    """Calls for a hundred rows more, the second time over the first."""
    read(many_rows(1), "messages")  # what is imported is imported
    few, some, many = (calls_of(many_rows(count)) for count in (100, 200, 300))
    return (many - some) / (some - few)


def test_every_row_costs_the_same(many_rows):
    assert growth(many_rows) == pytest.approx(1, rel=0.01)


def test_rows_compared_with_all_before_them_would_be_seen(many_rows, monkeypatch):
    kept = sources._kept

    def comparing(*arguments):
        before = []
        for row in kept(*arguments):
            assert row not in before
            before.append(row)
            yield row

    monkeypatch.setattr(sources, "_kept", comparing)
    assert growth(many_rows) > 1.1


def peak_over_kept(path):
    """The most memory that reading took, over that of the conversations it returns (as Python counts both)."""
    tracemalloc.start()
    try:
        rows = read(path, "messages")[0]
        kept, peak = tracemalloc.get_traced_memory()
        assert rows
        return peak / kept
    finally:
        tracemalloc.stop()


def test_reading_takes_the_memory_of_the_conversations_alone(many_rows):
    assert peak_over_kept(many_rows(5000)) < 1.1


def test_reading_a_file_whole_would_be_seen(many_rows, monkeypatch):
    kept = sources._kept
    monkeypatch.setattr(sources, "_kept", lambda *arguments: iter(list(kept(*arguments))))
    assert peak_over_kept(many_rows(5000)) > 1.1
