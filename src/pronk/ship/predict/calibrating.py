"""The calibration of a run: fitted on its validation rows once, and kept in calibration.json beside it.

What is kept holds for one adapter (or whole model), one base as it lies in memory, and the very ids and labels that
were read; where any of them has changed, it is made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pronk.ask.models import Model
from pronk.data.conversation import Conversation
from pronk.data.split import read_splits
from pronk.data.words import counted
from pronk.errors import DataError, PronkError
from pronk.measure.items import Items, check_recorded
from pronk.model.places import EMBEDDED, embedded_file
from pronk.runs import StudyFolder, write_text
from pronk.ship.predict.answers import Labels
from pronk.ship.predict.calibration import Calibration, Quality, calibrate
from pronk.ship.predict.rows import Prompts
from pronk.train.interrupt import Interruption
from pronk.train.progress import say, work

if TYPE_CHECKING:
    from rich.console import Console

NAME = "calibration.json"
MOST_ROWS = 2000  # one number is fitted: more rows would only take longer


def calibration_of(
    model: Model, labels: Labels, prompts: Prompts, console: Console, stop: Interruption
) -> Calibration:  # fmt: skip
    """The kept calibration, or a new one, which is then kept. Loads weights only for a new one."""
    if model.run is None:
        return Calibration(1.0, 0, why_not="only runs of pronk have validation rows of their own")
    file, key = _place(model), {"weights": weights_digest(model), "model": loading(model)}
    kept = _kept(file, key)
    try:
        rows = _validation(model, labels.names)
    except PronkError as error:
        if kept is not None:
            say(console, f"calibration: as kept in {file}; its data cannot be read again ({error})")
            return Calibration.from_json(kept["calibration"])
        return Calibration(1.0, 0, why_not=f"the validation rows cannot be read ({error})")
    rows, ids = _readable(rows, prompts)
    if not rows:
        return Calibration(1.0, 0, why_not="it has no rows for validation (data.split.validation)")
    right_N = np.array([labels.names.index(str(row.label)) for row in rows])
    key["rows"] = hashlib.sha256(json.dumps([labels.ids, ids, right_N.tolist()]).encode()).hexdigest()
    if kept is not None and kept["of"] == key:
        return Calibration.from_json(kept["calibration"])
    _ = labels.weights.loaded  # before a bar is shown, loading gets a line of its own
    with work(console, "calibrating", len(rows)) as bar:
        found = calibrate(labels.scores(ids, stop, bar.advance), right_N)
    _keep(file, {"of": key, "calibration": found.to_json()}, console)
    return found


def told(found: Calibration) -> str:
    """A calibration in a line for people."""
    before, after, rows = found.before, found.after, counted(found.rows, "validation row")
    if found.why_not:
        figures = f" (on {rows}: {_figures(before, before)})" if before else ""
        return f"probabilities are not calibrated: {found.why_not}{figures}"
    figures = _figures(before, after) if before and after else ""
    return f"calibrated on {rows}, temperature {found.temperature:.2f}; cross-validated: {figures}"


def _figures(before: Quality, after: Quality) -> str:
    names = {"calibration_error": "calibration error", "brier": "Brier", "nll": "loss"}
    values = {name: [f"{getattr(one, name):.3f}" for one in (before, after)] for name in names}
    return ", ".join(f"{names[name]} {' → '.join(dict.fromkeys(both))}" for name, both in values.items())


def weights_digest(model: Model) -> str:
    """What tells one adapter, or whole model, from any other: its files. Empty for a base."""
    folder = model.adapter.folder if model.adapter else model.run and model.run / "model"
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()) if folder else ():
        if file.suffix == ".safetensors" or file.name in ("adapter_config.json", "config.json"):
            with file.open("rb") as content:
                digest.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest() if folder else ""


def loading(model: Model) -> dict[str, Any]:
    """How the base of a model lies in memory."""
    recipe = model.recipe
    return {
        "base": model.origin or recipe.base, "quantize": recipe.quantize,
        "double_quantization": recipe.double_quantization, "dtype": recipe.train.dtype,
        "fp8_products": recipe.train.fp8_products, "files": base_files(recipe.base),
    }  # fmt: skip


def base_files(base: str) -> list[str]:
    """What tells the weights of a base on this machine from those that lay there before: names, sizes, times. Hashing
    them would take longer than predicting. Of a base of the hub it is the commit that is loaded."""
    from pronk.model.hub import commit

    place = embedded_file() if base == EMBEDDED else Path(base).expanduser()
    if place is None or not place.exists():
        found = commit(base)
        return [f"commit {found}"] if found else []
    files = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
    stats = [(file.name, file.stat()) for file in files]
    return [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]


def _place(model: Model) -> Path:
    """Beside the run's weights; a checkpoint has one of its own."""
    folder = model.adapter.folder if model.adapter else None
    own = folder if folder is not None and folder.name != "adapter" else model.run
    return (own or Path()) / NAME


def _kept(file: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """What the file holds, if that is of this model; a file that is broken is made anew."""
    try:
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        Calibration.from_json(kept["calibration"])
        return kept if all(kept["of"][name] == value for name, value in key.items()) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(file: Path, content: dict[str, Any], console: Console) -> None:
    try:
        write_text(file, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        say(console, f"calibration: cannot be kept in {file} ({error.strerror}); it will be made again next time")


def _validation(model: Model, labels: Sequence[str]) -> list[Conversation]:
    """The rows that the run was validated on, at most MOST_ROWS evenly spaced.

    Raises DataError where the data is gone, or no longer what it was: rows for training may be among them then.
    """
    splits, names = read_splits(model.recipe.data)
    study = model.run and StudyFolder(model.run.parents[1])
    if study and (study.path / "items.jsonl").is_file():
        try:
            check_recorded(Items(splits, names), study.read_items(), labels, study.path)
        except (DataError, ValueError, OSError):
            raise DataError("its data is no longer what it was trained on") from None
    rows = list(splits.validation)
    step = max(1, -(-len(rows) // MOST_ROWS))
    return rows[::step]


def _readable(rows: list[Conversation], prompts: Prompts) -> tuple[list[Conversation], list[list[int]]]:
    """Rows that leave room for a label, and their ids."""
    ids = prompts.ids([row.question for row in rows])
    fitting = [(row, one) for row, one in zip(rows, ids, strict=True) if len(one) <= prompts.longest]
    return [row for row, _ in fitting], [one for _, one in fitting]
