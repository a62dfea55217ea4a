"""Law 5: the supervised ids are exactly the replies plus their end tokens, and training asks as inference does.

For every prompt form on three real tokenizers, in English and Korean, for one turn and for several.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import double_bos, end_unsupervised, mask_shifted, user_turn_supervised
from real_tokenizers import Real, renewed

from pronk.data.conversation import Conversation, Message
from pronk.tokens.prompt import Example, Prompt

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
LATER = ["And why?", "왜 그렇게 생각해요?", "다음 글을 요약해주세요: 삼성전자가 새 공장을 짓는다."]
OWN_TEMPLATE = """\
{%- for message in messages %}
{{- '[' + message.role + ']\n' + message.content + eos_token + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '[assistant]\n' }}{%- endif %}
"""
ENDS = {"smollm2": "<|im_end|>", "llama2": "</s>", "llama3": "<|end_of_text|>"}
KINDS = [
    *((name, kind) for name in ENDS for kind in ("alpaca", "chat", "own.jinja")),
    ("llama2", "llama2"), ("llama3", "llama3"),
]  # fmt: skip


@dataclass
class Case:
    """A prompt form on a tokenizer."""

    real: Real
    prompt: Prompt
    end: int
    questions: list[tuple[Message, ...]]


def make_case(name: str, kind: str, folder: Path) -> Case:
    real = renewed(name)
    if kind == "own.jinja":
        (folder / kind).write_text(OWN_TEMPLATE, encoding="utf-8")
    end = "<|eot_id|>" if name == "llama3" and kind in ("chat", "llama3") else ENDS[name]
    prompt = Prompt(str(folder / kind) if kind == "own.jinja" else kind, real.tokenizer)
    with_system = (name, kind) != ("llama2", "chat")  # the template of these tests knows none
    questions = [question for question in QUESTIONS if with_system or question[0].role == "user"]
    return Case(real, prompt, real.tokenizer.convert_tokens_to_ids(end), questions)


@pytest.fixture(params=KINDS, ids="-".join)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return make_case(*request.param, tmp_path)


def single(case: Case) -> list[Conversation]:
    return [
        Conversation((*question, Message("assistant", reply)), f"row {i}")
        for i, reply in enumerate(REPLIES)
        for question in case.questions
    ]


def several(case: Case) -> list[Conversation]:
    """Conversations of two to four turns; every reply also stands in the middle of one."""
    made = []
    for i in range(len(REPLIES)):
        messages = [*case.questions[i % len(case.questions)], Message("assistant", REPLIES[i])]
        for turn in range(1 + i % 3):
            messages += [Message("user", LATER[turn]), Message("assistant", REPLIES[(i + 5 * turn + 1) % len(REPLIES)])]
        made.append(Conversation(tuple(messages), f"row {i}"))
    return made


def stretches(example: Example) -> list[tuple[int, list[int]]]:
    """The supervised ids, stretch by stretch, with the place where each begins."""
    found, start = [], 0
    for learned, group in groupby(example.target.tolist()):
        size = len(list(group))
        if learned:
            found.append((start, example.ids[start : start + size].tolist()))
        start += size
    return found


def check(case: Case, conversation: Conversation, example: Example) -> None:
    """The law, for one example."""
    real, messages = case.real, conversation.messages
    ids, supervised = example.ids.tolist(), stretches(example)
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    assert [found for _, found in supervised] == [[*real.encode(messages[i].content), case.end] for i in answers]
    assert [real.decode(found[:-1]) for _, found in supervised] == [messages[i].content for i in answers]
    assert example.target[-1]
    # what every answer is asked for with is, id by id, what stands before it
    asked = case.prompt.question_ids([messages[:i] for i in answers])
    assert asked == [ids[:start] for start, _ in supervised]
    assert example.prompt_ids.tolist() == asked[-1]
    check_tokens(case, ids, turns=len(answers))


def check_tokens(case: Case, ids: Sequence[int], turns: int) -> None:
    tokenizer = case.real.tokenizer
    if case.real.bos:
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == (turns if begins_each_turn(case) else 1)
    elif case.prompt.kind == "alpaca":  # ChatML begins each message with SmolLM2's BOS
        assert tokenizer.bos_token_id not in ids
    assert tokenizer.pad_token_id not in ids
    assert max(ids) < case.real.vocabulary


def begins_each_turn(case: Case) -> bool:
    """Llama 2's form is a text of its own for each turn."""
    return case.prompt.kind == "llama2" or (case.prompt.kind == "chat" and case.real.name == "llama2")


def check_all(case: Case, rows: list[Conversation]) -> None:
    for conversation, example in zip(rows, case.prompt.examples(rows, 4096), strict=True):
        check(case, conversation, example)
        assert not example.cut


def test_one_turn(case: Case) -> None:
    rows = single(case)
    assert len(rows) == len(REPLIES) * len(case.questions)
    check_all(case, rows)


def test_several_turns(case: Case) -> None:
    rows = several(case)
    assert {sum(message.role == "assistant" for message in row.messages) for row in rows} == {2, 3, 4}
    check_all(case, rows)


def test_plain_text_is_learned_from_its_first_token_to_its_end(case: Case) -> None:
    for text in REPLIES:
        (example,) = case.prompt.examples([Conversation((Message("assistant", text),), "row")], 4096)
        begin = [case.real.tokenizer.bos_token_id] if case.real.bos else []
        assert example.ids.tolist() == [*begin, *case.real.encode(text), case.end]
        assert example.target.tolist() == [False] + [True] * (len(example.ids) - 1)
        assert example.prompt_ids.tolist() == example.ids[:1].tolist()


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
        assert written.removeprefix(bos).replace(" ", "").strip() == text.removeprefix(bos).replace(" ", "").strip()


def test_padding_is_no_end_and_the_vocabulary_has_not_grown(case: Case) -> None:
    tokenizer = case.prompt.tokenizer
    assert case.prompt.end_id == case.end
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id, tokenizer.bos_token_id, case.end)
    assert len(tokenizer) == case.real.vocabulary
    assert tokenizer.pad_token_id < case.real.vocabulary


def test_answers_asked_for_are_the_answers_trained(case: Case) -> None:
    """Labels are scored as the ids that training supervises."""
    rows = single(case)
    examples = case.prompt.examples(rows, 4096)
    for ids, example in zip(case.prompt.answer_ids([row.answer for row in rows]), examples, strict=True):
        assert ids == example.ids[example.target].tolist()


def test_an_answer_that_spells_an_end_token_is_plain_text(case: Case) -> None:
    """Only the last id ends the reply; else a model would learn to stop in the middle of it."""
    end = case.real.tokenizer.convert_ids_to_tokens(case.end)
    messages = Message("user", "a"), Message("assistant", f"stop{end}now"), Message("user", "b")
    row = Conversation((*messages, Message("assistant", f"{end}{end}")), "row")
    (example,) = case.prompt.examples([row], 4096)
    assert [found.count(case.end) for _, found in stretches(example)] == [1, 1]
    assert [found[-1] for _, found in stretches(example)] == [case.end, case.end]


def test_a_question_that_spells_special_tokens_is_plain_text(case: Case) -> None:
    """Else the text of a web page could end the user's turn and begin the assistant's."""
    special = case.real.tokenizer.all_special_tokens[:3]
    plain, spelled = case.prompt.question_ids(
        [[Message("user", "one two")], [Message("user", f"one {''.join(special)} two")]]
    )
    for token in case.real.tokenizer.convert_tokens_to_ids(special):
        assert spelled.count(token) == plain.count(token)
    shown = case.prompt.tokenizer.decode(spelled, skip_special_tokens=False)
    assert all(token in shown.replace(" ", "") for token in special)


def _stripped(patch: pytest.MonkeyPatch) -> None:
    original = Prompt.answer_ids
    patch.setattr(Prompt, "answer_ids", lambda self, answers: original(self, [answer.strip() for answer in answers]))


def _tokenized_together(patch: pytest.MonkeyPatch) -> None:
    def answer_ids(self: Prompt, answers: Sequence[str]) -> list[list[int]]:
        before = "### Response:\n"
        taken = len(self._encode([before], special=True)[0])
        return [[*ids[taken:], self.end_id] for ids in self._encode([before + answer for answer in answers], True)]

    patch.setattr(Prompt, "answer_ids", answer_ids)


def _padding_is_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("pronk.tokens.prompt.padding_token", lambda tokenizer, ends: tokenizer.convert_ids_to_tokens(ends[0]))


FAULTS = [
    mask_shifted, user_turn_supervised, end_unsupervised, double_bos, _stripped, _tokenized_together, _padding_is_end,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("form", KINDS, ids="-".join)
def test_a_fault_shows(
    form: tuple[str, str], fault: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fault(monkeypatch)
    case = make_case(*form, tmp_path)
    for rows in (single(case), several(case)):
        with pytest.raises(AssertionError):
            check_all(case, rows)


def test_a_mask_of_the_first_stretch_alone_shows() -> None:
    """check looks at every stretch, and at where it stands."""
    target = np.array([False, True, True, False, True])
    assert stretches(Example(np.arange(5), target)) == [(1, [1, 2]), (4, [4])]
