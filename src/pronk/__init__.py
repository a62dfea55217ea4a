"""pronk: fine-tune Llama models on the GPU you have, and know whether it helped.

In Python: `pronk.run("recipe.yaml")`, `pronk.eval`, `pronk.generate`, `pronk.chat`, `pronk.predict`,
`pronk.export`, `pronk.report("studies/recipe")`; see pronk.api.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pronk.api import chat, export, generate, predict, report, run

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "chat",
    "export",
    "generate",
    "predict",
    "report",
    "run",
]  # eval is not: `from pronk import *` would hide Python's own
# pronk.evaluate is a room of this package, so the function has the name of the command
VERBS = {one: one for one in ("chat", "export", "generate", "predict", "report", "run")} | {"eval": "evaluate"}


def __getattr__(name: str) -> Any:
    """The functions of pronk.api, imported when they are first asked for: `import pronk` costs nothing."""
    if name in VERBS:
        from pronk import api

        return getattr(api, VERBS[name])
    raise AttributeError(f"module 'pronk' has no attribute {name!r}")
