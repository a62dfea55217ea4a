"""The file of rows and, beside it, what it came of: FILE.jsonl and FILE.jsonl.summary.json.

Rows are only ever added, whole lines at a time. The summary is written anew before each round and after it: a process
that was killed in between is known by the round that it left open, whose tokens count as spent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pronk.data.terminal import plain_json
from pronk.errors import DataError, OptionError
from pronk.runs import write_text

Row = dict[str, Any]


class Output:
    """Rows on disk. settings: what all rows of a file have in common; going on with others is refused."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Raises OptionError for a file that is not this command's, DataError for one that is broken."""
        self.path, self.settings = path, json.loads(json.dumps(settings))
        self.summary_path = path.with_name(f"{path.name}.summary.json")
        if path.suffix != ".jsonl":
            raise OptionError(f"--out {path}: rows are written to a file ending in .jsonl")
        self.summary: dict[str, Any] = self._earlier()
        self.rows = self._rows() if self.summary else []

    def _earlier(self) -> dict[str, Any]:
        """The summary of an earlier run of the same command; empty where there is none."""
        if not self.path.exists() and not self.summary_path.exists():
            return {}
        if not self.summary_path.exists():
            raise OptionError(
                f"--out {self.path}: this file exists already, and no {self.summary_path.name} stands beside it, so "
                "pronk did not write it; choose another name, or move it away first"
            )
        try:
            found = json.loads(self.summary_path.read_text(encoding="utf-8"))
            before = found["settings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.summary_path}: cannot be read ({error}); move it and the rows away") from None
        differing = [key for key in {**before, **self.settings} if before.get(key) != self.settings.get(key)]
        if differing:
            told = "; ".join(
                f"{key}: {_short(before.get(key))}, now {_short(self.settings.get(key))}" for key in differing
            )
            raise OptionError(
                f"--out {self.path}: the rows in this file were made with other settings ({told}); choose another "
                "name, or give the same settings again to go on"
            )
        return dict(found)

    def _rows(self) -> list[Row]:
        """The rows of the file; half a line at its end, which a killed process left, is cut off."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        rows = []
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            try:
                row = json.loads(line)
                int(row["provenance"]["request"])
            except (ValueError, KeyError, TypeError):
                raise DataError(
                    f"{self.path}:{number}: not a row that pronk wrote; repair it, or choose another --out"
                ) from None
            rows.append(row)
        return rows

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows: they are on the disk when this returns."""
        if not rows:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            # one call: what is killed leaves whole lines, or half a line at the end
            file.write("".join(plain_json(row) + "\n" for row in rows).encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows += rows

    def write_summary(self, record: Mapping[str, Any]) -> None:
        """Write the summary, whole or not at all."""
        self.summary = {"rows": len(self.rows), **record, "settings": self.settings}
        write_text(self.summary_path, plain_json(self.summary, indent=2) + "\n")


def _short(value: Any) -> str:
    text = plain_json(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
