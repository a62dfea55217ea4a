"""export.json, beside what was exported, and what the terminal shows of it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk import __version__
from pronk.ask.models import Model
from pronk.data.terminal import plain
from pronk.data.words import counted
from pronk.errors import StudyError
from pronk.runs import write_text

if TYPE_CHECKING:
    from pronk.ship.export.exporting import Artifact
    from pronk.ship.gate.parity import Paired, Parity

FILE = "export.json"
WIDTH = 80


class Record:
    """What was exported from one run into one folder, over any number of calls; `data` is what export.json holds.

    data["artifacts"]: one entry for each thing that was made, by its name: form, status (passed, rejected, or
    unchecked where nothing can read it), bytes, facts, parity with the run, reasons and details of a rejection.
    """

    def __init__(self, folder: Path, data: dict[str, Any]) -> None:
        self.folder, self.data = folder, data
        self.new: list[str] = []  # what this call has added, by name
        self.refused: list[str] = []  # forms of which nothing came, with the reason

    @classmethod
    def at(cls, folder: Path, model: Model) -> Record:
        """The record of a folder, a new one where there is none. Raises StudyError where it is of another run."""
        fresh = {"run": model.name, "source": str(model.run), "base": model.origin, "prompt": model.form.kind}
        data: dict[str, Any] = {"pronk": __version__, **fresh, "artifacts": []}
        file = folder / FILE
        if not file.exists():
            if folder.is_dir() and any(not one.name.startswith(".") for one in folder.iterdir()):
                raise StudyError(f"{folder}: this folder holds something else; choose another --out")
            return cls(folder, data)
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            known, entries = (found["run"], found["source"]), list(found["artifacts"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StudyError(f"{file}: cannot be read ({error}); move the folder away") from None
        if known != (model.name, str(model.run)):
            raise StudyError(f"{folder}: holds exports of another run ({known[1]}); choose another --out")
        return cls(folder, {**found, **data, "artifacts": entries})

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What this call has added."""
        return [entry for entry in self.data["artifacts"] if entry["name"] in self.new]

    @property
    def passed(self) -> bool:
        """Whether nothing of this call was rejected."""
        return not self.refused and all(entry["status"] != "rejected" for entry in self.entries)

    def status(self, name: str) -> str | None:
        """What came of an artifact; None where it was never made."""
        entry = self._entry(name)
        return entry["status"] if entry else None

    def limits(self, name: str) -> Any:
        """The class of limits that an artifact was held to. It must have been compared."""
        entry = self._entry(name)
        assert entry is not None
        return entry["tolerance"]["class"]

    def _entry(self, name: str) -> dict[str, Any] | None:
        return next((entry for entry in self.data["artifacts"] if entry["name"] == name), None)

    def add(self, artifact: Artifact, parity: Parity | None, explained: Iterable[str] = ()) -> None:
        """Note what came of an artifact, in place of what came of it before."""
        entry: dict[str, Any] = {
            "form": artifact.form,
            "name": artifact.name,
            "status": "unchecked" if parity is None else "rejected" if parity.reasons else "passed",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "bytes": _size(artifact.path),
            "facts": dict(artifact.facts),
        }
        if parity is not None:
            found = asdict(parity)
            entry |= {"tolerance": {"class": artifact.tolerance, **found.pop("limits")}}
            entry |= {key: list(found.pop(key)) for key in ("reasons", "details")}
            entry |= {"parity": found}
            entry["details"] += explained
        others = [one for one in self.data["artifacts"] if one["name"] != artifact.name]
        self.data["artifacts"] = [*others, entry]
        self.new.append(artifact.name)

    def write(self) -> None:
        """Write export.json."""
        text = json.dumps(self.data, indent=2, ensure_ascii=False) + "\n"
        write_text(self.folder / FILE, text)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


HEAD = ("", "read by", "same ids", "KL mean", "KL max", "top-1", "")
STATUS = {"passed": "passed", "rejected": "REJECTED", "unchecked": "unchecked"}


def as_table(record: Record) -> str:
    """What this call has made, within 80 columns: figures, then loss and metric, then reasons and where it lies."""
    table = [HEAD, *(_row(entry) for entry in record.entries)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(HEAD) - 1))
    lines = ["  ".join(map(_cell, row, widths, range(len(HEAD)))).rstrip() for row in table]
    for entry in record.entries:
        lines += ["", *_said(entry)]
    lines += ["", *(line for one in record.refused for line in textwrap.wrap(f"REJECTED {one}", WIDTH))]
    part, rows, known = (record.data["compared"][key] for key in ("part", "rows", "of"))
    compared = any(entry.get("parity") for entry in record.entries)
    on = f"compared on {rows:,} of {counted(known, f'{part} row')}" if compared else "nothing of this was compared"
    lines.append(f"{on}; all figures: {record.folder / FILE}")
    return plain("\n".join(lines))


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    found, status = entry.get("parity"), STATUS[entry["status"]]
    if not found:
        return (entry["name"], "–", "–", "–", "–", "–", status)
    same = f"{found['same_chats']}/{found['chats']}"
    shown = (f"{found['kl']:.1e}", f"{found['worst']:.1e}", f"{found['top1']:.1%}")
    return (entry["name"], found["reader"], same, *shown, status)


def _cell(text: str, width: int, at: int) -> str:
    text = text if len(text) <= width else f"…{text[1 - width :]}"
    return text.rjust(width) if 2 <= at <= 5 else text.ljust(width)


def _said(entry: dict[str, Any]) -> list[str]:
    """Loss and metric of one thing that was made; of what was rejected, why."""
    found = entry.get("parity")
    lines = [f"{entry['name']}: {entry['bytes'] / 1e6:,.1f} MB"]
    for key, value in entry["facts"].items():
        if isinstance(value, str):
            lines += textwrap.wrap(f"{key}: {value}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    if found:
        lines += [_paired(found[part]) for part in ("loss", "metric") if found[part]]
        if found["later_same"] < found["later_chats"]:  # a server tokenizes earlier answers within the text
            lines.append(f"  later turns with the same ids: {found['later_same']} of {found['later_chats']}")
    for reason in entry.get("reasons", ()):
        lines += textwrap.wrap(f"rejected: {reason}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    for detail in entry.get("details", ()):
        lines += textwrap.wrap(detail, WIDTH, initial_indent="    ", subsequent_indent="      ")
    return lines


def _paired(figure: dict[str, Any] | Paired) -> str:
    one = figure if isinstance(figure, dict) else asdict(figure)
    low, high = one["interval"]
    change = f"{one['difference']:+.4f}, 95% interval {low:+.4f} to {high:+.4f}"
    return f"  {one['name']} {one['before']:.4f} → {one['after']:.4f} ({change})"
