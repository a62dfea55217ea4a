"""What is exported from a run on a GPU passes its gate there, whatever its type. Run with `pytest -m gpu`."""

import pytest
import torch
import yaml
from rich.console import Console

import pronk

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.mark.parametrize(
    ("dtype", "quantize"),
    [("fp32", "none"), ("bf16", "none"), ("fp16", "none"), ("bf16", "nf4"), ("bf16", "int8"), ("bf16", "fp8")],
)
def test_an_export_passes(tiny_base, worded, dtype, quantize):
    from pronk.ship.export.exporting import Options, export

    recipe = {
        "base": str(tiny_base), "allow": ["unknown-tokens"],
        "data": {"source": "rows.jsonl", "split": {"test": 30, "validation": 30}},
        "quantize": quantize,
        "train": {"epochs": 4, "batch_size": 8, "learning_rate": 0.02, "dtype": dtype, "device": "cuda"},
    }  # fmt: skip
    (worded / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    study = pronk.run(worded / "recipe.yaml", out=worded / "study")
    (run,) = (path for path in (study.path / "runs").iterdir() if (path / "adapter").is_dir())
    record = export(str(run), Options(["adapter", "merged"]), Console(stderr=True))
    for entry in record.entries:  # the figures are what the defaults of ship/gate/tolerance.py are judged by
        found = entry["parity"]
        print(dtype, quantize, entry["name"], found["kl"], found["worst"], found["top1"], found["loss"]["difference"])
    assert record.passed, [entry["reasons"] for entry in record.entries]
