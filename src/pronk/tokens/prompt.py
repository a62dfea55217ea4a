"""Conversation → token ids + loss mask, for training and inference alike.

Prompt and answer are tokenized apart, so that no token straddles the border: the ids that a
trained model was asked with are, one by one, the ids that it is asked with later.
The loaded tokenizer is an argument; this module imports neither torch nor transformers.

forms.py      alpaca, llama2, llama3, and what a form is
template.py   the base model's own chat template, or a user's Jinja file
special.py    begin, end and padding
example.py    ids and mask of a conversation
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pronk.data.conversation import Conversation, Message
from pronk.data.words import counted
from pronk.errors import BaseModelError, DataError
from pronk.tokens.example import Example, Turn, make_example
from pronk.tokens.forms import Alpaca, Form, Llama2, Llama3, Piece
from pronk.tokens.special import adds_bos, padding_token
from pronk.tokens.template import Template, read_template

__all__ = ["Example", "Prompt", "padding_token"]

BATCH = 1024  # conversations handed to the tokenizer at once
# What `pronk check` calls a prompt that leaves no room for its answer.
NO_ROOM, UNREADABLE = "prompt-longer-than-max-length", "prompt-longer-than-the-base-reads"


@dataclass(frozen=True, slots=True)
class TooLong:
    """A conversation whose prompt leaves no room for its answer. row: which of those given; whole: tokens in all;
    needed: those before an answer of which a part must be kept."""

    row: int
    place: str
    whole: int
    needed: int


def make_form(kind: str, tokenizer: Any) -> Form:
    """The form of a recipe's `prompt`: alpaca, llama2, llama3, chat, or the path of a template."""
    written: dict[str, Callable[[Any], Form]] = {"alpaca": Alpaca, "llama2": Llama2, "llama3": Llama3}
    if kind in written:
        return written[kind](tokenizer)
    if kind != "chat":
        return Template(tokenizer, read_template(kind), f"the template {kind}")
    if not getattr(tokenizer, "chat_template", None):
        raise BaseModelError(
            "prompt: the base model has no chat template of its own; use `prompt: alpaca`, or an instruct model"
        )
    return Template(tokenizer, tokenizer.get_chat_template(), "the base model's chat template")


class Prompt:
    """The form in which one base model is asked.

    The tokenizer gets a token to pad with, and the form as its chat template: saved beside an adapter, it
    tells a server how the adapter was trained.
    """

    def __init__(self, kind: str, tokenizer: Any) -> None:
        self.kind, self.tokenizer = kind, tokenizer
        self.form = make_form(kind, tokenizer)
        self.end_id = self.form.end_id
        begin = tokenizer.bos_token_id if adds_bos(tokenizer) else None
        # the token that begins a text, if any does: the form's, else the tokenizer's
        self.begin: int | None = begin if self.form.begin is None else self.form.begin
        self.given_pad_id: int | None = tokenizer.pad_token_id  # the base's own choice, for people to know
        tokenizer.pad_token = padding_token(tokenizer, [self.end_id])
        tokenizer.chat_template = self.form.template

    def question_text(self, question: Sequence[Message]) -> str:
        """All that comes before an answer, as text; question: messages, the last of them the user's."""
        asked = self.form.questions([question], [""])[0]
        answers = [message.content for message in question if message.role == "assistant"]
        end = self.tokenizer.convert_ids_to_tokens(self.end_id)
        texts = ["".join(piece.text for piece in pieces) for pieces in asked]
        return "".join(text + answer + end for text, answer in zip(texts, answers, strict=False)) + texts[-1]

    def question_ids(self, questions: Sequence[Sequence[Message]]) -> list[list[int]]:
        """The ids that the model is asked with, earlier turns included, BOS once where the base model has one."""
        turns = self._turns(questions, ["" for _ in questions])
        return [[token for turn in one for part in (turn.question, turn.answer) for token in part] for one in turns]

    def answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """The ids that the model is to reply with, end token included."""
        return [[*ids, self.end_id] for ids in self._encode(answers, special=False)]

    def examples(
        self,
        conversations: Sequence[Conversation],
        max_length: int,
        every_answer: bool = False,
        context: int | None = None,
        left_out: list[TooLong] | None = None,
    ) -> list[Example]:
        """Ids and loss mask of each conversation, cut to max_length tokens; every answer and its end are learned.

        Later turns may be cut off (they are counted); a part of the first answer is always kept, and
        with every_answer a part of each. context: the most that max_length could be, for the advice in
        errors. left_out: given a list, conversations for which that cannot be go there, as long as any is left.
        Raises DataError if that cannot be, PromptError where the template's prompt is not the
        beginning of what it writes in the end.
        """
        made: list[Example] = []
        too_long: list[TooLong] = []
        for row, (conversation, turns) in enumerate(self._batches(conversations)):
            needed = _needed(turns, every_answer)
            if needed < max_length:
                made.append(make_example(turns, max_length))
            else:
                whole = sum(len(one.question) + len(one.answer) for one in turns)
                too_long.append(TooLong(row, conversation.place, whole, needed))
        if too_long and (left_out is None or not made):
            raise _no_room(too_long, max_length, context)
        if left_out is not None:
            left_out += too_long
        return made

    def _batches(self, conversations: Sequence[Conversation]) -> Iterator[tuple[Conversation, list[Turn]]]:
        for start in range(0, len(conversations), BATCH):
            batch = conversations[start : start + BATCH]
            turns = self._turns([one.messages for one in batch], [one.place for one in batch])
            yield from zip(batch, turns, strict=True)

    def _turns(self, dialogues: Sequence[Sequence[Message]], places: Sequence[str]) -> list[list[Turn]]:
        """Each dialogue as ids; a dialogue that ends with a question ends with a turn without an answer."""
        questions = iter(self._questions(dialogues, places))
        texts = [[message.content for message in one if message.role == "assistant"] for one in dialogues]
        answers = iter(self.answer_ids([text for one in texts for text in one]))
        made = []
        for dialogue, one in zip(dialogues, texts, strict=True):
            turns = [Turn(next(questions), next(answers)) for _ in one]
            made.append(turns if dialogue[-1].role == "assistant" else [*turns, Turn(next(questions), [])])
        return made

    def _questions(self, dialogues: Sequence[Sequence[Message]], places: Sequence[str]) -> list[list[int]]:
        """The ids before each answer of each dialogue, one dialogue after the other, a BOS where it belongs."""
        asked = [i for i, one in enumerate(dialogues) if not _is_text(one)]
        written = self.form.questions([dialogues[i] for i in asked], [places[i] for i in asked])
        pieces = dict(zip(asked, written, strict=True))
        found = [pieces.get(i, [[]]) for i in range(len(dialogues))]
        encoded = self._encode_pieces([piece for one in found for question in one for piece in question])
        ids = []
        for one in found:
            for number, question in enumerate(one):
                joined = [token for piece in question for token in encoded[piece]]
                if number == 0 and self.begin is not None and self.begin not in joined:
                    joined.insert(0, self.begin)
                ids.append(joined)
        return ids

    def _encode_pieces(self, pieces: Sequence[Piece]) -> dict[Piece, list[int]]:
        """Ids of each piece; what many conversations share is tokenized once."""
        found: dict[Piece, list[int]] = {}
        for special in (False, True):
            chosen = [piece for piece in dict.fromkeys(pieces) if piece.special is special]
            found |= zip(chosen, self._encode([piece.text for piece in chosen], special), strict=True)
        return found

    def _encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        """special: whether text that spells a special token becomes that token."""
        if not texts:
            return []
        options = {"add_special_tokens": False, "split_special_tokens": not special, "return_attention_mask": False}
        encoded: list[list[int]] = self.tokenizer(list(texts), **options).input_ids
        return encoded


def _is_text(dialogue: Sequence[Message]) -> bool:
    """Plain text to go on with: an answer that nobody asked for."""
    return len(dialogue) == 1 and dialogue[0].role == "assistant"


def _needed(turns: Sequence[Turn], every_answer: bool) -> int:
    """Tokens that must be read before the answer that may not be cut off entirely."""
    *before, last = turns if every_answer else turns[:1]
    return sum(len(turn.question) + len(turn.answer) for turn in before) + len(last.question)


def _no_room(rows: Sequence[TooLong], max_length: int, context: int | None) -> DataError:
    unreadable = [row for row in rows if context is not None and row.needed >= context]
    longest = max(unreadable or rows, key=lambda row: row.whole)
    others = len(unreadable or rows) - 1
    row = longest.place + (f" and {counted(others, 'more row')}" if others else "")
    found = others + 1, [one.place for one in unreadable or rows][:2]
    if unreadable:
        return DataError(
            f"{row}: the prompt alone takes {longest.needed} tokens, and the base model reads {context} at most, so "
            "nothing is left for the answer; leave such rows out (data.where)",
            UNREADABLE,
            *found,
        )
    fitting = longest.whole if context is None else min(longest.whole, context)
    return DataError(
        f"{row}: the prompt alone takes all {max_length} tokens of train.max_length, so the answer is cut off "
        f"entirely; set it to {fitting}, or leave such rows out (data.where)",
        NO_ROOM,
        *found,
    )
