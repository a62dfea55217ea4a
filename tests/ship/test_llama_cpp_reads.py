"""llama.cpp reads what pronk has written, and says what transformers and PEFT say of the same model."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_models import (
    LLAMA3_ROPE,
    STORIES,
    byte_tokenizer,
    divergence,
    log_probabilities,
    stories,
    tiny_model,
)  # fmt: skip

import pronk.model.gguf
import pronk.ship.gguf.tokenizer
import pronk.ship.gguf.writer
from pronk.errors import OptionError, RefusedError
from pronk.ship.gguf import quantizer
from pronk.ship.gguf.adapter import write_adapter
from pronk.ship.gguf.llama_cpp import LlamaCpp, installed
from pronk.ship.gguf.writer import Labels, write_model

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),  # PEFT asks
    pytest.mark.skipif(not installed(), reason="llama-cpp-python is not installed: pip install 'pronk[gguf]'"),
]
LABELS = Labels("tiny")
TEXT = "the cat sat on the mat, 12 cats then sat there; they thought that the hat and the mat 안녕하세요"
# Nats in the mean. Measured: 1.3e-8 in F32; 1e-4 in F16, since llama.cpp rounds what F16 is multiplied with, and random
# models exaggerate; planted faults from 0.05 on.
SAME, ROUNDED, CHANGED = 1e-6, 5e-4, 1e-2
TEXTS = (
    "Hello, World!", "  two  spaces   three", "12345 6.78 9,000", "naïve café über Straße", "日本語と中文",
    "안녕하세요, 세계! 가나다 12개", "🙂 👍🏽 👩\u200d👩\u200d👧 e\u0301",
    "I'LL we've HE'S don't", "\n\n \n x\t\t y ", "   ",
    "def f(x):\n\treturn x + 1  # why\n\n\nprint(f(2))\n", "http://a.b/c?d=e&f=%20",
    "<|im_start|>user\nhi<|im_end|>\n", "<s>[INST] hi [/INST] ho</s><s>",
)  # fmt: skip


def read(file: Path, ids: list[int], adapter: Path | None = None) -> np.ndarray[Any, Any]:
    reads = LlamaCpp(file, adapter)
    try:
        return reads.log_probabilities(ids)
    finally:
        reads.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A folder with Llama 3's rotary positions, its model and its tokenizer."""
    folder, tokenizer = tmp_path_factory.mktemp("tiny"), byte_tokenizer()
    return folder, tiny_model(folder, tokenizer, rope_parameters=LLAMA3_ROPE), tokenizer


def no_permutation(patch: pytest.MonkeyPatch) -> None:
    """Rows of q and k in transformers' order."""
    patch.setattr(pronk.model.gguf, "rotary_pairs", lambda rows, _: rows)


def no_factors(patch: pytest.MonkeyPatch) -> None:
    """Rotary positions that are not stretched."""
    real = pronk.ship.gguf.writer._planned
    patch.setattr(
        pronk.ship.gguf.writer, "_planned", lambda *given: [one for one in real(*given) if "rope" not in one.name]
    )


def test_llama_cpp_says_what_transformers_says(tiny: tuple[Path, Any, Any], tmp_path: Path) -> None:
    folder, model, tokenizer = tiny
    ids = tokenizer(TEXT).input_ids
    wanted = log_probabilities(model, ids)
    for quantization, limit in (("f32", SAME), ("f16", ROUNDED)):
        write_model(folder, tmp_path / "x.gguf", quantization, tokenizer, LABELS)
        reads = LlamaCpp(tmp_path / "x.gguf")
        found = reads.log_probabilities(ids)
        assert found.dtype == np.float32
        assert found.shape == wanted.shape
        assert divergence(wanted, found) < limit
        assert reads.text_ids(TEXT) == ids
        chat = [{"role": "user", "content": "the cat 12 안녕"}]
        own = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert reads.chat_ids(chat) == own
        reads.close()


@pytest.mark.parametrize("fault", [no_permutation, no_factors])
def test_a_fault_is_seen(
    tiny: tuple[Path, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:  # fmt: skip
    folder, model, tokenizer = tiny
    fault(monkeypatch)
    write_model(folder, tmp_path / "x.gguf", "f32", tokenizer, LABELS)
    ids = tokenizer(TEXT).input_ids
    assert divergence(log_probabilities(model, ids), read(tmp_path / "x.gguf", ids)) > CHANGED


def test_linear_positions_and_a_bos_that_comes_once(tmp_path: Path) -> None:
    """unsloth#10312: template and tokenizer both write a BOS."""
    tokenizer = byte_tokenizer(bos=True)
    linear = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
    model = tiny_model(tmp_path, tokenizer, kind="mistral", rope_parameters=linear, tie_word_embeddings=True)
    write_model(tmp_path, tmp_path / "x.gguf", "f32", tokenizer, LABELS)
    reads = LlamaCpp(tmp_path / "x.gguf")
    ids = reads.chat_ids([{"role": "user", "content": "the cat"}])
    plain = reads.text_ids("the cat", begin=True)
    found = reads.log_probabilities(ids)
    reads.close()
    assert ids[:3] == [1, 1, tokenizer("user", add_special_tokens=False).input_ids[0]]  # BOS, then <|im_start|>, both 1
    assert plain == tokenizer("the cat").input_ids
    assert divergence(log_probabilities(model, ids), found) < SAME


def save_adapter(folder: Path, model: Any, rslora: bool) -> Any:
    """A LoRA of PEFT's with B that is not zero; returns PEFT's model."""
    import torch
    from peft import LoraConfig, get_peft_model

    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=8, lora_alpha=24, target_modules=names, use_rslora=rslora, task_type="CAUSAL_LM")
    tuned = get_peft_model(model, config)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(2)
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    tuned.save_pretrained(folder)
    return tuned


@pytest.fixture(scope="module")
def base(tiny: tuple[Path, Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, _, tokenizer = tiny
    file = tmp_path_factory.mktemp("base") / "base.gguf"
    write_model(folder, file, "f32", tokenizer, LABELS)
    return file


@pytest.mark.parametrize(("rslora", "quantization", "limit"), [(False, "f16", ROUNDED), (True, "q8_0", 2e-3)])
def test_llama_cpp_says_what_peft_says(
    tiny: tuple[Path, Any, Any], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rslora: bool,
    quantization: str, limit: float,
) -> None:  # fmt: skip
    """And not where alpha was forgotten."""
    from transformers import LlamaForCausalLM

    from pronk.model.adapter import AdapterShape
    from pronk.model.saved import read_adapter

    folder, model, tokenizer = tiny
    ids = tokenizer(TEXT).input_ids
    tuned = log_probabilities(save_adapter(tmp_path / "adapter", LlamaForCausalLM.from_pretrained(folder), rslora), ids)
    assert divergence(tuned, log_probabilities(model, ids)) > CHANGED
    adapter, file = read_adapter(tmp_path / "adapter"), tmp_path / "adapter.gguf"
    types = write_adapter(adapter, model.config, file, quantization, LABELS)
    # rows of B are as long as the rank, too short for a block
    assert types == ({"F16": 28} if quantization == "f16" else {"Q8_0": 14, "F16": 14})
    assert divergence(tuned, read(base, ids, file)) < limit
    monkeypatch.setattr(AdapterShape, "scaling", 1.0)
    write_adapter(adapter, model.config, file, quantization, LABELS)
    assert divergence(tuned, read(base, ids, file)) > CHANGED


@pytest.mark.skipif(not STORIES.is_file(), reason=f"{STORIES} is not there (PRONK_TEST_DATA)")
def test_a_trained_model_with_sentencepiece_pieces(tmp_path: Path) -> None:
    model, tokenizer = stories(tmp_path)
    write_model(tmp_path, tmp_path / "x.gguf", "f16", tokenizer, LABELS)
    reads = LlamaCpp(tmp_path / "x.gguf")
    story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    ids = tokenizer(story).input_ids
    assert reads.text_ids(story, begin=True) == ids
    for text in TEXTS:
        assert reads.text_ids(text) == tokenizer(text, add_special_tokens=False).input_ids, text
    wanted, found = log_probabilities(model, ids), reads.log_probabilities(ids)
    reads.close()
    loss = -wanted[np.arange(len(ids) - 1), ids[1:]].mean()
    assert loss < 1.5  # it tells stories: the weights were read as they were trained
    assert divergence(wanted, found) < 1e-5


def test_a_quantizer_of_llama_cpp_s_own(tiny: tuple[Path, Any, Any], base: Path, tmp_path: Path) -> None:
    _, model, tokenizer = tiny
    types = quantizer.quantize(base, tmp_path / "small.gguf", "q4_k_m")
    assert sum(types.values()) == len(model.state_dict()) + 1  # and the factors of rotary positions
    ids = tokenizer(TEXT).input_ids
    assert 1e-4 < divergence(log_probabilities(model, ids), read(tmp_path / "small.gguf", ids)) < 1.0


def same_ids(name: str, tokenizer: Any, folder: Path) -> list[str]:
    """The texts that llama.cpp makes other ids of than a tokenizer; written with a model that is next to nothing."""
    tiny_model(folder, tokenizer, hidden_size=32, intermediate_size=32, num_hidden_layers=1, head_dim=8,
               tie_word_embeddings=True)  # fmt: skip
    write_model(folder, folder / "x.gguf", "f16", tokenizer, Labels(name))
    reads = LlamaCpp(folder / "x.gguf")
    wrong = [text for text in TEXTS if reads.text_ids(text) != tokenizer(text, add_special_tokens=False).input_ids]
    assert reads.text_ids("a", begin=True) == tokenizer("a").input_ids
    reads.close()
    return wrong


def test_ids_of_smollm2(smollm2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a splitting that is not its own is seen."""
    from pronk.model.load import load_tokenizer

    assert same_ids("smollm2", load_tokenizer(smollm2), tmp_path) == []
    monkeypatch.setattr(pronk.ship.gguf.tokenizer, "_splitting", lambda *_: "llama-bpe")
    assert same_ids("smollm2", load_tokenizer(smollm2), tmp_path) != []


@pytest.mark.slow  # vocabularies of 32,000 and 128,000 pieces
@pytest.mark.parametrize("name", ["llama2", "llama3"])
def test_ids_of_llama_2_and_3(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "laws"))
    import real_tokenizers

    assert same_ids(name, real_tokenizers.renewed(name).tokenizer, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["alpaca", "llama2", "chat"])
def test_spaces_that_llama_2_puts_before_text(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers reads the tokenizer, they come before a whole text alone; what counts is how the run is asked."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "laws"))
    import real_tokenizers
    from transformers import AutoTokenizer

    from pronk.data.conversation import Message
    from pronk.tokens.prompt import Prompt

    real_tokenizers.renewed("llama2").tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    prompt = Prompt(kind, tokenizer)
    tiny_model(tmp_path, tokenizer, hidden_size=32, intermediate_size=32, num_hidden_layers=1, head_dim=8)
    asked = prompt.question_ids([[Message("user", "a")]])[0]
    write_model(tmp_path, tmp_path / "x.gguf", "q8_0", tokenizer, LABELS, prompt.end_id, asked)
    reads = LlamaCpp(tmp_path / "x.gguf")
    for text in ("How are you? 안녕", "12 + 3 🙂\n\n  two spaces"):
        wanted = prompt.question_ids([[Message("user", text)]])[0]
        assert reads.chat_ids([{"role": "user", "content": text}]) == wanted
    reads.close()


def test_what_llama_cpp_cannot_read_is_one_message(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "junk.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(RefusedError, match=r"junk\.gguf: llama\.cpp cannot read it: .*Failed to load"):
        LlamaCpp(tmp_path / "junk.gguf")
    assert capfd.readouterr() == ("", "")  # C code has logged nothing here


def test_a_process_that_is_ended_is_one_message(base: Path) -> None:
    reads = LlamaCpp(base)
    reads._process._process.kill()
    with pytest.raises(RefusedError, match=r"base\.gguf: .* was ended by SIGKILL"):
        reads.log_probabilities([1, 2])
    reads.close()


def test_ctrl_c_ends_a_quantizer_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> None:
        raise KeyboardInterrupt

    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        started.append(real(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(KeyboardInterrupt):
        quantizer.quantize(tmp_path / "x.gguf", tmp_path / "y.gguf", "q6_k", asked)
    assert [process.poll() is not None for process in started] == [True]
    assert list(tmp_path.iterdir()) == []


def test_without_a_quantizer_it_is_said_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizer, "installed", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(OptionError, match=r"--quant q4_k_m: needs llama\.cpp's quantizer.*pip install"):
        quantizer.check_quantizer(["q4_k_m"])
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}")
    assert quantizer.quantizer() == ["/opt/llama-quantize"]
