"""Types that only llama.cpp itself writes (K-quants), by whichever of its quantizers is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pronk.errors import OptionError, ResourceError
from pronk.ship.gguf.llama_cpp import installed, says_llama_cpp
from pronk.ship.gguf.writer import renamed_when_whole

# By llama.cpp's names, in lower case; the number is about how many bits a weight takes.
QUANTIZED = ("q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_0", "q4_k_s", "q4_k_m", "q5_0", "q5_k_s", "q5_k_m", "q6_k")
PROGRAM = "llama-quantize"
HOW = f"pip install llama-cpp-python, or put llama.cpp's `{PROGRAM}` on the PATH"
PAUSE = 0.2  # seconds between two looks at whether it is done


def quantizer() -> list[str] | None:
    """The command, but for source, target and type; None where no quantizer is installed."""
    if installed():
        return [sys.executable, "-P", "-m", "pronk.ship.gguf.llama_cpp_process", "quantize"]
    program = shutil.which(PROGRAM)
    return [program] if program else None


def check_quantizer(kinds: list[str]) -> None:
    """Raise OptionError where a type is asked for that nothing installed here can write."""
    if kinds and quantizer() is None:
        raise OptionError(f"--quant {kinds[0]}: needs llama.cpp's quantizer, which is not installed; {HOW}")


def quantize(source: Path, target: Path, kind: str, check: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Write a .gguf file in one of QUANTIZED from one in f16; returns how many tensors have which type.

    Rows that no block of the type divides get a larger one by llama.cpp: look at what is returned. check: may raise,
    while llama.cpp is at work. Raises OptionError where there is no quantizer, ResourceError where it fails.
    """
    check_quantizer([kind])
    command = quantizer() or []
    with renamed_when_whole(target) as aside, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [*command, str(source), str(aside), kind.upper()],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            while process.poll() is None:
                check()
                time.sleep(PAUSE)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode or not aside.is_file():
            said.seek(0)
            why = says_llama_cpp(process.returncode, said.read())
            raise ResourceError(f"{target.name}: llama.cpp could not write it: {why}")
    return types_in(target)


def types_in(file: Path) -> dict[str, int]:
    """How many tensors of a .gguf file have which type."""
    from gguf import GGUFReader

    return dict(Counter(str(tensor.tensor_type.name) for tensor in GGUFReader(str(file)).tensors))
