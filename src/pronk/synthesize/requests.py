"""What a model is asked: a few seeds, and new examples of the same kind.

Self-instruct (Wang et al. 2023, arXiv:2212.10560): seeds drawn anew for each request; of a classification the label
comes first and a text is asked for it (section 2.2, the output-first approach). Unlike there, no example that the
model wrote is shown to it again: every row comes of the seeds that its provenance names.

A request hangs on its number and the seed of the drawing alone. Seeds are shown as JSON or as blocks with names; test
items never stand in it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from pronk.recipe import RequestForm, Task
from pronk.synthesize.samples import Material, Sample

VERSION = 1  # of the wording below: rows say which one they come from
BLOCK_END = "###"
NAMES: dict[Task, tuple[str, ...]] = {"classify": ("Label", "Text"), "instruct": ("Instruction", "Input", "Output")}


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model. plain: a text to go on with, no question. label: what a text is asked for.

    wanted: examples asked for. seeds: those shown. stop: texts at which the answer is complete.
    """

    number: int
    text: str
    plain: bool
    label: str | None
    wanted: int
    seeds: tuple[Sample, ...]
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asking:
    """How requests are made. shots, per_request, seed: see recipe.Synthesis."""

    material: Material
    form: RequestForm
    shots: int
    per_request: int
    seed: int

    @property
    def version(self) -> str:
        """The wording, for the provenance of rows."""
        return f"{self.material.task}-{self.form}-{VERSION}"

    @property
    def wanted(self) -> int:
        """New examples that a request asks for."""
        return 1 if self.form == "continue" else self.per_request

    def request(self, number: int, label: str | None) -> Request:
        """A request with seeds of its own; of a label, where one is given."""
        generator = random.Random(f"{self.seed}/{number}")
        seeds = self.material.seeds_of(label)
        return self.with_seeds(number, label, tuple(generator.sample(seeds, min(self.shots, len(seeds)))))

    def with_seeds(self, number: int, label: str | None, seeds: tuple[Sample, ...]) -> Request:
        """A request that shows these seeds."""
        if self.form == "continue":
            stop = ("\n",) if label is not None else (BLOCK_END,)
            return Request(number, _to_go_on(self.material.task, label, seeds), True, label, self.wanted, seeds, stop)
        return Request(number, self._question(label, seeds), False, label, self.wanted, seeds)

    def _question(self, label: str | None, seeds: Sequence[Sample]) -> str:
        shown = "\n".join(_line(seed.values(self.material.task)) for seed in seeds)
        wanted = f"{self.per_request} new example{'s' if self.per_request > 1 else ''}"
        if label is None:
            return (
                "Here are examples of instructions with good answers, one JSON object on each line. The input is what "
                f"an instruction is about; it may be empty.\n\n{shown}\n\nWrite {wanted} of the same kind, language "
                "and length, each about something else, and none a copy or a rewording of an example above. Answer "
                'with a JSON list alone: [{"instruction": "…", "input": "…", "output": "…"}]'
            )
        form = json.dumps({"text": "…", "label": label}, ensure_ascii=False)
        return (
            f"This is the task of a text classifier: {self.material.instruction}\n\nHere are texts with the label "
            f"{label}, one JSON object on each line:\n\n{shown}\n\nWrite {wanted} with the label {label}: texts of the "
            "same kind, language and length, each about something else, and none a copy or a rewording of a text "
            f"above. Answer with a JSON list alone: [{form}]"
        )


def _line(values: dict[str, str]) -> str:
    return json.dumps(values, ensure_ascii=False)


def _to_go_on(task: Task, label: str | None, seeds: Sequence[Sample]) -> str:
    """Blocks of examples, and the beginning of one more."""
    if task == "classify":
        blocks = [f"Label: {label}\nText: {_one_line(seed.text)}" for seed in seeds]
        return "\n\n".join([*blocks, f"Label: {label}\nText:"])
    blocks = [
        "\n".join(_named(name, text) for name, text in zip(NAMES[task], _parts(seed), strict=True)) for seed in seeds
    ]
    return f"\n{BLOCK_END}\n".join([*blocks, "Instruction:"])


def _parts(seed: Sample) -> tuple[str, str, str]:
    return seed.text, seed.context, seed.answer


def _named(name: str, text: str) -> str:
    return f"{name}: {text.strip()}".rstrip()


def _one_line(text: str) -> str:
    return " ".join(text.split())


def blind_seeds(material: Material, text: str, shots: int, seed: int) -> tuple[Sample, ...]:
    """Seeds to show when the label of a text is asked for: of all labels in turn, so that nothing says which one."""
    generator = random.Random(f"{seed}/{text}")
    drawn = [generator.sample(own, len(own)) for label in material.labels if (own := material.seeds_of(label))]
    generator.shuffle(drawn)
    turns = max(1, -(-shots // len(drawn)))
    return tuple(one[turn] for turn in range(turns) for one in drawn if turn < len(one))


def verifying(material: Material, form: RequestForm, text: str, seeds: tuple[Sample, ...], number: int) -> Request:
    """A question for the label of a text, after seeds with theirs."""
    blocks = [f"Text: {_one_line(one.text)}\nLabel: {one.answer}" for one in seeds]
    asked = "\n\n".join([*blocks, f"Text: {_one_line(text)}\nLabel:"])
    if form == "continue":
        return Request(number, asked, True, None, 1, seeds, ("\n",))
    return Request(number, f"{material.instruction}\n\n{asked}", False, None, 1, seeds)
