"""Prompt forms that are written here: alpaca, llama2, llama3.

A form says with what text each answer of a conversation is asked for. Beside each form stands the same
as a chat template, which goes with the saved tokenizer, so that a server asks as training did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pronk.data.conversation import Message
from pronk.tokens.special import adds_bos, end_of_text, required_ids


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is tokenized by itself. special: what spells a special token in it becomes that token."""

    text: str
    special: bool = False


Question = list[Piece]  # all that stands between two answers


class Form(Protocol):
    """What a prompt is made of.

    end_id: the token that ends an answer. begin: the token that begins a text, where the form writes one
    itself. template: the form as a chat template.
    """

    end_id: int
    begin: int | None
    template: str

    def questions(self, dialogues: Sequence[Sequence[Message]], places: Sequence[str]) -> list[list[Question]]:
        """For each dialogue a question for each of its answers, and one for an open end.

        places: where each dialogue comes from, for messages to people.
        """
        ...


def rounds(dialogue: Sequence[Message]) -> list[list[Message]]:
    """The messages before each answer, and those after the last one if there are any."""
    found: list[list[Message]] = [[]]
    for message in dialogue:
        if message.role == "assistant":
            found.append([])
        else:
            found[-1].append(message)
    return found if found[-1] else found[:-1]


def content(message: Message) -> str:
    """A message's text in forms that have no place of its own for the context."""
    return "\n\n".join(filter(None, (message.content, message.context)))


# The form of Stanford Alpaca (Taori et al. 2023), with and without an input.
ALPACA_PREAMBLE = (
    "Below is an instruction that describes a task{paired}. Write a response that appropriately completes the request."
)
ALPACA_PAIRED = ", paired with an input that provides further context"
ALPACA_INPUT = "\n\n### Input:\n"  # between instruction and context; a server's client writes it into the content
ALPACA_TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] + '\n\n' }}"
    "{%- elif '" + ALPACA_INPUT + "' in messages[0]['content'] %}"
    "{{- '" + ALPACA_PREAMBLE.format(paired=ALPACA_PAIRED) + "\n\n' }}"
    "{%- else %}{{- '" + ALPACA_PREAMBLE.format(paired="") + "\n\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}"
    "{{- '### Instruction:\n' + message['content'] + '\n\n### Response:\n' }}"
    "{%- elif message['role'] == 'assistant' %}"
    "{{- message['content'] + eos_token }}{%- if not loop.last %}{{- '\n\n' }}{%- endif %}"
    "{%- endif %}{%- endfor %}"
)


class Alpaca:
    """The Alpaca form; a system message takes the place of its preamble.

    Alpaca itself knows one question only. Further ones follow the end token as blocks of their own,
    without the preamble: "\n\n### Instruction:\n…\n\n### Response:\n".
    """

    def __init__(self, tokenizer: Any) -> None:
        self.begin: int | None = None
        self.end_id = end_of_text(tokenizer)
        self.template: str = ("{{- bos_token }}" if adds_bos(tokenizer) else "") + ALPACA_TEMPLATE

    def questions(self, dialogues: Sequence[Sequence[Message]], places: Sequence[str]) -> list[list[Question]]:  # noqa: ARG002
        """See Form."""
        return [
            [[Piece(_alpaca(asked, first=number == 0))] for number, asked in enumerate(rounds(dialogue))]
            for dialogue in dialogues
        ]


def _alpaca(asked: Sequence[Message], first: bool) -> str:
    *before, user = asked
    asks = alpaca_content(user)
    paired = ALPACA_PAIRED if ALPACA_INPUT in asks else ""
    preamble = before[0].content if before else ALPACA_PREAMBLE.format(paired=paired) if first else ""
    return f"{preamble}\n\n### Instruction:\n{asks}\n\n### Response:\n"


def alpaca_content(message: Message) -> str:
    """A message's text in the Alpaca form, its context under a heading."""
    return f"{message.content}{ALPACA_INPUT}{message.context}" if message.context else message.content


LLAMA2_TEMPLATE = (
    "{%- set system = '' %}{%- set turns = messages %}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}{%- set turns = messages[1:] %}"
    "{%- endif %}{%- for message in turns %}"
    "{%- if message['role'] == 'user' %}"
    "{{- bos_token + '[INST] ' + ((system if loop.first else '') + message['content']) | trim + ' [/INST]' }}"
    "{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] + eos_token }}"
    "{%- endif %}{%- endfor %}"
)


class Llama2:
    """Llama 2's chat form, as chat_completion of Meta's reference (github.com/meta-llama/llama) tokenizes it.

    Every turn begins with a BOS and ends with an EOS, and is tokenized by itself. One difference:
    the reference writes a space between answer and EOS, which would keep the model from learning to stop.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.begin: int | None
        self.begin, self.end_id = required_ids("llama2", ("<s>", "</s>"), tokenizer)
        self.template: str = LLAMA2_TEMPLATE

    def questions(self, dialogues: Sequence[Sequence[Message]], places: Sequence[str]) -> list[list[Question]]:  # noqa: ARG002
        """See Form."""
        return [
            [[Piece("<s>", special=True), Piece(_llama2(asked))] for asked in rounds(dialogue)]
            for dialogue in dialogues
        ]


def _llama2(asked: Sequence[Message]) -> str:
    *before, user = asked
    system = f"<<SYS>>\n{before[0].content}\n<</SYS>>\n\n" if before else ""
    return f"[INST] {(system + content(user)).strip()} [/INST]"


LLAMA3_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
LLAMA3_TEMPLATE = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)


class Llama3:
    """Llama 3's chat form, as ChatFormat of Meta's llama-models tokenizes it.

    What is asked is stripped of spaces around it, as in the template that Meta ships; answers are not.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.begin: int | None
        self.begin, *_, self.end_id = required_ids("llama3", LLAMA3_TOKENS, tokenizer)
        self.template: str = LLAMA3_TEMPLATE

    def questions(self, dialogues: Sequence[Sequence[Message]], places: Sequence[str]) -> list[list[Question]]:  # noqa: ARG002
        """See Form."""
        return [
            [_llama3(asked, first=number == 0) for number, asked in enumerate(rounds(dialogue))]
            for dialogue in dialogues
        ]


def _llama3(asked: Sequence[Message], first: bool) -> Question:
    made, before = [], "<|begin_of_text|>" if first else ""
    for message in asked:
        made.append(Piece(f"{before}<|start_header_id|>{message.role}<|end_header_id|>\n\n", special=True))
        made.append(Piece(content(message).strip()))
        before = "<|eot_id|>"
    return [*made, Piece(f"{before}<|start_header_id|>assistant<|end_header_id|>\n\n", special=True)]
