"""`pronk eval` on a GPU measures what `pronk run` measured there. Run with `pytest -m gpu`."""

import json

import pytest
import torch
import yaml

import pronk

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]


def _rows(study, run):
    lines = (study / "runs" / run / "items" / "classify.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_study_measures_the_same_again(tiny_base, worded, dtype):
    recipe = {
        "base": str(tiny_base), "allow": ["unknown-tokens"],
        "data": {"source": "rows.jsonl", "format": "classify", "split": {"test": 60, "validation": 6}},
        "study": {"adapter.rank": [2, 4]},
        "train": {"epochs": 2, "batch_size": 8, "learning_rate": 0.02, "dtype": dtype, "device": "cuda"},
    }  # fmt: skip
    (worded / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    study = pronk.run(worded / "recipe.yaml", out=worded / "study")
    before = {run.name: _rows(study.path, run.name) for run in study.runs}
    pronk.eval(study)
    close = 1e-3 if dtype == "fp32" else 0.1  # other batches, so other sums
    for name, rows_before in before.items():
        after = _rows(study.path, name)
        same = sum(one["predicted"] == other["predicted"] for one, other in zip(rows_before, after, strict=True))
        assert same >= len(after) - (0 if dtype == "fp32" else 2)  # near ties
        for one, other in zip(rows_before, after, strict=True):
            assert other["scores"] == pytest.approx(one["scores"], abs=close)
