"""The figures of one classifier on one set of items."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Average:
    """One average of precision, recall and F1 over classes, each in [0, 1]."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClassFigures:
    """Precision, recall and F1 of one class, each in [0, 1], and how many items bear its label."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ClassificationReport:
    """What `classification_report` found.

    `confusion` has the shape (classes, classes + 1): a row per true class, a column per predicted class
    in the same order, and a last column for predictions that could not be parsed.
    """

    classes: tuple[str, ...]
    per_class: tuple[ClassFigures, ...]
    macro: Average
    weighted: Average
    accuracy: float
    confusion: NDArray[np.int64]
    unparsable: int


def classification_report(
    labels: Sequence[str], predicted: Sequence[str | None], classes: Sequence[str]
) -> ClassificationReport:
    """Figures per class and averaged, and the confusion matrix.

    `labels` and `predicted` have the shape (items,); a prediction of None could not be parsed: it is
    counted in a column of its own, counts as wrong, and is never taken for a class. A class that neither
    the labels nor the predictions contain has an undefined F1: it shows 0 and is left out of the macro
    average, as in scikit-learn's `f1_score` without `labels` (and as in `resampling.macro_f1`).
    Raises ValueError for no items, unequal lengths, or a name that is not one of `classes`.
    """
    true_codes, predicted_codes = encode(labels, classes), encode(predicted, classes)
    if len(true_codes) != len(predicted_codes) or not len(true_codes) or (true_codes < 0).any():
        raise ValueError("labels and predictions must be as many, at least one, and every label a class")
    count = len(classes)
    confusion = np.zeros((count, count + 1), dtype=np.int64)
    np.add.at(confusion, (true_codes, np.where(predicted_codes < 0, count, predicted_codes)), 1)
    hits, support, said = np.diag(confusion), confusion.sum(axis=1), confusion[:, :count].sum(axis=0)
    occurs = support + said > 0
    columns = np.column_stack([_shares(hits, said), _shares(hits, support), _shares(2 * hits, support + said)])
    return ClassificationReport(
        classes=tuple(classes),
        per_class=tuple(
            ClassFigures(label, float(row[0]), float(row[1]), float(row[2]), int(items))
            for label, row, items in zip(classes, columns, support, strict=True)
        ),
        macro=Average(*map(float, columns[occurs].mean(axis=0))),
        weighted=Average(*map(float, np.average(columns, axis=0, weights=support))),
        accuracy=float((true_codes == predicted_codes).mean()),
        confusion=confusion,
        unparsable=int((predicted_codes < 0).sum()),
    )


def _shares(part: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.float64]:
    """part / of, and 0 where that is 0 / 0."""
    return np.divide(part, of, out=np.zeros(len(of)), where=of > 0)


def encode(names: Sequence[str | None], classes: Sequence[str]) -> NDArray[np.int64]:
    """Names (items,) as positions in `classes`, None as -1; ValueError for a name that is no class."""
    positions: dict[str | None, int] = {label: position for position, label in enumerate(classes)}
    positions[None] = -1
    unknown = {name for name in names if name not in positions}
    if unknown:
        raise ValueError(f"{sorted(map(repr, unknown))} are not among the classes {list(classes)}")
    return np.array([positions[name] for name in names], dtype=np.int64)
