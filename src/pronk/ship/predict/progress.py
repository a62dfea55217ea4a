"""How far predicting has come: rows a second for people, and what rows came to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from pronk.ship.predict.answers import Advance, Record

if TYPE_CHECKING:
    from rich.console import Console

CHOSEN = "chosen"
Values = TypeVar("Values")


class Rate:
    """Rows a second since the first window began, and how long the rest will take. rows: in all."""

    def __init__(self, console: Console, rows: int) -> None:
        self._bar, self._rows, self._done = console.is_terminal, rows, 0.0
        self._begun = time.perf_counter()

    def told(self, advance: Callable[[float, str], None]) -> Advance:
        """What moves a bar on, with the rate behind it."""

        def move(amount: float) -> None:
            self._done += amount
            rate = self._done / (time.perf_counter() - self._begun)
            left = "" if self._bar or rate <= 0 else f", {_minutes((self._rows - self._done) / rate)} left"
            advance(amount, f"{rate:,.{0 if rate >= 10 else 1}f} rows/s{left}")

        return move


def _minutes(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Tally:
    """Counts rows by label, or by how their texts ended, as they pass; those with a choice of their own together."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.skipped = 0

    def of(self, rows: Iterable[tuple[Values, Record]]) -> Iterator[tuple[Values, Record]]:
        """The rows, unchanged."""
        for values, record in rows:
            if "error" in record:
                self.skipped += 1
            else:
                self.counts[record.get("label") or record.get("ended", CHOSEN)] += 1
            yield values, record
