"""The form that a run is asked in, as a chat template that any engine can render.

An engine knows messages and a template, but no recipe: the run's system message and the instruction that stands before
each of its questions go into the template itself. What is written is compared with what the run is asked with here,
id by id, before anything is started.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pronk.ask.models import Form
from pronk.data.conversation import Message
from pronk.data.questions import Question
from pronk.errors import PromptError
from pronk.tokens.forms import ALPACA_PAIRED, ALPACA_PREAMBLE

if TYPE_CHECKING:
    from pronk.ask.asking import Reader

# What templates and tokenizers treat apart: digits, spaces at the ends, lines, other scripts, quotes, braces.
PROBES = ("Hello", "  Sales rose 12.5% to EUR 1,024 mn.\n\nWas that good? ", "그는 '라마'를 {{ 보았다 }} \\n \"🦙\"")
PROBE_ANSWER = "Yes."
# Jinja's trim_blocks, which transformers, vLLM and llama.cpp all set, takes the line break behind the last block away:
# so the run's own template begins a line, as it does by itself.
REWRITTEN = (
    "{{%- set asked = namespace(messages=[]) %}}"
    "{{%- if {system} and (not messages or messages[0]['role'] != 'system') %}}"
    "{{%- set asked.messages = [{{'role': 'system', 'content': {system}}}] %}}{{%- endif %}}"
    "{{%- for message in messages %}}"
    "{{%- set asked.messages = asked.messages + [{{'role': 'user', 'content': {before} + message['content']}}"
    " if message['role'] == 'user' else message] %}}"
    "{{%- endfor %}}"
    "{{%- set messages = asked.messages %}}\n"
)
PLAIN = "{%- for message in messages %}{{- message['content'] }}{%- endfor %}"


def served_template(form: Form, prompt: Any) -> str:
    """A Jinja template that writes messages in a run's form.

    form: how the run is asked; prompt: its pronk.tokens.prompt.Prompt. A system message of the client takes the place
    of the run's own. A run that goes on with texts writes the messages one after another, in no form.
    """
    if form.plain:
        return ("{{- bos_token }}" if prompt.begin is not None else "") + PLAIN
    system, before = form.system or "", ""
    if form.instruction:
        before = f"{form.instruction}\n\n"
        if prompt.kind == "alpaca":  # what an instruction is about stands in a place of its own there
            before = f"{form.instruction}\n\n### Input:\n"
            system = system or ALPACA_PREAMBLE.format(paired=ALPACA_PAIRED)
    if not system and not before:
        return str(prompt.form.template)
    return REWRITTEN.format(system=_literal(system), before=_literal(before)) + prompt.form.template


def _literal(text: str) -> str:
    """A text as Jinja reads it back: the escapes of JSON are among Jinja's, as long as letters stay themselves."""
    return json.dumps(text, ensure_ascii=False)


def rendered_ids(tokenizer: Any, template: str, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The ids that an engine asks with: the template's whole text, tokenized at once."""
    text = tokenizer.apply_chat_template(
        list(messages), chat_template=template, add_generation_prompt=True, tokenize=False
    )
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def probe_ids(reader: Reader, text: str) -> list[int]:
    """The ids that a run is asked with in `pronk chat`, for a first question."""
    return reader.ids([Question(text, "", "a question")])[0]


def check_template(reader: Reader, template: str) -> list[str]:
    """That the template asks as `pronk chat` does, by the ids of a few questions; what differs in later turns is said.

    Raises PromptError where a first question differs.
    """
    tokenizer, name = reader.prompt.tokenizer, reader.model.name
    for text in PROBES:
        asked = rendered_ids(tokenizer, template, [{"role": "user", "content": text}])
        if asked != (wanted := probe_ids(reader, text)):
            raise PromptError(
                f"{name}: as a chat template this run's prompt form does not ask as `pronk chat` does: "
                f"{_first_difference(tokenizer, asked, wanted)}; an engine would ask otherwise than the run has "
                "learned, so it is not served"
            )
    if reader.model.form.plain:
        return []
    return _later_turns(reader, template)


def _later_turns(reader: Reader, template: str) -> list[str]:
    form, (first, second) = reader.model.form, PROBES[:2]
    *system, asked = form.messages(Question(first, "", ""))
    (again,) = form.messages(Question(second, "", ""))[-1:]
    wanted = reader.prompt.question_ids([[*system, asked, Message("assistant", PROBE_ANSWER), again]])[0]
    said = [("user", first), ("assistant", PROBE_ANSWER), ("user", second)]
    messages = [{"role": role, "content": content} for role, content in said]
    if rendered_ids(reader.prompt.tokenizer, template, messages) == wanted:
        return []
    return [f"{reader.model.name}: from the second question of a conversation on, tokens differ from `pronk chat`'s"]


def _first_difference(tokenizer: Any, asked: Sequence[int], wanted: Sequence[int]) -> str:
    """Where two prompts part, in words."""
    same = next((i for i, pair in enumerate(zip(asked, wanted, strict=False)) if len(set(pair)) == 2), None)
    at = min(len(asked), len(wanted)) if same is None else same
    here, there = (tokenizer.decode(ids[at : at + 8]) if at < len(ids) else "its end" for ids in (asked, wanted))
    return f"at token {at + 1} it writes {here!r}, not {there!r}"
