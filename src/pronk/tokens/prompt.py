"""Conversation → token ids + loss mask, for training and inference alike.

Prompt and answer are tokenized apart, so that no token straddles the border: the ids that a
trained model was asked with are, one by one, the ids that it is asked with later.
The loaded tokenizer is an argument; this module imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pronk.data.conversation import Conversation, Message
from pronk.errors import BaseModelError, DataError

# The form of Stanford Alpaca (Taori et al. 2023), with and without an input.
ALPACA_PREAMBLE = (
    "Below is an instruction that describes a task{paired}. Write a response that appropriately completes the request."
)
ALPACA_PAIRED = ", paired with an input that provides further context"

# Tokens that a vocabulary sets aside and no text contains: any of them can be the padding.
UNUSED_TOKENS = (
    "<pad>", "<|pad|>", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>",
    "<unk>", "<|endoftext|>", "<reponame>",
)  # fmt: skip
BATCH = 1024  # texts handed to the tokenizer at once


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation as the model sees it. ids: int64 (length); target: bool (length), true where
    the id is learned: the answer and its end token. cut: answer tokens lost to max_length."""

    ids: npt.NDArray[np.int64]
    target: npt.NDArray[np.bool_]
    cut: int = 0

    @property
    def prompt_ids(self) -> npt.NDArray[np.int64]:
        """The ids before the answer: what the model is asked with."""
        return self.ids[: int(np.argmax(self.target))]


class Prompt:
    """The form in which one base model is asked: `alpaca`, or `chat`, its own template."""

    def __init__(self, kind: Literal["alpaca", "chat"], tokenizer: Any) -> None:
        self.kind = kind
        self.tokenizer = tokenizer
        self.adds_bos = _adds_bos(tokenizer)
        if kind == "chat" and not getattr(tokenizer, "chat_template", None):
            raise BaseModelError(
                "prompt: the base model has no chat template of its own; use `prompt: alpaca`, or an instruct model"
            )
        self.end_id = _end_of_reply(tokenizer) if kind == "chat" else tokenizer.eos_token_id
        if self.end_id is None:
            raise BaseModelError("the base model's tokenizer has no end token (eos_token)")
        tokenizer.pad_token = padding_token(tokenizer, [self.end_id])

    def question_text(self, question: Sequence[Message]) -> str:
        """All that comes before the answer, as text."""
        return _alpaca(question) if self.kind == "alpaca" else _chat(self.tokenizer, question)

    def question_ids(self, questions: Sequence[Sequence[Message]]) -> list[list[int]]:
        """The ids that the model is asked with, BOS once where the base model has one."""
        # a chat template writes special tokens; in the Alpaca form whatever looks like one is plain text
        encoded = self._encode([self.question_text(question) for question in questions], self.kind == "chat")
        bos = self.tokenizer.bos_token_id
        return [[bos, *ids] if self.adds_bos and ids[:1] != [bos] else ids for ids in encoded]

    def answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """The ids that the model is to reply with, end token included."""
        return [[*ids, self.end_id] for ids in self._encode(answers, special=False)]

    def examples(self, conversations: Sequence[Conversation], max_length: int) -> list[Example]:
        """Ids and loss mask of each conversation, cut to max_length tokens.

        Raises DataError if an answer would be cut off entirely.
        """
        made, too_long = [], []
        for conversation, question, answer in self._encoded(conversations):
            ids = np.array((question + answer)[:max_length], dtype=np.int64)
            if len(question) >= max_length:
                too_long.append((conversation.place, len(question) + len(answer)))
            made.append(
                Example(ids, np.arange(len(ids)) >= len(question), max(0, len(question) + len(answer) - max_length))
            )
        if too_long:
            place, needed = max(too_long, key=lambda row: row[1])
            others = f" and {len(too_long) - 1} more rows" if len(too_long) > 1 else ""
            raise DataError(
                f"{place}{others}: the prompt alone takes all {max_length} tokens of train.max_length, so "
                f"the answer is cut off entirely; set it to {needed}, or drop such rows"
            )
        return made

    def _encoded(self, conversations: Sequence[Conversation]) -> Iterator[tuple[Conversation, list[int], list[int]]]:
        for start in range(0, len(conversations), BATCH):
            batch = conversations[start : start + BATCH]
            questions = self.question_ids([conversation.question for conversation in batch])
            answers = self.answer_ids([conversation.answer for conversation in batch])
            yield from zip(batch, questions, answers, strict=True)

    def _encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        """special: whether text that spells a special token becomes that token."""
        if not texts:
            return []
        options = {"add_special_tokens": False, "split_special_tokens": not special}
        encoded: list[list[int]] = self.tokenizer(list(texts), **options).input_ids
        return encoded


def padding_token(tokenizer: Any, end_ids: Sequence[int]) -> str:
    """A token to pad with: one the vocabulary already has, and never an end token.

    With pad = end token many trainers mask the end token, and the model never learns to stop.
    The embeddings keep their size, since a token is only chosen, never added.
    """
    forbidden = {*end_ids, tokenizer.eos_token_id, tokenizer.bos_token_id}
    vocabulary = tokenizer.get_vocab()
    special = [token for token in tokenizer.all_special_tokens if token not in UNUSED_TOKENS]
    for token in (tokenizer.pad_token, *UNUSED_TOKENS, *special):
        if token in vocabulary and vocabulary[token] not in forbidden:
            return str(token)
    raise BaseModelError("the base model's vocabulary has no token that is free to pad with")


def _alpaca(question: Sequence[Message]) -> str:
    """The Alpaca form; a system message takes the place of its preamble."""
    *before, user = question
    paired = ALPACA_PAIRED if user.context else ""
    preamble = before[0].content if before else ALPACA_PREAMBLE.format(paired=paired)
    context = f"### Input:\n{user.context}\n\n" if user.context else ""
    return f"{preamble}\n\n### Instruction:\n{user.content}\n\n{context}### Response:\n"


def _chat(tokenizer: Any, question: Sequence[Message]) -> str:
    """The base model's own template, up to where its reply begins."""
    text = tokenizer.apply_chat_template(_as_dicts(question), tokenize=False, add_generation_prompt=True)
    return str(text)


def _as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [
        {"role": message.role, "content": "\n\n".join(filter(None, (message.content, message.context)))}
        for message in messages
    ]


def _end_of_reply(tokenizer: Any) -> int:
    """The token with which the base model's template ends a reply.

    Found by rendering a probe, since templates end replies with tokens other than eos
    (Llama 3: <|eot_id|>).
    """
    question, reply = [Message("user", "question")], "reply"
    before = _chat(tokenizer, question)
    whole = str(
        tokenizer.apply_chat_template([*_as_dicts(question), {"role": "assistant", "content": reply}], tokenize=False)
    )
    lead, found, after = whole[len(before) :].partition(reply)
    if not whole.startswith(before) or not found or lead.strip():
        raise BaseModelError(
            "prompt: with the base model's chat template a prompt is not the beginning of the whole conversation, "
            "so training and asking would differ; use `prompt: alpaca`"
        )
    special = set(tokenizer.all_special_ids)
    ends = [token for token in tokenizer(after, add_special_tokens=False).input_ids if token in special]
    return int(ends[0] if ends else tokenizer.eos_token_id)


def _adds_bos(tokenizer: Any) -> bool:
    """Whether the base model was trained with a BOS before its text: its tokenizer adds one itself."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a").input_ids[:1] == [bos]
