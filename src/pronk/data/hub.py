"""Data sets on the Hugging Face hub, read with `datasets`; what it raises, in one message each.

No code of a data set's author is ever run: a set that needs a script is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pronk.data.files import PARQUET_ROWS, arrow_rows, class_names
from pronk.data.rows import Table
from pronk.data.words import quoted
from pronk.errors import DataError, PronkError
from pronk.recipe import Source

HUB_SECONDS = 5.0  # to answer the first question; the hub's library would try for half a minute
CONVERTED = "refs/convert/parquet"  # the hub's own conversion of a set: NAME/SPLIT/0000.parquet
UNREACHABLE = {"ConnectError", "ConnectTimeout", "ProxyError", "OfflineModeIsEnabled", "LocalEntryNotFoundError"}
FROM_HERE = "download it elsewhere and name the files, such as `source: rows.parquet`"


def open_hub_set(source: Source) -> Table:
    """One split of a set, downloaded into the hub library's cache, or taken from there.

    Raises DataError: not found, no access, no network, a script, or which configurations or splits there are.
    """
    with _one_message(source):
        options = _options(source)
        from datasets import load_dataset

        dataset = load_dataset(source.id, split=source.split, revision=source.revision, **options)
        if not hasattr(dataset, "with_format"):
            raise DataError(f"data.source: {source.id}: split {source.split!r} is not one split; name one")
        table = dataset.with_format("arrow")  # plain values: pictures and sounds are not decoded
        names = class_names(dataset.features.arrow_schema)
    name = f"{source.id} {source.split}"
    return Table(name, arrow_rows(table.iter(PARQUET_ROWS), name), tuple(dataset.column_names), name, names)


def _options(source: Source) -> dict[str, Any]:
    """What to ask `load_dataset` for beside id, split and revision; the hub is asked first whether it is there."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(str(source.id), revision=source.revision, timeout=HUB_SECONDS)
    except Exception as error:
        if not _is_unreachable(error) or not _maybe_cached(source):
            raise
        files: list[str] = []
    else:
        files = [file.rfilename for file in info.siblings or []]
    if source.revision != CONVERTED:
        _refuse_script(source, files)
        return {"name": source.name} if source.name else {}
    # there a configuration is a folder, of which `datasets` knows nothing: without a name it would join them all
    folders = sorted({file.split("/")[0] for file in files if file.count("/") > 1})
    if source.name is None and len(folders) > 1:
        raise DataError(
            f"data.source: {source.id} has several configurations; write `name:` with one of {_list(folders)}"
        )
    if source.name is not None and folders and source.name not in folders:
        raise DataError(f"data.source: {source.id} has no configuration {source.name!r}; there are {_list(folders)}")
    return {"data_dir": source.name} if source.name else {}


def _refuse_script(source: Source, files: list[str]) -> None:
    script = f"{str(source.id).rsplit('/', 1)[-1]}.py"
    if script in files:
        raise DataError(_needs_script(source))


def _needs_script(source: Source) -> str:
    name = f", name: {source.name}" if source.name else ""
    return (
        f"data.source: {source.id} needs a script of its author's to be read, and pronk runs no such code; "
        f"take the copy that the hub has converted: `source: {{id: {source.id}{name}, revision: {CONVERTED}}}`"
    )


@contextmanager
def _one_message(source: Source) -> Iterator[None]:
    """The libraries' many ways to fail, turned into one message."""
    import datasets

    datasets.disable_progress_bars()
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    except (PronkError, MemoryError):
        raise
    except Exception as error:  # what they raise is not listed anywhere; nothing of ours runs inside
        raise DataError(_why_not(source, error)) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _why_not(source: Source, error: Exception) -> str:
    said, names = str(error), {type(cause).__name__ for cause in _causes(error)}
    start = f"data.source: {source.id}"
    page = f"https://huggingface.co/datasets/{source.id}"
    if "scripts are no longer supported" in said:
        return _needs_script(source)
    if "GatedRepoError" in names or "is a gated dataset" in said:
        return (
            f"{start} needs its terms accepted: do so at {page}, then log in with `hf auth login` (or set HF_TOKEN); "
            f"or {FROM_HERE}"
        )
    if "RevisionNotFoundError" in names:
        return f"{start} has no revision {source.revision!r}; see the branches at {page}"
    if names & {"RepositoryNotFoundError", "DatasetNotFoundError"}:
        return (
            f"{start} is neither a file here nor a data set on the hub that you may read; check the spelling, log in "
            f"with `hf auth login` (or set HF_TOKEN) if it is private, or {FROM_HERE}"
        )
    if _is_unreachable(error):
        return (
            f"{start} is neither a file here nor in this machine's cache, and the hub cannot be reached; go online, "
            f"or {FROM_HERE}"
        )
    return f"{start} cannot be read: {_said(source, said)}"


def _said(source: Source, said: str) -> str:
    """What the library said, with the key to mend where it names one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no reason is given"]
    if lines[0].startswith(("Config name is missing", "BuilderConfig")):
        return f"{' '.join(lines[:2])}; write it as `source: {{id: {source.id}, name: …}}`"
    if lines[0].startswith("Unknown split"):
        return f"{lines[0]} Write it as `source: {{id: {source.id}, split: …}}`"
    return lines[0]


def _list(names: list[str]) -> str:
    return quoted(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _is_unreachable(error: BaseException) -> bool:
    return any(type(cause).__name__ in UNREACHABLE or type(cause) is ConnectionError for cause in _causes(error))


def _maybe_cached(source: Source) -> bool:
    """Whether the cache has some set of this owner; finding out more is the library's business."""
    from datasets import config

    owner = str(source.id).split("/")[0]
    return any(Path(config.HF_DATASETS_CACHE).glob(f"{owner}___*"))


def _causes(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
