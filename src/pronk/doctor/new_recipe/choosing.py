"""Each setting of a new recipe, with the reason that its comment gives."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pronk.data.conversation import Conversation
from pronk.data.formats import FIELDS
from pronk.data.split import Splits, split_conversations
from pronk.data.words import counted
from pronk.doctor.new_recipe.bases import BaseFacts
from pronk.doctor.new_recipe.lengths import SHARE, STEP, Lengths, max_length
from pronk.doctor.new_recipe.reading import Rows
from pronk.errors import DataError
from pronk.recipe import Split
from pronk.tokens.check.labels import ALIKE

GIB = 2**30
FEWEST, FEW_ROWS, MANY_ROWS, MOST_TEST = 5, 500, 10_000, 1000
ENOUGH = 60  # rows that the smallest label needs, for parts to be balanced
LARGE_FOR_A_CPU = 1_500_000_000
BYTES = {"none": 2.0, "nf4": 0.55}  # a weight on a GPU
SHARE_FOR_WEIGHTS = 0.5  # of a GPU's memory; activations want the rest


@dataclass(frozen=True)
class Setting:
    """A dotted key with its value, and why."""

    key: str
    value: Any
    why: str = ""


def split_settings(rows: Rows) -> tuple[list[Setting], Splits]:
    """The split, and what it gives. Raises DataError where no split of these rows works."""
    count = len(rows.conversations)
    if count < FEWEST:
        raise DataError(f"data: {_too_few(count)}")
    share = 0.2 if count < FEW_ROWS else 0.1
    test: float | int = share if count < MANY_ROWS else MOST_TEST
    validation: float | int = 0.1 if count < MANY_ROWS else MOST_TEST
    uneven = _uneven(rows)
    tries = [{"balanced": True}, {}, {"keep_openings": False}] if uneven else [{}, {"keep_openings": False}]
    error: DataError | None = None
    for more in tries:
        try:
            split = Split.model_validate({"test": test, "validation": validation, **more})
            splits = split_conversations(rows.conversations, rows.labels, split)
        except DataError as found:
            error = error or found
            continue
        if not (splits.train and splits.test):  # most rows ask the same, and one of each is left
            left = sum(map(len, (splits.train, splits.validation, splits.test)))
            raise DataError(
                f"data: of {counted(count, 'row')} {left} ask{'s' * (left == 1)} something new; {_too_few(left)}"
            )
        return _said(test, validation, more, splits, uneven), splits
    raise error or DataError("data: these rows cannot be divided")


def _too_few(count: int) -> str:
    return f"{counted(count, 'row')} {'is' if count == 1 else 'are'} too few to train on some and measure on others"


def _uneven(rows: Rows) -> str:
    """How unequal the labels are, where parts should be balanced; empty where they need not or cannot be."""
    sizes = Counter(conversation.label for conversation in rows.conversations if conversation.label)
    if len(sizes) < 2:
        return ""
    (most, many), *_, (least, few) = sizes.most_common()
    if many < ALIKE * few or few < ENOUGH:
        return ""
    total = sum(sizes.values())
    return f"{most} is {many / total:.0%} of the rows and {least} {few / total:.0%}"


def _said(
    test: float | int, validation: float | int, more: dict[str, bool], splits: Splits, uneven: str
) -> list[Setting]:
    of_test = f"{counted(len(splits.test), 'row')}, measured only in the end"
    if splits.test[0].label is not None:
        margin = 1.96 * math.sqrt(0.8 * 0.2 / len(splits.test)) * 100
        of_test += f": an accuracy of 80% is then known to about ± {margin:.0f} points"
    settings = [
        Setting("data.split.test", test, of_test),
        Setting("data.split.validation", validation, f"{counted(len(splits.validation), 'row')} of the rest, whose "
                "loss is watched while training"),
    ]  # fmt: skip
    if more.get("balanced"):
        settings.append(Setting("data.split.balanced", True, f"as many rows of each label, since {uneven}: "
                        f"{counted(len(splits.train), 'row')} are left to train on"))  # fmt: skip
    if more.get("keep_openings") is False:
        why = "most conversations open alike, so they cannot all stay in one part"
        settings.append(Setting("data.split.keep_openings", False, why))
    return settings


def prompt_setting(rows: Rows, lengths: Lengths, why_not: str) -> list[Setting]:
    """The prompt form; plain text has none."""
    if rows.data.format == "text":
        return []
    if lengths.prompt == "chat":
        return [Setting("prompt", "chat", "the base is an instruct model: this is the form that it already knows")]
    if why_not:
        return [Setting("prompt", lengths.prompt, f"the base's own chat template cannot write these rows: {why_not}")]
    return [Setting("prompt", lengths.prompt, "the base has no chat template of its own")]


def quantize_setting(base: BaseFacts, gpu: int | None) -> list[Setting]:
    """In 4 bits where the weights in bf16 would take more than half of the GPU, or are too many for a CPU."""
    if base.parameters is None:
        return []
    whole = BYTES["none"] * base.parameters
    if gpu is None:
        if base.parameters < LARGE_FOR_A_CPU:
            return []
        why = f"no GPU here: {base.size} want one, and in 4 bits a weight they take {_gib(base, 'nf4')} of it"
        return [Setting("quantize", "nf4", why)]
    if whole <= SHARE_FOR_WEIGHTS * gpu:
        return []
    small = BYTES["nf4"] * base.parameters
    why = f"in bf16 the weights take {_gib(base, 'none')} of this GPU's {gpu / GIB:.0f} GiB"
    why += f", in 4 bits {_gib(base, 'nf4')}" + ("" if small < gpu else ": more than it has; take a smaller base")
    return [Setting("quantize", "nf4", why)]


def _gib(base: BaseFacts, kind: str) -> str:
    return f"{BYTES[kind] * (base.parameters or 0) / GIB:.1f} GiB"


def training_settings(rows: int, base: BaseFacts, lengths: Lengths, trained: Lengths) -> list[Setting]:
    """Epochs, batch, learning rate and max_length. rows: to train on; trained: the lengths of these, of all lengths."""
    epochs = 3 if rows < 1000 else 2 if rows < 20_000 else 1
    batch = 4 if rows < 200 else 8 if rows < 2000 else 16
    steps = -(-rows // batch)
    rate, for_whom = 2e-4, "usual for LoRA"
    if base.parameters is not None and base.parameters < 1e9:
        rate, for_whom = 5e-4, "small bases take more than the usual 2e-4 of LoRA"
    elif base.parameters is not None and base.parameters > 13e9:
        rate, for_whom = 1e-4, "large bases take less than the usual 2e-4 of LoRA"
    why = "enough for so few rows; watch the validation loss" if epochs == 3 else "passes over the training rows"
    return [
        Setting("train.epochs", epochs, f"{counted(epochs * steps, 'step')} in all; {why}"),
        Setting("train.batch_size", batch, f"examples a step: {counted(steps, 'step')} an epoch"),
        Setting("train.learning_rate", rate, for_whom),
        Setting("train.max_length", *_max_length(base, lengths, trained)),
    ]


def _max_length(base: BaseFacts, lengths: Lengths, trained: Lengths) -> tuple[int, str]:
    wanted = max_length(trained.usual, int(lengths.first.max()))
    most, longest = counted(trained.usual, "token"), int(trained.whole.max())
    said = f"{SHARE}% of the training rows have at most {most}, the longest {longest:,}"
    if lengths.guessed:
        return wanted, f"guessed from letters, as the tokenizer is not at hand: `pronk check` will tell ({said})"
    if base.context is not None and wanted > base.context:
        return base.context, f"all that the base can read; {said}"
    if wanted - trained.usual >= STEP:
        said += f"; the longest prompt alone takes {int(lengths.first.max()):,}"
    return wanted, said


@dataclass(frozen=True)
class Left:
    """A condition that leaves out what a base cannot read. text: for data.where; rows: how many it leaves out."""

    text: str
    rows: int


def condition(rows: Rows, lengths: Lengths, base: BaseFacts) -> Left | None:
    """What data.where must say so that 99% of answers fit whole and no prompt is too long; None where nothing must.

    Raises DataError where rows that do not fit are lists of turns, or nearly all of the rows.
    """
    if base.context is None or lengths.guessed:
        return None
    fits = lengths.fitting(base.context)
    unreadable = lengths.last >= base.context - 1
    if not unreadable.any() and lengths.usual <= base.context:
        return None
    long = [rows.conversations[row] for row in lengths.rows[~fits]]
    field = _longest_field(rows, long)
    if field is None:
        raise DataError(
            f"{long[0].place} and {counted(len(long) - 1, 'more row')}: longer than the {base.context} tokens that "
            f"{base.name} reads; take a base that reads more, or leave these conversations out of the file"
        )
    limit = min(len(_texts(one, rows)[field]) for one in long)
    kept = sum(len(_texts(one, rows)[field]) < limit for one in rows.conversations)
    if kept < max(20, len(rows.conversations) // 10):
        raise DataError(
            f"{counted(len(long), 'row')} of {len(lengths.rows):,} are longer than the {base.context} tokens that "
            f"{base.name} reads ({long[0].place} has {int(lengths.whole[~fits][0]):,}); take a base that reads more"
        )
    column = rows.data.columns.get(field, field)
    named = column if re.fullmatch(r"[A-Za-z_]\w*", column, re.ASCII) else f"column({column!r})"
    absent = f"{named} == null or " if field == "input" else ""
    return Left(f"{absent}len({named}) < {limit}", len(rows.conversations) - kept)


def _longest_field(rows: Rows, long: Sequence[Conversation]) -> str | None:
    if rows.data.format in ("messages", "sharegpt", "choice"):  # lists, which data.where cannot measure
        return None
    totals: Counter[str] = Counter()
    for one in long:
        totals.update({field: len(text) for field, text in _texts(one, rows).items()})
    return totals.most_common(1)[0][0]


def _texts(conversation: Conversation, rows: Rows) -> dict[str, str]:
    """A conversation's texts by the field that they were read from."""
    answer, fields = conversation.answer, FIELDS[rows.data.format or "text"]
    if rows.data.format == "text":
        return {"text": answer}
    user = conversation.messages[-2]
    own = user.context if rows.data.format == "classify" or rows.data.instruction else user.content
    values = {"text": own, "prompt": own, "question": own, "instruction": user.content, "input": user.context}
    values |= {"response": answer, "output": answer}
    return {field: values[field] for field in fields if field in values}
