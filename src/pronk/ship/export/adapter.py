"""The form `adapter`: the run's adapter in PEFT's form, with its tokenizer, template and the base's licence."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from pronk.ask.models import Model
from pronk.errors import OptionError
from pronk.model.saved import CONFIG, WEIGHTS
from pronk.recipe import Recipe
from pronk.runs import write_text
from pronk.ship.export.exporting import Artifact, Job, Options
from pronk.ship.export.licences import copy_licences
from pronk.ship.gate.reading import read_adapter_by_peft
from pronk.ship.gate.tolerance import Class


def check(model: Model, _: Options) -> None:
    """Raise OptionError for a run that has no adapter."""
    if model.adapter is None:
        raise OptionError("--to adapter: this run trained all weights (full: true), so it has no adapter; use merged")


def make(job: Job, folder: Path) -> list[Artifact]:
    """Write the adapter into a folder."""
    saved, reader = job.reader.model.adapter, job.reader
    assert saved is not None  # by `check`
    base, recipe = reader.base, reader.model.recipe
    shutil.copyfile(saved.folder / WEIGHTS, folder / WEIGHTS)
    config: dict[str, Any] = json.loads((saved.folder / CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base.location
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    reader.prompt.tokenizer.save_pretrained(folder)
    copy_licences(reader, folder)
    if base.local:
        job.say(
            f"the adapter names its base by the folder {base.location}; elsewhere say where it lies, or ship merged"
        )
    quantized, tolerance = _kept(recipe)
    facts = {"base": base.name, "read over": f"the base in {recipe.quantize}" if quantized else "the base as published"}
    read = partial(read_adapter_by_peft, folder, base, recipe, quantized)
    explain = partial(changed_tensors, saved.folder / WEIGHTS, folder / WEIGHTS)
    return [Artifact("adapter", "adapter", folder, read, tolerance, facts, explain)]


def changed_tensors(ours: Path, theirs: Path) -> list[str]:
    """Which tensors of an exported adapter are not those of the run, by name; three at most."""
    from safetensors.torch import load_file

    wanted, found = load_file(ours), load_file(theirs)
    changed = [name for name in wanted if name not in found or not found[name].equal(wanted[name])]
    return [f"{name} is not the run's" for name in changed[:3]]


def _kept(recipe: Recipe) -> tuple[bool, Class]:
    """Whether PEFT reads the adapter over the base as it was quantized in training, and what that may differ.

    bitsandbytes multiplies NF4 in bf16 on CPUs. Its int8 layers also round activations, and FP8 layers are pronk's
    alone, so that PEFT gets the base as it was published.
    """
    kinds: dict[str, Class] = {"none": "exact", "nf4": "rounded", "int8": "quantized", "fp8": "rebased"}
    return recipe.quantize in ("nf4", "int8"), kinds[recipe.quantize]
