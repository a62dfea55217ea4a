"""Texts that were harmed on their way: read in the wrong encoding, or cut out of a web page with its mark-up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from pronk.data.checks.shown import line
from pronk.data.conversation import Conversation
from pronk.data.finding import FEW, SHOWN, Finding, Row
from pronk.data.words import counted, enumerated

NAMES = ("encoding-damage", "html-left-over")
_REPLACED = re.compile("\ufffd|占쏙옙|\u951f\u65a4\u62f7")
# line feed, return, tab and, between pages, form feed are at home in texts
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x84\x86-\x9f]")
# two to four letters as Windows-1252 shows the bytes of one UTF-8 character
_LATER = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_MOJIBAKE = re.compile(f"(?:[\u00c2-\u00df][{_LATER}]|[\u00e0-\u00ef][{_LATER}]{{2}}|[\u00f0-\u00f4][{_LATER}]{{3}})+")
_TAG = re.compile(
    r"</?(?:a|b|i|u|p|br|hr|em|ul|ol|li|td|tr|th|div|span|font|strong|table|tbody|h[1-6]|blockquote|img)"
    r"(?:\s+[a-z-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[\w#%]+))*\s*/?>|&(?:nbsp|amp|lt|gt|quot|apos|#\d{2,5}|#x[0-9a-fA-F]{2,4});",
    re.IGNORECASE,
)
_MEANT = re.compile(
    r"html|xml|css|javascript|jsx|php|markup|mark-up|web ?page|website|\btags?\b|```|<code|웹|태그|코드", re.I
)

Where = tuple[int, str]  # the letter where it begins, and what it is


def find_damage(rows: Sequence[Conversation]) -> list[Finding]:
    """All findings of this file, those without a case left out."""
    broken, tagged = _places(rows, _broken), _places(rows, _left_over)
    found = []
    if broken:
        kinds = Counter(kind for _, _, (_, kind) in broken)
        found.append(
            Finding(
                "encoding-damage",
                "warning",
                f"{counted(len(broken), 'row')} hold{'s' if len(broken) == 1 else ''} letters that were read in the "
                f"wrong encoding or lost: {enumerated([f'{kind} ({n:,})' for kind, n in kinds.most_common()], 'and')}",
                "read the original once more as UTF-8 (Korean files are often CP949), or leave these rows out",
                len(broken),
                len(rows),
                rows=_shown(broken),
            )
        )
    if tagged:
        found.append(
            Finding(
                "html-left-over",
                "warning" if len(tagged) > FEW * len(rows) else "note",
                f"{counted(len(tagged), 'row')} hold{'s' if len(tagged) == 1 else ''} mark-up of a web page, such as "
                f"{line(tagged[0][2][1])}, though {'it says' if len(tagged) == 1 else 'they say'} nothing of HTML; the "
                "model learns to write it",
                "take the mark-up out of the texts (html.unescape and a parser), or leave these rows out",
                len(tagged),
                len(rows),
                rows=_shown(tagged),
            )
        )
    return found


def _places(rows: Sequence[Conversation], look: Callable[[str], Where | None]) -> list[tuple[Conversation, str, Where]]:
    found = []
    for row in rows:
        text = row.text
        where = look(text)
        if where is not None:
            found.append((row, text, where))
    return found


def _shown(found: Sequence[tuple[Conversation, str, Where]]) -> tuple[Row, ...]:
    return tuple(Row(row.place, line(text, at)) for row, text, (at, _) in found[:SHOWN])


def _broken(text: str) -> Where | None:
    if text.isascii() and text.isprintable():
        return None
    if match := _CONTROL.search(text):
        return match.start(), "control characters"
    if text.isascii():
        return None
    if match := _REPLACED.search(text):
        return match.start(), "replacement characters"
    for match in _MOJIBAKE.finditer(text):
        if _was_utf8(match.group()):
            return match.start(), "mojibake"
    return None


def _was_utf8(text: str) -> bool:
    """Whether these letters are what Windows-1252 makes of UTF-8, and of letters that texts are written in."""
    data = b"".join(_byte(letter) for letter in text)
    try:
        meant = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    western = [letter for letter in meant if "\u00a0" <= letter <= "\u017f" or "\u2010" <= letter <= "\u2122"]
    return bool(western) or len(meant) > 1 or "\uac00" <= meant <= "\ud7a3" or "\u4e00" <= meant <= "\u9fff"


def _byte(letter: str) -> bytes:
    try:
        return letter.encode("cp1252")
    except UnicodeEncodeError:
        return letter.encode("latin-1")


def _left_over(text: str) -> Where | None:
    if "<" not in text and "&" not in text:
        return None
    match = _TAG.search(text)
    return None if match is None or _MEANT.search(text) else (match.start(), match.group())
