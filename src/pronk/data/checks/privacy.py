"""Personal data and secrets in rows, as findings; what they are is private.py's and secrets.py's business."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pronk.data.checks.private import Found, find_private
from pronk.data.checks.shown import line
from pronk.data.conversation import Conversation
from pronk.data.finding import SHOWN, Finding, Row
from pronk.data.words import counted, enumerated

NAMES = ("personal-data", "secrets")
_TOLD = {
    "personal-data": (
        "what looks like personal data",
        "replace them by made-up ones or leave the rows out; a tuned model can be made to say what it was trained on",
    ),
    "secrets": (
        "what looks like a secret",
        "take them out, and have every real one revoked: whoever gets the model can get them out of it",
    ),
}


def find_private_rows(rows: Sequence[Conversation]) -> list[Finding]:
    """All findings of this file, those without a case left out; nothing private is shown in full."""
    held: dict[str, list[tuple[Conversation, str, list[Found]]]] = {name: [] for name in NAMES}
    for row in rows:
        text = row.text
        for name in NAMES:
            if found := [*find_private(text, secret=name == "secrets")]:
                held[name].append((row, text, found))
    return [_finding(name, cases, len(rows)) for name, cases in held.items() if cases]


def _finding(name: str, cases: Sequence[tuple[Conversation, str, list[Found]]], total: int) -> Finding:
    kinds: Counter[tuple[str, str]] = Counter((one.kind, one.names) for _, _, found in cases for one in found)
    told = [f"{count:,} {kind if count == 1 else kinds_}" for (kind, kinds_), count in kinds.most_common()]
    what, remedy = _TOLD[name]
    return Finding(
        name,
        "warning",
        f"{counted(len(cases), 'row')} hold{'s' if len(cases) == 1 else ''} {what}: {enumerated(told, 'and')}",
        remedy,
        len(cases),
        total,
        rows=tuple(
            Row(row.place, f"{found[0].kind}: {line(text, found[0].start)}") for row, text, found in cases[:SHOWN]
        ),
    )
