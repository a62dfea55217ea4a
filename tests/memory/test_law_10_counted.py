"""Law 10 where there is no GPU: the planner measures one and two layers, and what six really take, counted storage
by storage, is what it predicted. Rounding and reserving are a GPU's own: tests/gpu has that part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from counted import CountedMeter, Counter
from transformers import AutoModelForCausalLM, LlamaConfig

from pronk.doctor.calibration import Bench, calibration_tokens, measure, reading_tokens
from pronk.doctor.workload import round_members, trainings
from pronk.model.adapter import AdapterShape
from pronk.model.forward import evaluation_losses
from pronk.model.memory import fit
from pronk.model.memory.costs import SEGMENTS, Costs, EvaluationLoad, Load
from pronk.model.memory.fit import Measurements, Played, Read, Resting, fitted
from pronk.model.memory.shapes import Trainee, analytic, architecture
from pronk.model.random_model import random_model
from pronk.model.rounding import rounded_shape
from pronk.tokens.pack import pack
from pronk.tokens.prompt import Example
from pronk.train.fleet import Fleet, RunPlan

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS, BUDGET, TOLERANCE = 6, 1200, 0.03
CPU = torch.device("cpu")
SIDES = (64 + 64 + 2 * (64 + 32) + 64 + 64 + 3 * (64 + 160)) / 2  # in and out of a layer's seven products, half of them
CONFIG = LlamaConfig(
    vocab_size=1024, hidden_size=64, intermediate_size=160, num_hidden_layers=LAYERS, num_attention_heads=4,
    num_key_value_heads=2,
)  # fmt: skip


def rows() -> list[Example]:
    """Nothing in common at the beginning: on a CPU, looking back is done sequence by sequence, as on no GPU."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(20, 100, 60)
    return [Example(draw.integers(3, 1024, n), np.arange(n) > n - 4) for n in lengths]


def plans(count: int, rank: int) -> list[RunPlan]:
    examples = rows()
    return [RunPlan(f"r{k}", examples, AdapterShape(rank, 16.0), 4, 16, 1e-3, seed=k) for k in range(count)]


def kept(quantize: str) -> tuple[Any, bool, bool]:
    """How a base is kept, with its scales quantized, and whether its products are in FP8."""
    return quantize.removesuffix(" in fp8"), True, quantize.endswith(" in fp8")


def predicted(runs: list[RunPlan], quantize: str, measured: Measurements) -> Costs:
    kind, double, in_fp8 = kept(quantize)
    with torch.device("meta"):
        one = architecture(AutoModelForCausalLM.from_config(CONFIG))
    start = analytic(one, [Trainee(run.shape) for run in runs], kind, double, 4, in_fp8)
    return fitted(start, measured, LAYERS)


def measured(runs: list[RunPlan], quantize: str) -> Measurements:
    counter = Counter()
    with counter:
        kind, double, in_fp8 = kept(quantize)
        bench = Bench(CONFIG, kind, double, torch.float32, CPU, False, in_fp8)
        return measure(bench, runs, BUDGET // 4, BUDGET // 2, CountedMeter(counter))


def really(runs: list[RunPlan], quantize: str, recompute: int) -> tuple[int, int]:
    """Most bytes in use while training, and while reading."""
    counter = Counter()
    with counter:
        meter = CountedMeter(counter)
        model = random_model(CONFIG, LAYERS, torch.float32, CPU, *kept(quantize))
        fleet = Fleet(model, runs, BUDGET, recompute)
        fleet.play_round()
        meter.settle()
        fleet.play_round()
        training = meter.peaks()[0]
        (batch, *_) = pack([*round_members(runs, 0)], BUDGET)
        model_alone = meter.settle()
        evaluation_losses(model, fleet.adapter, batch)
        return training, meter.peaks()[0] - model_alone


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantize", "count", "rank", "recompute"),
    [("none", 2, 6, 0), ("nf4", 1, 16, 3), ("int8", 3, 4, 6), ("fp8", 2, 8, 2), ("nf4 in fp8", 2, 8, 0)],
)
def test_six_layers_take_what_one_and_two_foretell(quantize: str, count: int, rank: int, recompute: int) -> None:
    runs = plans(count, rank)
    costs = predicted(runs, quantize, measured(runs, quantize))
    (workload,) = trainings(runs, [BUDGET])
    assert max(load.tokens for load in workload.largest) >= 3 * BUDGET // 4, "no more than what was calibrated on"
    training, reading = really(runs, quantize, recompute)
    assert costs.training_peak(workload.largest, recompute) - SEGMENTS == pytest.approx(training, rel=TOLERANCE)
    (batch, *_) = pack([*round_members(runs, 0)], BUDGET)
    foretold = costs.evaluation_peak(EvaluationLoad(len(batch.ids_T), len(batch.rows_N))) - SEGMENTS
    assert foretold - costs.weights - costs.adapters == pytest.approx(reading, rel=0.1)
    assert costs.adapters == pytest.approx(
        sum(4 * 6 * 2 * run.shape.rank * SIDES for run in runs if run.shape), rel=0.02
    )


def forget_the_optimizer(found: Measurements) -> Measurements:
    return replace(found, resting=[replace(one, fleet=one.model) for one in found.resting])


def forget_the_checkpoints(found: Measurements) -> Measurements:
    def forgotten(one: Played) -> Played:
        return replace(one, stored=0, backward=one.backward - one.stored) if one.recompute else one

    return replace(found, played=[forgotten(one) for one in found.played])


def count_a_layer_once(found: Measurements) -> Measurements:
    return replace(found, resting=[replace(one, layers=1) for one in found.resting[:1]] * 2)


@pytest.mark.slow
def test_planted_faults_show() -> None:
    """Each makes the prediction miss by more than the law allows."""
    runs = plans(4, 64)
    found = measured(runs, "none")
    (workload,) = trainings(runs, [BUDGET])
    training, _ = really(runs, "none", LAYERS)

    def error(seen: Measurements) -> float:
        return predicted(runs, "none", seen).training_peak(workload.largest, LAYERS) - SEGMENTS - training

    assert abs(error(found)) < 0.05 * training
    faults: list[Callable[[Measurements], Measurements]] = [
        forget_the_optimizer, forget_the_checkpoints, count_a_layer_once,
    ]  # fmt: skip
    for fault in faults:
        assert abs(error(fault(found))) > 0.05 * training, fault.__name__


def test_figures_come_back_from_what_they_foretell() -> None:
    """Measurements made up from known figures give these figures."""
    import test_choice

    true = replace(test_choice.random_costs(5), slack=0.0, recorded=False, layers=32)
    played = []
    for layers in (1, 2):
        small = replace(true, layers=layers)
        for recompute in (0, layers):
            for load in (Load(900, 100, 1500, 10**5), Load(2000, 300, 2500, 4 * 10**5), Load(2000, 8, 0, 2 * 10**6)):
                ends = (true.ends_again if recompute else true.ends_token) * load.tokens
                ends += true.ends_target * load.targets + recompute * true.checkpoint * load.tokens
                stored = ends + (layers - recompute) * true.kept.of(load)
                backward = stored + true.backward.of(load) if not recompute else ends + true.again.of(load)
                seconds = small.batch_cost(1, load.tokens, load.pairs, recompute)
                peak = int(max(stored, backward))
                played.append(Played(layers, recompute, load, int(stored), int(backward), peak, peak, seconds))
    weights = [int(true.outside + layers * true.layer) for layers in (1, 2)]
    each = int(true.trained / 32)
    resting = [Resting(n, weight, weight + n * each, 10 + n) for n, weight in zip((1, 2), weights, strict=True)]
    loss, reading_loss = (512, int(512 * true.loss_target)), (512, int(512 * true.reading_target))
    sizes = [(size, int(size * true.reading_token + true.reading_constant)) for size in (900, 2000)]
    reading = [Read(size, peak, peak + SEGMENTS + 7 * size) for size, peak in sizes]
    updates = [true.times.update] * 2
    found = fitted(true, Measurements(0, resting, played, loss, reading_loss, reading, updates), 32)
    assert found.adapters == 42
    assert (found.slack, found.reading_slack) == (0, 7)
    assert found.reading_target == pytest.approx(true.reading_target, rel=1e-3)
    for load in (Load(16384, 2000, 30000), Load(1000, 900)):
        for recompute in (0, 5, 32):
            assert found.activations(load, recompute) == pytest.approx(true.activations(load, recompute), rel=1e-3)
            assert found.batch_cost(3, 9999, 10**6, recompute) == pytest.approx(
                true.batch_cost(3, 9999, 10**6, recompute), rel=1e-6
            )
    assert found.weights + found.trained == pytest.approx(true.weights + true.trained, rel=1e-3)


def test_what_is_reserved_beyond_is_so_much_a_token() -> None:
    """Of the micro-batches of most tokens; the allocator's segments, which come once, are no part of it."""
    assert fit._slack([(1000, 10**9, 10**9 + SEGMENTS)]) == 0
    assert fit._slack([(1000, 10**9, 11 * 10**8 + SEGMENTS)]) == pytest.approx(10**5)
    several = [(400, 10**8, 9 * 10**8), (1000, 10**9, 10**9 + SEGMENTS + 4000), (1000, 10**9, 10**9)]
    assert fit._slack(several) == pytest.approx(4)


def test_recordings_keep_their_memory_beside_what_is_played_directly() -> None:
    """Of two shapes, the larger one's recording beside a step of the other; while validation rows are read as well."""
    import test_choice

    costs = replace(test_choice.random_costs(5), slack=0.0, recorded=True)
    loads = [Load(2048, 256), Load(1024, 256)]
    large, small = (costs.activations(load, 0) for load in loads)
    resting, recorded = costs.weights + costs.trained + SEGMENTS, large + SEGMENTS  # of the recordings' own pool
    assert costs.training_peak(loads, 0) == pytest.approx(resting + recorded + small, abs=2)
    assert costs.training_peak(loads, costs.layers) < resting + recorded + small  # nothing recomputed is recorded
    read, pool = EvaluationLoad(512, 100), costs.recordings(loads, 0)
    assert pool == pytest.approx(recorded)
    assert costs.validation_peak(read, pool) == pytest.approx(costs.validation_peak(read) + recorded, abs=2)


def test_of_a_short_study_it_is_known_what_is_recorded_and_when() -> None:
    """A shape is recorded when it comes again; the largest that comes once only has no recording."""
    import test_choice

    costs = replace(test_choice.random_costs(5), slack=0.0, recorded=True)
    loads = {"once": Load(2048, 256), "a": Load(1024, 256), "b": Load(512, 256)}
    shapes = {name: rounded_shape(load.tokens, load.targets, 1, 128, 0, 0) for name, load in loads.items()}
    size = {name: costs.activations(load, 0) for name, load in loads.items()}

    def above(names: str) -> float:
        sequence = [(shapes[name], loads[name]) for name in names.split()]
        return costs.training_peak((), 0, sequence) - costs.weights - costs.trained - SEGMENTS

    def recorded(name: str) -> float:
        return size[name] + SEGMENTS

    assert above("once a b") == pytest.approx(size["once"], abs=2)
    assert above("once a b a") == pytest.approx(max(size["once"], recorded("a")), abs=2)
    assert above("a b a b a b") == pytest.approx(recorded("a") + size["b"], abs=2)  # b warms up beside a
    assert above("b a b a") == pytest.approx(recorded("b") + size["a"], abs=2)
    assert above("a a once") == pytest.approx(recorded("a") + size["once"], abs=2)
    kept = costs.recordings((), 0, [(shapes[name], loads[name]) for name in ("once", "a", "a", "b", "b")])
    assert kept == pytest.approx(recorded("a"))
    assert above("a b a b") < costs.training_peak(tuple(loads.values()), 0) - costs.weights - costs.trained - SEGMENTS


def test_weights_made_dense_are_no_bytes_a_token() -> None:
    """What a reading takes whatever its size: taken for bytes a token, it grew with the tokens of an evaluation."""
    slope, constant = fit._line([(512, 220 * 2**20 + 512 * 66_000), (1024, 220 * 2**20 + 1024 * 66_000)])
    assert slope == pytest.approx(66_000)
    assert constant == pytest.approx(220 * 2**20)


def test_calibration_takes_no_more_than_a_quarter_of_the_memory() -> None:
    with torch.device("meta"):
        one = architecture(AutoModelForCausalLM.from_config(CONFIG))
    costs, load = analytic(one, [Trainee(AdapterShape(8, 8.0))], "nf4", True, 2), Load(8192, 2700)
    two = replace(costs, layers=2, trained=costs.trained / 3)
    whole = two.training_peak([load], 0)
    assert calibration_tokens(costs, load, 4 * whole) == load.tokens
    assert calibration_tokens(costs, load, 4 * whole - 8) == load.tokens // 2
    assert calibration_tokens(costs, load, 1) == load.tokens // 4
    assert calibration_tokens(costs, Load(10, 3), 4 * whole) == 64
    assert calibration_tokens(costs, Load(40_000, 3), 100 * whole) == 8192


def test_a_reading_takes_no_more_than_a_quarter_of_the_evaluation_and_of_the_memory() -> None:
    with torch.device("meta"):
        one = architecture(AutoModelForCausalLM.from_config(CONFIG))
    costs = analytic(one, [Trainee(AdapterShape(8, 8.0))], "nf4", True, 2)
    two = replace(costs, layers=2, adapters=costs.adapters / 3)
    whole = two.evaluation_peak(EvaluationLoad(8192, 1))
    assert reading_tokens(costs, [2048, 32_768], 4 * whole) == 8192
    assert reading_tokens(costs, [2048, 32_768], 4 * whole - 8) == 4096
    assert reading_tokens(costs, [], 4 * whole) == 0
