"""Does a run overfit? From its training and validation losses, with an allowance for chance.

Validation rows are few, and the lowest of many validation losses is lowest partly by luck. So a rise
counts only where the rows themselves, compared with themselves, show it: the last evaluation against each
earlier one, row by row, and the best chosen among them allowed for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pronk.compare.items import read_lines, run_folder
from pronk.compare.languages import ENGLISH
from pronk.compare.pairs import SIGNIFICANCE
from pronk.compare.resampling import PERMUTATIONS, ratio_bootstrap_interval
from pronk.errors import StudyError

Floats = NDArray[np.float64]

OVERFITTING, NOT_OVERFITTING = "overfitting", "not overfitting"
IMPROVING, NOT_ASSESSED = "still improving", "not assessed"
FEWEST_ROWS = 10  # with five rows even an unbroken rise has p = 1/32; ten leave room for the choice of the best
RECENT = 4  # still improving: over the last fourth of the evaluations
CELLS = 2**21  # of one block of sign flips: 16 MiB in float64


@dataclass(frozen=True)
class Validations:
    """A run's validation, row by row. steps, epochs (T,); loss: summed nats (T, rows); tokens (rows,)."""

    steps: NDArray[np.int64]
    epochs: Floats
    loss_TN: Floats
    tokens_N: Floats

    @property
    def mean_T(self) -> Floats:
        """Nats per target token of each evaluation (T,)."""
        return np.asarray(self.loss_TN.sum(axis=1) / self.tokens_N.sum())


def overfitting(folder: Path, name: str) -> dict[str, Any]:
    """The verdict on a run of the study in `folder`, as study.json holds it.

    `verdict`, and for one that could be reached: `epoch` and `step` of the lowest validation loss, `lowest`
    and `last` (nats per target token), `rise` between them with its unadjusted 95% `interval`, `p_value`
    (one-sided, allowing for the choice of the lowest), `train_fall` over the same stretch, `rows` and
    `evaluations`. `reason` says why nothing could be said, `why` the same as a code. StudyError for files that cannot
    be read.
    """
    path = run_folder(folder, name)
    return judge(read_validations(path / "validation.jsonl"), read_training(path / "metrics.jsonl"))


def judge(seen: Validations | None, train: Floats) -> dict[str, Any]:
    """The verdict from a run's validation and its training losses (steps, 2): step, nats per target token."""
    if seen is None:
        return {"verdict": NOT_ASSESSED, **_because("no-validation")}
    rows, evaluations = len(seen.tokens_N), len(seen.steps)
    if evaluations < 2:
        return {"verdict": NOT_ASSESSED, **_because("once")}
    if rows < FEWEST_ROWS:
        return {"verdict": NOT_ASSESSED, **_because("few-rows", rows=rows, fewest=FEWEST_ROWS)}
    mean_T = seen.mean_T
    best = int(mean_T.argmin())
    train_fall = _fall(train, int(seen.steps[best]), int(seen.steps[-1]), _spacing(seen))
    found: dict[str, Any] = {
        "verdict": NOT_OVERFITTING,
        "epoch": float(seen.epochs[best]),
        "step": int(seen.steps[best]),
        "last_epoch": float(seen.epochs[-1]),
        "lowest": float(mean_T[best]),
        "last": float(mean_T[-1]),
        "rise": float(mean_T[-1] - mean_T[best]),
        "train_fall": train_fall,
        "rows": rows,
        "evaluations": evaluations,
    }
    if best < evaluations - 1:
        difference = seen.loss_TN[-1] - seen.loss_TN[best]
        found["interval"] = list(ratio_bootstrap_interval(difference, seen.tokens_N))
        found["p_value"] = rise_p_value(seen.loss_TN, best)
        if found["p_value"] < SIGNIFICANCE:
            if train_fall is not None and train_fall > 0:
                return {**found, "verdict": OVERFITTING}
            return {**found, **_because("diverged")}
    return _improving(seen, found)


def _because(why: str, **counts: int) -> dict[str, Any]:
    """A reason in English, and its code and counts, from which a report says it in its own language."""
    return {"reason": str(ENGLISH(f"overfitting.why.{why}", **counts)), "why": why, **counts}


def rise_p_value(loss_TN: Floats, best: int, resamples: int = PERMUTATIONS, seed: int = 0) -> float:
    """One-sided p-value for "the last evaluation is worse than evaluation `best`", itself chosen as the lowest.

    If nothing changed, a row's difference between two evaluations is as likely of either sign. Each resample
    flips rows, in all evaluations alike, and takes the largest standardised rise over any earlier evaluation:
    the single-step maximum test of Westfall & Young (1993), Resampling-Based Multiple Testing, section 2.5,
    with the +1 of Phipson & Smyth (2010). A flip leaves sums of squares alone, so they are taken once.
    """
    difference_NT = (loss_TN[-1] - loss_TN[:-1]).T
    size_T = np.sqrt((difference_NT**2).sum(axis=0))
    standard_NT = difference_NT / np.where(size_T > 0, size_T, 1.0)
    threshold = float(standard_NT[:, best].sum()) - 1e-12
    generator, extreme, done = np.random.default_rng(seed), 0, 0
    block = max(1, CELLS // max(standard_NT.shape))
    while done < resamples:
        count = min(block, resamples - done)
        flips = generator.integers(0, 2, size=(count, len(standard_NT)), dtype=np.int8) * 2.0 - 1.0
        extreme += int(((flips @ standard_NT).max(axis=1) >= threshold).sum())
        done += count
    return (extreme + 1) / (resamples + 1)


def _improving(seen: Validations, found: dict[str, Any]) -> dict[str, Any]:
    """Whether validation loss was still falling over the last fourth of the evaluations, beyond chance."""
    before = len(seen.steps) - 1 - max(1, len(seen.steps) // RECENT)
    fall = float(seen.mean_T[before] - seen.mean_T[-1])
    # with the order turned round, the fall is a rise from the last to the one before
    if fall > 0 and rise_p_value(seen.loss_TN[[-1, before]], 0) < SIGNIFICANCE:
        interval = ratio_bootstrap_interval(seen.loss_TN[before] - seen.loss_TN[-1], seen.tokens_N)
        return {**found, "verdict": IMPROVING, "fall": fall, "fall_since": float(seen.epochs[before]),
                "fall_interval": list(interval)}  # fmt: skip
    return found


def _spacing(seen: Validations) -> int:
    """Steps between evaluations, as far apart as they usually are."""
    return max(1, int(np.median(np.diff(seen.steps, prepend=0))))


def _fall(train: Floats, best: int, last: int, window: int) -> float | None:
    """How far training loss fell between two steps: means over the stretch that led up to each."""
    before = train[(train[:, 0] > best - window) & (train[:, 0] <= best), 1]
    after = train[(train[:, 0] > max(last - window, best)) & (train[:, 0] <= last), 1]
    return float(before.mean() - after.mean()) if len(before) and len(after) else None


def read_validations(path: Path) -> Validations | None:
    """What validation.jsonl holds, in the order of the steps; None where nothing was measured.

    Evaluations with a loss that is no number are left out. StudyError for lines of unequal rows.
    """
    found: list[tuple[int, float, list[float]]] = []
    tokens: list[float] = []
    for number, row in read_lines(path):
        try:
            step, epoch = int(row["step"]), float(row["epoch"])
            losses, counts = [float(loss) for loss in row["losses"]], [float(count) for count in row["tokens"]]
        except (KeyError, TypeError, ValueError) as error:
            raise StudyError(f"{path}, line {number}: step, epoch, tokens and losses expected ({error})") from None
        if len(losses) != len(counts) or (tokens and counts != tokens) or not sum(counts) > 0:
            raise StudyError(f"{path}, line {number}: every line must be about the same validation rows")
        tokens = counts
        if np.isfinite(losses).all():
            found.append((step, epoch, losses))
    if not found:
        return None
    found.sort(key=lambda one: one[0])
    steps, epochs, losses_TN = zip(*found, strict=True)
    return Validations(np.array(steps), np.array(epochs), np.array(losses_TN), np.array(tokens))


def read_training(path: Path) -> Floats:
    """Step and loss (steps, 2) of every training step in metrics.jsonl whose loss is a number."""
    rows = [
        (float(row["step"]), float(row["loss"]))
        for _, row in read_lines(path)
        if row.get("kind") == "train" and isinstance(row.get("loss"), int | float) and "step" in row
    ]
    points = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return points[np.isfinite(points[:, 1])]
