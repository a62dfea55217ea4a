"""`pronk bench` on a GPU: memory read anew for each setting of one process, and the ceiling of matrix products."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pronk.doctor.bench import bench_training
from pronk.doctor.bench_work import Request, named_works
from pronk.doctor.gemm import gemm_rate
from pronk.doctor.peers.work import Result
from pronk.doctor.sides import run_side

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]
CONSOLE = Console(stderr=True)
SMALL = Request(base_shape="smollm2-135m", lengths="4x512", overrides=["train.device=cuda"], peers=["trl"], steps=4)


def test_memory_is_that_of_each_setting_alone(tmp_path: Path) -> None:
    work = named_works(SMALL, tmp_path)["ours"]
    large = replace(work, batch_size=16, examples=work.examples * 4)
    together = run_side("ours", [large, work], tmp_path, CONSOLE)
    (alone,) = run_side("ours", [work], tmp_path, CONSOLE)
    assert isinstance(alone, Result)
    first, second = together
    assert isinstance(first, Result), first
    assert isinstance(second, Result), second
    assert second.peak_memory_bytes == pytest.approx(alone.peak_memory_bytes, rel=0.1)
    assert second.peak_memory_bytes < 0.8 * first.peak_memory_bytes
    assert second.peak_allocated_bytes is not None
    assert 0 < second.peak_allocated_bytes <= second.peak_memory_bytes


def test_trl_agrees_in_bf16_and_over_nf4(tmp_path: Path) -> None:
    for more in (["train.dtype=bf16"], ["train.dtype=bf16", "quantize=nf4"]):
        request = replace(SMALL, overrides=[*SMALL.overrides, *more], base_folder=tmp_path / "base")
        found = bench_training(request, CONSOLE)
        assert found["problems"] == []
        assert 0 < found["json"]["matrix_product_utilisation"]["ours"] < 1


def test_products_of_a_layer_come_near_what_a_large_one_reaches() -> None:
    device = torch.device("cuda")
    square = gemm_rate([(8192, 8192)], 8192, torch.bfloat16, device)
    layer = gemm_rate([(4096, 4096), (4096, 14336), (14336, 4096)], 8192, torch.bfloat16, device)
    assert 0.6 < layer / square < 1.3
