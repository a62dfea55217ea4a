"""The gate: what was exported, as a program reads it, against the run that it came from.

The same ids for the same chats; next-token distributions over validation rows; the loss of their answers and the
recipe's own metric, each before and after, paired row by row.
Names carry shapes: P places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pronk.ask.asking import Reader
from pronk.compare.resampling import ratio_bootstrap_interval
from pronk.compare.statistics import tango_interval
from pronk.data.conversation import Conversation
from pronk.data.split import read_splits
from pronk.data.words import counted
from pronk.errors import DataError, OptionError
from pronk.measure.items import own_items
from pronk.ship.gate.chats import Asked, Chat, chats_of, first_difference, fixed_chats
from pronk.ship.gate.evidence import Row, Said, make_rows, read_row
from pronk.ship.gate.reading import LogProbabilities, Reads, RunReads
from pronk.ship.gate.tolerance import Class, Limits, Tolerance
from pronk.train.progress import say, work

if TYPE_CHECKING:
    from rich.console import Console

USUAL_LENGTH = 2048  # of a row, where the recipe has no train.max_length
SHOWN = 24  # tokens before the place that differs most


@dataclass(frozen=True)
class Paired:
    """A figure of the run and of what was exported. difference: after minus before, with its 95% interval over rows."""

    name: str
    before: float
    after: float
    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Parity:
    """What the gate found. reader: the program that read what was exported. chats, same_chats: questions that open a
    conversation, and how many of them gave the same ids; later_chats, later_same: those that follow an answer.

    kl, worst: of next-token distributions, in nats, the mean over `places` and the largest. top1: the share of
    `tokens`, all answer tokens, before which the likeliest token is the same. reasons: why it is rejected, if it is;
    details: what differs first.
    """

    reader: str
    limits: Tolerance
    chats: int
    same_chats: int
    later_chats: int
    later_same: int
    places: int
    tokens: int
    kl: float
    worst: float
    top1: float
    loss: Paired
    metric: Paired | None
    reasons: tuple[str, ...] = ()
    details: tuple[str, ...] = ()


class Gate:
    """What a run says, read once, and the comparison of anything else with it.

    rows: how many validation rows are read at most. Raises what reading the run's data does.
    """

    def __init__(
        self, reader: Reader, limits: Limits, rows: int, console: Console, check: Callable[[], None] = lambda: None
    ) -> None:
        self._reader, self._limits, self._console, self._check = reader, limits, console, check
        self.part, known, self._labels = _items(reader, console)
        self.known, conversations = len(known), known[:rows]  # how many there are, and those that are read
        self.fixed = fixed_chats(reader.prompt)
        plain = reader.model.form.plain
        opening, self.later = ([], []) if plain else chats_of(conversations, reader.prompt)
        self.opening: list[Asked] = [*self.fixed, *opening]
        self.rows = make_rows(conversations, reader.prompt, self._labels, self._length())
        if not self.rows:
            raise DataError("no validation row leaves room for its answer, so nothing could be compared")

    @property
    def example(self) -> Chat:
        """A question of the run's own data, as a server's client sends it."""
        return self.opening[min(len(self.fixed), len(self.opening) - 1)][0]

    def prepare(self) -> None:
        """Read the rows by the run itself, before another model takes memory."""
        assert self._said

    def compare(self, reads: Reads, name: str, kind: Class) -> Parity:
        """What was exported, against the run. name: of what is read, for the progress bar."""
        pairs, said = self._pairs_of_chats(reads), self._read(reads, name)
        found = _figures(reads.name, self._limits.of(kind), self.rows, self._said, said)
        opening, later = (sum(same for same, _ in one) for one in pairs)
        found = replace(found, chats=len(self.opening), same_chats=opening)
        found = replace(found, later_chats=len(self.later), later_same=later)
        reasons = _reasons(found)
        details = [line for same, line in pairs[0] if not same][:1]
        if any("nats apart" in reason or "likeliest" in reason for reason in reasons):
            details.append(self._worst_place(said))
        return replace(found, reasons=tuple(reasons), details=tuple(details if reasons else ()))

    @cached_property
    def _said(self) -> list[Said]:
        reads = RunReads(self._reader, self._console)
        try:
            return self._read(reads, "the run")
        finally:
            reads.close()

    def _length(self) -> int:
        from pronk.model.load import context_length

        context = context_length(self._reader.config)
        return min(context, self._reader.model.recipe.train.max_length or USUAL_LENGTH)

    def _read(self, reads: Reads, name: str) -> list[Said]:
        from pronk.model.memory.guard import memory_guard

        said = []
        with memory_guard(f"reading {name}"), work(self._console, f"reading {name}", len(self.rows)) as bar:
            for row in self.rows:
                self._check()
                said.append(read_row(reads, row))
                bar.advance(1, "rows")
        return said

    def _pairs_of_chats(self, reads: Reads) -> tuple[list[tuple[bool, str]], list[tuple[bool, str]]]:
        """Of each chat, opening and later ones: whether its ids are the same, and where not, where they part."""
        return _same_ids(self.opening, reads, self._reader), _same_ids(self.later, reads, self._reader)

    def _worst_place(self, said: Sequence[Said]) -> str:
        """Where the distributions differ most, in words."""
        decode = self._reader.prompt.tokenizer.decode
        kls = [divergence(one.sampled_PV, other.sampled_PV) for one, other in zip(self._said, said, strict=True)]
        number = max(range(len(kls)), key=lambda row: float(kls[row].max()))
        row, place = self.rows[number], int(kls[number].argmax())
        at = int(row.targets_P[row.sampled[place]])
        ours, theirs = (_likeliest(one[number].sampled_PV[place], decode) for one in (self._said, said))
        return f"after {decode(row.ids[max(0, at - SHOWN) : at])!r} the run says {ours}, this one {theirs}"


def divergence(p_PV: LogProbabilities, q_PV: LogProbabilities) -> npt.NDArray[np.float64]:
    """Kullback and Leibler's divergence of q from p at each place (P), in nats, from log-probabilities.

    Infinite where q is not finite: what gives no numbers is as far away as can be.
    """
    if p_PV.shape != q_PV.shape:
        return np.full(len(p_PV), np.inf)
    p, q = p_PV.astype(np.float64), q_PV.astype(np.float64)
    with np.errstate(invalid="ignore"):
        kl_P = np.where(p > -np.inf, np.exp(p) * (p - q), 0.0).sum(-1)
    return np.where(np.isfinite(kl_P), np.maximum(kl_P, 0.0), np.inf)


def _items(reader: Reader, console: Console) -> tuple[str, Sequence[Conversation], tuple[str, ...]]:
    """The rows that the gate reads from: validation rows, or, where there are none, some that were trained on."""
    recipe = reader.model.recipe
    try:
        items = own_items(recipe, "validation", lambda _: None)
    except OptionError:
        splits, labels = read_splits(recipe.data)
        say(console, "this run has no validation rows (data.split.validation); the gate reads training rows", "yellow")
        return "training", splits.train, labels
    return "validation", items.splits.test, items.labels


def _same_ids(chats: Sequence[Asked], reads: Reads, reader: Reader) -> list[tuple[bool, str]]:
    found = []
    for asked in chats:
        try:
            ids = reads.chat_ids(asked[0])
        except Exception as error:  # a template may raise anything; that is a difference, too
            found.append((False, f"its template fails: {error}"))
            continue
        same = list(ids) == asked[1]
        found.append((same, "" if same else first_difference(asked, ids, reader.prompt)))
    return found


def _figures(
    reader: str, limits: Tolerance, rows: Sequence[Row], before: Sequence[Said], after: Sequence[Said]
) -> Parity:  # fmt: skip
    """All figures of two models on the same rows; of chats nothing yet."""
    kl_P = np.concatenate([divergence(one.sampled_PV, two.sampled_PV) for one, two in zip(before, after, strict=True)])
    same_P = np.concatenate([one.top_P == two.top_P for one, two in zip(before, after, strict=True)])
    weight = np.array([len(row.targets_P) for row in rows], dtype=np.float64)
    losses = [np.array([one.loss for one in said]) for said in (before, after)]
    return Parity(
        reader, limits, 0, 0, 0, 0, len(kl_P), len(same_P), float(kl_P.mean()), float(kl_P.max()),
        float(same_P.mean()), _loss(losses[0], losses[1], weight), _metric(before, after),
    )  # fmt: skip


def _loss(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]
) -> Paired:  # fmt: skip
    """Nats per answer token."""
    total, difference = float(weight.sum()), after - before
    finite = bool(np.isfinite(difference).all())
    interval = ratio_bootstrap_interval(difference, weight) if finite else (float("inf"), float("inf"))
    change = float(difference.sum()) / total if finite else float("inf")
    return Paired("loss", float(before.sum()) / total, float(after.sum()) / total, change, interval)


def _metric(before: Sequence[Said], after: Sequence[Said]) -> Paired | None:
    """The share of rows that are decided right, of labels or choices; None where rows are no decisions."""
    pairs = [(one.right, two.right) for one, two in zip(before, after, strict=True) if one.right is not None]
    if not pairs:
        return None
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    first, second = (sum(bool(pair[side]) for pair in pairs) / len(pairs) for side in (0, 1))
    return Paired("accuracy", first, second, (won - lost) / len(pairs), tango_interval(lost, won, len(pairs)))


def _reasons(found: Parity) -> list[str]:
    """Why something is rejected; nothing where it is not."""
    limits, reasons = found.limits, []
    if found.same_chats < found.chats:
        other = f"{found.chats - found.same_chats} of {counted(found.chats, 'chat')}"
        reasons.append(f"{other} would be asked with other tokens than the run was trained on")
    if found.kl > limits.kl:
        reasons.append(f"next-token distributions are {found.kl:.2g} nats apart in the mean (limit kl={limits.kl:g})")
    if found.worst > limits.worst:
        reasons.append(
            f"at one place the distributions are {found.worst:.2g} nats apart (limit worst={limits.worst:g})"
        )
    if (
        found.top1 < limits.top1 and (1 - found.top1) * found.tokens > 1.5
    ):  # two that are all but equal may change places
        reasons.append(f"{found.top1:.1%} of answer tokens have the same likeliest token (limit top1={limits.top1:g})")
    if not found.loss.difference <= limits.loss and not found.loss.interval[0] <= 0:  # beyond chance, or no number
        reasons.append(f"the loss is {found.loss.difference:.2g} nats a token higher (limit loss={limits.loss:g})")
    metric = found.metric
    if metric and metric.difference < -limits.metric and metric.interval[1] < 0:  # beyond chance
        reasons.append(
            f"{metric.name} is {-metric.difference:.3f} lower, beyond chance (limit metric={limits.metric:g})"
        )
    return reasons


def _likeliest(said_V: LogProbabilities, decode: Callable[[list[int]], str]) -> str:
    token = int(said_V.argmax())
    return f"{decode([token])!r} ({float(np.exp(said_V[token])):.0%})"
