"""`pronk predict`: a label with probabilities, one of the row's choices, or a text, for each row of a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.ask.asking import open_reader
from pronk.data.terminal import plain
from pronk.data.words import counted
from pronk.errors import DataError, OptionError
from pronk.recipe import generation_settings
from pronk.runs import disk_guard
from pronk.ship.predict.answers import Answering, Labels, Record, Texts, Weights, records_of
from pronk.ship.predict.calibrating import calibration_of, loading, told, weights_digest
from pronk.ship.predict.calibration import Calibration
from pronk.ship.predict.choosing import Choices
from pronk.ship.predict.journal import Journal
from pronk.ship.predict.model import asking_of, chooses, labels_of, one_model
from pronk.ship.predict.output import STDOUT, Columns, JsonLines, check_free, check_output, open_writer, whole
from pronk.ship.predict.progress import Rate, Tally
from pronk.ship.predict.rows import Facts, Prompts, Source, of_values, opened, windows
from pronk.train.interrupt import Interruption, listen
from pronk.train.progress import say, work

if TYPE_CHECKING:
    from rich.console import Console

HOW_ENDED = {"end": "ended", "stop": "at a stop text", "length": "never ended"}
Window = list[tuple[dict[str, Any], Record]]


@dataclass(frozen=True)
class Wanted:
    """What was asked for. target: a run, an adapter or a base. column: what the model reads, in place of the recipe's.
    calibrate: as far as there are validation rows. skip_bad: rows that cannot be read stay empty, with an `error`.
    settings: of recipe.Generation, for models that write."""

    target: str
    column: str | None = None
    calibrate: bool = True
    skip_bad: bool = False
    prompt: str | None = None
    overrides: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Predicted:
    """What it came to. counts: of each label, or of how texts ended. seconds: since this call began; made: rows of
    this call, the others were there."""

    output: str
    rows: int
    skipped: int
    made: int
    counts: dict[str, int]
    seconds: float
    calibration: Calibration | None

    def told(self) -> str:
        """The same in a line for people."""
        words = HOW_ENDED if set(self.counts) <= set(HOW_ENDED) else {}
        counts = ", ".join(f"{words.get(name, plain(name))} {count:,}" for name, count in self.counts.items())
        skipped = f"; {counted(self.skipped, 'row')} could not be read (column error)" if self.skipped else ""
        place = "" if self.output == STDOUT else f" in {self.output}"
        return f"{counted(self.rows, 'row')}{place}: {counts or 'no prediction'}{skipped}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = {**vars(self), "calibration": self.calibration and self.calibration.to_json()}
        return plain | {"rows_per_second": self.made / self.seconds if self.seconds else None}


def predict_file(
    wanted: Wanted, given: str, output: str, console: Console, prefix: str = "", force: bool = False
) -> Predicted:  # fmt: skip
    """Predict for each row of a file (or stdin, `-`) into another (or stdout).

    What is wrong with model, file or rows is found before weights are loaded. An output file appears when it is
    whole; until then the same call goes on where an earlier one ended. Raises PronkError, and KeyboardInterrupt where
    the user stops it: what is done is kept.
    """
    check_free(output, force)
    with listen(lambda _: say(console, "stopping after this batch")) as stop:
        job = _Job(wanted, console, stop)
        with opened(given) as source, job.deterministic():
            columns = job.columns(prefix)
            facts = job.examine(source)
            check_output(output, columns, facts.kinds)
            if output == STDOUT:
                return job.to_stdout(source, facts, columns)
            with disk_guard(Path(output)), Journal(Path(output), job.identity(source), force) as journal:
                try:
                    made = job.go_on(source, facts, journal)
                    tally = job.write(source, facts, columns, Path(output), journal)
                except KeyboardInterrupt:
                    kept = f"{journal.rows:,} of {counted(facts.rows, 'row')} are done; the same command goes on"
                    raise KeyboardInterrupt(kept) from None
                journal.remove()
    return job.result(output, facts, made, tally)


def predict_rows(
    wanted: Wanted, rows: Sequence[str | dict[str, Any]], console: Console, prefix: str = ""
) -> list[dict[str, Any]]:  # fmt: skip
    """Each row with its prediction, as a line of a .jsonl file would have it; a text is a row of the one column that
    the model reads. Raises as predict_file does."""
    if not rows:
        return []
    with listen(lambda _: say(console, "stopping after this batch")) as stop:
        job = _Job(wanted, console, stop)
        read = next(iter(job.prompts.asking.columns.values()))
        source = of_values({read: row} if isinstance(row, str) else row for row in rows)
        columns = job.columns(prefix)
        facts = job.examine(source)
        check_output(STDOUT, columns, facts.kinds)
        with job.deterministic():
            job.prepare()
            found = [row for window in job.windows(source, facts) for row in window]
    return [{**values, **columns.nested(record)} for values, record in found]


class _Job:
    """A model and how it is asked; no weights are loaded before they are needed."""

    def __init__(self, wanted: Wanted, console: Console, stop: Interruption) -> None:
        self.wanted, self.console, self.stop = wanted, console, stop
        self.begun = time.perf_counter()
        self.tell = partial(say, console)
        self.model = one_model(wanted.target, wanted.prompt, wanted.overrides)
        self.calibration: Calibration | None = None
        with console.status("reading model and rows"):
            self.labels = labels_of(self.model)
            self.chooses = chooses(self.model)
            self._check_settings()
            weights = Weights(open_reader(0, self.model, self.tell, {}), console)
            self.answering = self._answering(weights)
        self.prompts = Prompts(
            weights.reader, asking_of(self.model, self.labels, wanted.column), self.answering.longest_prompt,
            weights.context,
        )  # fmt: skip

    def _check_settings(self) -> None:
        if (self.labels or self.chooses) and self.wanted.settings:
            among = f"{len(self.labels)} labels" if self.labels else "each row's choices"
            raise OptionError(
                f"--{next(iter(self.wanted.settings)).replace('_', '-')} is for models that write text, and "
                f"{self.model.name} picks one of {among}: leave it out"
            )

    def _answering(self, weights: Weights) -> Answering:
        if self.labels:
            return Labels(weights, self.labels)
        return Choices(weights) if self.chooses else Texts(weights, generation_settings(self.wanted.settings))

    def columns(self, prefix: str) -> Columns:
        """The new columns."""
        return Columns(self.labels, self.wanted.skip_bad, prefix, self.chooses)

    def deterministic(self) -> AbstractContextManager[None]:
        """Inside, the same bits come out each time, where the recipe wants that."""
        from pronk.model.determinism import deterministic

        return deterministic(self.model.recipe.train.deterministic)

    def examine(self, source: Source) -> Facts:
        """One pass over all rows. Raises DataError for the first that cannot be read, unless such are skipped."""
        with self.console.status("reading the rows"):
            facts = self.prompts.examine(source, self.stop.check)
        if facts.bad == facts.rows:
            raise DataError(f"{facts.first_bad} (none of {counted(facts.rows, 'row')} can be read)")
        if facts.bad and not self.wanted.skip_bad:
            others = f" ({facts.bad:,} of {counted(facts.rows, 'row')} cannot be read)" if facts.bad > 1 else ""
            raise DataError(
                f"{facts.first_bad}{others}; mend the file, or leave such rows without a prediction, the reason in a "
                "column `error`: --skip-bad"
            )
        return facts

    def identity(self, source: Source) -> dict[str, Any]:
        """What the records hang on, by the keys of journal.JOB."""
        from pronk.model.load import resolve_device

        asking, answering = self.prompts.asking, self.answering
        reads = [asking.format, asking.columns, asking.instruction, asking.choices, str(asking.system)]
        return {
            "input": source.digest,
            "model": [weights_digest(self.model), loading(self.model), answering.weights.reader.prompt.form.template],
            "reads": reads,
            "answers": answering.settings.model_dump() if isinstance(answering, Texts) else self.labels,
            "calibrate": self.wanted.calibrate,
            "device": resolve_device(self.model.recipe.train.device).type,
        }

    def prepare(self) -> None:
        """Calibrate, as far as that is wanted and there is something to calibrate."""
        if isinstance(self.answering, Labels) and self.wanted.calibrate:
            self.calibration = calibration_of(self.model, self.answering, self.prompts, self.console, self.stop)
            self.answering.temperature = self.calibration.temperature
            self.tell(told(self.calibration))

    def go_on(self, source: Source, facts: Facts, journal: Journal) -> int:
        """Predict for the rows that the journal does not hold yet. Returns how many."""
        before = journal.rows
        if journal.plan is None:
            self.prepare()
            journal.begin({
                "token_budget": self.answering.weights.budget,
                "window_tokens": self.answering.weights.window_tokens,
                "calibration": self.calibration and self.calibration.to_json(),
            })  # fmt: skip
        else:
            self._as_planned(journal.plan)
            self.tell(f"going on: {before:,} of {counted(facts.rows, 'row')} are done")
        for window in self.windows(source, facts, before):
            journal.add([record for _, record in window])
        return journal.rows - before

    def _as_planned(self, plan: Mapping[str, Any]) -> None:
        """Go on as it was begun: batches of other sizes would round otherwise."""
        weights = self.answering.weights
        weights.token_budget, weights.window_tokens = int(plan["token_budget"]), int(plan["window_tokens"])
        if isinstance(self.answering, Labels) and plan["calibration"]:
            self.calibration = Calibration.from_json(plan["calibration"])
            self.answering.temperature = self.calibration.temperature

    def windows(self, source: Source, facts: Facts, done: int = 0) -> Iterator[Window]:
        """Values and records of the rows behind those that are done, window by window."""
        if done >= facts.rows:
            return
        weights = self.answering.weights
        _ = weights.loaded  # before a bar is shown, loading gets a line of its own
        rate = Rate(self.console, facts.rows - done)
        items = self.prompts.items(islice(source.rows(), done, None))
        with work(self.console, "predicting", facts.rows - done) as bar:
            for window in windows(items, self.answering.size, weights.window_tokens):
                records = records_of(self.answering, window, self.stop, rate.told(bar.advance))
                done_now = [(item.row.values, record) for item, record in zip(window, records, strict=True)]
                self._refuse_late(done_now)
                yield done_now

    def _refuse_late(self, window: Window) -> None:
        """A row that turned out to be too long, or that the template refuses."""
        late = next((record["error"] for _, record in window if "error" in record), None)
        if late is not None and not self.wanted.skip_bad:
            raise DataError(f"{late}; mend the file, or add --skip-bad")

    def to_stdout(self, source: Source, facts: Facts, columns: Columns) -> Predicted:
        """Print rows as they are done; there is nothing to go on with."""
        self.prepare()
        writer, tally = JsonLines(sys.stdout, columns), Tally()
        for window in self.windows(source, facts):
            writer.add(tally.of(window))
            sys.stdout.flush()
        return self.result(STDOUT, facts, facts.rows, tally)

    def write(self, source: Source, facts: Facts, columns: Columns, output: Path, journal: Journal) -> Tally:
        """Every row of the input with its record, whole or not at all."""
        tally = Tally()
        with (
            self.console.status(f"writing {output.name}"),
            whole(output) as aside,
            closing(open_writer(aside, output.suffix, columns, facts.kinds, source.schema())) as writer,
        ):
            writer.add(tally.of(_together(source, journal)))
        return tally

    def result(self, output: str, facts: Facts, made: int, tally: Tally) -> Predicted:
        """What it came to."""
        counts = {label: tally.counts[label] for label in self.labels} if self.labels else dict(tally.counts)
        seconds = time.perf_counter() - self.begun
        return Predicted(output, facts.rows, tally.skipped, made, counts, seconds, self.calibration)


def _together(source: Source, journal: Journal) -> Iterator[tuple[dict[str, Any], Record]]:
    """The values of all rows with their records. Raises DataError where they are not as many."""
    try:
        for row, record in zip(source.rows(), journal.records(), strict=True):
            yield row.values, record
    except ValueError:
        raise DataError(f"{source.name}: the file has changed while it was read; start anew with --force") from None
