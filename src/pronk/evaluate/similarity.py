"""Free answers beside the reference answers: what they have in common, by ROUGE-L and chrF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pronk.evaluate.answers import FreeAnswer
from pronk.evaluate.overlap import chrf, rouge_l


@dataclass(frozen=True, slots=True)
class ComparedItem:
    """rouge_l, chrf: in [0, 1], see evaluate/overlap.py. ended: the answer came to its end token by itself."""

    answer: str
    rouge_l: float
    chrf: float
    ended: bool


def compared(answers: Sequence[FreeAnswer], references: Sequence[str]) -> list[ComparedItem]:
    """Answers beside their references."""
    return [
        ComparedItem(one.text, rouge_l(one.text, reference), chrf(one.text, reference), one.ended)
        for one, reference in zip(answers, references, strict=True)
    ]


def records(items: Sequence[ComparedItem], ids: Sequence[str]) -> list[dict[str, Any]]:
    """One record an item, for the run folder."""
    return [{"id": name, **asdict(item)} for name, item in zip(ids, items, strict=True)]
