"""What stands in the data's texts that does not belong there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from pronk.data.conversation import Conversation, Message
from pronk.data.finding import FEW, Finding
from pronk.tokens.check.view import View, around, finding
from pronk.tokens.forms import content
from pronk.tokens.special import special_tokens

# Markers with which well-known prompt forms begin their parts, as they stand in texts that were rendered already.
MARKERS = re.compile(
    r"^[^\S\n]*###\s?(?:Instruction|Response|Input|Human|Assistant|User|질문|답변|명령어|응답)\s*:"
    r"|\[/?INST\]|<<SYS>>|<\|im_start\|>|<\|start_header_id\|>|<\|begin_of_text\|>"
    r"|<start_of_turn>|<\|(?:user|assistant|system)\|>|^Below is an instruction that describes a task",
    re.MULTILINE,
)
# Ends of texts of other models, spelled out.
ENDS = re.compile(r"</s>|<\|endoftext\|>|<\|end_of_text\|>|<\|im_end\|>|<\|eot_id\|>|<eos>|\[EOS\]")
SYSTEMATIC = 0.1  # from this share on, markers are no quotation
# A letter, number, mark or picture: anything but spaces and what cannot be seen.
VISIBLE = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202f"
                     r"\u2060-\u206f\u3164\ufeff\uffa0\ufffd]")  # fmt: skip
PLACEHOLDERS = frozenset(
    {
        "nan",
        "null",
        "undefined",
        "<noinput>",
        "<nooutput>",
        "no input",
        "no output",
        "todo",
        "tbd",
        "n/a",
        "#n/a",
        "#ref!",
    }
)
Hits = list[tuple[Conversation, str]]


def spelled_specials(tokenizer: Any) -> re.Pattern[str]:
    """What spells one of a tokenizer's special tokens."""
    names = sorted(special_tokens(tokenizer), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names)) or "(?!)")


def text_findings(view: View) -> list[Finding]:
    """What is wrong with the texts of all rows, as this base's tokenizer will read them."""
    rows = view.conversations
    return [*_specials(view, rows), *_markers(view, rows), *_empty(rows), *_placeholders(rows)]


def _asked(row: Conversation) -> Iterable[Message]:
    return (turn for turn in row.messages if turn.role != "assistant")


def _answered(row: Conversation) -> Iterable[Message]:
    return (turn for turn in row.messages if turn.role == "assistant")


def _hits(
    rows: Iterable[Conversation], turns: Callable[[Conversation], Iterable[Message]], what: re.Pattern[str]
) -> Hits:
    """Rows in whose turns a pattern is found, with the place."""
    hits = []
    for row in rows:
        for turn in turns(row):
            text = content(turn) if turn.context else turn.content
            if place := what.search(text):
                hits.append((row, around(text, *place.span())))
                break
    return hits


def _specials(view: View, rows: list[Conversation]) -> list[Finding]:
    spells = spelled_specials(view.prompt.tokenizer)
    ends = re.compile(f"{spells.pattern}|{ENDS.pattern}")
    found = []
    if hits := _hits(rows, _asked, spells):
        found.append(
            finding(
                "special-tokens-in-text", "warning",
                "Questions spell special tokens of this base. pronk reads them as plain text, so nothing breaks; a "
                "server may take them for the real tokens.",
                "If they were left by an earlier template, clean the data; if they are the subject, leave them.",
                hits, len(rows),
            )
        )  # fmt: skip
    if hits := _hits(rows, _answered, ends):
        often = len(hits) > FEW * len(rows)
        found.append(
            finding(
                "special-tokens-in-answers", "error" if often else "warning",
                "Answers spell special tokens. pronk ends each answer itself, so the model would learn to write "
                "these out "
                "letter by letter.",
                "Take them out of the answers in the data.", hits, len(rows),
            )
        )  # fmt: skip
    return found


def _markers(view: View, rows: list[Conversation]) -> list[Finding]:
    # a few markers that are special tokens of this base are told of as such already
    others = re.compile(f"(?!{spelled_specials(view.prompt.tokenizer).pattern})(?:{MARKERS.pattern})", re.MULTILINE)
    found = []
    hits = _hits(rows, _asked, MARKERS)
    systematic = len(hits) >= SYSTEMATIC * len(rows)
    if hits := hits if systematic else _hits(rows, _asked, others):
        found.append(
            finding(
                "rendered-prompt-in-text", "error" if systematic else "warning",
                "Questions hold the markers of a prompt form"
                + (": they were rendered already, and pronk would add its own prompt." if systematic else "."),
                "Give pronk the plain question and answer in columns of their own; `prompt` says how to render them.",
                hits, len(rows),
            )
        )  # fmt: skip
    if hits := _hits(rows, _answered, others):
        plain = all(not row.question for row, _ in hits)
        systematic = len(hits) >= SYSTEMATIC * len(rows) and not plain
        message = (
            "Texts hold the markers of a prompt form. With the format text every token is learned, questions included."
            if plain else "Answers hold the markers of a prompt form, and the model would learn to write them."
        )  # fmt: skip
        found.append(
            finding(
                "rendered-prompt-in-answers", "error" if systematic else "warning", message,
                "To learn answers alone, give questions and answers apart: data.format alpaca, pairs or messages.",
                hits, len(rows),
            )
        )  # fmt: skip
    return found


def _empty(rows: list[Conversation]) -> list[Finding]:
    hits = [
        (row, repr(turn.content)) for row in rows for turn in _answered(row) if not VISIBLE.search(turn.content)
    ]  # fmt: skip
    if not hits:
        return []
    answers = sum(turn.role == "assistant" for row in rows for turn in row.messages)
    return [
        finding(
            "empty-answers", "error",
            "These answers hold nothing that can be seen, so the model would learn to stop at once.",
            "Fill them in, or leave such rows out (data.where).", hits, answers, "answers",
        )
    ]  # fmt: skip


def _longest(row: Conversation) -> str:
    return max((turn.content for turn in row.messages), key=len)


def _placeholders(rows: list[Conversation]) -> list[Finding]:
    hits = []
    for row in rows:
        if row.label is not None:
            continue
        texts = [*(turn.content for turn in row.messages), *(turn.context for turn in row.messages if turn.context)]
        if one := next((text for text in texts if len(text) < 20 and text.strip().casefold() in PLACEHOLDERS), None):
            hits.append((row, f"{one!r} beside: {_longest(row)}"))
    if not hits:
        return []
    return [
        finding(
            "placeholder-texts", "warning",
            "In place of a text these rows have nan, null, <noinput> or the like, which the model takes for words.",
            "Leave the field empty where nothing is meant, or leave such rows out (data.where).", hits, len(rows),
        )
    ]  # fmt: skip
