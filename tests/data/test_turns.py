"""Conversations of several turns, and plain texts: what they become, and what is no conversation."""

import pytest
from reading import message_of, read, told

import pronk.data.turns as turns_module
from pronk.data.conversation import Message
from pronk.data.split import question_key

NAMES = {"system": "system", "user": "human", "assistant": "gpt"}


def as_messages(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def as_sharegpt(*turns):
    return {"conversations": [{"from": NAMES[role], "value": content} for role, content in turns]}


SPELLINGS = {"messages": as_messages, "sharegpt": as_sharegpt}
TWO = [("user", "Hi"), ("assistant", " Hello "), ("user", "Bye"), ("assistant", "So long")]


@pytest.fixture(params=SPELLINGS)
def spelling(request):
    return request.param


def test_all_turns_are_kept_as_they_are(write, spelling):
    rows = [SPELLINGS[spelling](("system", "Be brief."), *TWO), SPELLINGS[spelling](*TWO[:2])]
    (first, second), labels = read(write("a.jsonl", rows), spelling)
    assert first.messages == (Message("system", "Be brief."), *(Message(*turn) for turn in TWO))
    assert second.messages == (Message("user", "Hi"), Message("assistant", " Hello "))
    assert (first.subject, first.answer, len(first.question), labels) == ("Bye", "So long", 4, ())


def test_the_recipes_system_message_is_for_conversations_without_one(write, spelling):
    rows = [
        SPELLINGS[spelling](("system", "Own."), *TWO),
        SPELLINGS[spelling](*TWO),
        SPELLINGS[spelling](("system", " "), *TWO),
    ]
    conversations, _ = read(write("a.jsonl", rows), spelling, system="Ours.")
    assert [row.messages[0].content for row in conversations] == ["Own.", "Ours.", "Ours."]
    assert {len(row.messages) for row in conversations} == {5}


def test_a_last_turn_that_nobody_answers_is_left_out_and_told(write, spelling):
    rows = [SPELLINGS[spelling](*TWO), SPELLINGS[spelling](*TWO, ("user", "Wait!")), SPELLINGS[spelling](*TWO[:3])]
    conversations, lines = told(write("a.jsonl", rows), spelling)
    assert [row.answer for row in conversations] == ["So long", "So long", " Hello "]
    assert lines == [
        "a.jsonl: 2 conversations had a last turn that nobody answers; that turn is left out (first: a.jsonl:2)"
    ]


def test_content_in_parts():
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    row = as_messages(("user", parts), ("assistant", "x"))["messages"]
    assert turns_module.read_turns(row, "messages")[0][0].content == "Hello"


def test_developer_is_openais_new_name_for_system():
    row = as_messages(("developer", "Be brief."), *TWO)["messages"]
    assert turns_module.read_turns(row, "messages")[0][0] == Message("system", "Be brief.")


def test_parquet_fills_absent_keys_with_null(tmp_path):
    from datasets import Dataset

    rows = [as_messages(*TWO), as_messages(*TWO)]
    rows[0]["messages"][0] |= {"name": "Ann", "weight": 1.0, "tool_calls": ["x"][:0]}
    rows[0]["messages"][1] |= {"weight": 1.0}
    rows = [{"messages": [{"weight": None, "tool_calls": None, **turn} for turn in row["messages"]]} for row in rows]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "a.parquet"))
    assert len(read(str(tmp_path / "a.parquet"), "messages")[0][1].messages) == 4


WRONG = {
    "no list": ("Hi", "must be a list of turns; found a text"),
    "null": (None, "must be a list of turns; found null"),
    "no turns": ([], "has no assistant turn to learn from"),
    "only a question": ([("user", "Hi")], "has no assistant turn to learn from"),
    "only a system message": ([("system", "Hi")], "has no assistant turn to learn from"),
    "assistant first": ([("assistant", "Hi")], "turn 1 is the assistant's, but a user turn has to come first"),
    "assistant after system": (
        [("system", "x"), ("assistant", "Hi")],
        "turn 2 is the assistant's, but a user turn has to come first",
    ),
    "twice the user": ([("user", "a"), ("user", "b"), ("assistant", "c")], "turns 1 and 2 are both by the user; they"),
    "twice the assistant": ([*TWO, ("assistant", "x")], "turns 4 and 5 are both by the assistant; they alternate"),
    "empty system, then twice the user": (
        [("system", ""), ("user", "a"), ("user", "b")],
        "turns 2 and 3 are both by the user; they alternate",
    ),
    "system in the middle": ([*TWO, ("system", "x")], "turn 5 is a system message; only the first turn may be one"),
    "empty answer": ([("user", "a"), ("assistant", " \n")], "turn 2 (assistant) is empty"),
    "empty question": ([("user", ""), ("assistant", "a")], "turn 1 (user) is empty"),
    "number": ([("user", 5), ("assistant", "a")], "turn 1 must be text; found the number 5"),
    "image": (
        [("user", [{"type": "image_url", "image_url": {}}]), ("assistant", "a")],
        "turn 1 has a part of the type 'image_url'; pronk trains on text alone",
    ),
    "part without text": ([("user", [{"type": "text"}]), ("assistant", "a")], "turn 1 has a part that is no {type"),
    "half a character": ([("user", "\ud83d"), ("assistant", "a")], "a turn has half a character"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_conversation(write, spelling, case):
    turns, problem = WRONG[case]
    (field,) = SPELLINGS[spelling]()
    wrong = SPELLINGS[spelling](*turns) if isinstance(turns, list) else {field: turns}
    path = write("a.jsonl", [SPELLINGS[spelling](*TWO), wrong, wrong])
    message = message_of(path, spelling)
    assert message.startswith(f"a.jsonl:2: the {field}: {problem}")
    assert message.endswith(" (and 1 more row)")


@pytest.mark.parametrize(
    ("turn", "problem"),
    [
        ({"role": "tool", "content": "x"}, "has the role 'tool'; known are system, developer, user and assistant"),
        ({"role": None, "content": "x"}, "has the role None; known are"),
        ({"role": ["user"], "content": "x"}, "has the role ['user']; known are"),
        ({"from": "human", "value": "x"}, "must be an object with 'role' and 'content'; found 'from' and 'value'"),
        ({}, "must be an object with 'role' and 'content'; found no keys"),
        ("x", "must be an object with 'role' and 'content'; found a text"),
        ({"role": "assistant", "content": None, "tool_calls": [1]}, "has tool_calls, which pronk does not train on"),
        ({"role": "assistant", "content": "x", "weight": 0}, "has weight 0, but pronk learns every assistant turn"),
    ],
)
def test_turns_that_are_none(write, turn, problem):
    path = write("a.jsonl", [{"messages": [{"role": "user", "content": "a"}, turn]}])
    assert message_of(path, "messages").startswith(f"a.jsonl:1: the messages: turn 2 {problem}")


def test_the_column_may_have_another_name(write):
    path = write("a.jsonl", [{"chat": as_messages(*TWO)["messages"]}])
    assert len(read(path, "messages", columns={"messages": "chat"})[0]) == 1
    assert message_of(path, "messages", columns={"conversations": "chat"}) == (
        "data.columns: the format messages has no field 'conversations'; its one field is messages"
    )


# --- plain text -------------------------------------------------------------------------------------


def test_plain_text_is_one_assistant_turn_without_a_question(write):
    (short, long), _ = read(write("a.jsonl", [{"text": " Once.\n"}, {"text": "upon a time " * 30}]), "text")
    assert short.messages == (Message("assistant", " Once.\n"),)
    assert (short.question, short.answer, short.subject) == ((), " Once.\n", " Once.\n")
    assert long.subject == "upon a time " * 8 + "upon…"
    assert question_key(short) != question_key(long)


@pytest.mark.parametrize("value", ["", " ", None, 5, ["a"]])
def test_plain_text_must_be_text(write, value):
    assert message_of(write("a.jsonl", [{"text": value}]), "text").startswith("a.jsonl:1: the text ")
