"""Examples and tokens in a terminal of 80 columns, in colour and readable without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pronk.data.terminal import cells, plain, spelled_out
from pronk.data.words import counted
from pronk.tokens.show import Block, Shown, ShownExample, Token

if TYPE_CHECKING:
    from rich.console import Console

WIDTH, INDENT = 80, 4
ROOM = WIDTH - INDENT
STYLES = {"prompt": "", "learned": "green", "special": "cyan", "end": "bold white on magenta", "cut": "dim strike red"}
QUIET = "dim"


def print_examples(shown: Shown, console: Console, ids: bool = False) -> None:
    """Example after example; ids: each token's under its text. Nothing of the data steers the terminal."""
    for line in heading(shown):
        console.print(plain(line), markup=False, highlight=False, width=min(console.width, WIDTH))
    _legend(shown, console)
    for number, example in enumerate(shown.examples, start=1):
        console.print()
        _print_example(number, example, console, ids)


def heading(shown: Shown) -> list[str]:
    """What is shown, in sentences."""
    how = f"as {shown.base} reads them: prompt {shown.prompt}, at most {counted(shown.max_length, 'token')} an example"
    if shown.choice.rows:
        return [f"{counted(len(shown.examples), 'row')}, {how}"]
    order = ", those that lost the most first" if shown.choice.cut_first else ""
    lost = f"; {counted(shown.cut_rows, 'row')} lost tokens to that" if shown.cut_rows else ""
    return [f"{len(shown.examples)} of {counted(shown.of, 'row')} of {shown.choice.part}{order}, {how}{lost}"]


def _legend(shown: Shown, console: Console) -> None:
    from rich.text import Text

    parts = [
        ("read, not learned", ""), ("learned", "learned"), (plain(shown.end), "end"),
        ("ends an answer", ""), ("special token", "special"), ("cut off", "cut"),
    ]  # fmt: skip
    line = Text()
    for text, style in parts:
        line.append(text, STYLES.get(style, ""))
        line.append(" " if style == "end" else "  ")
    line.rstrip()
    console.print(line)


def _print_example(number: int, example: ShownExample, console: Console, ids: bool) -> None:
    lost = f", {example.cut:,} more cut off" if example.cut else ""
    size = f"{counted(example.count, 'token')}, {example.learned:,} learned{lost}"
    line = f"{number}. {example.place}, {example.part}: {size}"
    console.print(plain(line), style="bold", markup=False, highlight=False, width=min(console.width, WIDTH))
    for block in example.blocks:
        console.print(f"  {block_title(block)}", style=QUIET, markup=False, highlight=False)
        if ids:
            print_pieces([(token.text, token.ids, style_of(token, block)) for token in block.tokens], console)
        else:
            _print_text(block, console)


def block_title(block: Block) -> str:
    """What a block is, how long, and how much of it is learned."""
    tokens = counted(block.count, "token")
    if block.kind == "cut":
        answers = "all" if block.answers == block.count else f"{block.answers:,}"
        return f"cut off by max_length: {tokens}, {answers} of an answer"
    learned = "not learned" if not block.learned else "learned" if block.learned == block.count else ""
    return f"{block.kind}: {tokens}, {learned or f'{block.learned:,} learned'}"


def style_of(token: Token, block: Block) -> str:
    """The name of a token's style; a page uses the same."""
    if block.kind == "cut":
        return "cut"
    return "end" if token.end else "special" if token.special else "learned" if token.learned else "prompt"


def _print_text(block: Block, console: Console) -> None:
    """The block's text, its line breaks marked where they could be overlooked: at its end."""
    from rich.text import Text

    text = Text(overflow="fold")
    for token in block.tokens:
        text.append(plain(token.text), STYLES[style_of(token, block)])
    bare = text.plain.rstrip("\n ")
    tail = text.plain[len(bare) :]
    if tail:
        text.right_crop(len(tail))
        text.append(tail.replace("\n", "↵").replace(" ", "·"), QUIET)
    for line in text.wrap(console, min(console.width, WIDTH) - INDENT):
        console.print(Text(" " * INDENT) + line, soft_wrap=True)


def print_pieces(pieces: Sequence[tuple[str, Sequence[int], str]], console: Console) -> None:
    """Texts with their ids under them, as many beside each other as fit: (text, ids, name of a style)."""
    from rich.text import Text

    line: list[tuple[str, str, str]] = []
    room = min(console.width, WIDTH) - INDENT

    def flush() -> None:
        above, below = Text(" " * INDENT), Text(" " * INDENT)
        for text, numbers, style in line:
            width = max(cells(text), len(numbers))
            above.append(text, STYLES[style])
            above.append(" " * (width - cells(text) + 1))
            below.append(f"{numbers:<{width}} ", QUIET)
        above.rstrip()
        below.rstrip()
        console.print(above, soft_wrap=True)
        console.print(below, soft_wrap=True)
        line.clear()

    taken = 0
    for text, ids, style in pieces:
        for part, numbers in _cut_to(visible(text), "+".join(map(str, ids)), room):
            width = max(cells(part), len(numbers)) + 1
            if line and taken + width > room + 1:
                flush()
                taken = 0
            line.append((part, numbers, style))
            taken += width
        if "\n" in text and line:
            flush()
            taken = 0
    if line:
        flush()


def visible(text: str) -> str:
    """A token's text on one line: spaces and line breaks as signs, what steers a terminal spelled out."""
    return spelled_out(text.replace("\n", "↵").replace("\t", "→").replace(" ", "·")) or "∅"


def _cut_to(text: str, numbers: str, room: int) -> list[tuple[str, str]]:
    """A text too long for a line in parts, its ids under the first."""
    parts: list[str] = [""]
    for letter in text:
        if cells(parts[-1]) + cells(letter) > room:
            parts.append("")
        parts[-1] += letter
    rows: list[Any] = [(part, numbers if at == 0 else "") for at, part in enumerate(parts)]
    return rows
