"""Examples: the seeds that a model is shown, and the texts that must stay unseen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pronk.data.conversation import Conversation
from pronk.data.files import open_file
from pronk.data.labels import default_instruction
from pronk.data.sources import Tell, read_conversations
from pronk.data.split import read_splits
from pronk.data.words import counted, is_whole
from pronk.errors import DataError, OptionError
from pronk.recipe import Data, Task
from pronk.synthesize.nearness import Known

COLUMNS: dict[Task, tuple[str, ...]] = {"classify": ("text", "label"), "instruct": ("instruction", "input", "output")}

PART = 30  # letters: labels and single words are at home in many rows


@dataclass(frozen=True, slots=True)
class Sample:
    """An example. text: the text to classify, or the instruction. context: the instruction's input, or empty.
    answer: the label, or the output. place: of a seed, its file and line."""

    text: str
    context: str
    answer: str
    place: str = ""

    @property
    def asked(self) -> str:
        """All but the answer."""
        return "\n".join(filter(None, (self.text, self.context)))

    @property
    def parts(self) -> list[str]:
        """What may be a text that is kept out though the whole is not: input and output, if they are of some length."""
        return [part for part in (self.context, self.answer) if len(part) >= PART]

    def values(self, task: Task) -> dict[str, str]:
        """As the columns of a file."""
        parts = (self.text, self.answer) if task == "classify" else (self.text, self.context, self.answer)
        return dict(zip(COLUMNS[task], parts, strict=True))


@dataclass(frozen=True)
class Material:
    """What examples are made from.

    instruction: what is asked of each text, and labels; of a classification. kept_out: texts that no seed and no
    example may be near. near_kept_out: how many seeds were left out for that.
    """

    task: Task
    seeds: tuple[Sample, ...]
    kept_out: tuple[str, ...]
    labels: tuple[str, ...] = ()
    instruction: str = ""
    near_kept_out: int = 0

    def seeds_of(self, label: str | None) -> list[Sample]:
        """The seeds of a label; all of them for None."""
        return [seed for seed in self.seeds if label is None or seed.answer == label]


def gather(seeds: Data | None, study: Data | None, avoid: Sequence[Path], task: Task | None, tell: Tell) -> Material:
    """Seeds and what is kept out.

    seeds: the section `data` of a recipe for a file of seeds; without one, the training rows of `study`. study: that
    of a recipe whose test and validation rows are kept out. One of both is given. Raises DataError or OptionError
    with one message.
    """
    kept_out = [text for path in avoid for text in texts_of_file(path)]
    rows: Sequence[Conversation] = ()
    labels: tuple[str, ...] = ()
    if study is not None:
        splits, labels = read_splits(study.of_part(None) or study, tell)  # no seed is a made-up row
        kept_out += [text for row in (*splits.validation, *splits.test) for text in _texts_of_row(row)]
        rows = splits.train
    if seeds is not None:
        rows, labels = read_conversations(seeds, tell)
    data = seeds or study
    found: Task = "classify" if labels else "instruct"
    if task is not None and task != found:
        what = "labels" if labels else "no labels"
        raise OptionError(f"--task {task}: the seeds have {what}, so this is the task {found}; leave --task out")
    samples = [_sample(row) for row in rows]
    material = _without_repeats(Material(found, tuple(samples), tuple(dict.fromkeys(kept_out)), labels))
    instruction = ((data and data.instruction) or default_instruction(labels)) if labels else ""
    return _checked(
        Material(found, material.seeds, material.kept_out, labels, instruction, material.near_kept_out), tell
    )


def _sample(row: Conversation) -> Sample:
    turns = [message for message in row.messages if message.role != "system"]
    if len(turns) != 2:
        what = "plain text without a question" if len(turns) == 1 else f"a conversation of {len(turns)} turns"
        raise DataError(
            f"{row.place}: found {what}; a seed is a text and its label, or one question and its answer "
            "(formats classify, alpaca, pairs)"
        )
    question, answer = turns
    if row.label is not None:
        return Sample(question.context, "", row.label, row.place)
    return Sample(question.content, question.context, answer.content, row.place)


def _without_repeats(material: Material) -> Material:
    """Seeds without those that say what an earlier one says, and without those near to what is kept out."""
    unseen = Known({"kept-out": material.kept_out})
    kept, said, near = [], set(), 0
    for seed in material.seeds:
        if seed.asked in said:
            continue
        said.add(seed.asked)
        if any(unseen.nearest(part) for part in (seed.asked, *seed.parts)):
            near += 1
        else:
            kept.append(seed)
    return Material(material.task, tuple(kept), material.kept_out, near_kept_out=near)


def _checked(material: Material, tell: Tell) -> Material:
    if material.near_kept_out:
        tell(
            f"{counted(material.near_kept_out, 'seed')} left out: so near to a test item, or to a text to avoid, that "
            "showing them would show it"
        )
    if not material.seeds:
        raise DataError("there is no seed left to show; give seeds that are none of the texts to avoid")
    missing = [label for label in material.labels if not material.seeds_of(label)]
    if missing:
        raise DataError(
            f"no seed has the label {missing[0]!r}; give at least one of each label, or name others (--labels)"
        )
    return material


def _texts_of_row(row: Conversation) -> Iterator[str]:
    """What must not be seen of a row: what it asks, and what that is about."""
    if row.label is None:
        asked = row.question[-1:] or row.messages
        yield "\n".join(part for message in asked for part in (message.content, message.context) if part)
    if row.subject.strip():
        yield row.subject


def texts_of_file(path: Path) -> list[str]:
    """All texts of a file: its lines (.txt), or whatever text stands in its rows, whatever their columns.

    Raises DataError if it cannot be read.
    """
    if path.suffix.lower() == ".txt":
        try:
            return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"--avoid {path}: cannot be read as UTF-8 text ({error})") from None
    table = open_file(path.expanduser(), path.name)
    return [text for row in table.rows for text in _strings(row.values) if text.strip()]


def _strings(value: Any) -> Iterator[str]:
    """Texts in a value, lists and objects gone through."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if is_whole(one):
                yield one
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
