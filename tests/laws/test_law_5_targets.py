"""Law 5: the supervised ids are exactly the reply plus its end token, and training asks as inference does.

On real tokenizers: SmolLM2's byte-level BPE, and Llama 2's SentencePiece model, whose own library is
the oracle.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pronk.data.conversation import Conversation, Message
from pronk.errors import BaseModelError
from pronk.model.load import find_base, load_tokenizer
from pronk.tokens.prompt import Example, Prompt

DATA = Path(os.environ.get("PRONK_TEST_DATA") or Path(__file__).parents[3] / "shared")
LLAMA2 = DATA / "tokenizers" / "llama2_tokenizer.model"

REPLIES = [
    "positive", "neg", "Profit rose 12.5 % in Q3, to EUR 1,234.", "안녕하세요, 세계!", "매출이 작년보다 늘었다.",
    " leading space", "   three spaces", "trailing space ", "trailing newline\n", "\nleading newline", "\n\n", " ",
    "two\n\nparagraphs", "\ttab", "🎉", "done 👩🏽‍💻 now", "naïve café — “quoted”", "don't , do n't .", "<b>1 < 2</b>",
    "x = {'a': [1, 2]}", "a" * 200,
]  # fmt: skip
QUESTIONS: list[tuple[Message, ...]] = [
    (Message("user", "Classify the sentence."),),
    (Message("user", "Classify the sentence.", "Sales fell; 300 jobs go."),),
    (Message("system", "You are terse."), Message("user", "이 문장은 어떤가요? 🎉\n")),
]
# Llama 2's chat form, shortened from the template that Meta ships: its text begins with the BOS.
LLAMA2_CHAT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)


@dataclass
class Case:
    """A prompt form on a tokenizer. reply_ids: the oracle's ids of a reply, without an end."""

    prompt: Prompt
    reply_ids: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    end: str
    bos: bool  # whether the tokenizer puts one before its text
    vocabulary: int
    questions: list[tuple[Message, ...]]


def smollm2(kind: Any) -> Case:
    try:
        tokenizer = load_tokenizer(find_base("smollm2"))
    except BaseModelError as error:
        pytest.skip(str(error))
    size = len(tokenizer)
    raw = tokenizer.backend_tokenizer
    # byte-level BPE: the ids' bytes, one after the other, are the text
    return Case(
        Prompt(kind, tokenizer), lambda text: raw.encode(text, add_special_tokens=False).ids,
        lambda ids: raw.decode(ids, skip_special_tokens=False), "<|im_end|>", False, size, QUESTIONS,
    )  # fmt: skip


def llama2(kind: Any) -> Case:
    if not LLAMA2.is_file():
        pytest.skip(f"{LLAMA2} is not there; PRONK_TEST_DATA names the folder that holds tokenizers/")
    import sentencepiece
    from tokenizers import normalizers
    from transformers import LlamaTokenizer

    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(LLAMA2, Path(folder) / "tokenizer.model")
        tokenizer = LlamaTokenizer.from_pretrained(folder, add_bos_token=True)
    # as in the tokenizer.json on the hub; transformers' own conversion loses a reply's leading space
    tokenizer.backend_tokenizer.pre_tokenizer = None
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    if kind == "chat":
        tokenizer.chat_template = LLAMA2_CHAT
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(LLAMA2))
    questions = [question for question in QUESTIONS if kind == "alpaca" or question[0].role == "user"]
    raw = tokenizer.backend_tokenizer

    def reply_ids(text: str) -> list[int]:
        # of spaces in a row the two libraries make other pieces of the same text
        if text.startswith(" "):
            return raw.encode(text, add_special_tokens=False).ids
        return oracle.encode(text)

    return Case(Prompt(kind, tokenizer), reply_ids, oracle.decode, "</s>", True, 32000, questions)


MAKERS = {"smollm2": smollm2, "llama2": llama2}


@pytest.fixture(scope="module", params=[(name, kind) for name in MAKERS for kind in ("alpaca", "chat")], ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    name, kind = request.param
    return MAKERS[name](kind)


def conversations(case: Case) -> list[Conversation]:
    return [
        Conversation((*question, Message("assistant", reply)), f"row {i}")
        for i, reply in enumerate(REPLIES)
        for question in case.questions
    ]


def check(case: Case, conversation: Conversation, example: Example) -> None:
    """The law, for one example."""
    tokenizer = case.prompt.tokenizer
    end = tokenizer.convert_tokens_to_ids(case.end)
    supervised = example.ids[example.target].tolist()
    assert supervised == [*case.reply_ids(conversation.answer), end]
    assert case.decode(supervised[:-1]) == conversation.answer
    # one stretch, up to the last id
    assert np.array_equal(example.target, np.arange(len(example.ids)) >= len(example.ids) - len(supervised))
    asked = case.prompt.question_ids([conversation.question])[0]
    assert example.prompt_ids.tolist() == asked == example.ids[: len(asked)].tolist()
    # in the chat form of SmolLM2 the BOS is also what each message begins with
    if case.prompt.kind == "alpaca" or case.bos:
        assert asked.count(tokenizer.bos_token_id) == case.bos
        assert (asked[0] == tokenizer.bos_token_id) == case.bos
    assert tokenizer.pad_token_id not in example.ids.tolist()
    assert max(example.ids) < case.vocabulary


def check_all(case: Case, rows: list[Conversation], examples: list[Example]) -> None:
    for conversation, example in zip(rows, examples, strict=True):
        check(case, conversation, example)


def test_supervised_ids_are_the_reply_and_its_end(case: Case) -> None:
    rows = conversations(case)
    examples = case.prompt.examples(rows, 4096)
    assert len(examples) == len(rows) == len(REPLIES) * len(case.questions)
    check_all(case, rows, examples)
    assert not any(example.cut for example in examples)


def test_the_prompt_says_what_was_asked(case: Case) -> None:
    """The ids of a prompt decode to its text, and the text holds the question."""
    for question in case.questions:
        text = case.prompt.question_text(question)
        ids = case.prompt.question_ids([question])[0]
        for message in question:
            assert message.content.strip() in text
            assert message.context in text
        written = case.prompt.tokenizer.decode(ids, skip_special_tokens=False)
        bos = case.prompt.tokenizer.bos_token
        # SentencePiece writes a space behind a special token, and its dummy space before a text
        assert written.removeprefix(bos).strip() == text.removeprefix(bos).strip()


def test_padding_is_no_end_and_the_vocabulary_has_not_grown(case: Case) -> None:
    tokenizer = case.prompt.tokenizer
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id, tokenizer.bos_token_id, case.prompt.end_id)
    assert len(tokenizer) == case.vocabulary
    assert tokenizer.pad_token_id < case.vocabulary


def test_answers_asked_for_are_the_answers_trained(case: Case) -> None:
    """Labels are scored as the ids that training supervises."""
    rows = conversations(case)
    examples = case.prompt.examples(rows, 4096)
    for ids, example in zip(case.prompt.answer_ids([row.answer for row in rows]), examples, strict=True):
        assert ids == example.ids[example.target].tolist()


def test_an_answer_that_is_cut_keeps_the_law_up_to_the_cut(case: Case) -> None:
    row = Conversation((*case.questions[0], Message("assistant", "one two three four five six")), "row")
    whole = case.prompt.examples([row], 4096)[0]
    cut = case.prompt.examples([row], len(whole.ids) - 3)[0]
    assert cut.cut == 3
    assert cut.ids.tolist() == whole.ids[:-3].tolist()
    assert cut.target.tolist() == whole.target[:-3].tolist()


def _without_end(case: Case, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(case.prompt, "answer_ids", lambda answers: case.prompt._encode(answers, special=False))


def _stripped(case: Case, patch: pytest.MonkeyPatch) -> None:
    original = case.prompt.answer_ids
    patch.setattr(case.prompt, "answer_ids", lambda answers: original([answer.strip() for answer in answers]))


def _tokenized_together(case: Case, patch: pytest.MonkeyPatch) -> None:
    def answer_ids(answers: list[str]) -> list[list[int]]:
        before = "### Response:\n"
        taken = len(case.prompt._encode([before], special=True)[0])
        return [
            [*case.prompt._encode([before + answer], special=True)[0][taken:], case.prompt.end_id] for answer in answers
        ]

    patch.setattr(case.prompt, "answer_ids", answer_ids)


def _one_bos_more(case: Case, patch: pytest.MonkeyPatch) -> None:
    original, bos = case.prompt.question_ids, case.prompt.tokenizer.bos_token_id
    patch.setattr(case.prompt, "question_ids", lambda questions: [[bos, *ids] for ids in original(questions)])


def _padding_is_end(case: Case, _: pytest.MonkeyPatch) -> None:
    case.prompt.tokenizer.pad_token = case.end  # of a tokenizer that nobody else uses


@pytest.mark.parametrize("fault", [_without_end, _stripped, _tokenized_together, _one_bos_more, _padding_is_end])
@pytest.mark.parametrize("name", list(MAKERS))
def test_a_fault_shows(name: str, fault: Callable[[Case, pytest.MonkeyPatch], None], monkeypatch: Any) -> None:
    case = MAKERS[name]("alpaca")
    fault(case, monkeypatch)
    rows = conversations(case)
    examples = case.prompt.examples(rows, 4096)
    with pytest.raises(AssertionError):
        check_all(case, rows, examples)


@pytest.mark.parametrize("kind", ["alpaca", "chat"])
def test_an_answer_that_spells_an_end_token_is_plain_text(kind: str) -> None:
    """Only the last id ends the reply; else a model would learn to stop in the middle of it."""
    prompt = smollm2(kind).prompt
    (ids,) = prompt.answer_ids(["stop<|im_end|>now"])
    assert ids.count(prompt.end_id) == 1
    assert ids[-1] == prompt.end_id
    assert prompt.tokenizer.decode(ids[:-1]) == "stop<|im_end|>now"


def test_a_question_that_spells_a_special_token_is_plain_text_in_the_alpaca_form() -> None:
    prompt = smollm2("alpaca").prompt
    (ids,) = prompt.question_ids([[Message("user", "Ignore this.<|im_end|>")]])
    assert not set(ids) & set(prompt.tokenizer.all_special_ids)
