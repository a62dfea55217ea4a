"""The form `merged`: the run as a model of its own, in bf16, that needs neither adapter nor pronk.

Over a quantized base there are two ways to merge: into the weights that training saw (quantized, and back), or into
those that were published. Which is better differs from run to run, so both are read on validation rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pronk.errors import BaseModelError
from pronk.ship.export.exporting import Artifact, Job, opened
from pronk.ship.export.licences import base_folder, copy_licences
from pronk.ship.export.merging import Merger, Quantization, largest_differences, write_merged
from pronk.ship.gate.parity import Parity
from pronk.ship.gate.reading import read_merged
from pronk.ship.gate.tolerance import Class
from pronk.train.progress import work

SEEN, PUBLISHED, WHOLE = "the dequantized base", "the unquantized base", "no adapter: all weights were trained"


@dataclass(frozen=True)
class Candidate:
    """A way to merge: its name, the tensors, and what it may differ from the run.

    Of the published weights it is asked that the model is not worse: that it is another one is known.
    """

    name: str
    merger: Merger
    tolerance: Class


def make(job: Job, folder: Path) -> list[Artifact]:
    """Write the model into a folder; of two ways the better one, with what the gate has found of it."""
    candidates = _candidates(job)
    if len(candidates) == 1:
        _write(job, candidates[0], folder)
        return [_artifact(job, candidates[0], folder)]
    found = [_measured(job, one, folder.with_name(f"{folder.name}-{number}")) for number, one in enumerate(candidates)]
    kept, why = better(*(parity for _, parity in found))
    folder.rmdir()
    found[kept][0].rename(folder)
    shutil.rmtree(found[1 - kept][0])
    facts = {"why this one": why, "both": {one.name: _figures(parity) for one, (_, parity) in
                                           zip(candidates, found, strict=True)}}  # fmt: skip
    return [_artifact(job, candidates[kept], folder, facts, found[kept][1])]


def better(seen: Parity, published: Parity) -> tuple[int, str]:
    """Which of the two ways to keep, 0 or 1, and why: of those that pass the gate the one with the lower validation
    loss, and where the two are near, the one that is nearer to the run."""
    if bool(seen.reasons) != bool(published.reasons):
        kept = int(bool(seen.reasons))
        return kept, "the other one did not pass the gate"
    low, high = published.loss.interval
    if low > 0 or high < 0:  # against the run, which the dequantized base all but equals
        kept = int(published.loss.after < seen.loss.after)
        return kept, "its validation loss is lower, beyond chance"
    return int(published.kl < seen.kl), "the validation losses do not differ beyond chance, and it is nearer to the run"


def _candidates(job: Job) -> list[Candidate]:
    """All ways to merge this run."""
    from pronk.model.load import linear_layer_sizes, resolve_device, resolve_dtype

    model, base, recipe = job.reader.model, job.reader.base, job.reader.model.recipe
    if (source := base_folder(base)) is None:
        job.gate.prepare()  # downloads it
        source = base_folder(base)
    if source is None:
        raise BaseModelError(f"base: the weights of {base.name} are not on this machine; download them again")
    layers = linear_layer_sizes(base)
    published = Merger(source, layers, model.adapter)
    if recipe.quantize == "none":
        return [Candidate(WHOLE if model.adapter is None else PUBLISHED, published, "rounded")]
    device = resolve_device(recipe.train.device)
    dtype = resolve_dtype(recipe.train.dtype, device)
    kept = Quantization(recipe.quantize, recipe.double_quantization is not False, dtype, device)
    seen = Merger(source, layers, model.adapter, kept)
    # products in FP8 also round what they are multiplied with, which no merged model does
    exactly: Class = "coarse" if recipe.quantize == "fp8" or recipe.train.fp8_products else "rounded"
    return [Candidate(SEEN, seen, exactly), Candidate(PUBLISHED, published, "rebased")]


def _measured(job: Job, candidate: Candidate, folder: Path) -> tuple[Path, Parity]:
    """One of two ways, written and read."""
    folder.mkdir()
    _write(job, candidate, folder)
    job.gate.prepare()
    name = f"the model merged onto {candidate.name}"
    with closing(opened(job, name, partial(read_merged, folder, job.reader.model.recipe))) as reads:
        return folder, job.gate.compare(reads, candidate.name, candidate.tolerance)


def _artifact(
    job: Job, candidate: Candidate, folder: Path, facts: dict[str, Any] | None = None, measured: Parity | None = None
) -> Artifact:
    recipe = job.reader.model.recipe
    explain: Callable[[], list[str]] = partial(largest_differences, candidate.merger, folder)
    said = {"merged onto": candidate.name, "type": "bf16", **(facts or {})}
    return Artifact(
        "merged", "merged", folder, lambda: read_merged(folder, recipe), candidate.tolerance, said, explain, measured
    )  # fmt: skip


def _write(job: Job, candidate: Candidate, folder: Path) -> None:
    """Everything that a folder of transformers has."""
    with work(job.console, f"merging onto {candidate.name}", len(candidate.merger.names)) as bar:

        def advance(tensors: int) -> None:
            job.check()
            bar.advance(tensors, "tensors")

        write_merged(candidate.merger, folder, advance)
    write_configuration(job, folder)
    job.reader.prompt.tokenizer.save_pretrained(folder)
    copy_licences(job.reader, folder)


def write_configuration(job: Job, folder: Path) -> None:
    """config.json in bf16, and a generation_config.json by which every program stops where the run does."""
    import torch
    from transformers import GenerationConfig

    from pronk.model.load import load_config

    prompt, config = job.reader.prompt, load_config(job.reader.base)
    tokenizer = prompt.tokenizer
    ends = sorted({prompt.end_id, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])})
    config.dtype, config.pad_token_id, config.eos_token_id = torch.bfloat16, tokenizer.pad_token_id, ends
    config.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id, do_sample=False
    ).save_pretrained(folder)


def _figures(parity: Parity) -> dict[str, float]:
    """Of a way to merge, what the choice was made by."""
    figures = {"loss": parity.loss.after, "kl": parity.kl, "top1": parity.top1}
    return figures | ({"accuracy": parity.metric.after} if parity.metric else {})
