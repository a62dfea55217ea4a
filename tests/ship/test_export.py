"""`pronk export`: what ships is what was tuned, and what is not is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file, save_file
from shipping import Ran, logits
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from pronk.ask.asking import open_reader
from pronk.ask.models import find_models
from pronk.model.load import find_base, load_model
from pronk.model.quantize import dense_weight
from pronk.model.saved import WEIGHTS, read_adapter
from pronk.runs import one_writer
from pronk.ship.export import adapter as pronk_adapter
from pronk.ship.export import merged as pronk_merged
from pronk.ship.export import merging as pronk_merging
from pronk.ship.export.adapter import changed_tensors
from pronk.ship.export.merging import Merger, Quantization, write_merged
from pronk.ship.export.record import Record, as_table
from pronk.ship.gate.parity import Gate
from pronk.ship.gate.reading import read_adapter_by_peft, read_merged
from pronk.ship.gate.tolerance import Limits

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


def test_both_forms_pass_and_say_so(shipped: Path) -> None:
    run = shipped
    kept = Record.at(run / "export", find_models([str(run)])[0])
    kept.new = [entry["name"] for entry in kept.data["artifacts"]]
    told = as_table(kept)
    assert max(map(len, told.splitlines()[:-1])) <= 80
    assert "REJECTED" not in told
    assert "compared on 4 of 4 validation rows" in told
    found = record(run)
    assert {name: entry["status"] for name, entry in found.items()} == {"adapter": "passed", "merged": "passed"}
    assert sorted(path.name for path in (run / "export").iterdir()) == ["adapter", "export.json", "merged"]
    for name, reader in (("adapter", "PEFT"), ("merged", "transformers")):
        parity = found[name]["parity"]
        assert parity["reader"] == reader
        assert parity["chats"] == parity["same_chats"] == 5 + 4, "the fixed chats, and one for each validation row"
        assert parity["top1"] == 1.0
        assert (run / "export" / name / "LICENSE").read_text(encoding="utf-8") == "Use it kindly.\n"
        assert found[name]["bytes"] > 10_000
    assert found["adapter"]["parity"]["kl"] < 1e-6 < found["merged"]["parity"]["kl"]
    (asked,) = json.loads((run / "export" / "export.json").read_text(encoding="utf-8"))["chat"]
    assert "### Input:\nItem" in asked["content"]


def test_a_merged_model_is_peft_s_rounded_once(shipped: Path, sure_base: Path) -> None:
    """fp32 sums may end a bit apart, and then round to neighbours: nowhere further."""
    saved = load_file(shipped / "export" / "merged" / "model.safetensors")
    oracle = peft_merged(shipped, sure_base)
    wanted = {name: value for name, value in oracle.state_dict().items() if name in saved}
    assert len(wanted) == len(saved) == 2 * 9 + 2
    for name, value in wanted.items():
        rounded = value.to(torch.bfloat16)
        assert saved[name].dtype == torch.bfloat16
        assert (saved[name] == rounded).float().mean() > 0.999, name
        assert torch.allclose(saved[name].float(), rounded.float(), rtol=2**-7, atol=1e-6), name


def test_a_merged_model_stands_alone(shipped: Path) -> None:
    """transformers knows how to ask it, where it ends, and what pads."""
    folder = shipped / "export" / "merged"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    content = "Is it good?\n\n### Input:\nSales rose."
    asked = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    assert asked.endswith("### Instruction:\nIs it good?\n\n### Input:\nSales rose.\n\n### Response:\n")
    assert "paired with an input" in asked
    config = GenerationConfig.from_pretrained(folder)
    assert tokenizer.eos_token_id in config.eos_token_id
    assert config.pad_token_id == tokenizer.pad_token_id
    assert config.pad_token_id not in config.eos_token_id
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight, "tied as in the base"


def test_a_sharded_model_is_the_same_model(shipped: Path, sure_base: Path, tmp_path: Path) -> None:
    one = AutoModelForCausalLM.from_pretrained(shipped / "export" / "merged")
    write_merged(merger_of(shipped, sure_base), tmp_path, shard=100_000)
    one.config.save_pretrained(tmp_path)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert max(file.stat().st_size for file in tmp_path.glob("*.safetensors") if "00001" not in file.name) < 110_000
    other = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(one, [5, 6, 7, 8]), logits(other, [5, 6, 7, 8]))


def merger_of(run: Path, base: Path) -> Merger:
    adapter = read_adapter(run / "adapter")
    return Merger(base, adapter.sizes, adapter)


@pytest.mark.parametrize("kind", ["nf4", "int8", "fp8"])
def test_what_is_dequantized_is_what_training_saw(kind: Any, shipped: Path, sure_base: Path) -> None:
    """Against the weights in a model that is loaded as for training, in fp32 before they are rounded."""
    base, device = find_base(str(sure_base)), torch.device("cpu")
    model = load_model(base, torch.float32, device, kind)
    plain, adapter = merger_of(shipped, sure_base), read_adapter(shipped / "adapter")
    seen = Merger(sure_base, adapter.sizes, adapter, Quantization(kind, True, torch.float32, device))
    for layer in adapter.sizes:
        name = f"{layer}.weight"
        update = plain.exact(name) - load_file(sure_base / "model.safetensors")[name]
        assert torch.allclose(seen.exact(name), dense_weight(model.get_submodule(layer)) + update, atol=1e-5), name
        assert (seen.exact(name) - plain.exact(name)).abs().max() > 1e-3, name
    assert torch.equal(seen.exact("model.embed_tokens.weight"), plain.exact("model.embed_tokens.weight"))


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["nf4", "int8", "fp8"])
def test_over_a_quantized_base_both_ways_are_measured(pronk: Pronk, make_run: MakeRun, quantize: str) -> None:
    run = make_run(quantize=quantize)
    # products in FP8 round activations too, which so small a model, sure of what it says at random, does not forgive
    told = pronk("export", run, "--to", "adapter,merged", "--tolerance", "3" if quantize == "fp8" else "1")
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
    merger = Merger(run / "model", (), None)
    weights = load_file(sure_base / "model.safetensors")
    assert set(merger.names) == set(weights)
    assert all(torch.equal(merger.tensor(name), value.bfloat16()) for name, value in weights.items())


@pytest.mark.slow
def test_such_a_model_passes_with_the_licence_of_its_base(pronk: Pronk, make_run: MakeRun) -> None:
    run = make_run(full=True)
    assert pronk("export", run, "--to", "merged").code == 0
    assert (run / "export" / "merged" / "LICENSE").is_file()


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


def nudged(folder: Path) -> None:
    """One number of one tensor, so little that no answer changes."""
    file = next(folder.glob("*.safetensors"))
    weights = load_file(file)
    name = next(one for one in weights if "layers.1" in one and one.endswith("weight") and weights[one].dim() == 2)
    weights[name][0, 0] += 0.02 * weights[name].abs().max()
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("form", "change"), [("adapter", other_template), ("merged", damaged), ("merged", nudged), ("adapter", nudged)]
)
def test_what_is_not_what_was_tuned_is_rejected(
    pronk: Pronk, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, form: str, change: Callable[[Path], None]
) -> None:
    run = make_run()
    module = {"adapter": pronk_adapter, "merged": pronk_merged}[form]
    monkeypatch.setattr(module, "make", altered(module, change))
    told = pronk("export", run, "--to", form)
    assert told.code == 1, told.out
    assert "REJECTED" in told.out
    assert max(map(len, told.out.splitlines()[:-1])) <= 80
    assert "do not ship it" in told.err
    entry = record(run)[form]
    assert entry["status"] == "rejected"
    assert {path.name for path in (run / "export").iterdir()} == {"export.json", f"{form}.rejected"}
    said = " ".join([*entry["reasons"], *entry["details"]])
    if change is damaged:
        assert entry["parity"]["same_chats"] == entry["parity"]["chats"]
        assert "nats apart" in said
        assert "model.layers.1.mlp.down_proj.weight is off by up to" in said
    elif change is nudged:
        assert entry["reasons"] == ["its files do not hold the weights that they should"]
        assert "layers.1" in " ".join(entry["details"])
        assert entry["parity"]["top1"] == 1.0, "it would not be noticed otherwise"
    else:
        assert "would be asked with other tokens" in said
        assert "trained on" in said
        assert entry["parity"]["kl"] < 1e-6


def test_what_no_program_can_read_is_rejected(pronk: Pronk, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])

    run = make_run()
    monkeypatch.setattr(pronk_merged, "make", altered(pronk_merged, cut))
    told = pronk("export", run, "--to", "merged")
    assert told.code == 1, told.err
    assert "REJECTED merged: what was exported cannot be read" in told.out
    assert not (run / "export").exists()


@pytest.mark.parametrize(
    ("form", "change", "said"), [("adapter", damaged, "nats apart"), ("merged", doubled_begin, "other tokens")]
)
def test_the_gate_rejects_it_too(
    gate: Gate, shipped: Path, tmp_path: Path, form: str, change: Callable[[Path], None], said: str
) -> None:
    """The same of the other form."""
    folder = tmp_path / form
    shutil.copytree(shipped / "export" / form, folder)
    change(folder)
    reader = gate._reader
    recipe, base = reader.model.recipe, reader.base
    reads = read_merged(folder, recipe) if form == "merged" else read_adapter_by_peft(folder, base, recipe, False)
    found = gate.compare(reads, form, "rounded" if form == "merged" else "exact")
    assert said in " ".join(found.reasons)
    assert (found.same_chats < found.chats) is (change is doubled_begin)
    if form == "adapter":
        adapter = reader.model.adapter
        assert adapter is not None
        assert "layers.1.mlp.down_proj" in changed_tensors(adapter.folder / WEIGHTS, folder / WEIGHTS)[0]


@pytest.fixture(scope="module")
def gate(shipped: Path) -> Gate:
    """The gate of a run, which has read it already."""
    reader = open_reader(0, find_models([str(shipped)])[0], lambda _: None, {})
    made = Gate(reader, Limits(), 100, Console(quiet=True))
    made.prepare()
    return made


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


@pytest.mark.parametrize("fault", [None, scaling_forgotten, transposed, wrong_layer, one_layer_left_out])
def test_a_faulty_merge_is_rejected(
    gate: Gate, shipped: Path, sure_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    if fault is not None:
        monkeypatch.setattr(Merger, "_update", fault(Merger._update))
    shutil.copytree(shipped / "export" / "merged", tmp_path, dirs_exist_ok=True)
    write_merged(merger_of(shipped, sure_base), tmp_path)
    reads = read_merged(tmp_path, gate._reader.model.recipe)
    found = gate.compare(reads, "merged", "rounded")
    assert bool(found.reasons) is (fault is not None), found
    assert found.same_chats == found.chats


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


def test_what_a_killed_export_has_left_is_in_nobodys_way(pronk: Pronk, make_run: MakeRun) -> None:
    run = make_run()
    (run / "export" / ".export-killed" / "merged").mkdir(parents=True)
    told = pronk("export", run, "--to", "adapter")
    assert told.code == 0, told.err
    assert sorted(path.name for path in (run / "export").iterdir()) == ["adapter", "export.json"]


def test_one_process_at_a_time_exports_a_run(pronk: Pronk, make_run: MakeRun) -> None:
    run = make_run()
    with one_writer(run / "export" / "export.json"):
        told = pronk("export", run, "--to", "adapter")
    assert (told.code, "another pronk is writing this" in told.err) == (2, True)
    assert not (run / "export").exists()


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


def rejected_before(run: Path) -> dict[str, Any]:
    artifacts = [{"name": "merged", "status": "passed"}, {"name": "adapter", "status": "rejected"}]
    return {"run": run.name, "source": str(run), "artifacts": artifacts}


def test_what_stands_there_is_left_alone(pronk: Pronk, make_run: MakeRun) -> None:
    run = make_run()
    (run / "export" / "adapter.rejected").mkdir(parents=True)
    (run / "export" / "export.json").write_text(json.dumps(rejected_before(run)), encoding="utf-8")
    told = pronk("export", run, "--to", "adapter", "--json")
    assert (told.code, len(json.loads(told.out)["artifacts"])) == (0, 1)
    assert list(record(run)) == ["merged", "adapter"], "what was there before stays in the record"
    assert {path.name for path in (run / "export").iterdir()} == {"export.json", "adapter"}
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
