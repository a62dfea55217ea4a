"""Whether the hub answers, takes this machine's token, and lets it read a base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pronk.doctor.health.finding import Line
from pronk.doctor.health.processes import Result

SECONDS = 20.0  # for all questions to the hub together
LOGIN = "log in with `hf auth login` (or set HF_TOKEN); a token is made at https://huggingface.co/settings/tokens"


def ask_hub(base: str = "") -> dict[str, Any]:
    """What the hub says, by huggingface_hub's own functions. base: a hub id, or empty. No token is among the facts.

    base_is: readable, gated, missing, refused (the token), unreachable, or what else the hub said.
    """
    from huggingface_hub import HfApi, constants, get_token, try_to_load_from_cache

    from pronk.hub import hub_answers, silenced

    with silenced("huggingface_hub"):
        token = get_token()
        facts: dict[str, Any] = {"offline": constants.is_offline_mode(), "token": bool(token)}
        facts["reachable"] = hub_answers()
        if base:
            facts["cached"] = isinstance(try_to_load_from_cache(base, "config.json"), str)
        if facts["reachable"] and token:
            facts |= _who(HfApi())
        if facts["reachable"] and base:
            facts["base_is"] = "refused" if facts.get("token_is") == "refused" else _base_is(HfApi(), base)
    return facts


def _who(api: Any) -> dict[str, Any]:
    from pronk.hub import is_unreachable

    try:
        return {"token_is": "valid", "user": str(api.whoami().get("name", ""))[:40]}
    except Exception as error:  # httpx's and the hub's own, whose classes move between versions
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            return {"token_is": "refused"}
        return {"token_is": "unreachable" if is_unreachable(error) else _said(error)}


def _base_is(api: Any, base: str) -> str:
    from pronk.hub import cause_names, is_unreachable

    try:
        api.auth_check(base)
    except Exception as error:  # as above
        names, said = cause_names(error), str(error)
        if "GatedRepoError" in names:
            return "gated: fine-grained" if "fine-grained" in said else "gated"
        if "RepositoryNotFoundError" in names:
            return "missing"
        if "HFValidationError" in names:
            return "missing"
        return "unreachable" if is_unreachable(error) else _said(error)
    return "readable"


def _said(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def hub_lines(result: Result, base: str) -> list[Line]:
    """The lines about hub, token and base. base: as given to --base; empty if it was not."""
    if result.fault:
        remedy = "check the network and the proxy; `pip install -U huggingface_hub` if that does not help"
        return [Line("hub", "failed" if base else "note", f"could not be asked: {result.fault}", remedy)]
    facts = result.facts
    if not facts["reachable"]:
        return [_no_hub(facts, base)]
    lines = [Line("hub", "ok", "answers"), _token(facts)]
    return [*lines, _base(facts, base)] if base else lines


def _no_hub(facts: dict[str, Any], base: str) -> Line:
    why = "is not asked: HF_HUB_OFFLINE is set" if facts["offline"] else "cannot be reached: no network, or a proxy"
    if base and not facts.get("cached"):
        go = "unset HF_HUB_OFFLINE" if facts["offline"] else "go online, or set HTTPS_PROXY"
        elsewhere = f"or download it elsewhere with `hf download {base} --local-dir DIR` and write `base: DIR`"
        return Line("hub", "failed", f"{why}; {base} is not in this machine's cache", f"{go}; {elsewhere}")
    what = f"{base} is in this machine's cache" if base else "what is on this machine can be used"
    return Line("hub", "note", f"{why}; {what}")


def _token(facts: dict[str, Any]) -> Line:
    if not facts["token"]:
        return Line("token", "note", "none; open models need none, gated ones (Llama 3) do", LOGIN)
    if facts["token_is"] == "valid":
        return Line("token", "ok", f"there, of the user {facts['user']}")
    if facts["token_is"] == "refused":
        remedy = f"the hub does not know it: mistyped, expired or revoked; {LOGIN}"
        return Line("token", "failed", "there, but the hub refuses it", remedy)
    return Line("token", "note", f"there; the hub did not say whether it is valid ({facts['token_is']})")


def _base(facts: dict[str, Any], base: str) -> Line:
    page, state = f"https://huggingface.co/{base}", facts["base_is"]
    if state == "readable":
        return Line("base", "ok", f"{base} may be read")
    if state == "refused":
        return Line("base", "failed", f"{base}: not known, as the hub refuses the token", "mend the token first")
    if state.startswith("gated") and not facts["token"]:
        remedy = f"accept its licence at {page}, then {LOGIN}"
        return Line("base", "failed", f"{base} is gated, and there is no token", remedy)
    if state == "gated: fine-grained":
        remedy = "allow `Read access to public gated repos` for this token at https://huggingface.co/settings/tokens"
        return Line("base", "failed", f"{base} is gated, and the token is not allowed to read gated models", remedy)
    if state == "gated":
        remedy = f"ask for it at {page}, with the same account; it may take hours until its owner agrees"
        return Line("base", "failed", f"{base} is gated, and {facts.get('user') or 'this user'} has no access", remedy)
    if state == "missing":
        private = "it is private and of somebody else" if facts["token"] else f"it is private: then {LOGIN}"
        return Line(
            "base", "failed", f"the hub has no model {base} that you may read", f"check the spelling, or {private}"
        )
    if state == "unreachable":
        return Line("base", "failed", f"{base}: the hub broke off the answer", "try again")
    return Line("base", "failed", f"{base}: the hub says: {state}", f"open {page} in a browser")


def local_base(base: str) -> Line | None:
    """The line about a base that is no hub id; None for what may be one."""
    path = Path(base).expanduser()
    if path.is_dir():
        if (path / "config.json").is_file():
            return Line("base", "ok", f"the folder {base} has a config.json; `pronk inspect {base}` looks into it")
        return Line("base", "failed", f"the folder {base} has no config.json", "name the folder that holds the model")
    if path.is_file():
        return Line("base", "ok", f"the file {base} is there; `pronk inspect {base}` looks into it")
    if base.startswith((".", "/", "~")) or base.count("/") != 1:
        remedy = "name smollm2, a folder, a .gguf file, or a hub id such as meta-llama/Meta-Llama-3-8B"
        return Line("base", "failed", f"{base} is neither a folder or file here nor a hub id", remedy)
    return None
