"""A user's Jinja template: what is wrong with it is said in one message, with the line where there is one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pronk.data.conversation import Conversation, Message
from pronk.errors import BaseModelError, PromptError, PronkError
from pronk.tokens.prompt import Prompt

LOOP = "{% for m in messages %}{{ '[' + m.role + ']' + m.content + eos_token }}{% endfor %}"
ASK = "{% if add_generation_prompt %}[assistant]{% endif %}"


@pytest.fixture
def tokenizer(smollm2: Any) -> Any:
    from pronk.model.load import load_tokenizer

    return load_tokenizer(smollm2)


@pytest.fixture
def prompt_of(tokenizer: Any, tmp_path: Path) -> Callable[[str], Prompt]:
    def make(text: str) -> Prompt:
        path = tmp_path / "own.jinja"
        path.write_text(text, encoding="utf-8")
        return Prompt(str(path), tokenizer)

    return make


def conversation(*texts: str) -> Conversation:
    roles = ["user", "assistant"] * len(texts)
    return Conversation(tuple(Message(role, text) for role, text in zip(roles, texts, strict=False)), "chat.jsonl:7")  # type: ignore[arg-type]


def test_a_template_of_ones_own(prompt_of: Callable[[str], Prompt], tokenizer: Any) -> None:
    prompt = prompt_of(LOOP + ASK + "\n")
    (example,) = prompt.examples([conversation("a", "b", "c", "d")], 100)
    assert tokenizer.decode(example.ids) == (
        "[user]a<|im_end|>[assistant]b<|im_end|>[user]c<|im_end|>[assistant]d<|im_end|>"
    )
    assert tokenizer.decode(example.ids[example.target]) == "b<|im_end|>d<|im_end|>"
    assert tokenizer.decode(example.prompt_ids).endswith("[user]c<|im_end|>[assistant]")


BROKEN = {
    "never closed": ("{% for m in messages %}\n{{ m.content }}", "own.jinja, line 2: Unexpected end of template"),
    "unknown tag": (f"a\n{LOOP}\n{{% fro %}}", "own.jinja, line 3: Encountered unknown tag 'fro'"),
    "unknown filter": (f"{LOOP}\n{{{{ 'a' | upcase }}}}", "own.jinja, line 2: No filter named 'upcase'"),
    "what is undefined": (f"{LOOP}\n\n{{{{ message.role.x }}}}", "own.jinja, line 3: 'message' is undefined"),
    "raises": (LOOP + "\n{{ raise_exception('no!') }}", "own.jinja, line 2: no!"),
    "arithmetic": ("{{ 1 / 0 }}" + LOOP, "own.jinja, line 1: division by zero"),
    "leaves the sandbox": ("{{ ''.__class__.__mro__ }}" + LOOP, "own.jinja, line 1: access to attribute '__class__'"),
    "prints nothing": ("{% for m in mesages %}{{ m.content }}{% endfor %}", "prints nothing; the conversation is in"),
    "prints no message": ("Hello", "prints 'Hello', without the user's message"),
    "prints no answer": ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
                         "does not print the assistant's message"),
    "no generation prompt": (LOOP, "before the reply comes '[assistant]', which the prompt does not end with"),
    "another generation prompt": (LOOP + "{% if add_generation_prompt %}[bot]{% endif %}",
                                  "the prompt goes on with 'bot]', the conversation with 'assistant]reply<|im_end|>'"),
    "empty": ("\n", "own.jinja: the template is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_a_template(case: str, prompt_of: Callable[[str], Prompt]) -> None:
    text, message = BROKEN[case]
    with pytest.raises(PromptError, match=re.escape(message)):
        prompt_of(text)


def test_a_template_that_is_not_there(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"prompt: .*none\.jinja: there is no such template file"):
        Prompt(str(tmp_path / "none.jinja"), tokenizer)
    with pytest.raises(PromptError, match="this is a folder"):
        Prompt(str(tmp_path), tokenizer)
    (tmp_path / "latin.jinja").write_bytes(b"\xe9")
    with pytest.raises(PromptError, match=r"not UTF-8 text \(byte 0\)"):
        Prompt(str(tmp_path / "latin.jinja"), tokenizer)


def test_a_template_that_forgets_earlier_answers(prompt_of: Callable[[str], Prompt]) -> None:
    """As templates that drop a model's thinking: later prompts are not what was learned."""
    prompt = prompt_of(LOOP.replace("m.content", "(m.content if loop.last or m.role == 'user' else '…')") + ASK)
    prompt.examples([conversation("a", "b")], 100)
    with pytest.raises(PromptError, match=re.escape("chat.jsonl:7, answer 1: the template")) as caught:
        prompt.examples([conversation("x", "y"), conversation("a", "b", "c", "d")], 100)
    assert "does not write the answer as it is: after the prompt comes '…<|im_end|>[user]c" in str(caught.value)


def test_a_template_that_changes_earlier_questions(prompt_of: Callable[[str], Prompt]) -> None:
    prompt = prompt_of("{% if messages | length > 2 %}long{% endif %}" + LOOP + ASK)
    with pytest.raises(PromptError, match=r"chat\.jsonl:7, answer 1: .* is not the beginning .* training and asking"):
        prompt.examples([conversation("a", "b", "c", "d")], 100)


def test_several_turns_need_an_end_token(prompt_of: Callable[[str], Prompt]) -> None:
    """One answer may end with the tokenizer's own end token; in the middle only the template can write it."""
    prompt = prompt_of("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}" + ASK)
    (example,) = prompt.examples([conversation("a", "b")], 100)
    assert example.ids[-1] == prompt.end_id == prompt.tokenizer.eos_token_id
    with pytest.raises(PromptError, match=r"answer 1: .* writes no end token .* write \{\{ eos_token \}\}"):
        prompt.examples([conversation("a", "b", "c", "d")], 100)


def test_a_row_that_the_template_refuses_is_named(prompt_of: Callable[[str], Prompt]) -> None:
    refuse = "{% if messages[0].content == 'bad' %}\n{{ raise_exception('not this') }}{% endif %}"
    with pytest.raises(PromptError, match=r"^chat\.jsonl:7: the template .*own\.jinja, line 2: not this$"):
        prompt_of(refuse + LOOP + ASK).examples([conversation("bad", "b")], 100)


@pytest.mark.parametrize(
    ("kind", "missing"), [("llama2", "<s>, </s>"), ("llama3", r"<\|begin_of_text\|>, .*eot_id\|>")]
)
def test_forms_that_need_tokens_say_which_are_missing(kind: str, missing: str, tokenizer: Any) -> None:
    wanted = rf"prompt: {kind} needs tokens .* not have: {missing}; use `prompt: chat` .* or `prompt: alpaca`"
    with pytest.raises(BaseModelError, match=wanted):
        Prompt(kind, tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(BaseModelError, match=r"; use `prompt: alpaca`, which needs none$"):
        Prompt(kind, tokenizer)


def test_every_error_here_is_the_users_to_mend() -> None:
    assert issubclass(PromptError, PronkError)
    assert PromptError.exit_code == 2
