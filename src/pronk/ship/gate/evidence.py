"""What a model says on validation rows: the loss of their answers, what it would write next, what it decides.

Names carry shapes: T tokens, P places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pronk.data.conversation import Conversation
from pronk.ship.gate.reading import LogProbabilities, Reads
from pronk.tokens.prompt import Prompt, TooLong

LONGEST = 1024  # tokens of a row: log-probabilities of 1,024 places and 128,000 tokens take half a gigabyte
PLACES = 1000  # of all rows together whose whole distributions are compared, for the same reason


@dataclass(frozen=True)
class Row:
    """A validation row as ids. targets_P: the places of answer tokens, all behind the first. sampled: which of those
    have their distributions compared. choices: what there is to decide between, as ids behind the question; truth:
    which of them is right; both absent where the row is no decision."""

    ids: list[int]
    targets_P: npt.NDArray[np.int64]
    sampled: npt.NDArray[np.int64]
    asked: list[int]
    choices: tuple[tuple[int, ...], ...] = ()
    truth: int = -1


@dataclass(frozen=True)
class Said:
    """What a model says on a row. loss: nats of all its answer tokens. top_P: the likeliest token at each of them.
    sampled_PV: log-probabilities where they are compared. right: whether it decides right; None for no decision."""

    loss: float
    top_P: npt.NDArray[np.int64]
    sampled_PV: LogProbabilities
    right: bool | None


def make_rows(
    conversations: Sequence[Conversation], prompt: Prompt, labels: Sequence[str], length: int
) -> list[Row]:  # fmt: skip
    """The rows as the model reads them, cut to `length` tokens; those whose question leaves no room are left out."""
    left_out: list[TooLong] = []
    length = min(length, LONGEST)
    examples = prompt.examples(conversations, length, left_out=left_out)
    gone = {one.row for one in left_out}
    kept = [one for number, one in enumerate(conversations) if number not in gone]
    label_ids = [tuple(ids) for ids in prompt.answer_ids(labels)]
    each = max(1, PLACES // max(1, len(examples)))
    rows = []
    for conversation, example in zip(kept, examples, strict=True):
        targets = np.flatnonzero(example.target)
        sampled = np.unique(np.linspace(0, len(targets) - 1, min(each, len(targets))).round().astype(np.int64))
        choices, truth = _choices(conversation, prompt, labels, label_ids)
        rows.append(Row(example.ids.tolist(), targets, sampled, example.prompt_ids.tolist(), choices, truth))
    return rows


def _choices(
    row: Conversation, prompt: Prompt, labels: Sequence[str], label_ids: Sequence[tuple[int, ...]]
) -> tuple[tuple[tuple[int, ...], ...], int]:
    """What a row decides between: labels with their end token, or its own choices without one, as in evaluations."""
    if row.choices:
        ids = tuple(tuple(one[:-1]) for one in prompt.answer_ids(row.choices))
        return ids, row.choices.index(row.answer)
    if row.label is not None and len(labels) > 1:
        return tuple(label_ids), list(labels).index(row.label)
    return (), -1


def read_row(reads: Reads, row: Row) -> Said:
    """What a model says on a row."""
    said_TV = reads.log_probabilities(row.ids)
    before_PV = said_TV[row.targets_P - 1]  # a token is foretold by the place before it
    targets = np.asarray(row.ids)[row.targets_P]
    loss = -before_PV[np.arange(len(targets)), targets].astype(np.float64).sum()
    right = None
    if row.choices:

        def score(answer: Sequence[int]) -> float:
            whole = [*row.asked, *answer]
            known = row.ids[: len(whole)] == whole  # the right answer, which has just been read
            return _score(said_TV if known else reads.log_probabilities(whole[:-1]), len(row.asked), answer)

        right = likeliest(row.choices, said_TV[len(row.asked) - 1], score) == row.truth
    return Said(float(loss), before_PV.argmax(-1), before_PV[row.sampled].copy(), right)


def likeliest(
    choices: Sequence[Sequence[int]], first_V: npt.NDArray[np.float32], score: Callable[[Sequence[int]], float]
) -> int:
    """The likeliest of several answers. first_V: log-probabilities of the token behind the question.

    No answer is likelier than its first token: those that cannot win are never read.
    """
    bounds = [float(first_V[ids[0]]) for ids in choices]
    best, found = -np.inf, 0
    for number in sorted(range(len(choices)), key=lambda one: -bounds[one]):
        if bounds[number] <= best:
            break
        value = score(choices[number]) if len(choices[number]) > 1 else bounds[number]
        if value > best:
            best, found = value, number
    return found


def _score(said_TV: LogProbabilities, asked: int, answer: Sequence[int]) -> float:
    """The log-probability of a whole answer behind a question of so many tokens."""
    places = np.arange(asked - 1, asked - 1 + len(answer))
    return float(said_TV[places, list(answer)].astype(np.float64).sum())
