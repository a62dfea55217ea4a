"""On what terms a base may be used, as far as it says so itself; what Llama's licences ask of models made from it."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from pronk.errors import OptionError
from pronk.hub import hub_answers, silenced
from pronk.model.hub import Base
from pronk.model.places import EMBEDDED
from pronk.ship.export.licences import NAMES, base_folder

EMBEDDED_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # what the embedded file was made from, and its licence
EMBEDDED_LICENCE = "apache-2.0"
HUB_SECONDS = 5.0
UNKNOWN = "unknown"
# how licences begin; Llama's say their version
_BEGINNINGS = {
    "apache-2.0": r"APACHE LICENSE,? VERSION 2\.0",
    "mit": r"\bMIT LICENSE|PERMISSION IS HEREBY GRANTED, FREE OF CHARGE",
    "bsd-3-clause": r"BSD 3-CLAUSE",
    "gemma": r"GEMMA TERMS OF USE",
    "llama2": r"LLAMA 2 COMMUNITY LICENSE",
    "llama3": r"META LLAMA 3 COMMUNITY LICENSE",
}
_LLAMA = re.compile(r"LLAMA (3\.\d|4) COMMUNITY LICENSE")
_READ = 2000  # letters of a licence, or of a value in a .gguf file, that are looked at
_GGUF_SIZES = {
    0: 1,
    1: 1,
    2: 2,
    3: 2,
    4: 4,
    5: 4,
    6: 4,
    7: 1,
    8: None,
    10: 8,
    11: 8,
    12: 8,
}  # 8: a text; 9, a list, is none
_FRONT_MATTER = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---\s*(?:\n|\Z)", re.DOTALL)
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")  # of a licence, on the hub
_META = re.compile(r"(?i)^(?:meta-)?llama-?(2|3\.\d|3|4)(?:\b|-)")  # names of Meta's own models


@dataclass(frozen=True)
class Terms:
    """id: of a licence as the hub writes it; `other` for one with a name of its own, `unknown` where nothing says.

    name, link: of `other`. source: where this is said, in words.
    """

    id: str
    name: str = ""
    link: str = ""
    source: str = ""

    @property
    def llama(self) -> str:
        """The version of Llama's licence, such as 3.1; empty for any other."""
        return self.id.removeprefix("llama") if self.id.startswith("llama") else ""

    @property
    def built_with(self) -> str:
        """What the licence asks to be shown prominently, if it does: Llama's since version 3."""
        return {"": "", "2": "", "3": "Built with Meta Llama 3"}.get(self.llama, "Built with Llama")

    @property
    def name_begins(self) -> str:
        """How the name of a model must begin that is built on this one and handed on; empty for however one likes."""
        return {"": "", "2": "", "3": "Llama-3"}.get(self.llama, "Llama")

    @property
    def notice(self) -> str:
        """The notice that must go with every copy; empty where none is asked for."""
        if not self.llama:
            return ""
        name = "Meta Llama 3" if self.llama == "3" else f"Llama {self.llama}"
        licence = f"{'LLAMA 2' if self.llama == '2' else name} Community License"
        return f"{name} is licensed under the {licence}, Copyright © Meta Platforms, Inc. All Rights Reserved."

    def names_well(self, repository: str) -> bool:
        """Whether a repository's name begins as the licence asks, case and dashes aside."""
        plain = re.sub(r"[^a-z0-9]", "", repository.rpartition("/")[2].lower())
        return plain.startswith(re.sub(r"[^a-z0-9]", "", self.name_begins.lower()))


def find_terms(base: Base) -> Terms:
    """The licence of a base: from the card and the licence beside its weights, a .gguf file's own words, its name
    where it is Meta's, the hub. Never raises: what cannot be found out is `unknown`."""
    if base.name == EMBEDDED:
        return Terms(EMBEDDED_LICENCE, source=f"the page of {EMBEDDED_ID}")
    folder = base_folder(base)
    found = _from_folder(folder) if folder else None
    if found is None and base.name.endswith(".gguf"):
        found = _from_gguf(Path(base.name).expanduser())
    if found is None and not base.local:
        found = _from_name(base.name) or _from_hub(base.name)
    return found or Terms(UNKNOWN)


def check_name(repository: str, terms: Terms) -> None:
    """Raise OptionError for a repository that cannot be, or may not have this name under the base's licence."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise OptionError(
            f"--push {repository}: no name of a repository ({str(error).partition(chr(10))[0]})"
        ) from None
    if repository.count("/") != 1:
        raise OptionError(f"--push {repository}: expected OWNER/NAME, such as my-name/{repository}")
    if not terms.names_well(repository):
        owner, _, name = repository.partition("/")
        raise OptionError(
            f"--push {repository}: the licence of the base ({terms.id}) asks that the name of a model made from it "
            f"begins with {terms.name_begins}; for example --push {owner}/{terms.name_begins}-{name}"
        )


def front_matter(text: str) -> Mapping[str, Any]:
    """What stands between the lines of dashes at a card's beginning; empty where nothing readable does."""
    found = _FRONT_MATTER.match(text)
    try:
        values = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, RecursionError):
        values = None
    return values if isinstance(values, dict) else {}


def _from_folder(folder: Path) -> Terms | None:
    card = folder / "README.md"
    if found := _from_card(front_matter(_text(card)), "its model card"):
        return found
    for file in sorted(folder.glob("*")):
        if file.name.lower().startswith(NAMES) and "licen" in file.name.lower() and file.is_file():
            return licence_of_text(_text(file), f"its file {file.name}")
    return None


def _from_card(values: Mapping[str, Any], source: str) -> Terms | None:
    """license may be a list; what is no identifier of the hub's is the name of another licence."""
    given = values.get("license")
    given = given[0] if isinstance(given, list) and given else given
    if not isinstance(given, str) or not given.strip() or given.lower() == UNKNOWN:
        return None
    if not _IDENTIFIER.fullmatch(given.lower()):
        return Terms("other", given.strip()[:80], source=source)
    name, link = (str(values.get(key) or "")[:200] for key in ("license_name", "license_link"))
    if named := re.fullmatch(r"llama-?(\d(?:\.\d)?)", name.lower()):  # as Meta wrote it before the hub knew them
        return Terms(f"llama{named[1]}", source=source)
    return Terms(given.lower(), name, link if link.startswith("https://") else "", source)


def licence_of_text(text: str, source: str) -> Terms:
    """A licence by how its text begins."""
    beginning = " ".join(text[:_READ].upper().split())
    if found := _LLAMA.search(beginning):
        return Terms(f"llama{found[1]}", source=source)
    for identifier, pattern in _BEGINNINGS.items():
        if re.search(pattern, beginning):
            return Terms(identifier, source=source)
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return Terms("other", first[:80] or "a licence of its own", source=source)


def _from_gguf(path: Path) -> Terms | None:
    """What general.license says at the beginning of the file; the gguf library would read the whole vocabulary first.

    A header is magic, version, two counts, and pairs of a key and a typed value; those of `general` come first.
    """
    try:
        with path.open("rb") as file:
            magic, _, _, pairs = struct.unpack("<4sIQQ", file.read(24))
            for _ in range(pairs if magic == b"GGUF" else 0):
                key = _gguf_text(file)
                (kind,) = struct.unpack("<I", file.read(4))
                if not key.startswith("general.") or kind not in _GGUF_SIZES:
                    return None
                size = _GGUF_SIZES[kind]
                value = _gguf_text(file) if size is None else file.read(size)
                if key == "general.license":
                    return _from_card({"license": value}, "its .gguf file")
    except (OSError, struct.error, ValueError):  # broken in some way, so it says nothing
        pass
    return None


def _gguf_text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _READ:
        raise ValueError(f"a text of {length} bytes")
    return file.read(length).decode()


def _from_name(name: str) -> Terms | None:
    owner, _, model = name.partition("/")
    found = _META.match(model) if owner == "meta-llama" else None
    return Terms(f"llama{found[1]}", source="its name") if found else None


def _from_hub(name: str) -> Terms | None:
    from huggingface_hub import HfApi

    if not hub_answers():
        return None
    try:
        with silenced("huggingface_hub"):
            card = HfApi().model_info(name, timeout=HUB_SECONDS).card_data
    except Exception:  # the hub's own and httpx's, whose classes move between versions
        return None
    return _from_card(card.to_dict(), "its page on the hub") if card else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
