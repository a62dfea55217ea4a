"""`pronk tokens`: a text as a base reads it. The tokenizer alone is loaded."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pronk.data.conversation import Message
from pronk.data.terminal import plain, plain_json
from pronk.data.words import counted, is_whole
from pronk.errors import OptionError
from pronk.tokens.pieces import TextPiece, decoded, text_pieces
from pronk.tokens.prompt import Prompt
from pronk.tokens.show_terminal import print_pieces
from pronk.tokens.special import special_tokens

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 40  # characters of a text in a message to people


@dataclass(frozen=True)
class Tokenized:
    """A text as ids. expected: what decoding them should give; decoded: what it gives. prompt: the form, if any.

    spelled: special tokens that the text itself spells, and the tokenizer took for such.
    """

    text: str
    base: str
    prompt: str | None
    pieces: tuple[TextPiece, ...]
    expected: str
    decoded: str
    spelled: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many ids."""
        return sum(len(piece.ids) for piece in self.pieces)

    @property
    def bytes(self) -> int:
        """How long all of it is in UTF-8, what the form adds included."""
        return len(self.expected.encode("utf-8"))


def given_text(argument: str) -> str:
    """The text of the command line, or standard input for `-`, without its last line break.

    Raises OptionError for what is no text.
    """
    text = argument
    if argument == "-":
        try:
            text = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise OptionError(f"standard input: the byte at offset {error.start} is not UTF-8 text") from None
        text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise OptionError("there is no text; write one, or - to read it from standard input")
    if not is_whole(text):
        raise OptionError("the text is not whole: it holds bytes that are not UTF-8, or half a character")
    return text


def tokenize(text: str, base: str, prompt: str | None) -> Tokenized:
    """A text as the tokenizer of a base reads it; with `prompt` (as in recipes) as a question in that form.

    Raises BaseModelError or PromptError with what to do.
    """
    from pronk.model.load import load_tokenizer_alone
    from pronk.recipe import recipe_of_base

    named = recipe_of_base(base, [] if prompt is None else [f"prompt={prompt}"])
    tokenizer = load_tokenizer_alone(named.base)
    if prompt is None:
        ids, expected = list(tokenizer(text).input_ids), text
        spelled = tuple(token for token in special_tokens(tokenizer) if token in text)
    else:
        form, question, spelled = Prompt(named.prompt, tokenizer), [Message("user", text)], ()
        ids, expected = form.question_ids([question])[0], form.question_text(question)
    special = frozenset(special_tokens(tokenizer).values())
    pieces = text_pieces(tokenizer, ids, special)
    return Tokenized(text, base, prompt, tuple(pieces), expected, _decoded(tokenizer, ids, expected), spelled)


def _decoded(tokenizer: Any, ids: list[int], expected: str) -> str:
    """All ids as text, but for a token that begins a text and that nobody wrote."""
    begin = tokenizer.bos_token
    added = bool(ids) and ids[0] == tokenizer.bos_token_id and begin and not expected.startswith(begin)
    rest = ids[1:] if added else ids
    end = tokenizer.eos_token
    if rest and rest[-1] == tokenizer.eos_token_id and end and not expected.endswith(end):
        rest = rest[:-1]
    return decoded(tokenizer, rest)


def show(found: Tokenized, console: Console) -> None:
    """Pieces with their ids, and below what there is to say of them, within 80 columns."""
    print_pieces([(piece.text, piece.ids, "special" if piece.special else "prompt") for piece in found.pieces], console)
    console.print()
    for line in summary(found):
        console.print(plain(line), markup=False, highlight=False, soft_wrap=True)


def summary(found: Tokenized) -> list[str]:
    """How many, which special tokens, and whether decoding gives the same text."""
    each = found.bytes / found.count if found.count else 0.0
    lines = [f"{counted(found.count, 'token')} for {counted(found.bytes, 'byte')}: {each:.1f} bytes a token"]
    special = Counter((piece.text, piece.ids[0]) for piece in found.pieces if piece.special)
    names = [f"{name} {number}" + (f" ({times}×)" if times > 1 else "") for (name, number), times in special.items()]
    lines.append(f"special tokens: {', '.join(names) or 'none'}")
    if found.spelled:
        lines.append(f"the text spells {', '.join(found.spelled)}: in your data that stays plain text, in no token")
    lines.append("decoded back: the same text" if found.decoded == found.expected else _difference(found))
    return lines


def _difference(found: Tokenized) -> str:
    pairs = enumerate(zip(found.expected, found.decoded, strict=False))
    shorter = min(len(found.expected), len(found.decoded))
    at = next((place for place, (a, b) in pairs if a != b), shorter)
    wrote, read = (text[at : at + SHOWN] for text in (found.expected, found.decoded))
    return f"decoded back: differs from character {at + 1} on: {wrote!r} became {read!r}"


def as_json(found: Tokenized) -> str:
    """The same for programs."""
    whole = {
        "base": found.base,
        "prompt": found.prompt,
        "text": found.text,
        "count": found.count,
        "bytes": found.bytes,
        "bytes_per_token": found.bytes / found.count if found.count else 0.0,
        "ids": [number for piece in found.pieces for number in piece.ids],
        "pieces": [{"text": one.text, "ids": list(one.ids), "special": one.special} for one in found.pieces],
        "decoded": found.decoded,
        "same": found.decoded == found.expected,
    }
    return plain_json(whole, indent=2)
