"""What the planner found, in words: 80 columns, no claims that nobody measured, times that people read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pronk.doctor import planned
from pronk.doctor.planned import Fit, as_json, before_training, refusal, table
from pronk.model.memory.choice import BUDGETS, Setting, best

GIB = 2**30


def setting(quantize: str, budget: int, peak: float, cost: float, recompute: int = 0) -> Setting:
    return Setting(quantize, budget, recompute, 32, int(peak * GIB), cost, True, 987_654_321 / cost, 262_144, 16_384)


ALL = tuple(
    setting(quantize, budget, scale * budget / 1000, 100_000 * scale / (1 + budget / 32768), 31 if scale > 4 else 0)
    for quantize, scale in (("none", 5.0), ("int8", 4.0), ("nf4", 3.0))
    for budget in BUDGETS
)


def fit(limit: float = 139.0, calibrated: bool = True) -> Fit:
    some = ALL if calibrated else tuple(replace(one, measured=False, tokens_per_second=None) for one in ALL)
    chosen = best(some, int(limit * GIB))
    nearest = () if chosen else (("quantize: nf4", 2 * GIB), ("a GPU of 24 GB", 15 * GIB))
    return Fit(
        "meta-llama/Meta-Llama-3-8B", "none", 12, int(limit * GIB), int(limit * GIB), chosen, some, calibrated,
        "NVIDIA H200" if calibrated else "", nearest,
    )  # fmt: skip


@pytest.mark.parametrize("limit", [139.0, 20.0, 1.0])
@pytest.mark.parametrize("calibrated", [True, False])
def test_eighty_columns(limit: float, calibrated: bool) -> None:
    lines = table([fit(limit, calibrated), fit(limit, calibrated)]).splitlines()
    assert max(map(len, lines)) <= 80, max(lines, key=len)
    assert len([line for line in lines if line.startswith("→  ")]) == (0 if limit == 1.0 else 2)


def test_what_was_measured_is_told_and_nothing_else() -> None:
    measured, foretold = table([fit()]), table([fit(calibrated=False)])
    assert "tok/s" in measured
    assert "measured on NVIDIA H200" in measured
    assert "±15%" not in measured
    assert "tok/s" not in foretold
    assert "±15%" in foretold
    assert "100%" in foretold
    assert as_json([fit(calibrated=False)])["fleets"][0]["chosen"]["seconds"] is None


def test_the_choice_stands_first_and_what_does_not_fit_last() -> None:
    rows = [line for line in table([fit(20.0)]).splitlines() if " of 32" in line and "GiB" in line]
    assert rows[0].startswith("→")
    crossed = [row.endswith("✗") for row in rows]
    assert crossed == sorted(crossed)
    assert any(crossed)
    assert not all(crossed)


def test_another_quantization_than_the_recipe_s_is_said() -> None:
    assert "to run it so: --set quantize=nf4" in table([fit()])
    assert "--set" not in table([replace(fit(), quantize="nf4")])


def test_the_line_before_training() -> None:
    one = replace(ALL[-2], peak=int(21.4 * GIB))
    line = before_training(replace(fit(), chosen=one))
    assert line == ("memory: 21.4 of 139 GiB predicted (NF4, micro-batches of 16,384 tokens, no layer recomputed)")
    some, every = replace(one, recompute=5), replace(one, recompute=32)
    assert "5 of 32 layers recomputed" in before_training(replace(fit(), chosen=some))
    assert "all layers recomputed" in before_training(replace(fit(), chosen=every))


def test_a_refusal_names_the_nearest_that_fits_first() -> None:
    lines = refusal(fit(1.0)).splitlines()
    assert lines[0] == "meta-llama/Meta-Llama-3-8B with 12 runs does not fit into 1.0 GiB"
    assert lines[lines.index("what would fit:") + 1] == "  quantize: nf4 (about 2.0 GiB)"
    assert "a GPU of 24 GB" in lines[-2]
    assert not as_json([fit(1.0)])["fits"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.2, "4 s"), (59.4, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (9000, "2 h 30 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert planned._duration(replace(ALL[0], cost=seconds)) == said
