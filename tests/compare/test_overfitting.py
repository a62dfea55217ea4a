"""The overfitting verdict: rare where nothing happened, sure where something did, and plain in words."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_builder import build_study

from pronk.compare import overfitting as module
from pronk.compare import words
from pronk.compare.overfitting import IMPROVING, NOT_ASSESSED, NOT_OVERFITTING, OVERFITTING, Validations, judge
from pronk.compare.report import write_report
from pronk.compare.terminal import terminal_summary
from pronk.errors import StudyError

Floats = np.ndarray[Any, np.dtype[np.float64]]
FALLING = np.column_stack([np.arange(1.0, 401), np.linspace(2.0, 0.2, 400)])


def validations(mean_T: Floats, rows: int, noise: float, random: np.random.Generator) -> Validations:
    """Rows of their own difficulty whose losses per token follow mean_T, each wandering by itself besides."""
    tokens_N = random.integers(2, 9, rows).astype(float)
    difficulty_N = random.gamma(2.0, 0.5, rows)
    wander_TN = random.normal(0, noise, (len(mean_T), rows)).cumsum(axis=0)
    steps = 10 * np.arange(1, len(mean_T) + 1)
    return Validations(steps, steps / 20, (mean_T[:, None] + difficulty_N + wander_TN) * tokens_N, tokens_N)


def alarms(evaluations: int, rows: int, studies: int = 300) -> float:
    """The share of studies with the verdict, where validation loss only ever wandered."""
    random = np.random.default_rng(evaluations * 1000 + rows)
    flat = np.zeros(evaluations)
    found = [judge(validations(flat, rows, 0.05, random), FALLING)["verdict"] for _ in range(studies)]
    return found.count(OVERFITTING) / studies


@pytest.fixture
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    original = module.rise_p_value
    monkeypatch.setattr(module, "rise_p_value", lambda loss, best: original(loss, best, resamples=400))
    monkeypatch.setattr(module, "ratio_bootstrap_interval", lambda *_: (0.0, 0.0))


# 300 studies of 5% give 15 ± 4 alarms; 9% is four standard errors above
@pytest.mark.usefixtures("_fewer_resamples")
@pytest.mark.parametrize(("evaluations", "rows"), [(2, 40), (8, 40), (30, 15), (30, 200)])
def test_false_alarms_are_rare(evaluations: int, rows: int) -> None:
    assert alarms(evaluations, rows) <= 0.09


@pytest.mark.usefixtures("_fewer_resamples")
def test_a_rule_that_ignores_the_choice_of_the_lowest_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the last against the lowest as if there had been no others to choose from."""
    counted = module.rise_p_value
    monkeypatch.setattr(module, "rise_p_value", lambda loss, best: counted(loss[[best, -1]], 0))
    assert alarms(30, 40) > 0.09


@pytest.mark.parametrize("seed", range(5))
def test_a_clear_rise_is_found_with_its_epoch(seed: int) -> None:
    mean_T = np.array([1.4, 1.1, 0.9, 0.8, 0.75, 0.8, 0.9, 1.05, 1.2])
    found = judge(validations(mean_T, 60, 0.05, np.random.default_rng(seed)), FALLING)
    assert found["verdict"] == OVERFITTING
    assert abs(found["step"] - 50) <= 10
    assert found["epoch"] == found["step"] / 20
    assert found["interval"][0] < found["rise"] < found["interval"][1]
    assert found["interval"][0] > 0
    assert found["train_fall"] > 0


def test_early_losses_that_were_far_higher_hide_no_rise() -> None:
    """What an unstandardised maximum would do: the first evaluation's huge differences would drown the rest."""
    mean_T = np.array([9.0, 2.0, 0.8, 0.75, 0.85])
    assert judge(validations(mean_T, 40, 0.03, np.random.default_rng(1)), FALLING)["verdict"] == OVERFITTING


def test_the_p_value_is_that_of_all_sign_flips() -> None:
    """Against plain enumeration: eight rows have 256 flips."""
    random = np.random.default_rng(4)
    loss_TN = random.normal(1, 0.3, (4, 8))
    difference = loss_TN[-1] - loss_TN[:-1]
    best = int(loss_TN.sum(axis=1)[:-1].argmin())

    def largest(signs: tuple[int, ...]) -> list[float]:
        return [float((d * signs).sum() / np.sqrt((d**2).sum())) for d in difference]

    observed = largest((1,) * 8)[best]
    exact = np.mean([max(largest(signs)) >= observed - 1e-9 for signs in product((1, -1), repeat=8)])
    assert module.rise_p_value(loss_TN, best, resamples=40_000) == pytest.approx(exact, abs=0.01)


def test_a_loss_that_still_falls() -> None:
    found = judge(validations(np.linspace(2, 1, 8), 50, 0.02, np.random.default_rng(0)), FALLING)
    assert found["verdict"] == IMPROVING
    assert found["step"] == 80
    assert found["fall"] == pytest.approx(2 / 7, abs=0.05)
    assert "Longer training may help" in words.overfitting(found)


def test_a_loss_that_has_levelled_off_is_neither() -> None:
    mean_T = np.array([2.0, 1.5, 1.2, 1.1, 1.1, 1.1, 1.1, 1.1])
    found = judge(validations(mean_T, 50, 0.02, np.random.default_rng(2)), FALLING)
    assert found["verdict"] == NOT_OVERFITTING


def test_divergence_is_not_called_overfitting() -> None:
    rising = np.column_stack([np.arange(1.0, 101), np.linspace(1.0, 5.0, 100)])
    found = judge(validations(np.linspace(1, 2, 6), 50, 0.02, np.random.default_rng(0)), rising)
    assert found["verdict"] == NOT_OVERFITTING
    assert "divergence" in words.overfitting(found)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (None, "no validation"),
        (validations(np.zeros(1), 40, 0.1, np.random.default_rng(0)), "once only"),
        (validations(np.arange(5.0), 9, 0.1, np.random.default_rng(0)), "9 validation rows are too few"),
    ],
)
def test_what_cannot_be_assessed_says_why(seen: Validations | None, reason: str) -> None:
    found = judge(seen, FALLING)
    assert found["verdict"] == NOT_ASSESSED
    assert reason in words.overfitting(found)


def write(folder: Path, name: str, seen: Validations) -> None:
    lines = [
        {"step": int(step), "epoch": float(epoch), "tokens": seen.tokens_N.tolist(), "losses": loss.tolist()}
        for step, epoch, loss in zip(seen.steps, seen.epochs, seen.loss_TN, strict=True)
    ]
    path = folder / "runs" / name / "validation.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_report_and_the_terminal_say_it(tmp_path: Path) -> None:
    folder = build_study(tmp_path, items=30, runs=("qv-2", "qv-3"))
    random = np.random.default_rng(0)
    curves = {"qv-2": np.linspace(2, 1, 6), "qv-3": np.array([1.5, 1.0, 0.8, 0.9, 1.1, 1.4])}
    study = json.loads((folder / "study.json").read_text())
    for name, mean_T in curves.items():
        write(folder, name, validations(mean_T, 40, 0.02, random))
    for run in study["runs"][1:]:
        run["overfitting"] = module.overfitting(folder, run["name"])
    study["runs"][2] |= {"status": "stopped_early", "steps": 60, "adapter_step": 30}
    (folder / "study.json").write_text(json.dumps(study))
    html = write_report(folder).read_text(encoding="utf-8")
    assert study["runs"][2]["overfitting"]["verdict"] == OVERFITTING
    assert "<td>overfitting from epoch 1.5</td>" in html
    assert "Stop at epoch 1.5." in html
    assert "It stopped early; adapter and metrics are those of step 30 of 60." in html
    assert "A ring marks where a run began to overfit." in html
    told = terminal_summary(study)
    assert "overfits after epoch 1.5, validation loss rose by 0.59" in told
    assert "still improving at its end, train longer: qv-2" in told
    assert max(map(len, told.splitlines())) <= 80


def test_the_ring_is_on_the_marked_run_only() -> None:
    from pronk.compare import charts

    plain = charts.Curve(0, np.arange(5.0), np.linspace(2, 1, 5))
    ringed = charts.Curve(1, np.arange(5.0), np.linspace(2, 1, 5), mark=2.2)
    assert charts.loss_chart([plain], "a", points=False, labels=("x", "y")).count("<use") + 1 == charts.loss_chart(
        [ringed], "a", points=False, labels=("x", "y")
    ).count("<use")


@pytest.mark.parametrize(
    "line",
    ['{"step": 1}', '{"step": 1, "epoch": 1, "tokens": [1], "losses": [1, 2]}',
     '{"step": 1, "epoch": 1, "tokens": [2, 2], "losses": [1, 2]}',
     '{"step": 1, "epoch": 1, "tokens": 3, "losses": 4}'],
)  # fmt: skip
def test_a_file_that_is_no_validation_names_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "validation.jsonl"
    path.write_text('{"step": 1, "epoch": 1, "tokens": [1, 2], "losses": [1, 2]}\n' + line + "\n")
    with pytest.raises(StudyError, match="line 2"):
        module.read_validations(path)


def test_losses_that_are_no_number_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "validation.jsonl"
    rows = [{"step": k, "epoch": k, "tokens": [1, 2], "losses": [1, float("nan") if k == 2 else 2]} for k in (3, 2, 1)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = module.read_validations(path)
    assert seen is not None
    assert seen.steps.tolist() == [1, 3]
    assert module.read_validations(tmp_path / "none.jsonl") is None
