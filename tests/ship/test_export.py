"""`pronk export`: what ships is what was tuned, and what is not is refused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from shipping import Ran, logits
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from pronk.ship import adapter as pronk_adapter
from pronk.ship import merged as pronk_merged
from pronk.ship import merging as pronk_merging
from pronk.ship.merging import Merger

Pronk = Callable[..., Ran]
MakeRun = Callable[..., Path]
# PEFT 0.21 asks a transformers 5.23 model by an old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def record(run: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((run / "export" / "export.json").read_text(encoding="utf-8"))
    return {entry["name"]: entry for entry in found["artifacts"]}


def peft_merged(run: Path, base: Path) -> Any:
    """The oracle: PEFT's own merge, in fp32."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(run / "adapter")).merge_and_unload()


def test_both_forms_pass_and_say_so(pronk: Pronk, make_run: MakeRun) -> None:
    run = make_run()
    told = pronk("export", run, "--to", "adapter,merged")
    assert told.code == 0, told.err + told.out
    assert max(map(len, told.out.splitlines()[:5])) <= 80
    assert "REJECTED" not in told.out
    found = record(run)
    assert {name: entry["status"] for name, entry in found.items()} == {"adapter": "passed", "merged": "passed"}
    assert sorted(path.name for path in (run / "export").iterdir()) == ["adapter", "export.json", "merged"]
    for name, reader in (("adapter", "PEFT"), ("merged", "transformers")):
        parity = found[name]["parity"]
        assert parity["reader"] == reader
        assert parity["chats"] == parity["same_chats"] == 5 + 8, "the fixed chats, and one for each validation row"
        assert parity["top1"] == 1.0
        assert (run / "export" / name / "LICENSE").read_text(encoding="utf-8") == "Use it kindly.\n"
        assert found[name]["bytes"] > 10_000
    assert found["adapter"]["parity"]["kl"] < 1e-6 < found["merged"]["parity"]["kl"]
    again = json.loads(pronk("export", run, "--to", "merged", "--out", run.parent / "elsewhere", "--json").out)
    assert [entry["name"] for entry in again["artifacts"]] == ["merged"]


def test_a_merged_model_is_peft_s_rounded_once(pronk: Pronk, make_run: MakeRun, sure_base: Path) -> None:
    """fp32 sums may end a bit apart, and then round to neighbours: nowhere further."""
    run = make_run()
    assert pronk("export", run, "--to", "merged").code == 0
    saved = load_file(run / "export" / "merged" / "model.safetensors")
    oracle = peft_merged(run, sure_base)
    wanted = {name: value for name, value in oracle.state_dict().items() if name in saved}
    assert len(wanted) == len(saved) == 2 * 9 + 2
    for name, value in wanted.items():
        rounded = value.to(torch.bfloat16)
        assert saved[name].dtype == torch.bfloat16
        assert (saved[name] == rounded).float().mean() > 0.999, name
        assert torch.allclose(saved[name].float(), rounded.float(), rtol=2**-7, atol=0), name


def test_a_merged_model_stands_alone(pronk: Pronk, make_run: MakeRun) -> None:
    """transformers knows how to ask it, where it ends, and what pads."""
    run = make_run()
    assert pronk("export", run, "--to", "merged").code == 0
    folder = run / "export" / "merged"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    content = "Is it good?\n\n### Input:\nSales rose."
    asked = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    assert asked.endswith("### Instruction:\nIs it good?\n\n### Input:\nSales rose.\n\n### Response:\n")
    assert "paired with an input" in asked
    config = GenerationConfig.from_pretrained(folder)
    assert tokenizer.eos_token_id in config.eos_token_id
    assert config.pad_token_id == tokenizer.pad_token_id not in config.eos_token_id
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight, "tied as in the base"


def test_a_sharded_model_is_the_same_model(pronk: Pronk, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    assert pronk("export", run, "--to", "merged").code == 0
    monkeypatch.setattr(pronk_merging.write_merged, "__defaults__", (lambda _: None, 100_000))
    assert pronk("export", run, "--to", "merged", "--out", run / "shards").code == 0
    files = sorted(path.name for path in (run / "shards" / "merged").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    one, other = (AutoModelForCausalLM.from_pretrained(run / name / "merged") for name in ("export", "shards"))
    assert torch.equal(logits(one, [5, 6, 7, 8]), logits(other, [5, 6, 7, 8]))


@pytest.mark.parametrize("quantize", ["nf4", "int8", "fp8"])
def test_over_a_quantized_base_both_ways_are_measured(pronk: Pronk, make_run: MakeRun, quantize: str) -> None:
    run = make_run(quantize=quantize)
    told = pronk("export", run, "--to", "adapter,merged")
    assert told.code == 0, told.err + told.out
    merged = record(run)["merged"]
    both = merged["facts"]["both"]
    assert set(both) == {"the dequantized base", "the unquantized base"}
    assert both["the dequantized base"]["kl"] < both["the unquantized base"]["kl"]
    assert merged["facts"]["merged onto"] in both
    assert merged["facts"]["merged onto"] in told.out
    assert len(list((run / "export").iterdir())) == 3, "of two ways one is left"


def test_a_run_with_all_weights_trained_is_its_model(pronk: Pronk, make_run: MakeRun, sure_base: Path) -> None:
    run = make_run(full=True)
    told = pronk("export", run, "--to", "adapter")
    assert told.code == 2
    assert "use merged" in told.err
    assert not (run / "export").exists()
    assert pronk("export", run, "--to", "merged").code == 0
    saved = load_file(run / "export" / "merged" / "model.safetensors")
    assert all(torch.equal(saved[name], value.bfloat16())
               for name, value in load_file(sure_base / "model.safetensors").items())  # fmt: skip


# --- what is not what was tuned


def altered(module: Any, change: Callable[[Path], None]) -> Callable[..., Any]:
    """A form that leaves something else than it should."""
    make = module.make

    def faulty(job: Any, folder: Path) -> Any:
        artifacts = make(job, folder)
        change(folder)
        return artifacts

    return faulty


def other_template(folder: Path) -> None:
    """As where a server brings its own: no preamble."""
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    template.write_text(text.replace("Write a response that", "Write an answer that"), encoding="utf-8")


def doubled_begin(folder: Path) -> None:
    template = folder / "chat_template.jinja"
    template.write_text("{{- bos_token }}" + template.read_text(encoding="utf-8"), encoding="utf-8")


def damaged(folder: Path) -> None:
    """One tensor of many, a tenth of its size."""
    file = next(folder.glob("*.safetensors"))
    weights = load_file(file)
    name = next(one for one in weights if "layers.1.mlp.down_proj" in one)
    noise = torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(1))
    weights[name] = (weights[name].float() + 0.1 * weights[name].float().std() * noise).to(weights[name].dtype)
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("form", ["adapter", "merged"])
@pytest.mark.parametrize("change", [other_template, doubled_begin, damaged])
def test_what_is_not_what_was_tuned_is_rejected(
    pronk: Pronk, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, form: str, change: Callable[[Path], None]
) -> None:
    run = make_run()
    module = {"adapter": pronk_adapter, "merged": pronk_merged}[form]
    monkeypatch.setattr(module, "make", altered(module, change))
    told = pronk("export", run, "--to", form)
    assert told.code == 1, told.out
    assert "REJECTED" in told.out
    assert "do not ship it" in told.err
    entry = record(run)[form]
    assert entry["status"] == "rejected"
    assert sorted(path.name for path in (run / "export").iterdir()) == ["export.json", f"{form}.rejected"]
    said = " ".join([*entry["reasons"], *entry["details"]])
    if change is damaged:
        assert entry["parity"]["same_chats"] == entry["parity"]["chats"]
        assert "nats apart" in said
        assert "layers.1.mlp.down_proj" in said
    else:
        assert "would be asked with other tokens" in said
        assert "trained on" in said
        assert entry["parity"]["kl"] < 0.005
    monkeypatch.undo()
    assert pronk("export", run, "--to", form).code == 0, "mended, it takes the place"
    assert sorted(path.name for path in (run / "export").iterdir()) == ["export.json", form]


def scaling_forgotten(original: Any) -> Any:
    return lambda self, layer: original(self, layer) / self._adapter.shape.scaling


def transposed(original: Any) -> Any:
    def faulty(self: Any, layer: str) -> Any:
        update = original(self, layer)
        return update.T if update.shape[0] == update.shape[1] else update

    return faulty


def wrong_layer(original: Any) -> Any:
    return lambda self, layer: original(self, layer.replace("layers.1.mlp.up_proj", "layers.0.mlp.up_proj"))


def one_layer_left_out(original: Any) -> Any:
    return lambda self, layer: original(self, layer) * ("layers.0.self_attn.v_proj" not in layer)


@pytest.mark.parametrize("fault", [scaling_forgotten, transposed, wrong_layer, one_layer_left_out])
def test_a_faulty_merge_is_rejected(
    pronk: Pronk, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Any], Any]
) -> None:
    run = make_run()
    monkeypatch.setattr(Merger, "_update", fault(Merger._update))
    told = pronk("export", run, "--to", "merged")
    assert told.code == 1, told.out
    assert record(run)["merged"]["status"] == "rejected"


# --- interruptions and wrong input


def test_ctrl_c_leaves_nothing_half_written(pronk: Pronk, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of merging, with the adapter done."""
    run = make_run()
    exact, seen = Merger.exact, []

    def interrupting(self: Merger, name: str) -> Any:
        seen.append(name)
        if len(seen) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return exact(self, name)

    monkeypatch.setattr(Merger, "exact", interrupting)
    told = pronk("export", run, "--to", "adapter,merged")
    assert told.code == 130, told.err
    assert "forms that were done are kept" in told.err
    assert sorted(path.name for path in (run / "export").iterdir()) == ["adapter", "export.json"]
    assert list(record(run)) == ["adapter"]
    monkeypatch.undo()
    assert pronk("export", run, "--to", "merged").code == 0
    assert list(record(run)) == ["adapter", "merged"]


def test_a_full_disk_is_one_message(pronk: Pronk, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    little = (0, 0, 1000)
    usage = type("usage", (), {"total": 0, "used": 0, "free": little[2]})
    monkeypatch.setattr(pronk_merging.shutil, "disk_usage", lambda _: usage)
    told = pronk("export", run, "--to", "merged")
    assert told.code == 2
    assert "the merged model takes" in told.err
    assert not (run / "export").exists()
    monkeypatch.undo()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(pronk_merging, "save_file", full)
    told = pronk("export", run, "--to", "merged")
    assert told.code == 2
    assert "no space left on this disk" in told.err
    assert not (run / "export").exists()


def test_what_cannot_be_exported_is_one_message(pronk: Pronk, make_run: MakeRun, sure_base: Path) -> None:
    run = make_run()
    busy = run.parent / "busy"
    busy.mkdir()
    (busy / "thesis.txt").write_text("mine")
    for arguments, said in (
        ((run, "--to", "safetensor"), "expected one of adapter, merged, gguf, ollama, hub"),
        ((run, "--to", "merge"), "did you mean 'merged'?"),
        ((run, "--to", ","), "name what to export to"),
        ((run.parent / "nothing", "--to", "merged"), "there is no such folder"),
        ((sure_base, "--to", "merged"), "this is no run of pronk's"),
        ((run, "--to", "merged", "--out", busy), "holds something else"),
        ((run, "--to", "merged", "--out", busy / "thesis.txt"), "this is a file"),
        ((run, "--to", "merged", "--tolerance", "much"), "expected a number"),
        ((run, "--to", "merged", "--tolerance", "kll=3"), "kl, worst, top1, loss, metric"),
        ((run, "--to", "merged", "--tolerance", "-1"), "expected a number"),
    ):
        told = pronk("export", *arguments)
        assert told.code == 2, (arguments, told)
        assert said in " ".join(told.err.split()), told.err
        assert "Traceback" not in told.err
        assert not (run / "export").exists()
    assert [path.name for path in busy.iterdir()] == ["thesis.txt"]


def test_what_stands_there_is_left_alone(pronk: Pronk, make_run: MakeRun) -> None:
    run = make_run()
    assert pronk("export", run, "--to", "adapter").code == 0
    told = pronk("export", run, "--to", "adapter")
    assert (told.code, "stands here already" in told.err) == (2, True)
    other = make_run("other")
    told = pronk("export", other, "--to", "merged", "--out", run / "export")
    assert (told.code, "another run" in told.err) == (2, True)
    told = pronk("export", run.parents[1], "--to", "merged")
    assert (told.code, "2 runs" in told.err) == (2, True)


def test_without_its_data_nothing_is_compared(pronk: Pronk, make_run: MakeRun) -> None:
    run = make_run()
    (run.parents[2] / "rows.jsonl").unlink()
    told = pronk("export", run, "--to", "merged")
    assert told.code == 2
    assert "rows.jsonl" in told.err
    assert not (run / "export").exists()
