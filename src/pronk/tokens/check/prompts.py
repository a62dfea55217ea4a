"""Is the model asked in training as it will be asked later, token by token?

A sample of rows is asked anew: by pronk, and as a server does it, which renders the saved chat template and
tokenizes the text as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pronk.data.conversation import Conversation, Message
from pronk.data.finding import Finding, Row
from pronk.tokens.check.texts import spelled_specials
from pronk.tokens.check.view import View, finding, shown, spread
from pronk.tokens.forms import content
from pronk.tokens.template import ASKED, Template

SAMPLED = 200  # rows; rendering a template takes long, and what is wrong with one is wrong with most
SERVER = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
# How the special tokens of well-known chat forms are spelled.
SPECIAL_LOOK = re.compile(r"<\|[^\s<>|]{1,40}\|>|</?s>|<(?:start|end)_of_turn>")
Asked = tuple[Conversation, list[int]]  # a row, and the ids that stand before its last answer in training


def prompt_findings(view: View) -> list[Finding]:
    """What is wrong with the way in which the model is asked."""
    asked = _sample(view)
    if not asked:
        return []
    found = [*_asked_again(view, asked), *_served(view, [row for row, _ in asked])]
    rows = [row for row, _ in asked]
    if isinstance(view.prompt.form, Template):
        found += [*_messages(view, rows), *_unknown_tokens(view, rows), *_lead(view, rows)]
    return [*found, *_trailing_space(view, rows), *_border(view, rows)]


def _sample(view: View) -> list[Asked]:
    """Rows with a question whose beginning is whole, evenly spread; without special tokens spelled in their text."""
    spells = spelled_specials(view.prompt.tokenizer)
    rows = [(row, one) for row, one in view.rows if row.question and not one.cut_answers]
    rows = [rows[place] for place in spread([row for row, _ in rows], SAMPLED)]
    plain = [(row, one) for row, one in rows if not any(spells.search(content(turn)) for turn in row.messages)]
    if not view.on_prompt:
        return [(row, one.prompt_ids.tolist()) for row, one in plain]
    return [(row, one.ids[: one.asked].tolist()) for row, one in plain]


def _asked_again(view: View, asked: Sequence[Asked]) -> list[Finding]:
    """Training ids against those that pronk's own inference asks with."""
    again = view.prompt.question_ids([row.question for row, _ in asked])
    pairs = [(row, trained, ids) for (row, trained), ids in zip(asked, again, strict=True)]
    rows = [(row, _difference(view, trained, ids)) for row, trained, ids in pairs if trained != ids]
    if not rows:
        return []
    return [
        finding(
            "prompt-differs-from-inference", "error",
            "What stands before the answer in training is not what the model will be asked with.",
            "Use one of pronk's own prompt forms, and report this: it should not be possible.", rows, len(asked),
        )
    ]  # fmt: skip


def _served(view: View, sampled: Sequence[Conversation]) -> list[Finding]:
    """First questions against what a server makes of them with the chat template that is saved with an adapter."""
    rows = [
        row for row in sampled if isinstance(view.prompt.form, Template) or not any(t.context for t in row.messages)
    ]
    if not rows:
        return []
    questions = [_first_question(row) for row in rows]
    ours = view.prompt.question_ids(questions)
    dialogues = [[{"role": turn.role, "content": content(turn)} for turn in one] for one in questions]
    served: list[list[int]] = view.prompt.tokenizer.apply_chat_template(dialogues, **SERVER)
    differing = [(row, a, b) for row, a, b in zip(rows, ours, served, strict=True) if a != b]
    if not differing:
        return []
    begin = view.prompt.begin
    unbegun = [(row, a, b) for row, a, b in differing if begin is not None and a[0] == begin and a[1:] == b]
    found = []
    if unbegun:
        found.append(
            finding(
                "bos-missing", "warning",
                "The template writes no BOS before these rows. pronk adds it, but a server, which renders the template "
                "alone, would ask without it.",
                "Write {{ bos_token }} at the start of the template, whatever the conversation.",
                [(row, row.subject) for row, _, _ in unbegun], len(rows),
            )
        )  # fmt: skip
    others = [(row, _difference(view, a, b)) for row, a, b in differing if (row, a, b) not in unbegun]
    if others:
        found.append(
            finding(
                "prompt-differs-from-inference", "warning",
                "A server that renders the saved chat template asks with other tokens than training did.",
                "Look at the first difference; spaces at the ends of messages are the usual cause.", others, len(rows),
            )
        )  # fmt: skip
    return found


def _first_question(row: Conversation) -> Sequence[Message]:
    end = next(i for i, message in enumerate(row.messages) if message.role == "assistant")
    return row.messages[:end]


def _difference(view: View, trained: Sequence[int], asked: Sequence[int]) -> str:
    """Where two lists of ids part, with the tokens around."""
    same = next((i for i, pair in enumerate(zip(trained, asked, strict=False)) if pair[0] != pair[1]), None)
    place = min(len(trained), len(asked)) if same is None else same

    def pieces(ids: Sequence[int]) -> str:
        names = view.prompt.tokenizer.convert_ids_to_tokens(list(ids[place : place + 4]))
        return " ".join(map(str, names)) or "nothing more"

    return f"token {place + 1}: trained with {pieces(trained)}, asked with {pieces(asked)}"


def _messages(view: View, rows: Sequence[Conversation]) -> list[Finding]:
    """Whether a template prints what every message says."""
    lost = []
    for row in rows:
        text = view.prompt.question_text(row.question)
        gone = next((turn for turn in row.question if content(turn).strip() not in text), None)
        if gone is not None:
            lost.append((row, f"{gone.role}: {content(gone)}"))
    if not lost:
        return []
    return [
        finding(
            "message-not-in-prompt", "error",
            f"{_capital(view.prompt.form)} does not print these messages as they stand, so the model never reads them.",
            "Print message['content'] of every role in the template, the system message included, or use "
            "`prompt: alpaca`.", lost, len(rows),
        )
    ]  # fmt: skip


def _unknown_tokens(view: View, rows: Sequence[Conversation]) -> list[Finding]:
    """Special tokens of another model, which this tokenizer reads as a handful of plain pieces."""
    form: Any = view.prompt.form
    probe = [Message(turn.role, ASKED) for turn in rows[0].messages]
    questions = form.questions([probe], [rows[0].place])[0]
    # what stands behind the last answer is the template's too
    written = "".join(piece.text for one in questions for piece in one) + form.after
    foreign = [name for name in dict.fromkeys(SPECIAL_LOOK.findall(written)) if name not in form.special]
    if not foreign:
        return []
    return [
        Finding(
            "template-token-unknown", "error",
            f"{_capital(form)} writes {', '.join(foreign)}, which the base's vocabulary does not have: each is read as "
            "several plain tokens that mean nothing to the model.",
            "Use the base's own template (`prompt: chat`) or `prompt: alpaca`, or write tokens that this base has.",
            rows=(Row(rows[0].place, written.strip()[:160]),),
        )
    ]  # fmt: skip


def _lead(view: View, rows: Sequence[Conversation]) -> list[Finding]:
    """Spaces that the template writes between its prompt and an answer, where they change tokens."""
    form: Any = view.prompt.form
    if not form.lead:
        return []
    changed = [(row, row.answer) for row in rows if _lead_matters(view, row)]
    if not changed:
        return []
    several = any(sum(turn.role == "assistant" for turn in row.messages) > 1 for row in rows)
    marker = view.prompt.question_text(_first_question(rows[0]))[-20:]
    return [
        finding(
            "response-marker-differs", "error" if several else "warning",
            f"{_capital(form)} asks with …{marker!r} and then writes {form.lead!r} before the answer. Asked that way "
            "the model answers without it"
            + (", but reads earlier answers with it: other tokens than it has learned." if several else
               "; a server that reads earlier answers back has other tokens than it has learned."),
            "Let the template write the same, to the last space, with add_generation_prompt and without; best of all a "
            "line break.", changed, len(rows),
        )
    ]  # fmt: skip


def _lead_matters(view: View, row: Conversation) -> bool:
    tokenizer, form = view.prompt.tokenizer, view.prompt.form
    assert isinstance(form, Template)
    first = _first_question(row)
    asked, answer = view.prompt.question_text(first), row.messages[len(first)].content.strip()

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        return found

    return ids(asked + form.lead + answer) != ids(asked) + view.prompt.answer_ids([answer])[0][:-1]


def _trailing_space(view: View, rows: Sequence[Conversation]) -> list[Finding]:
    ends = [(row, view.prompt.question_text(row.question)) for row in rows[:1]]
    spaced = [(row, "…" + repr(text[-40:])) for row, text in ends if text.endswith((" ", "\t", "\u3000"))]
    if not spaced:
        return []
    return [
        Finding(
            "prompt-ends-with-space", "warning",
            "The prompt ends with a space. Tokenizers keep a space with the word behind it, so the base has "
            "hardly ever "
            "read a space alone before a word.",
            "End the prompt with a line break, or with no space at all.", rows=shown(spaced),
        )
    ]  # fmt: skip


def _border(view: View, rows: Sequence[Conversation]) -> list[Finding]:
    """Where a tokenizer, given prompt and answer as one text, makes other tokens at their border."""
    tokenizer, form = view.prompt.tokenizer, view.prompt.form
    if isinstance(form, Template) and form.lead:
        return []  # told of as a marker that differs
    prompts = [view.prompt.question_text(row.question) for row in rows]
    together = tokenizer([a + row.answer for a, row in zip(prompts, rows, strict=True)], add_special_tokens=False)
    asked = tokenizer(prompts, add_special_tokens=False).input_ids
    answers = view.prompt.answer_ids([row.answer for row in rows])
    parts = zip(rows, together.input_ids, asked, answers, strict=True)
    merged = [(row, row.answer) for row, whole, a, b in parts if whole != [*a, *b[:-1]]]
    if not merged:
        return []
    return [
        finding(
            "border-merges", "note",
            "Given as one text, prompt and answer have other tokens at their border than apart.",
            "Nothing to do: pronk tokenizes them apart, in training and in use. A tool that masks the prompt by "
            "its number "
            "of tokens would be off by one here.", merged, len(rows),
        )
    ]  # fmt: skip


def _capital(form: Any) -> str:
    name = str(getattr(form, "name", "the prompt form"))
    return name[:1].upper() + name[1:]
