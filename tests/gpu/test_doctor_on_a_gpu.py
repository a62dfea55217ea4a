"""The doctor on a machine with a GPU, and examples in the prompt there."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.gpu


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
