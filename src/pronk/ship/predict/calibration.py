"""How sure a classifier may be: temperature scaling of its label scores, and how far off its probabilities are.

Guo et al. 2017 (arXiv:1706.04599): all scores are divided by one temperature, fitted on validation rows. The likeliest
label stays what it was. Names carry shapes: N rows, C labels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_ROWS = 20  # to fit on; fewer say next to nothing
FOLDS = 10
MOST_BINS, ROWS_OF_A_BIN = 15, 20
WIDEST = 20.0  # temperatures from e^-20 to e^20 are looked at

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Quality:
    """How good probabilities are; smaller is better. calibration_error: expected calibration error of the likeliest
    label's probability, in bins of equally many rows. brier: mean squared error over all labels (Brier 1950), 0 to 2.
    nll: mean negative log-probability of the right label, in nats."""

    calibration_error: float
    brier: float
    nll: float


@dataclass(frozen=True)
class Calibration:
    """What calibrating came to. temperature: what scores are divided by; 1 leaves them. rows: for validation.
    after: on rows that the temperature was not fitted to (cross-validated). why_not: why it was left at 1."""

    temperature: float
    rows: int
    before: Quality | None = None
    after: Quality | None = None
    why_not: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Calibration:
        """Raises KeyError, TypeError or ValueError for what `to_json` did not write."""
        before, after = (plain[key] and Quality(**plain[key]) for key in ("before", "after"))
        temperature = float(plain["temperature"])
        if not 0 < temperature < np.inf:
            raise ValueError(f"temperature {temperature}")
        return cls(temperature, int(plain["rows"]), before, after, str(plain["why_not"]))


def log_probabilities(scores_NC: Floats, temperature: float = 1.0) -> Floats:
    """Of each label among all labels (N, C), from its log-probability in full. Temperatures above 1 make less sure."""
    scaled_NC = scores_NC / temperature
    scaled_NC = scaled_NC - scaled_NC.max(axis=1, keepdims=True)
    return np.asarray(scaled_NC - np.log(np.exp(scaled_NC).sum(axis=1, keepdims=True)))


def calibrate(scores_NC: Floats, right_N: Places) -> Calibration:
    """The temperature for scores of validation rows, whose right labels are known, and what it does to rows that it
    was not fitted to. It stays 1 where there is none, or where it would not help those."""
    rows = len(right_N)
    if rows < FEWEST_ROWS:
        return Calibration(1.0, rows, why_not=f"{rows} rows for validation are too few; {FEWEST_ROWS} are the fewest")
    before = quality(log_probabilities(scores_NC), right_N)
    temperature = fit_temperature(scores_NC, right_N)
    if temperature is None:
        all_right = bool((scores_NC.argmax(axis=1) == right_N).all())
        why_not = f"all {rows} rows are right" if all_right else "its scores do not favour the right labels"
        return Calibration(1.0, rows, before, why_not=f"no temperature fits: {why_not}")
    after = quality(_cross_validated(scores_NC, right_N), right_N)
    if after.nll >= before.nll:
        return Calibration(1.0, rows, before, after, "a temperature would not help rows that it was not fitted to")
    return Calibration(temperature, rows, before, after)


def fit_temperature(scores_NC: Floats, right_N: Places) -> float | None:
    """The temperature with the smallest negative log-likelihood; None where there is no smallest.

    In 1/temperature that is convex: its slope, the expected score less the right label's, rises from the mean score of
    all labels to the highest. It crosses zero unless every row is right, or the right labels score below average.
    """
    from scipy.optimize import brentq

    scores_NC = scores_NC - scores_NC.max(axis=1, keepdims=True)
    rightly = scores_NC[np.arange(len(right_N)), right_N].mean()

    def slope(log_inverse: float) -> float:
        p_NC = np.exp(log_probabilities(scores_NC, np.exp(-log_inverse)))
        return float((p_NC * scores_NC).sum(axis=1).mean() - rightly)

    if slope(-WIDEST) >= 0 or slope(WIDEST) <= 0:
        return None
    return float(np.exp(-brentq(slope, -WIDEST, WIDEST, xtol=1e-10)))


def _cross_validated(scores_NC: Floats, right_N: Places) -> Floats:
    """Each row's log-probabilities (N, C) by the temperature of the rows outside its fold; every tenth row is one."""
    found_NC = np.empty_like(scores_NC)
    fold_N = np.arange(len(right_N)) % FOLDS
    for fold in range(FOLDS):
        inside_N = fold_N == fold
        temperature = fit_temperature(scores_NC[~inside_N], right_N[~inside_N])
        found_NC[inside_N] = log_probabilities(scores_NC[inside_N], 1.0 if temperature is None else temperature)
    return found_NC


def quality(log_p_NC: Floats, right_N: Places) -> Quality:
    """How good the log-probabilities (N, C) of rows are, whose right labels are known."""
    p_NC, place_N = np.exp(log_p_NC), np.arange(len(right_N))
    missed_NC = p_NC.copy()
    missed_NC[place_N, right_N] -= 1
    error = calibration_error(p_NC.max(axis=1), p_NC.argmax(axis=1) == right_N)
    return Quality(error, float((missed_NC**2).sum(axis=1).mean()), float(-log_p_NC[place_N, right_N].mean()))


def calibration_error(confidence_N: Floats, hit_N: NDArray[np.bool_]) -> float:
    """Mean gap between how sure and how often right, over bins of equally many rows (Nguyen & O'Connor 2015,
    arXiv:1508.05154): 15 bins, fewer where a bin would have less than 20 rows. Noise alone makes it larger than 0."""
    order = np.argsort(confidence_N, kind="stable")
    bins = np.array_split(order, max(1, min(MOST_BINS, len(order) // ROWS_OF_A_BIN)))
    gaps = [len(one) * abs(hit_N[one].mean() - confidence_N[one].mean()) for one in bins]
    return float(sum(gaps) / len(order))
