"""Ids as the pieces of text that they stand for, so that people can read where one token ends and the next begins."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

BROKEN = "\ufffd"  # what a decoder writes for a part of a character
LONGEST = 16  # tokens in a piece; a character has four bytes at most, but a text may hold BROKEN itself


@dataclass(frozen=True, slots=True)
class TextPiece:
    """What one token spells, or the few that share a character. start: the place of the first among all ids."""

    text: str
    ids: tuple[int, ...]
    start: int
    special: bool


def text_pieces(
    tokenizer: Any, ids: Sequence[int], special: Collection[int], apart: Sequence[Hashable] | None = None
) -> list[TextPiece]:
    """The ids as pieces whose texts, one after the other, are what the tokenizer decodes all of them to.

    special: ids that are shown by their name. apart: a mark for each id; ids of different marks share no piece, so a
    character that is cut in two there comes out as two signs for a broken one.
    """
    pieces: list[TextPiece] = []
    start = 0
    while start < len(ids):
        piece = _next_piece(tokenizer, ids, start, special, apart, pieces[-1].ids if pieces else ())
        pieces.append(piece)
        start += len(piece.ids)
    return pieces


def _next_piece(
    tokenizer: Any, ids: Sequence[int], start: int, special: Collection[int], apart: Sequence[Hashable] | None,
    before: tuple[int, ...],
) -> TextPiece:  # fmt: skip
    if ids[start] in special:
        return TextPiece(str(tokenizer.convert_ids_to_tokens(ids[start])), (ids[start],), start, True)
    end = start
    while True:
        end += 1
        text = _following(tokenizer, before, ids[start:end])
        borders = end == len(ids) or ids[end] in special or (apart is not None and apart[end] != apart[start])
        if borders or not text.endswith(BROKEN) or end - start == LONGEST:
            return TextPiece(text, tuple(ids[start:end]), start, False)


def _following(tokenizer: Any, before: Sequence[int], ids: Sequence[int]) -> str:
    """What ids add to a text that ends with `before`: alone, some decoders would drop the space at their beginning."""
    lead, whole = decoded(tokenizer, before), decoded(tokenizer, [*before, *ids])
    return whole[len(lead) :] if whole.startswith(lead) else decoded(tokenizer, ids)


def decoded(tokenizer: Any, ids: Sequence[int], without_special: bool = False) -> str:
    """The text of ids as it is, without the spaces that some decoders tidy away."""
    if not ids:
        return ""
    options = {"skip_special_tokens": without_special, "clean_up_tokenization_spaces": False}
    return str(tokenizer.decode(list(ids), **options))
