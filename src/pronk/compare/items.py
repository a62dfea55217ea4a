"""A run's results, item by item, read from a study folder into arrays."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pronk.errors import StudyError
from pronk.runs import StudyFolder


@dataclass(frozen=True)
class Likelihood:
    """How well a run foresaw each reference answer; all arrays (items,), sorted by id.

    `loss` is the summed negative log-likelihood of the answer in nats, `tokens` its target tokens.
    """

    ids: NDArray[np.str_]
    loss: NDArray[np.float64]
    tokens: NDArray[np.int64]


@dataclass(frozen=True)
class Classified:
    """What a run took each item for; tuples (items,), sorted by id.

    `predicted` is the likeliest label, `generated_labels` the label read from the generated text
    (None: it could not be parsed); the last two are None where nothing was generated, `predicted` where nothing was
    scored, as with a model that only answers.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    predicted: tuple[str | None, ...] | None
    classes: tuple[str, ...]
    generated_labels: tuple[str | None, ...] | None
    generated: tuple[str, ...] | None


@dataclass(frozen=True)
class Similarity:
    """How near a run's free answers came to the references; all (items,), sorted by id.

    `rouge_l` and `chrf` are in [0, 1]; `ended` is false where an answer was cut at its longest length.
    """

    ids: tuple[str, ...]
    answers: tuple[str, ...]
    rouge_l: NDArray[np.float64]
    chrf: NDArray[np.float64]
    ended: NDArray[np.bool_]


@dataclass(frozen=True)
class RunItems:
    """The item results of one run; None for an evaluation that was not made."""

    name: str
    likelihood: Likelihood | None = None
    classified: Classified | None = None
    similarity: Similarity | None = None

    @property
    def ids(self) -> Sequence[str] | None:
        """The items that some evaluation was made on; None without any."""
        for found in (self.classified, self.likelihood, self.similarity):
            if found is not None:
                return [str(one) for one in found.ids]
        return None


def read_study(folder: Path) -> dict[str, Any]:
    """The contents of study.json; StudyError where the folder has none or it is no study."""
    study = StudyFolder.open(folder).read()
    if not all(isinstance(run, dict) and isinstance(run.get("name"), str) for run in study["runs"]):
        raise StudyError(f'{folder / "study.json"}: every run must be an object with a "name"')
    return study


def read_items(folder: Path, name: str) -> RunItems:
    """The item results of the run `name` in the study `folder`.

    Rows are sorted by id, so that runs whose rows come in another order still pair. Items without a label
    are left out of the classification. Raises StudyError, with the file and line, for what cannot be read.
    """
    return read_item_files(run_folder(folder, name) / "items", name)


def read_item_files(items: Path, name: str) -> RunItems:
    """The same from the folder of the item files themselves."""
    return RunItems(
        name,
        _likelihood(items / "likelihood.jsonl"),
        _classified(items / "classify.jsonl"),
        _similarity(items / "similarity.jsonl"),
    )


def read_lines(path: Path, half: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line of a JSON Lines file; nothing where there is no such file.

    half: a last line without its end is left out, as an interrupted writer may leave one.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip() or (half and not line.endswith("\n")):
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise StudyError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise StudyError(f"{path}, line {number}: expected an object, found {line.strip()[:60]}")
            yield number, row


def run_folder(folder: Path, name: str) -> Path:
    """Where a run lies; a name that would leave the study folder is a StudyError."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise StudyError(f"{folder / 'study.json'}: {name!r} cannot be the name of a run's folder")
    return folder / "runs" / name


def _likelihood(path: Path) -> Likelihood | None:
    rows = _by_id(path, ("loss", "tokens"), numbers=True)
    if not rows:
        return None
    return Likelihood(
        ids=np.array(list(rows)),
        loss=np.array([float(row["loss"]) for row in rows.values()]),
        tokens=np.array([int(row["tokens"]) for row in rows.values()]),
    )


def _classified(path: Path) -> Classified | None:
    rows = {key: row for key, row in _by_id(path, ("label",)).items() if row["label"] is not None}
    if not rows:
        return None
    scored = [label for row in rows.values() for label in row.get("scores") or {}]
    has_predicted = all("predicted" in row for row in rows.values())
    seen = [label for row in rows.values() for label in (row["label"], row.get("predicted"))]
    seen += [row.get("generated_label") for row in rows.values()]
    has_generated = all("generated_label" in row for row in rows.values())
    if not has_predicted and not has_generated:
        raise StudyError(f"{path}: some rows have neither 'predicted' nor 'generated_label'")
    return Classified(
        ids=tuple(rows),
        labels=tuple(row["label"] for row in rows.values()),
        predicted=tuple(row["predicted"] for row in rows.values()) if has_predicted else None,
        # in the order of the scores, which is the recipe's
        classes=tuple(dict.fromkeys(label for label in scored + seen if label is not None)),
        generated_labels=tuple(row["generated_label"] for row in rows.values()) if has_generated else None,
        generated=tuple(str(row.get("generated", "")) for row in rows.values()) if has_generated else None,
    )


def _similarity(path: Path) -> Similarity | None:
    rows = _by_id(path, ("rouge_l", "chrf"), numbers=True)
    if not rows:
        return None
    return Similarity(
        ids=tuple(rows),
        answers=tuple(str(row.get("answer", "")) for row in rows.values()),
        rouge_l=np.array([float(row["rouge_l"]) for row in rows.values()]),
        chrf=np.array([float(row["chrf"]) for row in rows.values()]),
        ended=np.array([bool(row.get("ended", True)) for row in rows.values()]),
    )


def _by_id(path: Path, required: tuple[str, ...], numbers: bool = False) -> dict[str, dict[str, Any]]:
    """The rows of an item file by id, sorted; every row has the required keys (or numbers) and its own id."""
    rows: dict[str, dict[str, Any]] = {}
    for number, row in read_lines(path):
        missing = [key for key in ("id", *required) if key not in row]
        if missing:
            raise StudyError(f"{path}, line {number}: no {missing[0]!r}")
        if numbers and not all(isinstance(row[key], int | float) for key in required):
            raise StudyError(f"{path}, line {number}: {' and '.join(required)} must be numbers")
        key = str(row["id"])
        if key in rows:
            raise StudyError(f"{path}, line {number}: the id {key!r} is there twice")
        rows[key] = row
    return dict(sorted(rows.items()))
