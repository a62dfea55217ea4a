"""What `pronk init` chooses, and how it writes it down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pronk.doctor.new_recipe.lengths as subject
import pronk.doctor.new_recipe.writing as writing
from pronk.data.conversation import Conversation, Message
from pronk.data.detect import Found
from pronk.doctor.new_recipe.bases import BaseFacts, base_facts
from pronk.doctor.new_recipe.choosing import (
    Setting,
    condition,
    quantize_setting,
    split_settings,
    training_settings,
)  # fmt: skip
from pronk.doctor.new_recipe.lengths import Lengths, measure
from pronk.doctor.new_recipe.reading import Rows, formats_of, in_words, read_rows, usual_instruction
from pronk.doctor.new_recipe.writing import as_yaml, recipe_text, relative
from pronk.errors import DataError, RecipeError
from pronk.recipe import Data
from pronk.recipe.notation import parse_yaml

GIB = 2**30
HOSTILE = "x\nbase: evil\r\n\x1b[31m # \u2028base: evil"


def rows_of(sizes: dict[str | None, int], format: Any = "classify", letters: int = 20) -> Rows:
    made = []
    for label, count in sizes.items():
        for i in range(count):
            asked = Message("user", "What?", f"{label} {i} " + "a" * letters)
            made.append(Conversation((asked, Message("assistant", label or "so")), f"a:{i}", label))
    labels = tuple(label for label in sizes if label)
    return Rows(Data(source="a.jsonl", format=format), made, labels, ())


def lengths_of(whole: list[int], prompt: int = 10) -> Lengths:
    all_T, first = np.array(whole), np.full(len(whole), prompt)
    return Lengths(np.arange(len(whole)), all_T, first, first, all_T, np.arange(len(whole)), "alpaca")


def values(settings: list[Setting]) -> dict[str, Any]:
    return {setting.key.rsplit(".", 1)[-1]: setting.value for setting in settings}


# --- lengths ------------------------------------------------------------------------------------


@pytest.mark.parametrize("long", range(0, 40, 3))
def test_max_length_keeps_99_percent_whole(long: int) -> None:
    """Of 1,000 rows with any number of long ones: at most 1% are longer than max_length."""
    generator = np.random.default_rng(long)
    whole = [*generator.integers(30, 200, 1000 - long).tolist(), *generator.integers(1000, 2000, long).tolist()]
    length = subject.max_length(lengths_of(whole).usual, 10)
    assert sum(one > length for one in whole) <= 10
    assert length % 64 == 0
    assert length - 64 < max(np.percentile(whole, 99, method="higher"), 42)


def test_max_length_leaves_room_behind_the_longest_prompt() -> None:
    assert subject.max_length(100, 890) == 960  # 890 and 32 of an answer


def test_lengths_of_the_rows_that_train() -> None:
    """Of conversations of 1 to 3 answers, those with odd numbers: as if the others had not been measured."""
    counts = [1 + number % 3 for number in range(12)]
    ends = [[10 * number + one for one in range(count)] for number, count in enumerate(counts)]
    owners = np.repeat(np.arange(12), counts)
    all_T = np.arange(12) * 10
    lengths = Lengths(np.arange(12), all_T, all_T, all_T, np.concatenate(ends), owners, "chat")
    part = lengths.of(range(1, 12, 2))
    assert part.rows.tolist() == [1, 3, 5, 7, 9, 11]
    assert part.ends.tolist() == [end for number in range(1, 12, 2) for end in ends[number]]
    assert part.rows[part.owners].tolist() == [number for number in range(1, 12, 2) for _ in ends[number]]


def test_answers_in_the_middle_count_too(smollm2: Any) -> None:
    """Conversations of two turns: the oracle counts ids up to each answer's end."""
    from pronk.model.load import load_tokenizer

    tokenizer = load_tokenizer(smollm2)
    pair = (Message("user", "Why?"), Message("assistant", "So it is."))
    rows = [Conversation(pair * (1 + number % 3), f"a:{number}") for number in range(9)]
    template = tokenizer.chat_template
    lengths, why = measure(rows, BaseFacts("b", tokenizer, 8192, 49152, chat=True), ["chat", "alpaca"])
    assert (why, lengths.prompt, tokenizer.chat_template) == ("", "chat", template)
    assert len(lengths.ends) == sum(1 + number % 3 for number in range(9))
    dialogue = [{"role": one.role, "content": one.content} for one in pair]
    oracle = tokenizer.apply_chat_template(dialogue, tokenize=False).rstrip("\n")
    assert lengths.whole[0] == lengths.ends[0] == len(tokenizer(oracle, add_special_tokens=False).input_ids)


def test_a_template_that_cannot_write_the_rows_gives_way(smollm2: Any) -> None:
    from pronk.model.load import load_tokenizer

    tokenizer = load_tokenizer(smollm2)
    tokenizer.chat_template = "{{ raise_exception('one turn only') if messages|length > 2 else messages[0]['content'] + (messages[1]['content'] + eos_token if messages|length > 1 else '') }}"  # noqa: E501
    pair = (Message("user", "Why?"), Message("assistant", "So it is."))
    lengths, why = measure([Conversation(pair * 2, "a:1")], BaseFacts("b", tokenizer, 8192), ["chat", "alpaca"])
    assert lengths.prompt == "alpaca"
    assert "one turn only" in why


def test_what_a_base_cannot_read_is_left_out() -> None:
    rows = rows_of({"yes": 40, "no": 40})
    long = [80 * (number % 20 == 7) for number in range(80)]
    made = [
        Conversation((Message("user", "What?", "a" * (50 + 100 * more)), one.messages[-1]), one.place, one.label)
        for one, more in zip(rows.conversations, long, strict=True)
    ]
    rows = Rows(rows.data, made, rows.labels, ())
    lengths = lengths_of([30 + 10 * more for more in long])
    lengths.last[:] = lengths.whole - 2
    base = BaseFacts("b", context=256)
    left = condition(rows, lengths, base)
    assert left is not None
    assert (left.text, left.rows) == ("len(text) < 8050", 4)
    assert condition(rows, lengths_of([100] * 80), base) is None
    with pytest.raises(DataError, match="80 rows of 80 are longer than the 256 tokens that b reads"):
        condition(rows, lengths_of([500] * 80), base)


def ninety_percent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(subject, "SHARE", 90)


def rounded_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(subject, "max_length", lambda usual, _: usual // 64 * 64)


@pytest.mark.parametrize("fault", [ninety_percent, rounded_down])
def test_a_wrong_length_shows(fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        test_max_length_keeps_99_percent_whole(39)


# --- the split ----------------------------------------------------------------------------------


def test_uneven_labels_are_balanced() -> None:
    settings, splits = split_settings(rows_of({"neutral": 600, "good": 200, "bad": 100}))
    assert values(settings)["balanced"] is True
    assert {sum(one.label == name for one in splits.test) for name in ("neutral", "good", "bad")} == {30}
    assert "neutral is 67% of the rows and bad 11%" in settings[-1].why


def test_even_or_scarce_labels_are_not() -> None:
    assert "balanced" not in values(split_settings(rows_of({"a": 200, "b": 180}))[0])
    assert "balanced" not in values(split_settings(rows_of({"a": 200, "b": 9}))[0])


def test_conversations_that_all_open_alike_are_divided() -> None:
    hello = (Message("user", "Hi"), Message("assistant", "Hi!"))
    rows = [
        Conversation((*hello, Message("user", f"{number}?"), Message("assistant", "so")), f"a:{number}")
        for number in range(40)
    ]
    settings, splits = split_settings(Rows(Data(source="a.jsonl", format="messages"), rows, (), ()))
    assert values(settings)["keep_openings"] is False
    assert len(splits.test) == 8


def test_too_few_rows_are_an_error() -> None:
    with pytest.raises(DataError):
        split_settings(rows_of({None: 1}, "alpaca"))


def test_rows_that_all_ask_the_same_are_an_error() -> None:
    turns = (Message("user", "hello"), Message("assistant", "so"))
    rows = [Conversation(turns, f"a:{number}") for number in range(40)]
    with pytest.raises(DataError, match="of 40 rows 1 asks something new; 1 row is too few"):
        split_settings(Rows(Data(source="a.jsonl", format="messages"), rows, (), ()))


# --- base ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "gpu", "quantize"),
    [
        (135e6, None, None), (8e9, None, "nf4"), (8e9, 24 * GIB, "nf4"), (8e9, 80 * GIB, None), (1e9, 24 * GIB, None),
        (70e9, 16 * GIB, "nf4"), (None, None, None),
    ],
)  # fmt: skip
def test_quantize_by_size_and_gpu(parameters: float | None, gpu: int | None, quantize: str | None) -> None:
    settings = quantize_setting(BaseFacts("b", parameters=parameters and int(parameters)), gpu)
    assert values(settings) == ({"quantize": quantize} if quantize else {})
    assert all("smaller base" in one.why for one in settings if parameters == 70e9)


def test_a_base_that_is_not_here_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pronk.model.hub.hub_answers", lambda: False)
    facts = base_facts("meta-llama/Meta-Llama-3-8B-Instruct", lambda _: None)
    assert (facts.parameters, facts.chat, facts.tokenizer) == (8_000_000_000, True, None)
    assert "the hub cannot be reached" in facts.why
    lengths, _ = measure(rows_of({"a": 20, "b": 20}).conversations, facts, ["chat"])
    assert "guessed" in training_settings(40, facts, lengths, lengths)[-1].why


def test_parameters_are_counted(tiny_base: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    facts = base_facts(str(tiny_base), lambda _: None)
    assert facts.parameters == sum(weight.numel() for weight in model.parameters())
    assert (facts.context, facts.chat) == (256, True)


# --- formats ------------------------------------------------------------------------------------


def written(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("choices", "answer"), Found("choice", {})),
        (("options", "correct"), Found("choice", {"choices": "options", "answer": "correct"})),
        (("ways", "number"), Found("classify", {"text": "question", "label": "subject"})),
    ],
)
def test_choices_are_read_as_such_and_a_place_in_a_list_is_no_answer(
    tmp_path: Path, names: tuple[str, str], expected: Found
) -> None:
    choices, answer = names
    rows = [
        {"subject": f"s{i % 3}", "question": f"What is {i}?", choices: ["a", "b"], answer: i % 2} for i in range(30)
    ]
    source = written(tmp_path, rows)
    _, found = formats_of(source)
    assert found == [expected]
    assert read_rows(source, found[0]).conversations[0].choices == (("a", "b") if expected.format == "choice" else ())


@pytest.mark.parametrize(
    ("letters", "asked"), [("긴 글", "다음 글을 요약해 주세요."), ("long text", "Summarize the text.")]
)
def test_a_document_is_asked_for_its_summary(tmp_path: Path, letters: str, asked: str) -> None:
    source = written(tmp_path, [{"document": f"{letters} {i}", "summary": letters} for i in range(20)])
    found = formats_of(source)[1][0]
    assert usual_instruction(found, read_rows(source, found)) == asked


def test_writing_systems_in_words() -> None:
    assert in_words({"Korean": 0.96, "Latin": 0.04}) == "96% Korean letters, 4% Latin"
    assert in_words({"Latin": 1.0}) == "Latin letters"
    assert in_words({}) == "no letters"


# --- writing ------------------------------------------------------------------------------------


def test_a_recipe_reads_back_whatever_it_holds() -> None:
    settings = [
        Setting("base", "a: b #", HOSTILE), Setting("data.source", HOSTILE), Setting("data.columns", {"text": HOSTILE}),
        Setting("data.labels", ["yes", "no", "1", "null", "한국어", "a, b"]),
        Setting("data.split.test", 0.1, "why " * 60), Setting("data.split.balanced", True),
        Setting("prompt", "chat"), Setting("train.learning_rate", 5e-4), Setting("train.max_length", 64, HOSTILE),
    ]  # fmt: skip
    plain = parse_yaml(recipe_text(settings, [HOSTILE]), "test")
    assert plain == {
        "base": "a: b #",
        "data": {
            "source": HOSTILE, "columns": {"text": HOSTILE}, "labels": ["yes", "no", "1", "null", "한국어", "a, b"],
            "split": {"test": 0.1, "balanced": True},
        },
        "prompt": "chat", "train": {"learning_rate": 5e-4, "max_length": 64},
    }  # fmt: skip


@pytest.mark.parametrize(
    "value", [5e-4, 1.5e-4, 1e-5, 0.1, 2, True, None, "1e-4", "yes", "", " a ", ["a"], "\u2028", "\x1b"]
)
def test_a_value_reads_back(value: Any) -> None:
    text = as_yaml(value)
    assert parse_yaml(f"a: {text}  # why", "test") == {"a": value}
    assert "\n" not in text
    assert as_yaml(1.5e-4) == "1.5e-4"


def test_paths_are_relative_where_that_is_short(tmp_path: Path) -> None:
    assert relative(str(tmp_path / "data" / "a.jsonl"), tmp_path) == "data/a.jsonl"
    assert relative(str(tmp_path / "a.jsonl"), tmp_path / "recipes") == "../a.jsonl"
    assert relative("/elsewhere/a.jsonl", tmp_path) == "/elsewhere/a.jsonl"


def comments_as_they_are(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writing, "_comment", lambda text, indent: [f"{indent}# {text}"])


def unquoted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writing.yaml, "dump", lambda value, **_: str(value))


@pytest.mark.parametrize("fault", [comments_as_they_are, unquoted])
def test_a_fault_shows(fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, RecipeError)):
        test_a_recipe_reads_back_whatever_it_holds()
