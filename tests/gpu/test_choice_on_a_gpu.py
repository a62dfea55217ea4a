"""Choices on a GPU score as transformers' own forward does, one prompt and one choice at a time.

Run with `pytest -m gpu`.
"""

import json

import numpy as np
import pytest
import torch
import yaml
from test_on_a_gpu import _model

import pronk
from pronk.evaluate.choice import choose
from pronk.model.adapter import AdapterShape, attach
from pronk.tokens.pack import BASE_SLOT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]
NEAR = {torch.float32: 1e-3, torch.bfloat16: 0.5}  # nats, of scores around -20; bf16 rounds logits of 10 to 0.03


def _questions(count=40):
    """Prompts of 2 to 80 ids, some of which begin alike; two to five choices of one to eight ids each."""
    draw = np.random.default_rng(3)
    common = draw.integers(3, 512, 30).tolist()
    prompts = [draw.integers(3, 512, draw.integers(2, 80)).tolist() for _ in range(count)]
    prompts = [[*common, *ids] if place % 3 == 0 else ids for place, ids in enumerate(prompts)]
    choices = [
        [draw.integers(3, 512, draw.integers(1, 9)).tolist() for _ in range(draw.integers(2, 6))] for _ in prompts
    ]
    return prompts, choices


@torch.no_grad()
def _plain(model, prompt, ids):
    whole = torch.tensor([[*prompt, *ids]], device=model.device)
    log_p = torch.log_softmax(model(input_ids=whole, use_cache=False).logits[0].double(), dim=-1)
    return float(log_p[range(len(prompt) - 1, whole.shape[1] - 1), ids].sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("token_budget", [600, 100_000])
def test_scores_are_those_of_a_plain_forward(dtype, token_budget):
    prompts, choices = _questions()
    model = _model(dtype)
    model.set_attn_implementation("sdpa")
    expected = [[_plain(model, prompt, ids) for ids in of] for prompt, of in zip(prompts, choices, strict=True)]
    packed = _model(dtype)
    adapter = attach(packed, [AdapterShape(4, 16.0)])
    for _, wide, rows in adapter.rows(0):
        wide.data[rows] = torch.randn_like(wide.data[rows]) * 0.1
    adapter.settle()
    found = choose(packed, adapter, prompts, choices, (BASE_SLOT, 0), token_budget)
    apart = [np.abs(np.subtract(*pair)).max() for pair in zip(found[BASE_SLOT], expected, strict=True)]
    assert max(apart) < NEAR[dtype]
    tuned = [np.abs(np.subtract(*pair)).max() for pair in zip(found[0], expected, strict=True)]
    assert min(tuned) > 0.01  # the adapter beside it is another model


def test_a_study_of_choices_is_the_same_on_a_gpu(tiny_base, worded):
    """Raw, by length, and through the command's whole way; fp32 on both devices."""
    rows = [json.loads(line) for line in (worded / "rows.jsonl").read_text().splitlines()]
    lines = [
        {"question": row["text"], "choices": ["w8", "w9 w11", "w10 w12 w13"][: 2 + n % 2], "answer": n % 2}
        for n, row in enumerate(rows)
    ]
    (worded / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = {}
    for device in ("cpu", "cuda"):
        recipe = {
            "base": str(tiny_base), "allow": ["unknown-tokens"], "evaluate": ["choice"],
            "data": {"source": "questions.jsonl", "choices": "unlisted", "split": {"test": 60, "validation": 0}},
            "train": {"max_steps": 8, "batch_size": 8, "learning_rate": 0.02, "dtype": "fp32", "device": device},
        }  # fmt: skip
        (worded / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        study = pronk.run(worded / "recipe.yaml", out=worded / device)
        files = [study.path / "runs" / run.name / "items" / "choice.jsonl" for run in study.runs]
        found[device] = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    (base, tuned), (base_there, tuned_there) = found["cuda"], found["cpu"]
    for ours, theirs, near in ((base, base_there, 1e-3), (tuned, tuned_there, 0.05)):  # training rounds otherwise
        for one, other in zip(ours, theirs, strict=True):
            assert one["scores"] == pytest.approx(other["scores"], abs=near)
    same = sum(one["predicted"] == other["predicted"] for one, other in zip(base, base_there, strict=True))
    assert same >= len(base) - 1
    assert base[0]["scores"] != pytest.approx(tuned[0]["scores"], abs=0.1)
