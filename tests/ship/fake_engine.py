"""A small server in the place of vLLM: the same arguments, environment and answers, and failures on demand.

As a Python (`fake_python`) it is what --engine-python names: asked what is installed it says vllm, asked to run vLLM's
module it serves. It renders the template that it is given, with Jinja and the base's tokenizer alone.

PRONK_FAKE: what goes wrong. FOLDER/started.json: how it was started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SCRIPT = """#!{python}
import os, sys
if sys.argv[1] == "-c":
    print('{{"vllm": "9.9", "torch": "2.13.0+cpu"}}')
else:
    os.environ["PRONK_FAKE_FOLDER"] = {folder!r}
    os.execv({python!r}, [{python!r}, {engine!r}, *sys.argv[1:]])
"""


def fake_python(folder: Path) -> Path:
    """A program that looks like the Python of an environment with vLLM."""
    program = folder / "python"
    program.write_text(SCRIPT.format(python=sys.executable, folder=str(folder), engine=__file__), encoding="utf-8")
    program.chmod(0o755)
    return program


def started(folder: Path) -> dict[str, Any]:
    """How the engine was started: argv, environment, processes."""
    return json.loads((folder / "started.json").read_text(encoding="utf-8"))


class Engine(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, fault: str) -> None:
        options = sys.argv[1:]
        at = {name: number for number, name in enumerate(options)}

        def values(name: str) -> list[str]:
            found = options[at[name] + 1 :] if name in at else []
            return found[: next((number for number, one in enumerate(found) if one.startswith("--")), len(found))]

        from jinja2.sandbox import ImmutableSandboxedEnvironment
        from tokenizers import Tokenizer

        super().__init__((values("--host")[0], int(values("--port")[0])), Handler)
        base = Path(values("--model")[0])
        self.tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
        self.words = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
        template = Path(values("--chat-template")[0]).read_text(encoding="utf-8")
        if fault == "another-template":
            template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
        jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self.template = jinja.from_string(template)
        self.names = [*values("--served-model-name"), *(json.loads(one)["name"] for one in values("--lora-modules"))]
        self.key, self.fault, self.loaded = os.environ["VLLM_API_KEY"], fault, time.monotonic() + 0.3

    def ids(self, messages: list[dict[str, str]]) -> list[int]:
        special = {name: self.words.get(name) for name in ("bos_token", "eos_token")}
        text = self.template.render(messages=messages, add_generation_prompt=True, **special)
        return self.tokenizer.encode(text, add_special_tokens=False).ids


class Handler(BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self) -> None:
        ready = time.monotonic() >= self.server.loaded and self.server.fault != "never-ready"
        self._say(200 if ready else 503, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {self.server.key}":
            return self._say(401, {"error": {"message": "Unauthorized"}})
        if body["model"] not in self.server.names:
            return self._say(404, {"error": {"message": f"there is no model {body['model']}"}})
        ids = self.server.ids(body["messages"])
        choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        return self._say(200, {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
                               "choices": [choice], "prompt_token_ids": ids})  # fmt: skip

    def _say(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    fault = os.environ.get("PRONK_FAKE", "")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # as vLLM has its own
    facts = {"argv": sys.argv, "environment": dict(os.environ), "processes": [os.getpid(), child.pid],
             "folder": os.getcwd()}  # fmt: skip
    (Path(os.environ["PRONK_FAKE_FOLDER"]) / "started.json").write_text(json.dumps(facts), encoding="utf-8")
    print("\x1b[31mstarting\x1b[0m with key", os.environ["VLLM_API_KEY"], "and hf_abcdefghijklmnop", flush=True)
    if fault.startswith("says "):
        sys.exit(fault.removeprefix("says "))
    if fault == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if fault == "dies-later":
        signal.signal(signal.SIGALRM, lambda *_: os._exit(3))
        signal.setitimer(signal.ITIMER_REAL, 2.0)
    Engine(fault).serve_forever()


if __name__ == "__main__":
    main()
