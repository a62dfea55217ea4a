"""A hub on this machine that takes uploads: who asks, new repositories, and commits of whole files.

MIDNIGHT's token may write to `midnight` and `llamas`; READER's may only read.
"""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MIDNIGHT, READER, WRONG = "hf_PlantedTokenThatWrites123", "hf_PlantedTokenThatReads456", "hf_PlantedTokenOfNobody789"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class ScriptedHub(ThreadingHTTPServer):
    """repositories: by name, whether private, and the files in it. asked: method and path of every request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.fails_at = ""  # the part of a path at which it gives up

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: ScriptedHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if not self._begin():
            return None
        path = self.path.partition("?")[0]
        if path == "/api/whoami-v2":
            role = "read" if self.token == READER else "write"
            who = {"name": "midnight", "type": "user", "orgs": [{"name": "llamas"}]}
            return self._send(200, {**who, "auth": {"accessToken": {"role": role, "displayName": "t"}}})
        name = "/".join(path.split("/")[3:5])
        if path.startswith("/api/models/") and name in self.server.repositories:
            private = self.server.repositories[name]
            return self._send(200, {"id": name, "sha": COMMIT, "siblings": [], "tags": [], "private": private})
        return self._send(404, {"error": "not here"}, "RepoNotFound")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._begin():
            return None
        parts = self.path.partition("?")[0].strip("/").split("/")
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        name = "/".join(parts[2:4])
        if name not in self.server.repositories:
            return self._send(404, {"error": "not here"}, "RepoNotFound")
        if parts[4] == "preupload":
            wanted = [one["path"] for one in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in wanted]
            return self._send(200, {"files": modes})
        if parts[4] == "commit":
            return self._commit(name, body)
        return self._send(404, {"error": "no such question"})

    def _begin(self) -> bool:
        """Whether the request goes on: with a token that is known, and where no failure is planned."""
        self.server.asked.append(f"{self.command} {self.path}")
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.server.fails_at and self.server.fails_at in self.path:
            self._send(500, {}, reason=f"\x1b[31mbroken by {self.token}")  # a careless hub quotes the token
        elif self.token not in (MIDNIGHT, READER):
            self._send(401, {"error": f"Invalid credentials in Authorization header: {self.token}"})
        else:
            return True
        return False

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'midnight'}/{asked['name']}"
        if self.token == READER:
            return self._send(403, {"error": "You don't have the rights to create a model"})
        if name in self.server.repositories:
            return self._send(
                409, {"error": "You already created this model repo", "url": f"{self.server.address}/{name}"}
            )
        self.server.repositories[name] = asked.get("private", False) or asked.get("visibility") == "private"
        self.server.files[name] = {}
        return self._send(200, {"url": f"{self.server.address}/{name}", "id": name, "name": name})

    def _commit(self, name: str, body: bytes) -> None:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self.server.files[name][entry["value"]["path"]] = content
        self._send(
            200, {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.server.address}/{name}/commit/{COMMIT}"}
        )

    def _send(self, code: int, value: dict[str, Any], error: str = "", reason: str | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(code, reason)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        self.wfile.write(content)
