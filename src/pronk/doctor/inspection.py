"""What stands in a model: every module with class, type, shape, adapter rank and bytes, and what that saves.

A base is read from its configuration alone, so a model of any size takes seconds; a run's ranks are those of
its saved adapter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from pronk.ask.models import refuse_missing
from pronk.errors import StudyError
from pronk.model.saved import read_adapter
from pronk.recipe import Recipe, read_recipe, recipe_of_base

ADAM_BYTES = 4 * 4  # a trained weight in fp32, its gradient and AdamW's two moments
PLAIN_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class Module:
    """A module with weights of its own. parameters: of the base; rank: of the adapter on it, if any; trained: that
    adapter's weights, or with full fine-tuning the module's own.

    quantized: weights in fewer bits. bytes: what the base's part takes. A weight that two modules share counts
    with the first.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    parameters: int
    quantized: int
    bytes: int
    rank: int | None = None
    trained: int = 0


@dataclass(frozen=True)
class Inspection:
    """All modules of a model, and what to call it."""

    title: str
    modules: tuple[Module, ...]

    def totals(self) -> dict[str, int]:
        """Weights and bytes summed, and what the base would take in other types."""
        weights = sum(module.parameters for module in self.modules)
        trained = sum(module.trained for module in self.modules)
        return {
            "parameters": weights,
            "quantized": sum(module.quantized for module in self.modules),
            "quantized_bytes": sum(module.bytes for module in self.modules if module.quantized),
            "bytes": sum(module.bytes for module in self.modules),
            **{f"bytes_in_{name}": size * weights for name, size in PLAIN_BYTES.items()},
            "trained": trained,
            "trained_bytes": 4 * trained,
            "training_bytes": ADAM_BYTES * trained,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, each module by itself."""
        modules = [
            {("class" if key == "kind" else key): value for key, value in asdict(one).items()} for one in self.modules
        ]
        return {"title": self.title, "modules": modules, "totals": self.totals()}


def inspect(target: str, overrides: Sequence[str]) -> Inspection:
    """Inspect a run's folder, a recipe file, or a base by its name in a recipe.

    overrides: `key=value`, as for --set. A base shows an adapter only if one of them speaks of it.
    Raises RecipeError, BaseModelError or StudyError with what to do.
    """
    path = Path(target).expanduser()
    if (path / "study.json").is_file():
        names = sorted(folder.name for folder in (path / "runs").glob("*") if (folder / "recipe.yaml").is_file())
        raise StudyError(
            f"{target}: this is a study; name one of its runs: {', '.join(f'{path}/runs/{n}' for n in names)}"
        )
    if (path / "recipe.yaml").is_file():
        recipe = read_recipe(path / "recipe.yaml", overrides)
        ranks = None if any(key.startswith("adapter.") for key in overrides) else _saved_ranks(path / "adapter")
        return _inspected(recipe, path.name, adapted=True, ranks=ranks)
    if path.suffix in (".yaml", ".yml"):
        return _inspected(read_recipe(path, overrides), path.name, adapted=True)
    refuse_missing(target, "a run, a recipe or a base model")
    recipe = recipe_of_base(target, overrides)
    return _inspected(recipe, recipe.base, adapted=any(key.startswith("adapter") for key in overrides))


def table(inspection: Inspection) -> str:
    """The modules in 80 columns, layers that are alike folded into one; then the totals."""
    rows = [["module", "class", "dtype", "shape", "rank", "bytes"]]
    for heading, members in groupby(_folded(inspection.modules), key=lambda entry: entry[0]):
        rows += [[heading, "", "", "", "", ""]] if heading else []
        rows += [_row("  " * bool(heading) + name, module) for _, name, module in members]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        texts = [cell.ljust(width) if column < 3 else cell.rjust(width) for column, (cell, width) in enumerate(cells)]
        lines.append("  ".join(texts).rstrip())
    return "\n".join([inspection.title, "", *lines, "", *_summary(inspection.totals())])


def _row(name: str, module: Module) -> list[str]:
    shape, rank = "×".join(map(str, module.shape)), "" if module.rank is None else str(module.rank)
    return [name, module.kind, module.dtype, shape, rank, _size(module.bytes) if module.parameters else "shared"]


def _inspected(recipe: Recipe, title: str, adapted: bool, ranks: Mapping[str, int] | None = None) -> Inspection:
    from pronk.model.adapter import chosen_layers, linear_layers
    from pronk.model.load import find_base, outline, resolve_device, resolve_dtype
    from pronk.train.session import adapter_shape

    dtype = resolve_dtype(recipe.train.dtype, resolve_device(recipe.train.device))
    model = outline(find_base(recipe.base), dtype)
    linears = linear_layers(model)
    shape = adapter_shape(recipe)  # None where the base itself is trained
    if shape and adapted and ranks is None:
        ranks = dict.fromkeys(chosen_layers(list(linears), shape.targets), shape.rank)
    modules = [_quantized(one, recipe) if one.name in linears else one for one in _modules(model)]
    detail = [*([] if recipe.quantize == "none" else [str(recipe.quantize)]), _short_dtype(dtype)]
    name = title if title == recipe.base else f"{title} on {recipe.base}"
    heading = f"{name}: {type(model).__name__}, {', '.join(detail)}"
    if shape is None:
        return Inspection(heading, tuple(replace(one, trained=one.parameters) for one in modules))
    return Inspection(heading, tuple(_with_adapter(one, (ranks or {}).get(one.name)) for one in modules))


def _modules(model: Any) -> Iterator[Module]:
    """The modules that hold parameters themselves, as the base's author left them."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if not own:
            continue
        new = [parameter for parameter in own if id(parameter) not in seen]
        seen.update(map(id, own))
        largest = max(own, key=lambda parameter: parameter.numel())
        yield Module(
            name, type(module).__name__, _short_dtype(largest.dtype), tuple(largest.shape),
            sum(parameter.numel() for parameter in new), 0, sum(parameter.nbytes for parameter in new),
        )  # fmt: skip


def _quantized(module: Module, recipe: Recipe) -> Module:
    """A linear layer as it stands in memory once it is loaded."""
    from pronk.model.quantize import QuantizedLinear, quantized_bytes

    if recipe.quantize == "none":
        return module
    outputs, inputs = module.shape
    weights = outputs * inputs
    bias = (module.parameters - weights) * (module.bytes // module.parameters)
    double, fp8_products = recipe.double_quantization is not False, recipe.train.fp8_products
    size = quantized_bytes((outputs, inputs), recipe.quantize, double, fp8_products)
    return replace(module, kind=QuantizedLinear.__name__, dtype=recipe.quantize, quantized=weights, bytes=size + bias)


def _with_adapter(module: Module, rank: int | None) -> Module:
    return module if rank is None else replace(module, rank=rank, trained=rank * sum(module.shape))


def _saved_ranks(folder: Path) -> dict[str, int] | None:
    """Each adapted layer's rank, from a saved adapter; None where none was saved."""
    if not folder.is_dir():
        return None
    saved = read_adapter(folder)
    return dict.fromkeys(saved.sizes, saved.shape.rank)


def _folded(modules: Sequence[Module]) -> Iterator[tuple[str, str, Module]]:
    """(heading, name below it, module) with layers that are alike, module by module, summed under one heading.

    Modules outside numbered layers have an empty heading.
    """
    layers = [
        (stack, index, tuple(replace(module, name=_place(module.name)[2]) for module in members))
        for (stack, index), members in groupby(modules, key=lambda module: _place(module.name)[:2])
    ]
    for (stack, members), alike in groupby(layers, key=lambda layer: (layer[0], layer[2])):
        numbers = [index for _, index, _ in alike]
        span = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}"
        for module in members:
            yield f"{stack} {span}" if stack else "", module.name, replace(module, bytes=len(numbers) * module.bytes)


def _place(name: str) -> tuple[str, int, str]:
    """Stack of layers, number in it, and name in the layer; outside of layers the stack is empty."""
    name = name.removeprefix("model.")
    found = re.fullmatch(r"(.*?)\.(\d+)\.(.+)", name)
    return (found[1], int(found[2]), found[3]) if found else ("", 0, name)


def _summary(totals: Mapping[str, int]) -> list[str]:
    weights, held = totals["parameters"], totals["bytes"]
    lines = [f"base       {weights:,} weights, {_size(held)}"]
    if quantized := totals["quantized"]:
        bits = 8 * totals["quantized_bytes"] / quantized
        lines.append(f"quantized  {quantized:,} weights ({quantized / weights:.0%}), {bits:.2f} bits each")
    saved = {name: totals[f"bytes_in_{name}"] - held for name in PLAIN_BYTES}
    if any(size > 0 for size in saved.values()):
        lines.append(
            f"saved      {', '.join(f'{_size(size)} against {name}' for name, size in saved.items() if size > 0)}"
        )
    if trained := totals["trained"]:
        sizes = f"{_size(totals['trained_bytes'])}; {_size(totals['training_bytes'])} with gradients and AdamW"
        lines.append(f"trained    {trained:,} weights ({trained / weights:.2%}), {sizes}")
    return lines


def _size(count: int) -> str:
    """Bytes for a person: 1,536 is 1.5 KiB."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _short_dtype(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(name, name)
