"""Free answers beside the reference answers: what they have in common, by ROUGE-L and chrF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pronk.evaluate.answers import FreeAnswer, free_answers
from pronk.evaluate.overlap import chrf, rouge_l
from pronk.model.adapter import WideAdapter


@dataclass(frozen=True, slots=True)
class ComparedItem:
    """rouge_l, chrf: in [0, 1], see evaluate/overlap.py. ended: the answer came to its end token by itself."""

    answer: str
    rouge_l: float
    chrf: float
    ended: bool


def compare_answers(
    model: Any,
    adapter: WideAdapter,
    prompts: Sequence[Sequence[int]],
    references: Sequence[str],
    slots: Sequence[int],
    tokenizer: Any,
    end_id: int,
    rooms: Sequence[int],
    token_budget: int,
    progress: Callable[[int], None] = lambda _: None,
    families: Sequence[int] | None = None,
) -> dict[int, list[ComparedItem]]:
    """Answer every prompt under every slot (see free_answers), and compare with its reference."""
    answers = free_answers(
        model, adapter, prompts, slots, tokenizer, end_id, rooms, token_budget, progress, families
    )  # fmt: skip
    return {slot: compared(found, references) for slot, found in answers.items()}


def compared(answers: Sequence[FreeAnswer], references: Sequence[str]) -> list[ComparedItem]:
    """Answers beside their references."""
    return [
        ComparedItem(one.text, rouge_l(one.text, reference), chrf(one.text, reference), one.ended)
        for one, reference in zip(answers, references, strict=True)
    ]


def records(items: Sequence[ComparedItem], ids: Sequence[str]) -> list[dict[str, Any]]:
    """One record an item, for the run folder."""
    return [{"id": name, **asdict(item)} for name, item in zip(ids, items, strict=True)]
