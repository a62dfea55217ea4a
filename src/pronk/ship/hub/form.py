"""The form `hub`: a folder as the hub shows it (weights, tokenizer, model card, export.json), ready to be uploaded.

Nothing of this machine goes with it: no paths, no names of users, no tokens. Uploading is another step
(upload.py), and takes only what has passed the gate and was not changed since.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pronk import __version__
from pronk.doctor.health.secrets import HIDDEN, hide, secrets
from pronk.errors import RefusedError
from pronk.runs import write_text
from pronk.ship.export.exporting import FORMS, Artifact, Job, opened
from pronk.ship.export.record import FILE, Record
from pronk.ship.gate.parity import Parity
from pronk.ship.hub.card import card
from pronk.ship.hub.facts import Facts, Kind, gather, terms_of, without_own_home
from pronk.ship.hub.terms import check_name

CARD = "README.md"
NOBODY = "YOUR-NAME"  # owner of the repository, until one is named
PATH_KEYS = ("_name_or_path", "name_or_path", "base_model_name_or_path")  # where libraries note a local folder
EDITABLE = (CARD, FILE)  # what a person may change between gate and upload, or what is written by us
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
LARGEST_TEXT = 64 * 2**20  # bytes; a larger file is no configuration


def make(job: Job, folder: Path) -> list[Artifact]:
    """Fill the folder, and compare these very files with the run.

    Options: `hub_merged` for the whole model in place of the adapter, `push`, the repository that the card speaks of,
    `lang`, the card's language.
    """
    given = job.options.more.get("push")
    if given:
        check_name(str(given), terms_of(job.reader))
    merged = bool(job.options.more.get("hub_merged")) or job.reader.model.adapter is None
    kind: Kind = "merged" if merged else "adapter"
    artifact = _weights(job, kind, folder)
    parity = _compared(job, artifact)
    repository = str(given or f"{NOBODY}/{_name(job.reader.model.name)}")
    made = [f"{key} {artifact.facts[key]}" for key in ("merged onto", "read over") if key in artifact.facts]
    facts = gather(job.reader, kind, repository, None if parity is None else asdict(parity), "".join(made))
    _forget_paths(folder, facts)
    write_text(folder / CARD, hide_secrets(card(facts, str(job.options.more.get("lang") or "en"))))
    told: dict[str, Any] = {"kind": kind, "repository": repository, "base": facts.base_id or facts.base}
    told |= {"licence": facts.terms.id, "files": checksums(folder)}
    artifact = replace(artifact, form="hub", name="hub", path=folder, facts=told, measured=parity)
    _write_record(folder, artifact, parity, facts)
    refuse_private(folder)
    return [artifact]


def _weights(job: Job, kind: Kind, folder: Path) -> Artifact:
    """The files of another form, made anew in this folder, so that the gate reads what is uploaded."""
    artifacts: list[Artifact] = importlib.import_module(FORMS[kind]).make(job, folder)
    return artifacts[0]


def _compared(job: Job, artifact: Artifact) -> Parity | None:
    if artifact.measured is not None or artifact.open is None:
        return artifact.measured
    job.gate.prepare()  # the run itself, before a second model takes memory
    with closing(opened(job, "hub", artifact.open)) as reads:
        return job.gate.compare(reads, "hub", artifact.tolerance)


def _name(run: str) -> str:
    """A run's name as the hub allows it: letters, digits, single dashes, dots and underscores."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in run)
    while "--" in kept or ".." in kept:
        kept = kept.replace("--", "-").replace("..", ".")
    return kept.strip("-._")[:90] or "model"


def _forget_paths(folder: Path, facts: Facts) -> None:
    """What libraries have noted of local folders becomes the base's name on the hub, or nothing."""
    for file in sorted(folder.glob("*.json")):
        if file.name.endswith(".index.json") or file.name == "tokenizer.json":
            continue
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            continue
        noted = [key for key in PATH_KEYS if key in values]
        for key in noted:
            values[key] = facts.base_id or None  # the name of a folder might be that of another model on the hub
        if noted:
            write_text(file, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _write_record(folder: Path, artifact: Artifact, parity: Parity | None, facts: Facts) -> None:
    """export.json for others: of this artifact alone, and without where the run lies."""
    fresh = {"run": facts.run, "base": facts.base_id or facts.base, "prompt": facts.prompt}
    record = Record(folder, {"pronk": __version__, **fresh, "artifacts": []})
    record.add(artifact, parity)
    record.write()


def hide_secrets(text: str) -> str:
    """The text without tokens, line by line, as what hides them takes line breaks for control characters."""
    known = secrets()
    return "\n".join(hide(line, known) for line in text.split("\n"))


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that must stay as it is, by its name."""
    return {
        file.relative_to(folder).as_posix(): _sha256(file)
        for file in files_of(folder)
        if file.relative_to(folder).as_posix() not in EDITABLE
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def files_of(folder: Path) -> list[Path]:
    """All files in a folder by name, hidden ones left out, as they are not uploaded."""
    found = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return sorted(file for file in found if not any(p.startswith(".") for p in file.relative_to(folder).parts))


def refuse_private(folder: Path) -> None:
    """Raise RefusedError for a text file that would give away a token or a folder of this machine's user."""
    known = secrets()
    for file, line, number in _lines(folder):
        why = "a token" if hide(line, known).count(HIDDEN) > line.count(HIDDEN) else ""
        if not why and without_own_home(line) != line:
            why = "a home folder"
        if why:
            raise RefusedError(
                f"{file.relative_to(folder.parent)}:{number}: this line holds {why}, which would be published, so "
                "nothing goes to the hub; take it out where it comes from (base, run or card), and export again"
            )


def _lines(folder: Path) -> Iterator[tuple[Path, str, int]]:
    """Lines of all text files; vocabularies and weights are none."""
    for file in files_of(folder):
        small = file.stat().st_size <= LARGEST_TEXT
        if not small or file.suffix in (".safetensors", ".model") or file.name in VOCABULARIES:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
            yield file, line, number
