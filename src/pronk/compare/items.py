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

    `loss` is the summed negative log-likelihood of the answer in nats, `tokens` its target tokens, `bytes` those of
    its text in UTF-8 (None in studies that did not count them).
    """

    ids: NDArray[np.str_]
    loss: NDArray[np.float64]
    tokens: NDArray[np.int64]
    bytes: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Chosen:
    """Multiple choice; tuples (items,), sorted by id: the right choice, the likeliest, the likeliest by the letter.

    `of_one_length`: all choices of an item are equally long, so that the last two cannot differ.
    """

    ids: tuple[str, ...]
    answers: tuple[str, ...]
    predicted: tuple[str, ...]
    predicted_normalised: tuple[str, ...]
    of_one_length: bool


@dataclass(frozen=True)
class ExactAnswers:
    """Short answers that are right or wrong; all (items,), sorted by id.

    `expected` and `found` are what was compared, None where an answer held nothing of the kind.
    """

    ids: tuple[str, ...]
    answers: tuple[str, ...]
    expected: tuple[str, ...]
    found: tuple[str | None, ...]
    right: NDArray[np.bool_]
    ended: NDArray[np.bool_]


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
class FreeAnswers:
    """What a run wrote, to be read; all (items,), sorted by id. `ended` as in Similarity."""

    ids: tuple[str, ...]
    answers: tuple[str, ...]
    ended: NDArray[np.bool_]


@dataclass(frozen=True)
class RunItems:
    """The item results of one run; None for an evaluation that was not made."""

    name: str
    likelihood: Likelihood | None = None
    classified: Classified | None = None
    similarity: Similarity | None = None
    chosen: Chosen | None = None
    exact: ExactAnswers | None = None
    forgetting: Likelihood | None = None  # on passages of general text, not on the items
    answered: FreeAnswers | None = None

    @property
    def ids(self) -> Sequence[str] | None:
        """The items that some evaluation was made on; None without any."""
        for found in (self.classified, self.chosen, self.exact, self.likelihood, self.similarity, self.answered):
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
        _chosen(items / "choice.jsonl"),
        _exact(items / "exact.jsonl"),
        _likelihood(items / "forgetting.jsonl"),
        _answered(items / "answers.jsonl"),
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
    counted = all(isinstance(row.get("bytes"), int) for row in rows.values())
    return Likelihood(
        ids=np.array(list(rows)),
        loss=np.array([float(row["loss"]) for row in rows.values()]),
        tokens=np.array([int(row["tokens"]) for row in rows.values()]),
        bytes=np.array([row["bytes"] for row in rows.values()]) if counted else None,
    )


def _chosen(path: Path) -> Chosen | None:
    rows = _by_id(path, ("answer", "predicted", "predicted_normalised"))
    if not rows:
        return None
    return Chosen(
        ids=tuple(rows),
        answers=tuple(str(row["answer"]) for row in rows.values()),
        predicted=tuple(str(row["predicted"]) for row in rows.values()),
        predicted_normalised=tuple(str(row["predicted_normalised"]) for row in rows.values()),
        of_one_length=all(len({len(str(one)) for one in row.get("choices") or ()}) == 1 for row in rows.values()),
    )


def _exact(path: Path) -> ExactAnswers | None:
    rows = _by_id(path, ("right", "expected", "found"))
    if not rows:
        return None
    return ExactAnswers(
        ids=tuple(rows),
        answers=tuple(str(row.get("answer", "")) for row in rows.values()),
        expected=tuple(str(row["expected"]) for row in rows.values()),
        found=tuple(None if row["found"] is None else str(row["found"]) for row in rows.values()),
        right=np.array([bool(row["right"]) for row in rows.values()]),
        ended=np.array([bool(row.get("ended", True)) for row in rows.values()]),
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


def _answered(path: Path) -> FreeAnswers | None:
    rows = _by_id(path, ("answer",))
    if not rows:
        return None
    return FreeAnswers(
        ids=tuple(rows),
        answers=tuple(str(row["answer"]) for row in rows.values()),
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
