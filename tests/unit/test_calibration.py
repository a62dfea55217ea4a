"""Temperature scaling and its figures, against scipy and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from pronk.model.places import embedded_file
from pronk.ship.predict import calibration
from pronk.ship.predict.calibrating import base_files, told
from pronk.ship.predict.calibration import (
    Calibration,
    Quality,
    calibrate,
    calibration_error,
    fit_temperature,
    log_probabilities,
    quality,
)

Fault = Callable[[pytest.MonkeyPatch], None]


def drawn(rows: int, labels: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores as a model has them (N, C), and labels as often right as the scores say at a temperature."""
    rng = np.random.default_rng(seed)
    scores_NC = rng.normal(0, 4, (rows, labels)) - 20
    p_NC = np.exp(log_softmax(scores_NC / temperature, axis=1))
    return scores_NC, np.array([rng.choice(labels, p=p) for p in p_NC])


def best_by_scipy(scores_NC: np.ndarray, right_N: np.ndarray) -> float:
    """1 / temperature is where scikit-learn's log loss is smallest."""
    classes = np.arange(scores_NC.shape[1])

    def loss(log_inverse: float) -> float:
        return float(log_loss(right_N, np.exp(log_softmax(scores_NC * np.exp(log_inverse), axis=1)), labels=classes))

    return float(np.exp(-minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9}).x))


@pytest.mark.parametrize(("rows", "labels", "temperature"), [(40, 2, 0.4), (300, 3, 2.5), (2000, 7, 1.0)])
def test_the_temperature_is_the_one_that_scipy_finds(rows: int, labels: int, temperature: float) -> None:
    scores_NC, right_N = drawn(rows, labels, temperature)
    found = fit_temperature(scores_NC, right_N)
    assert found == pytest.approx(best_by_scipy(scores_NC, right_N), rel=1e-4)
    if rows > 1000:
        assert found == pytest.approx(temperature, rel=0.1)


def test_probabilities_are_a_softmax_of_scores_over_the_temperature() -> None:
    scores_NC, _ = drawn(50, 4, 1.0)
    scores_NC[0] = [-1e4, -2e4, -1e4, 0]  # nothing overflows
    for temperature in (1.0, 3.0):
        expected = log_softmax(scores_NC / temperature, axis=1)
        np.testing.assert_allclose(log_probabilities(scores_NC, temperature), expected, atol=1e-12)
    assert (log_probabilities(scores_NC, 3.0).argmax(1) == scores_NC.argmax(1)).all()


def test_a_base_that_was_overwritten_is_another(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = base_files(str(tmp_path))
    (tmp_path / "README.md").write_text("more", encoding="utf-8")
    assert base_files(str(tmp_path)) == before != []
    (tmp_path / "model.safetensors").write_bytes(b"another")
    assert base_files(str(tmp_path)) != before
    assert base_files("./gone") == base_files("owner/of/nothing") == []


def test_a_base_of_the_hub_is_told_by_the_commit_that_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another revision has other weights under the same name."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--owner--model"
    (folder / "refs").mkdir(parents=True)
    told = [base_files("owner/model")]
    for letter in "ab":
        (folder / "snapshots" / (letter * 40)).mkdir(parents=True)
        (folder / "snapshots" / (letter * 40) / "config.json").write_text("{}")
        (folder / "refs" / "main").write_text(letter * 40)
        told.append(base_files("owner/model"))
    assert told == [[], [f"commit {'a' * 40}"], [f"commit {'b' * 40}"]]


def test_the_embedded_base_is_told_by_its_file() -> None:
    file = embedded_file()
    assert base_files("smollm2") == ([] if file is None else base_files(str(file)))


def test_brier_and_loss_are_those_of_scikit_learn() -> None:
    scores_NC, right_N = drawn(200, 3, 2.0)
    log_p_NC = log_probabilities(scores_NC)
    found = quality(log_p_NC, right_N)
    assert found.nll == pytest.approx(log_loss(right_N, np.exp(log_p_NC)))
    assert found.brier == pytest.approx(brier_score_loss(right_N, np.exp(log_p_NC), scale_by_half=False))


def test_the_calibration_error_is_that_of_scikit_learn_s_curve() -> None:
    """Bins of equally many rows, all of one size here, so that their mean gap is the error."""
    rng = np.random.default_rng(1)
    confidence_N = rng.uniform(0.3, 1, 600)
    hit_N = rng.uniform(size=600) < confidence_N**2
    often, sure = calibration_curve(hit_N, confidence_N, n_bins=15, strategy="quantile")
    assert calibration_error(confidence_N, hit_N) == pytest.approx(np.abs(often - sure).mean(), abs=1e-9)
    few = calibration_error(confidence_N[:30], hit_N[:30])  # one bin
    assert few == pytest.approx(abs(confidence_N[:30].mean() - hit_N[:30].mean()))


def test_what_is_reported_is_of_rows_that_were_not_fitted() -> None:
    scores_NC, right_N = drawn(47, 3, 3.0)
    found = calibrate(scores_NC, right_N)
    expected_NC = np.empty_like(scores_NC)
    for fold in range(10):
        out = [n for n in range(47) if n % 10 == fold]
        rest = [n for n in range(47) if n % 10 != fold]
        expected_NC[out] = log_softmax(scores_NC[out] / best_by_scipy(scores_NC[rest], right_N[rest]), axis=1)
    assert found.temperature == pytest.approx(best_by_scipy(scores_NC, right_N), rel=1e-4)
    assert found.before == quality(log_probabilities(scores_NC), right_N)
    assert found.after is not None
    assert found.after.nll == pytest.approx(quality(expected_NC, right_N).nll, rel=1e-5)
    assert found.after.nll > quality(log_probabilities(scores_NC, found.temperature), right_N).nll
    assert Calibration.from_json(found.to_json()) == found


def test_an_overconfident_model_is_calibrated() -> None:
    scores_NC, right_N = drawn(1500, 3, 3.0)
    found = calibrate(scores_NC, right_N)
    assert found.before is not None
    assert found.after is not None
    assert found.before.calibration_error > 0.15
    assert found.after.calibration_error < 0.05
    assert found.after.brier < found.before.brier
    assert not found.why_not


def test_why_nothing_is_calibrated_is_said() -> None:
    scores_NC, right_N = drawn(100, 3, 1.0)
    for kept_NC, kept_N, why in (
        (scores_NC[:19], right_N[:19], "19 rows for validation are too few; 20 are the fewest"),
        (scores_NC, scores_NC.argmax(1), "no temperature fits: all 100 rows are right"),
        (scores_NC, scores_NC.argmin(1), "its scores do not favour the right labels"),
        (scores_NC * 0, right_N, "its scores do not favour the right labels"),
    ):
        found = calibrate(kept_NC, kept_N)
        assert found.temperature == 1
        assert why in found.why_not
        assert found.after is None
    scores_NC, right_N = drawn(30, 3, 1.0, seed=5)  # calibrated already: the fit is noise
    found = calibrate(scores_NC, right_N)
    assert (found.temperature, "would not help" in found.why_not) == (1, True)


@pytest.mark.parametrize("broken", [{}, {"temperature": 0}, {"temperature": "nan"}, {"before": {"brier": 1}}])
def test_what_was_not_written_so_is_no_calibration(broken: dict[str, object]) -> None:
    whole = calibrate(*drawn(60, 3, 3.0)).to_json()
    with pytest.raises((KeyError, TypeError, ValueError)):
        Calibration.from_json({**whole, **broken} if broken else {})


def wrong_side(patch: pytest.MonkeyPatch) -> None:
    """Scores are multiplied by the temperature."""
    original = log_probabilities
    patch.setattr(calibration, "log_probabilities", lambda scores, t=1.0: original(scores, 1 / t))


def fitted_to_what_is_reported(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        calibration, "_cross_validated",
        lambda scores, right: log_probabilities(scores, fit_temperature(scores, right) or 1.0),
    )  # fmt: skip


def bins_of_equal_width(patch: pytest.MonkeyPatch) -> None:
    def faulty(confidence_N: np.ndarray, hit_N: np.ndarray) -> float:
        bin_N = np.minimum((confidence_N * 15).astype(int), 14)
        gaps = [abs((hit_N[bin_N == b] - confidence_N[bin_N == b]).sum()) for b in range(15)]
        return float(sum(gaps) / len(hit_N))

    patch.setattr(calibration, "calibration_error", faulty)
    patch.setitem(globals(), "calibration_error", faulty)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (wrong_side, lambda: test_the_temperature_is_the_one_that_scipy_finds(300, 3, 2.5)),
        (wrong_side, test_an_overconfident_model_is_calibrated),
        (fitted_to_what_is_reported, test_what_is_reported_is_of_rows_that_were_not_fitted),
        (bins_of_equal_width, test_the_calibration_error_is_that_of_scikit_learn_s_curve),
    ],
)
def test_a_fault_shows(fault: Fault, law: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()


def test_a_calibration_is_told_in_a_line() -> None:
    before, after = Quality(0.2, 0.7, 1.25), Quality(0.1, 0.6, 1.25)
    line = "calibrated on 40 validation rows, temperature 2.50; cross-validated: calibration error 0.200 → 0.100, "
    assert told(Calibration(2.5, 40, before, after)) == f"{line}Brier 0.700 → 0.600, loss 1.250"
    assert told(Calibration(1.0, 0, why_not="no rows")) == "probabilities are not calibrated: no rows"
    kept = told(Calibration(1.0, 40, before, after, "it would not help"))
    assert kept.endswith("it would not help (on 40 validation rows: calibration error 0.200, Brier 0.700, loss 1.250)")
