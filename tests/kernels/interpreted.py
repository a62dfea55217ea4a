"""Triton kernels without a GPU: run by Triton's interpreter, and compiled for GPUs that are not there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

TARGETS = (80, 89, 90)  # A100, L4 and RTX 40, H100 and H200


def interpreted(name: str) -> Any:
    """A module of kernels that runs on CPU tensors, fresh, so that nobody else's is touched."""
    pytest.importorskip("triton")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        with _aside(lambda module: module.split(".")[0] == "triton" and not module.startswith("triton._C")):
            if not _interpreting:  # Triton's own library is interpreted or not from its first import on
                importlib.import_module("triton.language")
                _interpreting.update({key: value for key, value in sys.modules.items() if key.startswith("triton")})
            sys.modules.update(_interpreting)
            return _fresh(f"pronk.model.kernels.{name}")


def compiled(name: str, kernel: str, capability: int, types: Mapping[str, str], constants: Mapping[str, Any]) -> Any:
    """A kernel compiled for a GPU of a capability (80 for 8.0); types: of its arguments, as Triton writes them."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = getattr(_fresh(f"pronk.model.kernels.{name}"), kernel)
    signature = {key: types.get(key, "constexpr") for key in function.arg_names}
    source = ASTSource(fn=function, signature=signature, constexprs=dict(constants))
    # said outright, since Triton 3.9 warns of a default that is going to change
    options = {"enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


_interpreting: dict[str, Any] = {}


def _fresh(name: str) -> Any:
    with _aside(lambda module: module.startswith("pronk.model.kernels.triton_")):  # they call one another's functions
        return importlib.import_module(name)


@contextmanager
def _aside(chosen: Callable[[str], bool]) -> Iterator[None]:
    """Import anew what is chosen by name, and leave to everybody else what they had."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if chosen(name)}
    try:
        yield
    finally:
        for name in [name for name in sys.modules if chosen(name)]:
            del sys.modules[name]
        sys.modules.update(before)
