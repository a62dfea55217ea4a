"""What the trials of PyTorch and what builds on it found, as lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pronk.doctor.health.finding import Line
from pronk.doctor.health.processes import Result
from pronk.doctor.health.trials import ERRORS

GIB = 2**30
GET_STARTED = "https://pytorch.org/get-started/locally"
# The oldest Linux driver of a major version of CUDA; newer minor versions run on it too (NVIDIA, CUDA Compatibility).
DRIVERS = {11: "450", 12: "525", 13: "580"}
KERNEL_ERROR = 1e-4  # of a Triton kernel in fp32 on numbers near 1
Smi = tuple[str, str] | None


def torch_lines(result: Result, smi: Smi) -> list[Line]:
    """PyTorch itself, its CUDA build beside the driver, and the GPU."""
    if result.fault:
        remedy = f'pip install --force-reinstall "torch>=2.11,<2.14"; which build: {GET_STARTED}'
        return [Line("PyTorch", "failed", f"does not work: {result.fault}", remedy)]
    facts = result.facts
    lines = [Line("PyTorch", "ok", f"{facts['version']} works")]
    if facts["hip_build"]:
        return [*lines, Line("GPU", "note", "PyTorch is built for ROCm, with which pronk is not tested")]
    if not facts["cuda_build"]:
        return [*lines, _cpu_build(smi)]
    lines.append(cuda_line(facts, smi))
    return [*lines, gpu_line(facts)] if facts["gpus"] else lines


def _cpu_build(smi: Smi) -> Line:
    if smi is None:
        return Line("GPU", "note", "no GPU: training runs on the CPU, slowly")
    remedy = f"install PyTorch with CUDA: {GET_STARTED}"
    return Line("CUDA", "failed", f"there is a {smi[0]}, but this PyTorch is built for the CPU alone", remedy)


def cuda_line(facts: Mapping[str, Any], smi: Smi) -> Line:
    """Whether PyTorch's CUDA and the driver fit each other. facts: see trials.torch_facts."""
    build, driver = facts["cuda_build"], facts.get("cuda_driver") or ""
    if not driver and smi is None:
        return Line("GPU", "note", "no GPU: training runs on the CPU, slowly")
    named = f"driver {smi[1]}" if smi else "the driver"
    needed = DRIVERS.get(_major(build))
    update = f"update the driver to {needed} or newer" if needed else "update the driver"
    older = f"or install a PyTorch that is built for CUDA {_major(driver)}: {GET_STARTED}" if driver else ""
    if driver and _major(driver) < _major(build):
        found = f"PyTorch is built with CUDA {build}, {named} knows {driver} at most"
        return Line("CUDA", "failed", found, f"{update}, {older}")
    if facts["cuda_error"] or not facts["gpus"]:
        why = facts["cuda_error"] or "no GPU is visible"
        remedy = "see whether `nvidia-smi` works and CUDA_VISIBLE_DEVICES names a GPU; restart, or " + update
        return Line("CUDA", "failed", f"PyTorch with CUDA {build} sees no GPU ({named}): {why}", remedy)
    return Line("CUDA", "ok", f"PyTorch is built with {build}, {named} knows up to {driver or 'an unknown version'}")


def gpu_line(facts: Mapping[str, Any]) -> Line:
    """Name, compute capability and memory of the GPU that training takes."""
    major, minor = facts["capability"]
    others = f"; {facts['gpus']} GPUs, the first is used" if facts["gpus"] > 1 else ""
    memory = f"{facts['free'] / GIB:.1f} of {facts['total'] / GIB:.1f} GiB free"
    found = f"{facts['gpu']}, capability {major}.{minor}, {memory}{others}"
    built = [name for name in facts.get("architectures", ()) if name.startswith(("sm_", "compute_"))]
    if built and not any(_runs_on(name, major, minor) for name in built):
        return Line("GPU", "failed", f"{found}; this PyTorch has no code for it", f"another build: {GET_STARTED}")
    if facts["free"] < facts["total"] / 2:
        return Line("GPU", "note", found, "another program holds its memory: `nvidia-smi` says which")
    return Line("GPU", "ok", found)


def _runs_on(architecture: str, major: int, minor: int) -> bool:
    """sm_ code runs on its own major version from its minor version on; compute_ (PTX) on anything newer."""
    kind, _, number = architecture.rstrip("af").partition("_")
    if not number.isdigit():
        return False
    built = (int(number[:-1]), int(number[-1]))
    return built <= (major, minor) and (kind == "compute" or built[0] == major)


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 0


def bf16_line(result: Result) -> Line:
    """bf16: there, emulated, or wrong."""
    if result.fault:
        return Line("bf16", "failed", f"a product failed: {result.fault}", "write `train: {dtype: fp32}`")
    facts = result.facts
    if wrong := _wrong(facts["error"], "bf16"):
        return Line("bf16", "failed", wrong, "write `train: {dtype: fp32}`, and update driver and PyTorch")
    if facts["device"] != "cuda":
        return Line("bf16", "ok", "works; on a CPU pronk computes in fp32 unless the recipe says train.dtype: bf16")
    if not facts["native"]:
        return Line("bf16", "note", "this GPU only emulates it; train.dtype: auto takes fp16 here")
    return Line("bf16", "ok", "works")


def fp8_line(result: Result) -> Line:
    """FP8: only some GPUs have it, and only `quantize: fp8` needs it."""
    without = "leave out `quantize: fp8`; nf4 and int8 work"
    if result.fault:
        return Line("FP8", "failed", f"a product failed: {result.fault}", without)
    facts = result.facts
    if "capability" in facts:
        return Line("FP8", "note", "this GPU has none (8.9 is the first): no `quantize: fp8`; nf4 and int8 work")
    if wrong := _wrong(facts["error"], "fp8"):
        return Line("FP8", "failed", wrong, without)
    return Line("FP8", "ok", "works" if facts["device"] == "cuda" else "works; on a CPU it is only slower")


def bitsandbytes_line(result: Result) -> Line:
    """bitsandbytes: NF4 and int8."""
    remedy = 'pip install -U "bitsandbytes>=0.50,<1", or do without `quantize: nf4` and int8'
    if result.fault:
        return Line("bitsandbytes", "failed", f"does not work: {result.fault}", remedy)
    for kind in ("nf4", "int8"):
        if wrong := _wrong(result.facts[kind], kind):
            return Line("bitsandbytes", "failed", f"{kind}: {wrong}", remedy)
    errors = " and ".join(f"{kind} ({result.facts[kind]:.1%} off)" for kind in ("nf4", "int8"))
    return Line("bitsandbytes", "ok", f"products with {errors} work")


def triton_line(result: Result) -> Line:
    """Triton: pronk's kernels on a GPU are written in it."""
    remedy = "pip install -U triton, in the version that PyTorch asks for; a C compiler (gcc) must be there"
    if result.fault:
        return Line("Triton", "failed", f"does not work: {result.fault}", remedy)
    if "error" not in result.facts:
        return Line("Triton", "note", "not tried: it is for GPUs")
    if not result.facts["error"] <= KERNEL_ERROR:
        return Line("Triton", "failed", f"a kernel gives wrong numbers (off by {result.facts['error']:.2g})", remedy)
    return Line("Triton", "ok", f"{result.facts['version']}: a kernel was compiled and is right")


def attention_line(result: Result) -> Line:
    """The attention kernel, and why others were passed over."""
    if result.fault:
        return Line("attention", "failed", f"no kernel could be tried: {result.fault}", "update driver and PyTorch")
    if "chosen" not in result.facts:
        return Line("attention", "note", "PyTorch's own, as there is no GPU")
    passed = "; ".join(f"passed over: {name}: {why}" for name, why in result.facts["passed_over"])
    return Line("attention", "note" if passed else "ok", result.facts["chosen"] + (f"; {passed}" if passed else ""))


def _wrong(error: float, kind: str) -> str:
    """What is wrong with a product whose error is too large, or no number; empty where it is right."""
    if math.isfinite(error) and error <= ERRORS[kind]:
        return ""
    return f"a product is wrong by {error:.0%} of its size, where up to {ERRORS[kind]:.0%} is rounding"
