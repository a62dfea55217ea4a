"""What several folders of tests share: a tiny base model that trains within a second."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

LIBRARIES = 100_000  # objects; those of PyTorch and transformers are several times as many


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
def make_tiny_base(smollm2: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """A function of name and seed: a folder with a random Llama of two layers and SmolLM2's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from pronk.model.load import load_tokenizer

    def make(name: str, seed: int) -> Path:
        folder = tmp_path_factory.mktemp("bases") / name
        tokenizer = load_tokenizer(smollm2)
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
def tiny_base(make_tiny_base: Callable[[str, int], Path]) -> Path:
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
