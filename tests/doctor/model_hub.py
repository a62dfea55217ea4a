"""A hub on this machine that knows users and gated models: what `pronk doctor` asks.

VALID is the token of `midnight`, who may read owner/open and owner/granted.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler

VALID, WRONG = "hf_PlantedTokenThatIsValid123", "hf_PlantedTokenThatIsWrong456"
GATED = {"owner/granted": True, "owner/gated": False}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        path = self.path.partition("?")[0]
        if token not in ("", VALID):
            # a careless hub, which says the token again
            self._send(401, {"error": f"Invalid credentials in Authorization header: {token}"})
        elif path == "/api/whoami-v2":
            self._send(200, {"name": "midnight", "type": "user", "auth": {}}) if token else self._send(401, {})
        elif path.endswith("/auth-check"):
            self._check(path.removeprefix("/api/models/").removesuffix("/auth-check"), token)
        else:
            self._send(404, {}, "EntryNotFound")

    def _check(self, model: str, token: str) -> None:
        if model == "owner/open" or (token and GATED.get(model)):
            self._send(200, {})
        elif model == "owner/narrow":
            said = "Please enable access to public gated repositories in your fine-grained token settings"
            self._send(403, {"error": said}, "GatedRepo", said)
        elif model in GATED:
            self._send(403 if token else 401, {}, "GatedRepo")
        elif model == "owner/broken":
            self._send(500, {}, reason=f"\x1b[31mno answer for {token}")
        else:
            self._send(404 if token else 401, {}, "RepoNotFound")

    def _send(
        self, code: int, value: dict[str, object], error: str = "", message: str = "", reason: str | None = None
    ) -> None:
        content = json.dumps(value).encode()
        self.send_response(code, reason)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if error:
            self.send_header("X-Error-Code", error)
        if message:
            self.send_header("X-Error-Message", message)
        self.end_headers()
        self.wfile.write(content)
