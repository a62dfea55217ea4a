"""The form `adapter`: the run's adapter in PEFT's form, with its tokenizer, template and the base's licence."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from pronk.errors import OptionError
from pronk.model.saved import CONFIG, WEIGHTS
from pronk.recipe import Recipe
from pronk.runs import write_text
from pronk.ship.exporting import Artifact, Job
from pronk.ship.licences import copy_licences
from pronk.ship.reading import read_adapter_by_peft
from pronk.ship.tolerance import Class


def make(job: Job, folder: Path) -> list[Artifact]:
    """Write the adapter into a folder. Raises OptionError for a run that has none."""
    saved, reader = job.reader.model.adapter, job.reader
    if saved is None:
        raise OptionError("--to adapter: this run trained all weights (full: true), so it has no adapter; use merged")
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
    return [Artifact("adapter", "adapter", folder, read, tolerance, facts)]


def _kept(recipe: Recipe) -> tuple[bool, Class]:
    """Whether PEFT reads the adapter over the base as it was quantized in training, and what that may differ.

    bitsandbytes multiplies NF4 in bf16 on CPUs. Its int8 layers also round activations, and FP8 layers are pronk's
    alone, so that PEFT gets the base as it was published.
    """
    kinds: dict[str, Class] = {"none": "exact", "nf4": "rounded", "int8": "quantized", "fp8": "quantized"}
    return recipe.quantize in ("nf4", "int8"), kinds[recipe.quantize]
