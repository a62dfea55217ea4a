"""An adapter merged into its base, tensor by tensor, from file to file: no model is ever whole in memory.

W + alpha / rank · B A (Hu et al. 2021, arXiv:2106.09685), in fp32, rounded once.
Names carry shapes: O output features, I input features.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pronk.errors import BaseModelError, ResourceError
from pronk.model.hub import INDEX, WHOLE, shards
from pronk.model.quantize import quantize_weight
from pronk.model.saved import PREFIX, SavedAdapter

SHARD = 4 * 10**9  # bytes of a file at most, which is also what is in memory


@dataclass(frozen=True)
class Quantization:
    """How the linear layers of a base were kept in training. dtype: the type that they were read in before."""

    kind: Literal["nf4", "int8", "fp8"]
    double: bool
    dtype: torch.dtype
    device: torch.device

    def there_and_back(self, weight_OI: Tensor) -> Tensor:
        """The weights that training saw."""
        kept = quantize_weight(weight_OI.to(self.device, self.dtype), self.kind, self.double)
        return kept.dequantize().cpu()


class Merger:
    """The tensors of a run's model in their final precision, by the names in the base's files.

    source: the base's folder. layers: of its linear layers, the names. adapter: None for a model trained whole.
    quantization: None for the base as it was published. Raises BaseModelError where an adapted layer is in no file.
    """

    def __init__(
        self, source: Path, layers: Iterable[str], adapter: SavedAdapter | None,
        quantization: Quantization | None = None, dtype: torch.dtype = torch.bfloat16,
    ) -> None:  # fmt: skip
        self._layers = {f"{name}.weight" for name in layers}
        self._adapter, self._quantization, self._dtype = adapter, quantization, dtype
        self._updates = {} if adapter is None else adapter.weights()
        self._files = tensor_files(source)
        self.adapted = {} if adapter is None else {f"{name}.weight": name for name in adapter.sizes}
        if missing := sorted(self.adapted.keys() - self._files.keys()):
            raise BaseModelError(
                f"base: the files in {source} have no tensor {missing[0]}, which the adapter changes: weights "
                "have other names there than in transformers; load and save the base with it once, and train on that"
            )

    @property
    def names(self) -> list[str]:
        """The names of all tensors, file by file."""
        return list(self._files)

    def bytes(self) -> int:
        """How much all tensors take."""
        size = torch.empty((), dtype=self._dtype).element_size()
        return sum(size * _count(file, name) for name, file in self._files.items())

    def tensor(self, name: str) -> Tensor:
        """A tensor of the merged model, rounded once."""
        return self.exact(name).to(self._dtype)

    def exact(self, name: str) -> Tensor:
        """The same before it is rounded: fp32, or fp64 where the base is."""
        with safe_open(self._files[name], framework="pt") as tensors:
            found: Tensor = tensors.get_tensor(name)
        if not found.is_floating_point():
            return found
        if self._quantization is not None and name in self._layers:
            found = self._quantization.there_and_back(found)
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        return found if name not in self.adapted else found + self._update(self.adapted[name]).to(found.dtype)

    def _update(self, layer: str) -> Tensor:
        """What an adapter adds to a layer (O × I)."""
        assert self._adapter is not None
        a_RI, b_OR = (self._updates[f"{PREFIX}{layer}.lora_{side}.weight"].float() for side in "AB")
        return self._adapter.shape.scaling * (b_OR @ a_RI)


def tensor_files(folder: Path) -> dict[str, Path]:
    """The file that each tensor of a saved model lies in, by name."""
    files = [folder / WHOLE] if (folder / WHOLE).is_file() else [folder / name for name in shards(folder / INDEX)]
    found: dict[str, Path] = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            found |= dict.fromkeys(tensors.keys(), file)
    return found


def write_merged(
    merger: Merger, folder: Path, advance: Callable[[int], None] = lambda _: None, shard: int = SHARD
) -> None:
    """Write the weights into a folder as transformers does, in files of `shard` bytes at most.

    advance: told the tensors written. Raises ResourceError where the disk has no room, before anything is written.
    """
    needed, free = merger.bytes() / 1e9, shutil.disk_usage(folder).free / 1e9  # GB
    if needed > free:
        raise ResourceError(
            f"{folder.parent.parent}: the merged model takes {needed:,.2f} GB, and this disk has {free:,.2f} GB "
            "free; free some, or write elsewhere: --out DIR"
        )
    part: dict[str, Tensor] = {}
    written: list[list[str]] = []

    def flush() -> None:
        save_file(part, folder / f"part-{len(written)}", metadata={"format": "pt"})
        written.append(list(part))
        part.clear()

    for name in merger.names:
        tensor = merger.tensor(name).contiguous()
        if part and tensor.nbytes + sum(one.nbytes for one in part.values()) > shard:
            flush()
        part[name] = tensor
        advance(1)
    flush()
    _name_shards(folder, written, merger.bytes())


def _name_shards(folder: Path, written: list[list[str]], total: int) -> None:
    """Give the parts the names by which transformers finds them."""
    if len(written) == 1:
        (folder / "part-0").rename(folder / WHOLE)
        return
    places: dict[str, str] = {}
    for number, names in enumerate(written):
        file = f"model-{number + 1:05d}-of-{len(written):05d}.safetensors"
        (folder / f"part-{number}").rename(folder / file)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def largest_differences(merger: Merger, folder: Path, shown: int = 3) -> list[str]:
    """Which tensors of a merged model are not what merging gives, the furthest first."""
    files, found = tensor_files(folder), []
    for name in merger.names:
        if name not in files:
            return [f"{name} is missing"]
        with safe_open(files[name], framework="pt") as tensors:
            has: Tensor = tensors.get_tensor(name)
        wanted = merger.tensor(name)
        if has.shape != wanted.shape or not torch.equal(has, wanted):
            size = float((has.float() - wanted.float()).abs().max()) if has.shape == wanted.shape else float("inf")
            found.append((size, name))
    return [f"{name} is off by up to {size:.2g}" for size, name in sorted(found, reverse=True)[:shown]]


def _count(file: Path, name: str) -> int:
    with safe_open(file, framework="pt") as tensors:
        return int(torch.Size(tensors.get_slice(name).get_shape()).numel())
