"""A hub on this machine: just enough of the Hugging Face hub's interface for `datasets` to read a set from it.

python fake_hub.py FOLDER PORTFILE serves FOLDER/OWNER/NAME/REVISION/files; a file GATED in NAME makes it gated.
"""

from __future__ import annotations

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Handler(BaseHTTPRequestHandler):
    root: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self._answer(json.loads(self.rfile.read(length) or b"{}"))

    def do_GET(self) -> None:
        self._answer({})

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: dict[str, list[str]]) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        is_api = parts[0] == "api"
        _, owner, name, *rest = parts[is_api:]  # datasets, then whose, which, and what of it
        repository = self.root / owner / name
        if not repository.is_dir():
            return self._send(401 if is_api else 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        revision = rest[1] if len(rest) > 1 else "main"
        revision = bytes.fromhex(revision).decode().strip() if len(revision) == 40 else revision
        folder = repository / revision.replace("/", "_")
        if not folder.is_dir():
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if is_api:
            return self._api(rest, folder, body, f"{owner}/{name}", commit(revision))
        if (repository / "GATED").exists():
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        self._file(folder.joinpath(*rest[2:]), commit(revision))

    def _api(self, rest: list[str], folder: Path, body: dict[str, list[str]], name: str, sha: str) -> None:
        files = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()]
        if not rest or rest[0] == "revision":
            return self._json({"id": name, "sha": sha, "siblings": [{"rfilename": file} for file in files], "tags": []})
        wanted = body.get("paths") or files
        if rest[0] == "tree":
            under = "/".join(rest[2:])
            wanted = [file for file in files if file.startswith(f"{under}/" if under else "")]
            if under and not wanted:
                return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        entries = [self._entry(folder / path, path) for path in dict.fromkeys([*folders(wanted), *wanted])]
        self._json([entry for entry in entries if entry])

    def _entry(self, path: Path, name: str) -> dict[str, object] | None:
        if path.is_dir():
            return {"type": "directory", "oid": digest(name.encode()), "size": 0, "path": name}
        if not path.exists():
            return None
        return {"type": "file", "oid": digest(path.read_bytes()), "size": path.stat().st_size, "path": name}

    def _file(self, file: Path, sha: str) -> None:
        if not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        content = file.read_bytes()
        self._send(200, content, {"ETag": f'"{digest(content)}"', "X-Repo-Commit": sha})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def folders(files: list[str]) -> list[str]:
    return sorted({parent.as_posix() for file in files for parent in Path(file).parents} - {"."})


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def commit(revision: str) -> str:
    """A revision of up to 20 letters as the 40 of a commit, from which it can be read back."""
    return revision.ljust(20).encode().hex()


if __name__ == "__main__":
    Handler.root = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Path(sys.argv[2]).write_text(str(server.server_port))
    server.serve_forever()
