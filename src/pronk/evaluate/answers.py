"""Free answers: every model answers every prompt greedily. What else they are compared by is told elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pronk.evaluate.batches import prompt_batches
from pronk.model.adapter import WideAdapter
from pronk.model.generate import score_and_answer
from pronk.tokens.pack import pack_prompts


@dataclass(frozen=True, slots=True)
class FreeAnswer:
    """ended: the answer came to its end token by itself, within its room."""

    text: str
    ended: bool


def answer_rooms(
    prompts: Sequence[Sequence[int]], references: Sequence[int], context: int, max_new_tokens: int | None
) -> list[int]:
    """How many tokens, end token included, the answer to each prompt may have.

    references: tokens of each reference answer, the longest of which is the limit where max_new_tokens is None.
    Prompt and answer together are at most `context` tokens, what the base model can read.
    """
    longest = max(references, default=0) if max_new_tokens is None else max_new_tokens
    return [min(longest, context - len(prompt)) for prompt in prompts]


def free_answers(
    model: Any,
    adapter: WideAdapter,
    prompts: Sequence[Sequence[int]],
    slots: Sequence[int],
    tokenizer: Any,
    end_id: int,
    rooms: Sequence[int],
    token_budget: int,
    progress: Callable[[int], None] = lambda _: None,
    families: Sequence[int] | None = None,
) -> dict[int, list[FreeAnswer]]:
    """Answer every prompt under every slot, greedily.

    rooms: how many tokens each answer may have (answer_rooms). An item's answer does not depend on what else
    is in its batch: a batch goes on for the longest of its rooms, and what is beyond an answer's own is cut.
    families: of the prompts, see tokens.pack.Member.
    """
    items: dict[int, list[FreeAnswer | None]] = {slot: [None] * len(prompts) for slot in slots}
    for batch in prompt_batches(prompts, slots, token_budget, max(rooms, default=0)):
        kin = families and [families[item] for item, _ in batch]
        reading = pack_prompts([prompts[item] for item, _ in batch], [slot for _, slot in batch], kin)
        answers = score_and_answer(model, adapter, reading, (), max(rooms[item] for item, _ in batch), end_id)
        kept = [ids[: rooms[item]] for (item, _), ids in zip(batch, answers.ids, strict=True)]
        texts = tokenizer.batch_decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for (item, slot), ids, ended, text in zip(batch, answers.ids, answers.ended, texts, strict=True):
            in_time = ended and len(ids) < rooms[item]  # the end token takes room too
            items[slot][item] = FreeAnswer(text.strip(), in_time)
        progress(sum(len(prompts[item]) for item, _ in batch))
    return {slot: [item for item in found if item is not None] for slot, found in items.items()}


def records(items: Sequence[FreeAnswer], ids: Sequence[str]) -> list[dict[str, Any]]:
    """One record an item, for the run folder."""
    return [{"id": name, "answer": one.text, "ended": one.ended} for name, one in zip(ids, items, strict=True)]
