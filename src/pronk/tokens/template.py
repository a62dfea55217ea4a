"""Prompt forms that are chat templates: the base model's own, or a user's Jinja file.

Both are rendered by transformers, in its sandbox. The text is then cut at the answers, so that answers
are tokenized apart here as everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pronk.data.conversation import Message
from pronk.errors import PromptError
from pronk.tokens.forms import Piece, Question, content
from pronk.tokens.special import adds_bos, end_of_text, special_tokens

ASKED, REPLY = "question", "reply"
DIFFERS = "prompt-differs-from-inference"  # what `pronk check` calls it
SHOWN = 40  # characters of a text in a message to people
# Around the id of a special token that a message spells: private-use characters, as transformers does it.
OPEN, CLOSE = "\U000f0000", "\U000f0001"


def read_template(path: str) -> str:
    """The text of a template file. Raises PromptError if it cannot be read or is empty."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PromptError(f"prompt: {path}: there is no such template file") from None
    except IsADirectoryError:
        raise PromptError(f"prompt: {path}: this is a folder; a template is a text file in Jinja's notation") from None
    except UnicodeDecodeError as error:
        raise PromptError(f"prompt: {path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise PromptError(f"prompt: {path}: cannot be read ({error.strerror})") from None
    if not text.strip():
        raise PromptError(f"prompt: {path}: the template is empty")
    return text


class Template:
    """A chat template. name: what people call it."""

    def __init__(self, tokenizer: Any, template: str, name: str) -> None:
        self.tokenizer, self.name = tokenizer, name
        # whether the tokenizer writes a BOS of its own is no business of a server, which renders the template alone
        begins = adds_bos(tokenizer) and tokenizer.bos_token not in template and "bos_token" not in template
        self.template = "{{- bos_token }}" + template if begins else template
        self.special = special_tokens(tokenizer)
        self._spelled = re.compile("|".join(map(re.escape, sorted(self.special, key=len, reverse=True))) or "(?!)")
        self.begin: int | None = None  # a template writes it or does not
        self.end_id = self._end_of_reply()
        self.end = next((token for token, number in self.special.items() if number == self.end_id), None)

    def questions(self, dialogues: Sequence[Sequence[Message]], places: Sequence[str]) -> list[list[Question]]:
        """See Form. Raises PromptError if a prompt is not the beginning of the whole conversation."""
        shown = [[self._as_dict(message) for message in dialogue] for dialogue in dialogues]
        rows = list(zip(shown, [_stops(dialogue) for dialogue in dialogues], places, strict=True))
        asked = [(one[:stop], place) for one, stops, place in rows for stop in stops]
        prompts = iter(self._render([one for one, _ in asked], True, [place for _, place in asked]))
        wholes = self._render(shown, False, places)
        return [
            self._cut([next(prompts) for _ in stops], _answers(one), whole, place)
            for (one, stops, place), whole in zip(rows, wholes, strict=True)
        ]

    def _cut(self, prompts: Sequence[str], answers: Sequence[str], whole: str, place: str) -> list[Question]:
        """The text between the answers; prompts: the text before each answer, the earlier ones included."""
        questions, start = [], 0
        following = [*prompts[1:], whole]
        for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=False)):
            questions.append(self._pieces(prompt[start:]))
            where = f"{place}, answer {number + 1}"
            self._check_prefix(prompt, following[number], where)
            start = self._answer_end(prompt, answer, following[number], number + 1 < len(prompts), where)
        return questions if len(prompts) == len(answers) else [*questions, self._pieces(prompts[-1][start:])]

    def _check_prefix(self, prompt: str, longer: str, where: str) -> None:
        if longer.startswith(prompt):
            return
        same = next((i for i, pair in enumerate(zip(prompt, longer, strict=False)) if len(set(pair)) == 2), len(longer))
        raise PromptError(
            f"{where}: with {self.name} a prompt is not the beginning of the whole conversation, so training and "
            f"asking would differ: after {_tail(prompt[:same])} the prompt goes on with {_head(prompt[same:])}, the "
            f"conversation with {_head(longer[same:])}; mend the template, or use `prompt: alpaca`",
            DIFFERS,
        )

    def _answer_end(self, prompt: str, answer: str, longer: str, goes_on: bool, where: str) -> int:
        """Where the answer and its end token end in the longer text. Templates may strip spaces around answers."""
        answer, rest = answer.strip(), longer[len(prompt) :].lstrip()
        if not rest.startswith(answer):
            raise PromptError(
                f"{where}: {self.name} does not write the answer as it is: after the prompt comes {_head(rest)}, "
                f"not {_head(answer)}, so training and asking would differ; mend the template, or use `prompt: alpaca`",
                "answer-changed-by-template",
            )
        after = rest[len(answer) :]
        behind = after.lstrip()
        if self.end is not None and behind.startswith(self.end):
            return len(longer) - len(behind) + len(self.end)
        if goes_on:
            raise PromptError(
                f"{where}: {self.name} writes no end token behind an answer that is followed by another turn, so the "
                f"model would not learn to stop there: found {_head(after)}; write {{{{ eos_token }}}} behind "
                "each answer",
                "end-token-not-supervised",
            )
        return len(longer) - len(after)

    def _as_dict(self, message: Message) -> dict[str, str]:
        """What a special token is spelled by in a message is hidden from the tokenizer: only templates write them."""
        text = self._spelled.sub(lambda found: f"{OPEN}{self.special[found[0]]}{CLOSE}", content(message))
        return {"role": message.role, "content": text}

    def _pieces(self, text: str) -> Question:
        """Text of the template, with special tokens; what was hidden becomes plain text again."""
        if OPEN not in text:
            return [Piece(text, special=True)]
        names = {str(number): token for token, number in self.special.items()}
        parts = re.split(f"{OPEN}([0-9]+){CLOSE}", text)  # text and ids in turn
        pieces = [Piece(names.get(part, part)) if i % 2 else Piece(part, special=True) for i, part in enumerate(parts)]
        return [piece for piece in pieces if piece.text]

    def _render(self, dialogues: Sequence[list[dict[str, str]]], ask: bool, places: Sequence[str]) -> list[str]:
        """Each dialogue as the template writes it; ask: up to where the model's reply begins."""
        try:
            return self._apply(dialogues, ask)
        except Exception:
            # whatever a template raises is its author's: said with the row and the template's line
            for dialogue, place in zip(dialogues, places, strict=True):
                try:
                    self._apply([dialogue], ask)
                except Exception as error:
                    line = _template_line(error)
                    where = f"{place}: " if place else ""
                    raise PromptError(f"{where}{self.name}{line}: {str(error) or type(error).__name__}") from None
            raise

    def _apply(self, dialogues: Sequence[list[dict[str, str]]], ask: bool) -> list[str]:
        options = {"tokenize": False, "add_generation_prompt": ask, "chat_template": self.template}
        rendered: list[str] = self.tokenizer.apply_chat_template(list(dialogues), **options) if dialogues else []
        return rendered

    def _end_of_reply(self) -> int:
        """The token with which the template ends a reply, found by rendering a probe.

        Templates end replies with tokens other than eos (Llama 3: <|eot_id|>). Where none is written it is eos.
        """
        asked = [{"role": "user", "content": ASKED}]
        (before,) = self._render([asked], True, [""])
        (whole,) = self._render([[*asked, {"role": "assistant", "content": REPLY}]], False, [""])
        if ASKED not in before:
            printed = "prints nothing" if not before.strip() else f"prints {_head(before)}, without the user's message"
            raise PromptError(
                f"{self.name}: {printed}; the conversation is in `messages`, a list with `role` and `content` each"
            )
        self._check_prefix(before, whole, "a question and its reply")
        lead, found, after = whole[len(before) :].partition(REPLY)
        if not found:
            raise PromptError(
                f"{self.name}: does not print the assistant's message, so there is nothing to learn; print the "
                "`content` of every message",
                "no-supervised-token",
            )
        if lead.strip():
            raise PromptError(
                f"{self.name}: a prompt is not the beginning of the whole conversation, so training and asking would "
                f"differ: before the reply comes {_head(lead)}, which the prompt does not end with; print it where "
                "`add_generation_prompt` is true, or use `prompt: alpaca`",
                DIFFERS,
            )
        # what a server's history has around an answer; spaces in front, which the prompt for one has not
        self.lead, self.after = lead, after
        special = set(self.special.values())
        ends = [token for token in self.tokenizer(after, add_special_tokens=False).input_ids if token in special]
        return int(ends[0]) if ends else end_of_text(self.tokenizer)


def _stops(dialogue: Sequence[Message]) -> list[int]:
    """How many messages stand before each answer, and before an open end."""
    answers = [i for i, message in enumerate(dialogue) if message.role == "assistant"]
    return answers if dialogue[-1].role == "assistant" else [*answers, len(dialogue)]


def _answers(dialogue: Sequence[dict[str, str]]) -> list[str]:
    return [message["content"] for message in dialogue if message["role"] == "assistant"]


def _template_line(error: BaseException) -> str:
    """`, line 3`: where in a template an error is; Jinja puts the template's lines into tracebacks."""
    if (line := getattr(error, "lineno", None)) is not None:
        return f", line {line}"
    found, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in ("<template>", "<unknown>"):
            found = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _head(text: str) -> str:
    return repr(text[:SHOWN]) + ("…" if len(text) > SHOWN else "") if text else "nothing"


def _tail(text: str) -> str:
    return ("…" if len(text) > SHOWN else "") + repr(text[-SHOWN:]) if text else "nothing"
