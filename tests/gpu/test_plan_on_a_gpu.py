"""Law 10 on a GPU: the peak that is predicted from one and two layers is the peak that is reserved, within 5%.

All twelve settings: `python benchmarks/plan_error.py`. Each is a process of its own, limited to a part of the GPU.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TOLERANCE = 0.05

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.mark.parametrize("trial", [1, 3, 6], ids=["smollm2-135m none", "smollm2-135m nf4 recomputed", "1b int8"])
def test_the_predicted_peak_is_the_reserved_one(trial, tmp_path):
    found = tmp_path / "found.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "plan_error.py"), "--only", str(trial), "--json", str(found)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert found.is_file(), done.stderr
    (result,) = json.loads(found.read_text(encoding="utf-8"))
    assert "measured" in result, result
    assert abs(result["predicted"] / result["measured"] - 1) <= TOLERANCE, result


_LOADING = """
from pronk.model.memory.sizes import begin_peak, steady_allocator
steady_allocator()
import json, torch
from transformers import LlamaConfig
from pronk.doctor.shapes import base_config, base_shape
from pronk.model.random_model import random_model
device = torch.device("cuda")
config = LlamaConfig(**base_config(base_shape("llama3-1b")))
begin_peak(device)
model = random_model(config, config.num_hidden_layers, torch.bfloat16, device, QUANTIZE)
used, most, kept = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated(), torch.cuda.memory_reserved()
print(json.dumps([used, most, kept]))
"""


@pytest.mark.parametrize("quantize", ["int8", "nf4", "fp8"])
def test_loading_keeps_no_two_layers_dense_and_leaves_no_gaps(quantize):
    command = [sys.executable, "-c", _LOADING.replace("QUANTIZE", repr(quantize))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    used, most, kept = json.loads(done.stdout.splitlines()[-1])
    assert most - used < 4 * 2 * 2048 * 8192  # bf16; the largest layer, its copy in fp16 or fp32, its codes
    assert kept - used < 128 * 2**20


_ATTACHING = """
from pronk.model.memory.sizes import release, steady_allocator
steady_allocator()
import json, torch
from transformers import LlamaConfig
from pronk.doctor.shapes import base_config, base_shape
from pronk.model.adapter import AdapterShape, attach
from pronk.model.random_model import random_model
shape = AdapterShape(16, 32)
device = torch.device("cuda")
config = LlamaConfig(**base_config(base_shape("llama3-8b")))
model = random_model(config, config.num_hidden_layers, torch.bfloat16, device, QUANTIZE, fp8_products=PRODUCTS)
found = []
for _ in range(2):
    attach(model, [shape]).detach()
    release(device)
    found.append([torch.cuda.memory_allocated(), torch.cuda.memory_reserved()])
print(json.dumps(found))
"""


@pytest.mark.parametrize(("quantize", "products"), [("fp8", False), ("nf4", True), ("int8", False)])
def test_a_fleet_that_is_attached_and_detached_leaves_no_gaps(quantize, products):
    """7% of an FP8 base of these sizes were gaps while groups were laid side by side when a fleet was attached."""
    code = _ATTACHING.replace("QUANTIZE", repr(quantize)).replace("PRODUCTS", repr(products))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    for used, kept in json.loads(done.stdout.splitlines()[-1]):
        assert kept - used < 0.03 * used


def test_losses_without_a_gradient_are_pytorchs_and_take_one_copy_of_the_logits():
    from pronk.model.loss import target_losses

    draw = torch.Generator("cuda").manual_seed(0)
    hidden_ND = torch.randn(512, 256, generator=draw, device="cuda").bfloat16()
    head_VD = torch.randn(50_000, 256, generator=draw, device="cuda").bfloat16() / 16
    targets_N = torch.randint(0, 50_000, (512,), generator=draw, device="cuda")
    expected_N = torch.nn.functional.cross_entropy((hidden_ND @ head_VD.T).float(), targets_N, reduction="none")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.no_grad():
        losses_N = target_losses(hidden_ND, head_VD, targets_N)
    torch.testing.assert_close(losses_N, expected_N, rtol=1e-4, atol=1e-4)
    assert torch.cuda.max_memory_allocated() - before < 1.2 * 2 * 512 * 50_000


def _recipe(folder, base, rows=200):
    draw = random.Random(0)
    texts = [" ".join(f"w{draw.randrange(20, 60)}" for _ in range(8 * (1 + n % 9))) for n in range(rows)]
    lines = [{"text": text, "label": f"w{8 + n % 2}"} for n, text in enumerate(texts)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    text = (
        f"base: {base}\nquantize: none\nallow: [unknown-tokens]\n"
        "data: {source: rows.jsonl, format: classify, split: {validation: 20, test: 40}}\n"
        "train: {epochs: 1}\nstudy: {adapter.rank: [8, 16]}\n"
    )
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder / "recipe.yaml"


def _pronk(*arguments):
    command = [sys.executable, "-m", "pronk", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize("size", ["2GB", "3GB"])
def test_a_run_stays_within_what_it_is_given_and_what_it_predicts(tmp_path, size, small_base):
    """Load, training, validation, evaluation and answers, through the command line; tight, so that it is measured."""
    done = _pronk("run", _recipe(tmp_path, small_base), "--out", tmp_path / "study", "--gpu", size)
    assert done.returncode == 0, done.stderr
    assert "memory: " in done.stderr
    assert "not calibrated" not in done.stderr
    run = json.loads((tmp_path / "study" / "study.json").read_text(encoding="utf-8"))["runs"][-1]
    measured, predicted = run["peak_memory_bytes"], run["predicted_peak_memory_bytes"]
    assert measured <= float(size[:-2]) * 1e9
    assert abs(predicted / measured - 1) <= TOLERANCE, (predicted, measured, done.stderr)


def test_the_plan_is_measured_and_says_so(tmp_path, small_base):
    done = _pronk("plan", _recipe(tmp_path, small_base), "--json", "--set", "quantize=none")
    assert done.returncode == 0, done.stderr
    (fleet,) = json.loads(done.stdout)["fleets"]
    assert fleet["calibrated"]
    assert fleet["chosen"]["tokens_per_second"] > 0


def test_what_cannot_fit_is_refused_before_anything_is_written(tmp_path, small_base):
    done = _pronk("run", _recipe(tmp_path, small_base), "--out", tmp_path / "study", "--gpu", "1.1GB")
    assert done.returncode == 1, done.stderr
    assert "does not fit" in done.stderr
    assert not (tmp_path / "study").exists()
