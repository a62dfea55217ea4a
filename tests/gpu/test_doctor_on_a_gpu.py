"""The doctor on a machine with a GPU, and examples in the prompt there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


def test_everything_that_is_tried_works() -> None:
    """On a machine that the GPU tests pass on. A first compilation takes its time; the list says that it is at work."""
    start = time.perf_counter()
    told = subprocess.run(
        [sys.executable, "-m", "pronk", "doctor", "--json"], capture_output=True, text=True, timeout=200, check=False
    )
    assert "Traceback" not in told.stderr
    lines = {line["name"]: line for line in json.loads(told.stdout)["lines"]}
    print(f"{time.perf_counter() - start:.1f} s", *lines.values(), sep="\n")
    for name in ("PyTorch", "CUDA", "bf16", "bitsandbytes", "Triton"):
        assert lines[name]["status"] == "ok", lines[name]
    for name in ("GPU", "FP8", "attention"):
        assert lines[name]["status"] != "failed", lines[name]


def test_examples_in_the_prompt_are_the_same_on_a_gpu(tiny_base: Path, worded: Path) -> None:
    data = {"source": "rows.jsonl", "format": "classify", "instruction": "w4 w5", "split": {"validation": 30}}
    found = {}
    for device in ("cpu", "cuda"):
        recipe = {"base": str(tiny_base), "data": data, "allow": ["unknown-tokens"]}
        recipe["train"] = {"device": device, "dtype": "fp32", "max_length": 512}
        (worded / "recipe.yaml").write_text(json.dumps(recipe))
        command = [sys.executable, "-m", "pronk", "check", str(worded / "recipe.yaml"), "--baseline", "--json"]
        told = subprocess.run(
            [*command, "--shots", "0,1,3", "--out", str(worded / device)],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        found[device] = json.loads(told.stdout)["rows"]
    assert [row.get("shots", 0) for row in found["cuda"]] == [0, 1, 3]
    for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
        assert ours["metrics"]["nll"] == pytest.approx(theirs["metrics"]["nll"], abs=1e-3)
        assert ours["metrics"]["accuracy"] == pytest.approx(theirs["metrics"]["accuracy"], abs=0.04)
