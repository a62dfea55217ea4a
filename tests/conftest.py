"""What several folders of tests share: a tiny base model that trains within a second."""

from __future__ import annotations

import gc
import json
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

LIBRARIES = 100_000  # objects; those of PyTorch and transformers are several times as many
TOKENS = 4096  # of the tiny bases: reading all 49,152 takes a third of a second, hundreds of times
WHOLE = ("negative", "neutral", "positive", "yes", "no")  # labels that stay one token each


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Test files import all libraries, which leave no garbage; looking for it again and again took six seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C, and every process that is started there."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def libraries_are_no_garbage() -> None:
    """pronk looks for garbage between its phases. Going through what libraries made, in a process that has imported
    every test, took a third of a small study's time."""
    if gc.get_freeze_count() < LIBRARIES:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def nothing_stays_frozen() -> Iterator[None]:
    """At the end libraries are garbage like anything else; some complain about what is never freed."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def smollm2() -> Any:
    """The embedded base model, found and converted (not loaded)."""
    from pronk.errors import BaseModelError
    from pronk.model.load import find_base

    try:
        return find_base("smollm2")
    except BaseModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def small_tokenizer(smollm2: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with SmolLM2's tokenizer, special tokens and template and all, but few of its merges."""
    from pronk.model.load import load_tokenizer

    folder = tmp_path_factory.mktemp("tokenizers") / "small"
    load_tokenizer(smollm2).save_pretrained(folder)
    path = folder / "tokenizer.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    numbers, merges = found["model"]["vocab"], found["model"]["merges"]
    halves = {"".join(pair): pair for pair in merges}

    def parts(token: str) -> set[str]:
        return {token}.union(*(parts(half) for half in halves.get(token, ())))

    kept = {token for token, number in numbers.items() if number < TOKENS}.union(*map(parts, WHOLE))
    found["model"]["vocab"] = {token: number for number, token in enumerate(sorted(kept, key=numbers.get))}
    found["model"]["merges"] = [pair for pair in merges if {"".join(pair), *pair} <= kept]
    path.write_text(json.dumps(found), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def make_tiny_base(small_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function of name and seed: a folder with a random Llama of two layers and the small tokenizer, or another."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    def make(name: str, seed: int, named: str | Path = small_tokenizer) -> Path:
        folder = tmp_path_factory.mktemp("bases") / name
        tokenizer = AutoTokenizer.from_pretrained(named)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_base(make_tiny_base: Callable[..., Path]) -> Path:
    """A folder with the tiny base; not to be changed."""
    return make_tiny_base("tiny", 0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, which on a busy machine mostly waits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
