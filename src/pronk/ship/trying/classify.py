"""`pronk try classify`: a classifier's own labels, labels of one's own by inference (NLI), or by likelihood."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from pronk.data.conversation import Message
from pronk.data.labels import default_instruction
from pronk.data.questions import Question
from pronk.errors import BaseModelError, OptionError
from pronk.ship.trying.models import (
    OURS,
    Pretrained,
    at_work,
    check_lengths,
    check_overrides,
    find_pretrained,
    load_pretrained,
    readable_length,
    refuse_other_task,
)

if TYPE_CHECKING:
    from rich.console import Console

BATCH_TOKENS = 4096  # texts that are read together, padded
HYPOTHESIS = "This example is {}."  # what Yin et al. (2019) and transformers ask an NLI model about a label

Probabilities = dict[int, dict[str, float]]  # by place of the text, by label


@dataclass(frozen=True)
class Classified:
    """A text with the probability of each label, in the order of the labels; of a regression its bare value."""

    question: Question
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Classification:
    """What was found. how: by which of the ways. interrupted: some texts may be missing."""

    base: str
    how: str
    results: tuple[Classified, ...]
    interrupted: bool = False


class Way(Protocol):
    """One of the ways to classify; what can be wrong without weights is found when it is made."""

    how: str

    def load(self) -> None:
        """Read the weights."""

    def batches(self) -> Iterator[Probabilities]:
        """Probabilities by place of the text, a batch at a time."""


def classify(
    name: str, texts: Sequence[Question], labels: Sequence[str] | None, hypothesis: str | None, prompt: str | None,
    overrides: Sequence[str], console: Console,
) -> Classification:  # fmt: skip
    """Probabilities of labels for each text.

    labels: None for those that a classifier was trained on; a model of natural language inference takes any
    (Yin et al. 2019), and so does a causal language model, by the likelihood of each label as an answer. hypothesis:
    what the former is asked, with {} for a label. prompt: the form in which the latter is asked. Raises
    BaseModelError, OptionError or DataError; Ctrl-C keeps what is done.
    """
    from pronk.train.interrupt import listen
    from pronk.train.progress import say, work

    found = find_pretrained(name, overrides, partial(say, console))
    if found.kind == "translator":
        refuse_other_task(found, "classifier")
    way: Way
    if found.kind == "causal":
        way = ByLikelihood(found, texts, labels, hypothesis, prompt, overrides, console)
    else:
        way = ByHead(found, texts, labels, hypothesis, prompt, overrides)
    done: Probabilities = {}
    with listen(lambda _: say(console, "stopping; what is classified is kept")) as stop:
        with console.status(f"loading {found.name}") if found.kind != "causal" else nullcontext():
            way.load()
        with work(console, "classifying", len(texts)) as bar:
            for batch in way.batches():
                done |= batch
                bar.advance(len(batch))
                if stop.asked:
                    break
    results = tuple(Classified(texts[place], done[place]) for place in sorted(done))
    return Classification(found.name, way.how, results, interrupted=bool(stop.asked))


def checked_labels(labels: Sequence[str]) -> list[str]:
    """Labels as they are asked for. Raises OptionError for too few, empty or repeated ones."""
    names = [label.strip() for label in labels]
    if len(names) < 2 or "" in names:
        raise OptionError(f"--labels: found {','.join(names) or 'nothing'}; expected two labels or more, as a,b,c")
    for place, one in enumerate(names):
        if one in names[:place]:
            raise OptionError(f"--labels: {one!r} is given twice")
    return names


class ByLikelihood:
    """A causal language model: each label in full as the answer, its end token included, as in an evaluation."""

    how = "likelihood of each label as the answer"

    def __init__(
        self, found: Pretrained, texts: Sequence[Question], labels: Sequence[str] | None, hypothesis: str | None,
        prompt: str | None, overrides: Sequence[str], console: Console,
    ) -> None:  # fmt: skip
        from pronk.ask.choosing import Chooser
        from pronk.ask.models import find_models

        if labels is None:
            raise OptionError(
                f"--base {found.name}: a causal language model has no labels of its own; name them: --labels a,b,c"
            )
        if hypothesis is not None:
            raise OptionError(f"--hypothesis is for models of natural language inference, and {found.name} is none")
        self.found, self.labels, self.ours = found, checked_labels(labels), found.config.model_type in OURS
        if not self.ours:
            check_overrides([one for one in overrides if not one.startswith("prompt=")])
        model = find_models([found.name], False, prompt, overrides)[0]
        self.chooser = Chooser(model, self.labels, console)
        asked = default_instruction(self.labels)
        self.ids = self.chooser.question_ids([[Message("user", asked, one.text)] for one in texts])
        check_lengths(found.name, [one.place for one in texts], self.ids, self.chooser.room)

    def load(self) -> None:
        """Read the weights."""
        if self.ours:
            self.chooser.load()
        else:
            self.model = load_pretrained(self.found)

    def batches(self) -> Iterator[Probabilities]:
        """Probabilities by place of the text, a batch at a time."""
        for batch in self.chooser.scores(self.ids) if self.ours else self._scores():
            yield {place: dict(zip(self.labels, shares(row), strict=True)) for place, row in batch}

    def _scores(self) -> Iterator[list[tuple[int, list[float]]]]:
        """The same as the chooser's, by transformers, a label of a text after another."""
        import torch

        for place, asked in enumerate(self.ids):
            row = []
            for reply in self.chooser.reply_ids:
                with at_work(self.found.name, "classifying"):
                    ids_1T = torch.tensor([[*asked, *reply]], device=self.model.device)
                    logits_RV = self.model(ids_1T).logits[0, len(asked) - 1 : -1].double()
                    wanted_R = ids_1T[0, len(asked) :, None]
                    row.append(float(logits_RV.log_softmax(-1).gather(1, wanted_R).sum()))
            yield [(place, row)]


class ByHead:
    """A classifier: its own labels, or any labels where it was trained on natural language inference."""

    def __init__(
        self, found: Pretrained, texts: Sequence[Question], labels: Sequence[str] | None, hypothesis: str | None,
        prompt: str | None, overrides: Sequence[str],
    ) -> None:  # fmt: skip
        check_overrides(overrides)
        self.found, self.texts, self.config = found, texts, found.config
        self.own = own_labels(self.config)
        self.entails = next((n for n, name in enumerate(self.own) if name.lower().startswith("entail")), None)
        if prompt is not None:
            raise OptionError(f"--prompt: {found.name} is a classifier and is not asked in words; leave it out")
        if labels is not None and self.entails is None:
            raise OptionError(
                f"--labels: {found.name} gives the labels that it was trained on ({_a_few(self.own)}); leave --labels "
                "out, or name a model of natural language inference, one of whose labels is entailment"
            )
        if hypothesis is not None and (labels is None or "{}" not in hypothesis):
            raise OptionError(f"--hypothesis goes with --labels, and has {{}} where a label belongs: '{HYPOTHESIS}'")
        self.labels = None if labels is None else checked_labels(labels)
        own = "the model's own labels" if len(self.own) > 1 else "the model's own value, no probability (regression)"
        self.how = own if labels is None else "natural language inference"
        self.hypothesis = hypothesis or HYPOTHESIS
        self._read_texts()

    def _read_texts(self) -> None:
        """All texts as ids, each with every hypothesis about it where there are any; none is too long."""
        from pronk.model.load import load_tokenizer

        self.tokenizer = load_tokenizer(self.found.base)
        said = [None] if self.labels is None else [self.hypothesis.replace("{}", label) for label in self.labels]
        self.rows = [dict(self.tokenizer(one.text, hypothesis)) for one in self.texts for hypothesis in said]
        places = [one.place for one in self.texts for _ in said]
        most = readable_length(self.config, self.tokenizer)
        check_lengths(self.found.name, places, [row["input_ids"] for row in self.rows], most)

    def load(self) -> None:
        """Read the weights."""
        self.model = load_pretrained(self.found)

    def batches(self) -> Iterator[Probabilities]:
        """Probabilities by place of the text, a batch at a time; of inference a text at a time, softmax over the
        labels' entailment logits, as transformers' zero-shot pipeline does it."""
        if self.labels is None:
            for places, logits in self._logits(self.rows):
                yield {
                    place: dict(zip(self.own, self._read(row), strict=True))
                    for place, row in zip(places, logits, strict=True)
                }
            return
        count = len(self.labels)
        for place in range(len(self.texts)):
            scores = [0.0] * count
            for places, logits in self._logits(self.rows[place * count : (place + 1) * count]):
                for at, row in zip(places, logits, strict=True):
                    scores[at] = row[self.entails or 0]
            yield {place: dict(zip(self.labels, shares(scores), strict=True))}

    def _logits(self, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[list[int], list[list[float]]]]:
        """Places and logits in fp32, the longest texts first, so that the largest batch comes first."""
        from pronk.evaluate.batches import prompt_batches

        # a decoder with a head finds a text's end by its padding token: where the two do not agree, texts go one by one
        pads = self.tokenizer.pad_token_id is not None and self.tokenizer.pad_token_id == self.config.pad_token_id
        budget = BATCH_TOKENS if pads else 1
        for batch in prompt_batches([row["input_ids"] for row in rows], [0], budget, 0):
            places = [place for place, _ in batch]
            with at_work(self.found.name, "classifying"):
                chosen = [rows[place] for place in places]
                inputs = self.tokenizer.pad(chosen, padding=len(chosen) > 1, return_tensors="pt")
                logits = self.model(**inputs.to(self.model.device)).logits.float()
            if not logits.isfinite().all():
                raise BaseModelError(f"--base {self.found.name}: it gives logits that are not finite numbers")
            yield places, logits.tolist()

    def _read(self, logits: Sequence[float]) -> list[float]:
        """Probabilities of the model's own labels, as its configuration says that they are to be read."""
        if len(logits) == 1:  # regression: a value
            return list(logits)
        if self.config.problem_type == "multi_label_classification":
            return [1 / (1 + math.exp(-one)) for one in logits]
        return shares(logits)


def shares(scores: Sequence[float]) -> list[float]:
    """Softmax of log-probabilities or logits, in float64."""
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def own_labels(config: Any) -> list[str]:
    """The labels of a classifier as its configuration names them; two of one name are told apart by their numbers."""
    names = [str(name) for _, name in sorted(config.id2label.items())]
    return [f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names)]


def _a_few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
