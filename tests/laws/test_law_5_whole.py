"""Law 5, the other half: all ids of a conversation, prompt and answers, are those of the forms' own authors.

Oracles: transformers' apply_chat_template, Meta's ChatFormat for Llama 3, Meta's reference for Llama 2 with the
SentencePiece library, Stanford's text for Alpaca; masks by transformers' own {% generation %} blocks.
"""

from pathlib import Path
from typing import Any

import pytest
from faults import end_unsupervised, mask_shifted, user_turn_supervised
from real_tokenizers import LLAMA3_CHAT, renewed
from test_law_5_targets import KINDS, make_case

from pronk.data.conversation import Conversation, Message
from pronk.tokens.prompt import Prompt

ENGLISH = ("What is LoRA?", "A low-rank update of the weights.", "And QLoRA?", "The same on a 4-bit base.")
KOREAN = (
    "LLM 중에서 가장 유명한 LLM은 뭐야?",
    "아마도 GPT-4일 거예요.",
    "한국어 모델은?",
    "라마를 튜닝한 모델이 많아요.",
)
SYSTEM = "You are terse. 짧게 답하세요."
ROLES = ("user", "assistant", "user", "assistant")


def dialogues(system: bool) -> list[tuple[Message, ...]]:
    """One turn and two, in English and in Korean, with a system message or without."""
    before = (Message("system", SYSTEM),) if system else ()
    texts = [tuple(map(Message, ROLES, language)) for language in (ENGLISH, KOREAN)]
    return [(*before, *text[:length]) for text in texts for length in (2, 4)]  # type: ignore[arg-type]


def ids_of(prompt: Prompt, dialogue: tuple[Message, ...]) -> list[int]:
    return prompt.examples([Conversation(dialogue, "row")], 4096)[0].ids.tolist()


def plain(dialogue: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in dialogue]


# SentencePiece begins every text that it is given with a space, so for Llama 2 answers tokenized apart have one
# that the whole does not, except where a form writes it anyway.
WHOLE = [form for form in KINDS if form not in (("llama2", "alpaca"), ("llama2", "own.jinja"))]


@pytest.mark.parametrize("form", WHOLE, ids="-".join)
@pytest.mark.parametrize("system", [False, True], ids=["", "system"])
def test_ids_are_those_of_apply_chat_template(form: tuple[str, str], system: bool, tmp_path: Path) -> None:
    """Of the base's own template, of a user's, and of the one that we save beside an adapter."""
    case = make_case(*form, tmp_path)
    if system and form == ("llama2", "chat"):
        pytest.skip("the template of these tests knows no system message")
    for dialogue in dialogues(system):
        templated = case.prompt.tokenizer.apply_chat_template(plain(dialogue), return_dict=False)
        if form == ("llama2", "chat"):  # a space before each end token, which no model should have to learn
            templated = [t for t, after in zip(templated, [*templated[1:], 0], strict=True) if (t, after) != (29871, 2)]
        ids = ids_of(case.prompt, dialogue)
        # what a template writes behind the last end token is nothing to learn
        assert templated[: len(ids)] == ids
        assert len(templated) - len(ids) <= 2


@pytest.mark.parametrize("form", KINDS, ids="-".join)
def test_a_server_asks_as_training_did(form: tuple[str, str], tmp_path: Path) -> None:
    """The template that is saved beside an adapter, rendered by transformers; without an answer in what is asked."""
    case = make_case(*form, tmp_path)
    for question in (ENGLISH[0], KOREAN[0]):
        asked = (Message("user", question),)
        served = case.prompt.tokenizer.apply_chat_template(plain(asked), add_generation_prompt=True, return_dict=False)
        assert case.prompt.question_ids([asked]) == [served]


def test_llama_3_is_what_its_authors_tokenize() -> None:
    """The two texts of a course, and the form as in the model card."""
    real = renewed("llama3")
    assert real.encode("I love AI but it is complex to implement.") == [
        40, 3021, 15592, 719, 433, 374, 6485, 311, 4305, 13,
    ]  # fmt: skip
    assert real.tokenizer("LLM 중에서 가장 유명한 LLM은 뭐야?\n", add_special_tokens=False).input_ids == [
        4178, 44, 72043, 57575, 107120, 101003, 80732, 24486, 445, 11237, 34804, 113792, 90759, 5380,
    ]  # fmt: skip
    prompt = Prompt("llama3", real.tokenizer)
    written = real.tokenizer.decode(ids_of(prompt, dialogues(False)[0]))
    assert written == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhat is LoRA?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA low-rank update of the weights.<|eot_id|>"
    )
    rendered = real.tokenizer.apply_chat_template(
        plain(dialogues(True)[3]), chat_template=LLAMA3_CHAT, return_dict=False
    )
    assert ids_of(prompt, dialogues(True)[3]) == rendered


def test_llama_3_is_what_chat_format_of_llama_models_gives() -> None:
    pytest.importorskip("tiktoken", reason="llama-models reads its own vocabulary with tiktoken")
    renewed("llama3")
    from llama_models.datatypes import RawMessage, StopReason
    from llama_models.llama3.chat_format import ChatFormat
    from llama_models.llama3.tokenizer import Tokenizer

    theirs = ChatFormat(Tokenizer.get_instance())
    prompt = Prompt("llama3", renewed("llama3").tokenizer)
    for dialogue in (one for system in (False, True) for one in dialogues(system)):
        messages = [
            RawMessage(role=message.role, content=message.content, stop_reason=StopReason.end_of_turn)
            for message in dialogue
        ]
        header = theirs._encode_header("assistant")
        assert ids_of(prompt, dialogue) == theirs.encode_dialog_prompt(messages).tokens[: -len(header)]
        assert prompt.question_ids([dialogue[:-1]]) == [theirs.encode_dialog_prompt(messages[:-1]).tokens]


@pytest.mark.parametrize("system", [False, True], ids=["", "system"])
def test_llama_2_is_what_its_reference_gives(system: bool) -> None:
    """chat_completion of Meta's llama: each pair tokenized by itself, BOS and EOS around it."""
    real = renewed("llama2")
    prompt = Prompt("llama2", real.tokenizer)
    for dialogue in dialogues(system):
        texts = [message.content for message in dialogue[system:]]
        if system:
            texts[0] = f"<<SYS>>\n{SYSTEM}\n<</SYS>>\n\n{texts[0]}"
        wanted = []
        for question, answer in zip(texts[::2], texts[1::2], strict=True):
            # without the reference's space between answer and EOS
            wanted += [1, *real.encode(f"[INST] {question.strip()} [/INST] {answer.strip()}"), 2]
        assert ids_of(prompt, dialogue) == wanted


@pytest.mark.parametrize("name", ["smollm2", "llama2", "llama3"])
def test_alpaca_is_stanfords_text(name: str) -> None:
    real = renewed(name)
    prompt = Prompt("alpaca", real.tokenizer)
    begin = [real.tokenizer.bos_token_id] if real.bos else []
    preamble = (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
    )
    first = f"{preamble}### Instruction:\nSummarize.\n\n### Input:\n긴 글.\n\n### Response:\n"
    then = "\n\n### Instruction:\nShorter!\n\n### Response:\n"
    dialogue = (
        Message("user", "Summarize.", "긴 글."), Message("assistant", "짧은 글."),
        Message("user", "Shorter!"), Message("assistant", "글."),
    )  # fmt: skip
    end = [prompt.end_id]
    parts = [*real.encode(first), *real.encode("짧은 글."), *end, *real.encode(then), *real.encode("글."), *end]
    assert ids_of(prompt, dialogue) == [*begin, *parts]


MARKED = {
    "smollm2": "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}",
    "llama3": "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ m.content + '<|eot_id|>' }}{% endif %}{% endfor %}",
}


def check_masks(name: str, kind: str) -> None:
    tokenizer: Any = renewed(name).tokenizer
    prompt = Prompt(kind, tokenizer)
    for dialogue in dialogues(True):
        (example,) = prompt.examples([Conversation(dialogue, "row")], 4096)
        theirs = tokenizer.apply_chat_template(
            plain(dialogue), chat_template=MARKED[name], return_dict=True, return_assistant_tokens_mask=True
        )
        length = len(example.ids)
        assert example.ids.tolist() == theirs["input_ids"][:length]
        assert example.target.tolist() == [bool(learned) for learned in theirs["assistant_masks"][:length]]


@pytest.mark.parametrize("form", [("smollm2", "chat"), ("llama3", "chat"), ("llama3", "llama3")], ids="-".join)
def test_masks_are_those_of_generation_blocks(form: tuple[str, str]) -> None:
    check_masks(*form)


@pytest.mark.parametrize("fault", [mask_shifted, end_unsupervised, user_turn_supervised])
def test_a_fault_shows_against_generation_blocks(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check_masks("smollm2", "chat")
