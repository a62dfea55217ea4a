"""What is predicted so far: OUTPUT.unfinished, beside the output, which appears only when all is done.

Its first line says which job this is and how it is done; then comes a line of records for each window. A line is on
the disk, or it is cut off when the same command goes on: so no row is ever lost or predicted twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pronk.errors import DataError, OptionError
from pronk.ship.predict.answers import Record

# What a job hangs on, in words for people.
JOB = {
    "input": "the rows of the input",
    "model": "the model",
    "reads": "how rows are read",
    "answers": "labels, or how answers are written",
    "calibrate": "calibration",
    "device": "the device",
}


class Journal:
    """The unfinished predictions of one output file; held by one process at a time.

    job: what the records hang on, by the keys of JOB. plan: how they are made, of whoever began. rows: how many are
    done.
    """

    def __init__(self, output: Path, job: Mapping[str, Any], force: bool = False) -> None:
        """force: what another job began is thrown away. Raises OptionError for it otherwise, DataError for a file that
        is none of ours."""
        self.path = output.with_name(f"{output.name}.unfinished")
        self.job = json.loads(json.dumps(dict(job)))
        self.plan: dict[str, Any] | None = None
        self.rows = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b", buffering=0)
        except OSError as error:
            in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
            why = "part of the path is a file" if in_the_way else error.strerror
            raise OptionError(f"--output {output}: nothing can be written there ({why})") from None
        try:
            self._hold()
            try:
                self._read()
            except (OptionError, DataError):
                if not force:
                    raise
                self._file.truncate(0)
                self.plan, self.rows = None, 0
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not self.rows:
            self.path.unlink(missing_ok=True)  # nothing to go on with
        self._file.close()

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Write how the records are made, before the first of them."""
        self.plan = dict(plan)
        self._add({"job": self.job, "plan": self.plan})

    def add(self, records: list[Record]) -> None:
        """Keep the records of the next window: they are on the disk when this returns."""
        self._add(records)
        self.rows += len(records)

    def records(self) -> Iterator[Record]:
        """All records, in the order of the rows."""
        with self.path.open("rb") as lines:
            next(lines)
            for line in lines:
                yield from json.loads(line)

    def remove(self) -> None:
        """All is done."""
        self.path.unlink()

    def _add(self, value: Any) -> None:
        content = memoryview(json.dumps(value).encode() + b"\n")
        while content:
            content = content[self._file.write(content) :]
        os.fsync(self._file.fileno())

    def _hold(self) -> None:
        with suppress(ImportError):  # Windows has no such lock
            import fcntl

            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OptionError(f"{self.path}: another pronk is at work on this file") from None
            except OSError:  # some network disks have none either
                return

    def _read(self) -> None:
        self._file.seek(0)
        with os.fdopen(os.dup(self._file.fileno()), "rb") as lines:
            whole = 0
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._take(line, first=whole == 0)
                whole += len(line)
        self._file.truncate(whole)

    def _take(self, line: bytes, first: bool) -> None:
        try:
            value = json.loads(line)
            if first:
                before, self.plan = value["job"], dict(value["plan"])
                _ = int(self.plan["token_budget"]), int(self.plan["window_tokens"]), self.plan["calibration"]
            else:
                self.rows += sum(isinstance(record, dict) for record in value)
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{self.path}: not what pronk wrote; move it away, or start anew with --force") from None
        if first and before != self.job:
            differ = [words for key, words in JOB.items() if before.get(key) != self.job.get(key)]
            raise OptionError(
                f"{self.path}: predictions of another job were begun here; what differs: {', '.join(differ)}. Give the "
                "same again to go on, choose another --output, or start anew with --force"
            )
