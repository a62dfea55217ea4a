"""Rounds of requests, until there are rows enough, a limit is reached, or there is no use in going on."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pronk.ask.asking import Bar, Stop
from pronk.data.words import counted
from pronk.evaluate.spending import Tally
from pronk.synthesize.answers import samples_of
from pronk.synthesize.output import Output, Row
from pronk.synthesize.requests import Asking, Request, blind_seeds, verifying
from pronk.synthesize.samples import COLUMNS, Sample
from pronk.synthesize.sieve import REASONS, Sieve
from pronk.synthesize.writers import Writer, Written, fitted

# gave-up: next to nothing was kept of many answers. failed: the server has gone.
Status = Literal["running", "done", "limit", "gave-up", "interrupted", "failed"]
PATIENCE = 200  # requests, of which …
LEAST_KEPT = 0.02  # … less than this share was kept: more of them would be money for nothing
LEAST_YIELD = 0.05  # of the examples asked for, as far as the size of a round goes
VERIFY_TOKENS = 12


@dataclass
class Counts:
    """asked: examples asked for. cut: answers that came to the most tokens allowed. dropped: by names of REASONS."""

    requests: int = 0
    asked: int = 0
    cut: int = 0
    next_request: int = 0
    seconds: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Order:
    """count: rows in all. longest: most tokens of an answer. temperature, verify: see recipe.Synthesis."""

    count: int
    longest: int
    temperature: float
    verify: bool


class Making:
    """One file of rows in the making."""

    def __init__(
        self, asking: Asking, sieve: Sieve, writer: Writer, output: Output, tally: Tally, order: Order
    ) -> None:
        self.asking, self.sieve, self.writer, self.output, self.tally = asking, sieve, writer, output, tally
        self.order, self.material = order, asking.material
        self.counts = Counts()
        self._recent: deque[tuple[int, int]] = deque(maxlen=PATIENCE)  # examples asked for and kept, by request
        self._go_on()
        self._begun = time.monotonic() - self.counts.seconds
        self.status: Status = "running"
        self._bar: Bar = _Nobody()

    def _go_on(self) -> None:
        """From what an earlier run of the command has left."""
        earlier, rows = self.output.summary, self.output.rows
        column = COLUMNS[self.material.task]
        for row in rows:
            self.sieve.take(_sample(row, column))
        self.by_label = Counter(dict.fromkeys(self.material.labels, 0))
        self.by_label.update(row["label"] for row in rows if self.material.labels)
        restore(self.counts, self.tally, earlier)
        newest = max((row["provenance"]["request"] for row in rows), default=-1)
        self.counts.next_request = max(self.counts.next_request, newest + 1)

    @property
    def missing(self) -> int:
        """Rows still to come."""
        return max(self.order.count - len(self.output.rows), 0)

    def run(self, stop: Stop, bar: Bar) -> Status:
        """Make rows. stop: whether the user has asked to stop; what is whole by then is kept. bar: counts rows."""
        self._bar = bar
        bar.advance(len(self.output.rows))
        self.status = "failed"  # unless the loop comes to its end
        try:
            self.status = self._rounds(stop)
        except KeyboardInterrupt:
            self.status = "interrupted"
        finally:
            self._write_summary()
        return self.status

    def _rounds(self, stop: Stop) -> Status:
        while self.missing:
            if stop.asked:
                return "interrupted"
            if self._hopeless():
                return "gave-up"
            before = self.counts.requests
            self._round(self._requests(), stop)
            if self.counts.requests == before and not stop.asked:
                return "limit"
        return "done"

    def _round(self, requests: Sequence[Request], stop: Stop) -> None:
        self._write_summary(self._at_most(requests, self.order.longest))
        waiting: list[tuple[Request, Sample]] = []
        enough = _Enough(stop, lambda: not self.missing)
        for request, written in self.writer.write(
            requests, self.order.longest, self.order.temperature, self.tally, enough, self._show
        ):
            passed = [(request, sample) for sample in self._passed(request, written)]
            if self.order.verify:
                waiting += passed
            else:
                self._keep(request, [sample for _, sample in passed])
        if waiting:
            self._keep_confirmed(waiting, stop)
        self._write_summary()

    def _at_most(self, requests: Sequence[Request], longest: int) -> dict[str, int]:
        """What requests may cost, for the case that nobody is there to see it."""
        read = sum(map(self.writer.tokens, requests))
        return {"requests": len(requests), "tokens_in": read, "tokens_out": len(requests) * longest}

    # --- what is asked -----------------------------------------------------------------------------

    def _requests(self) -> list[Request]:
        """The next round: as many requests as may be needed, of the labels that lack most."""
        share = max((len(self.output.rows) + 2) / (self.counts.asked + 4), LEAST_YIELD)
        each = self.asking.wanted
        lacking = {label: float(self._quota(label) - self.by_label[label]) for label in self.material.labels}
        requests = []
        for _ in range(min(self.writer.at_once, math.ceil(self.missing / (each * share)))):
            label = max(lacking, key=lambda one: lacking[one]) if lacking else None
            if label is not None:
                lacking[label] -= each * share
            number = self.counts.next_request
            self.counts.next_request += 1
            request = self.asking.request(number, label)
            requests.append(fitted(request, self.writer, self.order.longest, self._again(number, label)))
        return requests

    def _again(self, number: int, label: str | None) -> Callable[[tuple[Sample, ...]], Request]:
        return lambda seeds: self.asking.with_seeds(number, label, seeds)

    def _quota(self, label: str) -> int:
        """Rows of a label: equal parts, what does not divide goes to the first labels."""
        each, more = divmod(self.order.count, len(self.material.labels))
        return each + (self.material.labels.index(label) < more)

    def _hopeless(self) -> bool:
        asked, kept = (sum(column) for column in zip(*self._recent, strict=True)) if self._recent else (0, 0)
        return len(self._recent) == PATIENCE and kept < LEAST_KEPT * asked

    # --- what comes of it ---------------------------------------------------------------------------

    def _passed(self, request: Request, written: Written | None) -> list[Sample]:
        """The examples of an answer that nothing speaks against, and that are needed."""
        self.counts.requests += 1
        self.counts.asked += request.wanted
        self._recent.append((request.wanted, 0))
        if written is None:
            return []
        self.counts.cut += not written.ended
        if request.plain and not written.ended:
            self.counts.dropped["cut-off"] += 1
            return []
        samples = samples_of(written.text, request, self.material.task)
        if not samples:
            self.counts.dropped["unparsable"] += 1
        passed: list[Sample] = []
        for sample in samples:
            reason = self.sieve.reason(sample, request.label)
            if reason is None and self._enough(sample, passed):
                reason = "not-needed"
            if reason is None:
                self.sieve.take(sample)
                passed.append(sample)
            else:
                self.counts.dropped[reason] += 1
        self._show()
        return passed

    def _enough(self, sample: Sample, passed: Sequence[Sample]) -> bool:
        if self.material.labels:
            same = sum(one.answer == sample.answer for one in passed)
            return self.by_label[sample.answer] + same >= self._quota(sample.answer)
        return len(passed) >= self.missing

    def _keep_confirmed(self, waiting: Sequence[tuple[Request, Sample]], stop: Stop) -> None:
        """Of examples those whose label the model gives, too, when it does not know which one was asked for."""
        from pronk.evaluate.classify import parse_label

        questions = [self._question(number, sample) for number, (_, sample) in enumerate(waiting)]
        self._write_summary(self._at_most(questions, VERIFY_TOKENS) | {"requests": 0})
        said: dict[int, str | None] = {}
        for question, written in self.writer.write(questions, VERIFY_TOKENS, 0.0, self.tally, stop, self._show):
            said[question.number] = None if written is None else parse_label(written.text, self.material.labels)
        for number, (request, sample) in enumerate(waiting):
            if number not in said:
                self.counts.dropped["not-verified"] += 1
            elif said[number] != sample.answer:
                self.counts.dropped["label-not-confirmed"] += 1
            elif self._enough(sample, ()):
                self.counts.dropped["not-needed"] += 1
            else:
                self._keep(request, [sample])

    def _question(self, number: int, sample: Sample) -> Request:
        """For a text's label."""

        def again(seeds: tuple[Sample, ...]) -> Request:
            return verifying(self.material, self.writer.form, sample.text, seeds, number)

        seeds = blind_seeds(self.material, sample.text, self.asking.shots, self.asking.seed)
        return fitted(again(seeds), self.writer, VERIFY_TOKENS, again)

    def _keep(self, request: Request, samples: Sequence[Sample]) -> None:
        self.output.append([self._row(request, sample) for sample in samples])
        self.by_label.update(sample.answer for sample in samples if self.material.labels)
        if self._recent and samples:
            asked, kept = self._recent[-1]
            self._recent[-1] = asked, kept + len(samples)
        self._bar.advance(len(samples), self._note())

    def _row(self, request: Request, sample: Sample) -> Row:
        provenance = {
            "model": self.writer.name,
            **({"server": self.writer.host} if self.writer.host else {}),
            "seed_ids": [seed.place for seed in request.seeds],
            "prompt_version": self.asking.version,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "temperature": self.order.temperature,
            "request": request.number,
            "verified": self.order.verify,
        }
        return {**sample.values(self.material.task), "provenance": provenance}

    # --- what is told -------------------------------------------------------------------------------

    def _show(self, answers: str = "") -> None:
        """answers: how far those have come that are being written."""
        self._bar.advance(0, ", ".join(filter(None, (self._note(), answers))))

    def _note(self) -> str:
        """Behind the bar: asked, dropped, tokens, money, time left."""
        tokens = self.tally.tokens_in + self.tally.tokens_out
        parts = [f"asked {self.counts.asked}", f"dropped {self.counts.dropped.total()}", f"{tokens:,} tokens"]
        if self.tally.cost:
            parts.append(f"cost {self.tally.cost:.2f}")
        rows, seconds = len(self.output.rows), time.monotonic() - self._begun
        if rows and self.missing:
            parts.append(f"about {counted(math.ceil(seconds / rows * self.missing / 60), 'minute')} left")
        return ", ".join(parts)

    def _write_summary(self, under_way: dict[str, int] | None = None) -> None:
        self.counts.seconds = time.monotonic() - self._begun
        self.output.write_summary(self.record(under_way))

    def record(self, under_way: dict[str, int] | None = None) -> dict[str, Any]:
        """The summary. under_way: the most that a round may cost which has begun."""
        counts = self.counts
        return {
            "status": "running" if under_way else self.status,
            "wanted": self.order.count,
            "by_label": dict(self.by_label),
            "requests": counts.requests,
            "examples_asked_for": counts.asked,
            "answers_cut": counts.cut,
            "dropped": {name: counts.dropped[name] for name in REASONS if counts.dropped[name]},
            **self.tally.record(),
            "seconds": round(counts.seconds, 1),
            "next_request": counts.next_request,
            "under_way": under_way,
        }


def restore(counts: Counts, tally: Tally, earlier: dict[str, Any]) -> None:
    """What an earlier run of a command has counted. A round that it left open counts as spent."""
    if not earlier:
        return
    counts.requests, counts.asked = earlier.get("requests", 0), earlier.get("examples_asked_for", 0)
    counts.cut, counts.seconds = earlier.get("answers_cut", 0), earlier.get("seconds", 0.0)
    counts.next_request, counts.dropped = earlier.get("next_request", 0), Counter(earlier.get("dropped", {}))
    tally.answers, tally.estimated = earlier.get("answers", 0), earlier.get("estimated_tokens", 0)
    tally.tokens_in, tally.tokens_out = earlier.get("tokens_in", 0), earlier.get("tokens_out", 0)
    tally.retries, tally.failures = Counter(earlier.get("retries", {})), Counter(earlier.get("failures", {}))
    open_round = earlier.get("under_way")
    if open_round:
        counts.requests += open_round["requests"]
        tally.tokens_in += open_round["tokens_in"]
        tally.tokens_out += open_round["tokens_out"]
        tally.estimated += open_round["tokens_in"] + open_round["tokens_out"]


def _sample(row: Row, columns: Sequence[str]) -> Sample:
    values = [str(row.get(column, "")) for column in columns]
    return Sample(values[0], "", values[1]) if len(values) == 2 else Sample(*values)


class _Enough:
    """The user has asked to stop, or nothing more is needed."""

    def __init__(self, stop: Stop, enough: Callable[[], bool]) -> None:
        self._stop, self._enough = stop, enough

    @property
    def asked(self) -> int:
        """See pronk.ask.asking.Stop."""
        return self._stop.asked or int(self._enough())


class _Nobody:
    def advance(self, amount: float = 1, note: str = "") -> None:
        """See pronk.ask.asking.Bar."""
