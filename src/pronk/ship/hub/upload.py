"""A finished export on its way to the Hugging Face hub: what would go there, and, when told to, the upload.

The token is the hub library's own business: from the environment or its login. It is in no argument, file or message.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.doctor.health.secrets import hide
from pronk.errors import OptionError, PronkError, RefusedError
from pronk.hub import cause_names, hub_answers, is_unreachable, silenced
from pronk.runs import write_text
from pronk.ship.export.record import FILE
from pronk.ship.hub.card_texts import card_language
from pronk.ship.hub.form import CARD, NOBODY, checksums, files_of, refuse_private
from pronk.ship.hub.terms import Terms, check_name

if TYPE_CHECKING:
    from rich.console import Console

LOGIN = "log in with `hf auth login`, or set HF_TOKEN; a token that may write is made at \
https://huggingface.co/settings/tokens"


@dataclass(frozen=True)
class Upload:
    """What would be uploaded. files: names and bytes. repository: OWNER/NAME, with NOBODY as owner if none is named;
    written_for: the one that the card and export.json name."""

    folder: Path
    repository: str
    written_for: str
    private: bool
    files: tuple[tuple[str, int], ...]
    update: bool = False

    @property
    def url(self) -> str:
        """Where it can be seen afterwards."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{self.repository}"


def check_options(
    forms: Sequence[str], repository: str | None, merged: bool = False, public: bool = False, update: bool = False,
    lang: str | None = None,
) -> None:  # fmt: skip
    """What can be wrong with the options, before anything is made. Raises OptionError."""
    from huggingface_hub import get_token

    given = {"--push": repository is not None, "--hub-merged": merged, "--public": public, "--update": update,
             "--lang": lang is not None}  # fmt: skip
    for option, on in given.items():
        if on and "hub" not in forms:
            raise OptionError(f"{option} belongs to --to hub; add that, or leave it out")
    card_language(lang or "en")
    if repository is None:
        if public or update:
            raise OptionError(
                f"{'--public' if public else '--update'} goes with --push OWNER/NAME; nothing is uploaded"
            )
        return
    check_name(repository, Terms(""))
    if not get_token():
        raise OptionError(f"--push {repository}: there is no token of the hub on this machine; {LOGIN}")


def stands(out: Path, merged: bool = False) -> bool:
    """Whether an export for the hub is there already. Raises OptionError for one of the adapter where the whole model
    is wanted."""
    if not (out / "hub").is_dir():
        return False
    if merged and _entry(out)["facts"].get("kind") != "merged":
        raise OptionError(f"--hub-merged: {out / 'hub'} holds the adapter; move it away first, or leave the option out")
    return True


def plan_upload(out: Path, repository: str | None = None, private: bool = True, update: bool = False) -> Upload:
    """What an upload of an export would be. out: the export's folder, in which hub/ and export.json lie.

    update: whether the repository may be there already. Raises RefusedError for what was not made, has not passed its
    gate, or was changed since; OptionError for a name that the hub or the base's licence does not allow.
    """
    folder = out / "hub"
    entry = _entry(out)
    _check_gate(out, folder, entry)
    written_for = str(entry["facts"].get("repository") or f"{NOBODY}/model")
    if repository is not None:
        check_name(repository, Terms(str(entry["facts"].get("licence", ""))))
    refuse_private(folder)
    files = tuple((file.relative_to(folder).as_posix(), file.stat().st_size) for file in files_of(folder))
    return Upload(folder, repository or written_for, written_for, private, files, update)


def as_lines(upload: Upload) -> list[str]:
    """The plan within 80 columns, for people."""
    width = max((len(name) for name, _ in upload.files), default=0)
    seen = "private" if upload.private else "PUBLIC: anyone can read it"
    total = sum(size for _, size in upload.files)
    lines = [f"{name.ljust(width)}  {_size(size):>10}" for name, size in upload.files]
    return [f"to {upload.repository} ({seen}):", *lines, f"{'in all'.ljust(width)}  {_size(total):>10}"]


def as_json(upload: Upload, done: bool) -> dict[str, Any]:
    """The same for programs. done: whether it was uploaded."""
    files = [{"name": name, "bytes": size} for name, size in upload.files]
    return {"repository": upload.repository, "private": upload.private, "uploaded": done, "files": files}


def push(upload: Upload, console: Console) -> str:
    """Upload, and the address of the repository.

    Raises OptionError with what to do: no token, one that may not write, another's name, a name that is taken, no
    network. Ctrl-C comes through as KeyboardInterrupt.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    check_options(["hub"], upload.repository)
    if not hub_answers():
        raise OptionError(_unreachable(upload))
    api, shown = HfApi(), not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with silenced("huggingface_hub"), console.status(f"uploading to {upload.repository}"):
            with _one_message(upload, created=False):
                _check_owner(upload, api.whoami())
                api.create_repo(upload.repository, private=upload.private, exist_ok=upload.update)
                if upload.update:  # of a repository that is there, nothing has changed who can see it
                    _check_seen(upload, bool(api.repo_info(upload.repository).private))
            _name_in_card(upload)
            with _one_message(upload, created=not upload.update):
                api.upload_folder(
                    folder_path=upload.folder, repo_id=upload.repository, commit_message="Exported by pronk",
                    allow_patterns=[escape(name) for name, _ in upload.files],  # what was listed, and nothing else
                )  # fmt: skip
    finally:
        if shown:
            enable_progress_bars()
    return upload.url


def _entry(out: Path) -> dict[str, Any]:
    """What export.json says of the folder hub."""
    try:
        artifacts = json.loads((out / FILE).read_text(encoding="utf-8"))["artifacts"]
        found = next(one for one in artifacts if one["name"] == "hub")
        if isinstance(found["facts"]["files"], dict) and isinstance(found["status"], str):
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        pass
    raise RefusedError(f"{out}: no export for the hub stands here; make one: `pronk export RUN --to hub`")


def _check_gate(out: Path, folder: Path, entry: dict[str, Any]) -> None:
    if entry["status"] != "passed":
        why = "; ".join(entry.get("reasons") or ()) or "nothing could read it"
        raise RefusedError(f"{out / FILE}: the export for the hub is {entry['status']} ({why}); it is not uploaded")
    if not folder.is_dir():
        raise RefusedError(f"{folder}: this folder is gone; export again: `pronk export RUN --to hub`")
    now, then = checksums(folder), entry["facts"]["files"]
    if changed := sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name)):
        raise RefusedError(
            f"{folder / changed[0]}: is not what was compared with the run, it was changed since; move the folder away "
            f"and export again (only {CARD} may be edited)"
        )


def _name_in_card(upload: Upload) -> None:
    """The repository's name in place of the one that the card was written for; what a person has added stays."""
    if upload.written_for == upload.repository:
        return
    for file in (upload.folder / CARD, upload.folder / FILE, upload.folder.parent / FILE):
        if file.is_file():
            write_text(file, file.read_text(encoding="utf-8").replace(upload.written_for, upload.repository))


def _check_owner(upload: Upload, who: dict[str, Any]) -> None:
    """Raise OptionError where the token's user may not write there, as far as the hub tells beforehand."""
    owner, user = upload.repository.partition("/")[0], str(who.get("name", ""))
    groups = [str(one.get("name")) for one in who.get("orgs") or () if isinstance(one, dict)]
    token = (who.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise OptionError(f"--push {upload.repository}: the token may read only; {LOGIN}")
    if owner not in (user, *groups):
        others = f", nor one of your organizations ({', '.join(groups)})" if groups else ""
        raise OptionError(
            f"--push {upload.repository}: {owner} is not you ({user}){others}; "
            f"write --push {user}/{upload.repository.partition('/')[2]}"
        )


def _check_seen(upload: Upload, private: bool) -> None:
    if private and not upload.private:
        raise OptionError(
            f"--push {upload.repository}: this repository is private; leave out --public, or open it there"
        )
    if upload.private and not private:
        raise OptionError(f"--push {upload.repository}: this repository is public: anyone would read it; add --public")


@contextmanager
def _one_message(upload: Upload, created: bool) -> Iterator[None]:
    """What the hub's library raises, in one message without the token that it may quote."""
    try:
        yield
    except PronkError:
        raise
    except Exception as error:  # its own and httpx's, whose classes move between versions
        left = ""
        if created:
            left = f". The repository {upload.repository} was made: once it works, run this again with --update"
        raise OptionError(hide(_why_not(upload, error)) + left) from None


def _why_not(upload: Upload, error: Exception) -> str:
    start = f"--push {upload.repository}"
    code = getattr(getattr(error, "response", None), "status_code", None)
    if code == 409:
        return f"{start}: this repository is there already; choose another name, or add --update to put it there"
    if code == 401 and "RepositoryNotFoundError" not in cause_names(error):
        return f"{start}: the hub refuses the token: mistyped, expired or revoked; {LOGIN}"
    if code in (401, 403, 404):
        return f"{start}: this token may not write there; {LOGIN}"
    if is_unreachable(error):
        return _unreachable(upload)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{start}: the hub did not take it: {lines[0][:300] if lines else type(error).__name__}"


def _unreachable(upload: Upload) -> str:
    return (
        f"--push {upload.repository}: the hub cannot be reached (no network, a proxy, or HF_HUB_OFFLINE); nothing was "
        "uploaded"
    )


def _size(size: int) -> str:
    for limit, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= limit:
            return f"{size / limit:,.1f} {unit}"
    return f"{size} B"
