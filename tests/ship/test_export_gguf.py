"""`pronk export --to gguf,ollama`: each file against the run, through the same gate as every other form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from shipping import Ran

from pronk.ship.gguf import form as gguf
from pronk.ship.gguf import writer as gguf_writer
from pronk.ship.gguf.llama_cpp import installed
from pronk.ship.ollama import form as ollama

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
read_by_llama_cpp = pytest.mark.skipif(
    not installed(), reason="llama-cpp-python is not installed: pip install 'pronk[gguf]'"
)
Run = Callable[..., Path]
Call = Callable[..., Ran]


def statuses(run: Path) -> dict[str, str]:
    data = json.loads((run / "export" / "export.json").read_text(encoding="utf-8"))
    return {entry["name"]: entry["status"] for entry in data["artifacts"]}


@read_by_llama_cpp
def test_model_adapter_and_modelfile_pass_the_gate(make_run: Run, pronk: Call) -> None:
    run = make_run(adapter={"rank": 4, "alpha": 8})
    ran = pronk("export", run, "--to", "gguf,ollama", "--quant", "f16", "--rows", 3)
    assert ran.code == 0, ran.out + ran.err
    assert statuses(run) == {
        "gguf/model-f16.gguf": "passed", "gguf/adapter-f16.gguf": "passed", "ollama": "passed"
    }  # fmt: skip
    names = {str(file.relative_to(run / "export")) for file in (run / "export").rglob("*") if file.is_file()}
    assert names == {
        "export.json", "gguf/model-f16.gguf", "gguf/adapter-f16.gguf", "gguf/base-f16.gguf", "ollama/Modelfile",
        "ollama/model-f16.gguf", "ollama/LICENSE",
    }  # fmt: skip
    # one file under two names
    assert (run / "export/ollama/model-f16.gguf").samefile(run / "export/gguf/model-f16.gguf")


@read_by_llama_cpp
@pytest.mark.slow
@pytest.mark.parametrize("keys", [{"full": True, "adapter": {}}, {"quantize": "nf4"}], ids=["full", "nf4"])
def test_other_runs_pass_too(make_run: Run, pronk: Call, keys: dict[str, Any]) -> None:
    """All weights trained: no adapter. Over NF4: what `--to merged` would hold is written."""
    run = make_run(**keys)
    ran = pronk("export", run, "--to", "gguf", "--quant", "f16", "--rows", 2)
    assert ran.code == 0, ran.out + ran.err
    assert ("gguf/adapter-f16.gguf" in statuses(run)) == ("quantize" in keys)
    assert set(statuses(run).values()) == {"passed"}


@pytest.mark.parametrize(
    ("quantize", "merged", "quant", "held_to"),
    [
        ("none", "rounded", "f16", "rounded"), ("nf4", "rounded", "q8_0", "quantized"),
        ("nf4", "rebased", "f16", "rebased"), ("nf4", "rebased", "q4_k_m", "rebased"),
        ("fp8", "coarse", "q8_0", "coarse"),
    ],
)  # fmt: skip
def test_a_file_is_held_to_what_its_type_and_its_base_allow(
    quantize: str, merged: str, quant: str, held_to: str
) -> None:
    recipe = SimpleNamespace(quantize=quantize)
    job: Any = SimpleNamespace(
        reader=SimpleNamespace(model=SimpleNamespace(recipe=recipe)), merged_class=lambda: merged
    )
    assert gguf._class(job, quant) == held_to


def no_permutation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gguf_writer, "rotary_heads", lambda _: {})


def another_template(patch: pytest.MonkeyPatch) -> None:
    real = gguf_writer.read_vocabulary

    def faulty(tokenizer: Any, *given: Any) -> Any:
        found = real(tokenizer, *given)
        object.__setattr__(found, "template", found.template.replace("### Response:", "### Answer:"))
        return found

    patch.setattr(gguf_writer, "read_vocabulary", faulty)


def another_modelfile(patch: pytest.MonkeyPatch) -> None:
    real = ollama.go_template
    patch.setattr(ollama, "go_template", lambda pieces: real(pieces).replace("### Response:", "### Answer:"))


@read_by_llama_cpp
@pytest.mark.parametrize(
    ("fault", "form", "reason"),
    [
        (no_permutation, "gguf", "next-token distributions"),
        pytest.param(another_template, "gguf", "would be asked with other tokens", marks=pytest.mark.slow),
        (another_modelfile, "ollama", "would be asked with other tokens"),
    ],
)
def test_a_fault_is_rejected(
    make_run: Run, pronk: Call, monkeypatch: pytest.MonkeyPatch, fault: Any, form: str, reason: str
) -> None:
    run = make_run()
    fault(monkeypatch)
    ran = pronk("export", run, "--to", form, "--quant", "f16", "--rows", 2)
    assert ran.code == 1
    assert "rejected" in statuses(run).values()
    assert reason in " ".join(ran.out.split())
    rejected = {"gguf": "export/gguf/model-f16.gguf.rejected", "ollama": "export/ollama.rejected"}[form]
    assert (run / rejected).exists()


def test_without_llama_cpp_nothing_counts_as_passed(
    make_run: Run, pronk: Call, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(gguf, "installed", lambda: False)
    run = make_run()
    ran = pronk("export", run, "--to", "gguf", "--quant", "q8_0", "--rows", 2)
    assert ran.code == 0, ran.err
    assert set(statuses(run).values()) == {"unchecked"}
    assert "were not compared with the run: llama-cpp-python is not installed" in " ".join(ran.err.split())
    assert "not compared" in ran.out


def test_a_type_that_there_is_not_is_refused_before_anything_is_written(make_run: Run, pronk: Call) -> None:
    run = make_run()
    ran = pronk("export", run, "--to", "gguf", "--quant", "q4_k")
    assert ran.code == 2
    assert "--quant q4_k: expected one of f32, f16" in " ".join(ran.err.split())
    assert "did you mean" in ran.err
    assert not (run / "export").exists()
