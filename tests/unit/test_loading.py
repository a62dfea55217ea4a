"""A base model is loaded whole or refused with one message."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pronk.model.load as subject
from pronk.errors import BaseModelError, ResourceError
from pronk.model.hub import INDEX

CPU = torch.device("cpu")


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy of the tiny base, to be spoilt."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def load(folder: Path) -> Any:
    return subject.load_model(subject.find_base(str(folder)), torch.float32, CPU)


def change_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


# --- weights -------------------------------------------------------------------------------------


def test_a_tied_output_head_is_not_missing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in state
    assert torch.equal(load(folder).lm_head.weight, state["model.embed_tokens.weight"])
    assert "".join(capfd.readouterr()) == ""


def test_superfluous_weights_are_ignored(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change_config(folder, num_hidden_layers=1)
    assert len(load(folder).model.layers) == 1
    assert "".join(capfd.readouterr()) == ""


def test_missing_weights_are_counted_and_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change_config(folder, num_hidden_layers=3)
    with pytest.raises(BaseModelError, match=r"lacks 9 of the weights .*: model\.layers\.2\..* and 6 more;"):
        load(folder)
    assert "".join(capfd.readouterr()) == ""


def test_an_untied_head_without_weights_is_missing(folder: Path) -> None:
    change_config(folder, tie_word_embeddings=False)
    with pytest.raises(BaseModelError, match=r"lacks 1 of the weights .*: lm_head\.weight;"):
        load(folder)


def test_weights_of_another_shape_are_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change_config(folder, intermediate_size=64)
    with pytest.raises(BaseModelError, match=r"6 weights of another shape .* is \(64, 128\), not \(64, 64\).*3 more"):
        load(folder)
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_weights_that_are_not_whole(folder: Path, content: bytes | None) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(BaseModelError, match=r"model\.safetensors cannot be read \(.*download or copy it again"):
        load(folder)


def test_a_missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"lm_head.weight": "model-2.safetensors"}}))
    with pytest.raises(BaseModelError, match=r"model-2\.safetensors is missing; download"):
        load(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_an_index_that_is_none(folder: Path, content: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(content)
    with pytest.raises(BaseModelError, match=r"index\.json cannot be read"):
        load(folder)


def test_the_folder_of_a_run_that_trained_all_weights(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "model")
    with pytest.raises(BaseModelError, match=r"has no config\.json.*; write `base: .*model`"):
        subject.find_base(str(tmp_path))


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"has no weights \(model\.safetensors or"):
        load(folder)


def test_pickled_weights_are_not_opened(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match=r"pronk reads safetensors only; .*convert it once: python -c"):
        load(folder)


# --- configuration and tokenizer -----------------------------------------------------------------


def test_no_tokenizer(folder: Path) -> None:
    for file in folder.glob("token*"):
        file.unlink()
    with pytest.raises(BaseModelError, match=r"missing or unreadable \(tokenizer\.json or tokenizer\.model\)$"):
        subject.load_tokenizer(subject.find_base(str(folder)))


def test_a_value_of_the_wrong_type(folder: Path) -> None:
    change_config(folder, num_hidden_layers="two")
    with pytest.raises(BaseModelError, match=r"'num_hidden_layers'.* expected int, got str"):
        subject.load_config(subject.find_base(str(folder)))


def test_context_length(folder: Path) -> None:
    base = subject.find_base(str(folder))
    assert subject.context_length(subject.load_config(base)) == 256
    (folder / "config.json").write_text(json.dumps({"model_type": "mamba", "vocab_size": 320}))
    with pytest.raises(BaseModelError, match=r"base: .*base is a mamba model, .*max_position_embeddings"):
        subject.context_length(subject.load_config(base))


def test_linear_layer_sizes(folder: Path) -> None:
    from pronk.model.adapter import linear_layers

    base = subject.find_base(str(folder))
    sizes = subject.linear_layer_sizes(base)
    loaded = linear_layers(load(folder))
    assert sizes == {name: tuple(linear.weight.shape[::-1]) for name, linear in loaded.items()}
    assert len(sizes) == 14
    (folder / "model.safetensors").unlink()
    assert subject.linear_layer_sizes(base) == sizes  # no weights are read
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(BaseModelError, match="not a causal language model"):
        subject.linear_layer_sizes(base)


# --- the cache of conversions --------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRONK_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "some.gguf"
    file.write_bytes(b"GGUF")
    return file


def convert_with(monkeypatch: pytest.MonkeyPatch, convert: Callable[[Path, Path], None]) -> None:
    import pronk.model.gguf

    monkeypatch.setattr(pronk.model.gguf, "convert", convert)


def test_a_conversion_is_told_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert_with(monkeypatch, lambda _, folder: (folder / "config.json").write_text("{}") and None)
    lines: list[str] = []
    bases = [subject.find_base(str(source), lines.append) for _ in range(2)]
    assert bases[0] == bases[1]
    assert lines == [f"converting some.gguf once into the cache {subject.cache_folder()}"]
    assert subject.find_base(str(source)) == bases[0]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), Exception("No space left on device (os error 28)")], ids=["os", "rust"]
)
def test_a_full_cache(source: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def breaks(_: Path, folder: Path) -> None:
        (folder / "half").write_text("half")
        raise error

    convert_with(monkeypatch, breaks)
    with pytest.raises(ResourceError, match=r"cache: no space left .*PRONK_CACHE"):
        subject.find_base(str(source))
    assert list(subject.cache_folder().iterdir()) == []


@pytest.mark.parametrize(("window", "length"), [(4096, 4096), (None, 32768), (65536, 32768)])
def test_a_model_with_a_window_reads_as_far_as_that(window: int | None, length: int) -> None:
    """Beyond its window Mistral-7B-v0.1 looks back no further; attention here would."""
    from transformers import MistralConfig

    from pronk.model.load import context_length

    assert context_length(MistralConfig(sliding_window=window, max_position_embeddings=32768)) == length
