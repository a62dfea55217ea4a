"""`pronk bench` on a GPU: TRL agrees, and the ceiling of matrix products."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pronk.doctor.bench import bench_training
from pronk.doctor.bench_work import Request
from pronk.doctor.gemm import gemm_rate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]
CONSOLE = Console(stderr=True)
SMALL = Request(base_shape="smollm2-135m", lengths="4x512", overrides=["train.device=cuda"], peers=["trl"], steps=4)


def test_trl_agrees_in_bf16_and_over_nf4(tmp_path: Path) -> None:
    for more in (["train.dtype=bf16"], ["train.dtype=bf16", "quantize=nf4"]):
        request = replace(SMALL, overrides=[*SMALL.overrides, *more], base_folder=tmp_path / "base")
        found = bench_training(request, CONSOLE)
        assert found["problems"] == []
        assert found["json"]["matrix_product_utilisation"]["ours"] > 0


def test_products_of_a_layer_come_near_what_a_large_one_reaches() -> None:
    device = torch.device("cuda")
    square = gemm_rate([(8192, 8192)], 8192, torch.bfloat16, device)
    layer = gemm_rate([(4096, 4096), (4096, 14336), (14336, 4096)], 8192, torch.bfloat16, device)
    assert 0.6 < layer / square < 1.3
