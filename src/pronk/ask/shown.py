"""Answers as people and programs read them. What a model wrote is hostile: nothing of it reaches a terminal or a
page as anything but text."""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING, Any

from pronk.ask.asking import Answer, Answered, Ended
from pronk.compare.words import short
from pronk.data.terminal import cells, plain, plain_json
from pronk.data.words import counted

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 80
LONGEST_NAME = 30


def show(answered: Answered, console: Console) -> None:
    """Question by question, the models' answers one under the other, within 80 columns; then how they ended."""
    from rich.padding import Padding
    from rich.text import Text

    def write(text: str, indent: int, below: int, style: str = "") -> None:
        console.print(Padding(Text(plain(text), style), (0, 0, below, indent), expand=False), width=width)

    width = min(console.width, WIDTH)
    for number, question in enumerate(answered.questions, start=1):
        answers = answered.of(question)
        if not answers:
            continue
        asked = "\n".join(filter(None, (question.text.strip(), question.context.strip())))
        write(f"{number}. {asked}", 0, 1, "bold")
        for answer in answers:
            write(answer.model + mark(answer.ended, answer.tokens), 2, 0, "cyan")
            write(answer.text.strip() or "(nothing)", 4, 1)
    for line in summary(answered):
        write(line, 0, 0)


def as_text(answered: Answered) -> str:
    """What `show` prints, without colours."""
    from rich.console import Console

    page = io.StringIO()
    show(answered, Console(file=page, width=WIDTH, force_terminal=False, force_jupyter=False, color_system=None))
    return page.getvalue().rstrip("\n")


def summary(answered: Answered) -> list[str]:
    """A table of how each model's answers ended; empty if all ended by themselves."""
    if all(answer.ended == "end" for answer in answered.answers) or not answered.answers:
        return []
    heads = {"end": "ended", "stop": "at a stop text", "length": "never ended", "interrupted": "interrupted"}
    shown = [kind for kind in heads if kind == "end" or any(answer.ended == kind for answer in answered.answers)]
    rows = [["model", *(heads[kind] for kind in shown)]]
    for name in answered.models:
        own: list[str] = [answer.ended for answer in answered.answers if answer.model == name]
        rows.append([short(name, LONGEST_NAME), *(f"{own.count(kind)} of {len(own)}" for kind in shown)])
    widths = [max(cells(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(_padded(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def records(answered: Answered) -> list[dict[str, Any]]:
    """One record for each answer, for JSON."""
    return [
        {
            "question": answer.question.text,
            "input": answer.question.context,
            "model": answer.model,
            "answer": answer.text,
            "ended": answer.ended,
            "tokens": answer.tokens,
        }
        for answer in answered.answers
    ]


def as_json(answered: Answered) -> str:
    """Models, settings and answers as one JSON text that a terminal may print."""
    whole = {
        "models": list(answered.models),
        "settings": answered.settings.model_dump(),
        "interrupted": answered.interrupted,
        "answers": records(answered),
    }
    return plain_json(whole, indent=2)


def as_lines(answered: Answered) -> str:
    """The records, one on each line."""
    return "".join(plain_json(record) + "\n" for record in records(answered))


def as_html(answered: Answered) -> str:
    """A table for notebooks: questions down, models across."""
    heads = "".join(f"<th>{html.escape(plain(name))}</th>" for name in ("question", *answered.models))
    rows = []
    for question in answered.questions:
        by_model = {answer.model: answer for answer in answered.of(question)}
        asked = "\n".join(filter(None, (question.text, question.context)))
        cells = [_cell(asked), *(_cell(_whole(by_model.get(name))) for name in answered.models)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(text: str) -> str:
    style = "white-space: pre-wrap; text-align: left; vertical-align: top"
    return f'<td style="{style}">{html.escape(plain(text))}</td>'


def _whole(answer: Answer | None) -> str:
    return "(not answered)" if answer is None else answer.text.strip("\n") + mark(answer.ended, answer.tokens)


def mark(ended: Ended, tokens: int) -> str:
    """What is to be said of an answer's end, where it did not end by itself."""
    return {
        "end": "",
        "stop": " (cut at a stop text)",
        "length": f" (never ended: cut at {tokens} tokens)",
        "interrupted": f" (interrupted after {counted(tokens, 'token')})",
    }[ended]


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cells(text))
