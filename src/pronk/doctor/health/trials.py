"""What `pronk doctor` tries, each in a process of its own: python -m pronk.doctor.health.trials NAME [BASE].

The result is one line of JSON. Everything heavy is imported inside a trial, so that an installation that is broken
is found here and nowhere else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pronk.doctor.health.access import ask_hub
from pronk.doctor.health.processes import ANSWER

Facts = dict[str, Any]
SIZE = 128  # of the matrices that are multiplied
# Largest error of a product of normal numbers, relative to its size: 3 times what each format gives.
ERRORS = {"bf16": 0.02, "fp8": 0.15, "nf4": 0.3, "int8": 0.03}


def torch_facts() -> Facts:
    """PyTorch's version and build, and the GPU that it would use. cuda_error: why a CUDA build sees none."""
    import torch

    facts: Facts = {
        "version": torch.__version__, "cuda_build": torch.version.cuda, "hip_build": torch.version.hip,
        "gpus": 0, "cuda_error": "",
    }  # fmt: skip
    if torch.version.cuda or torch.version.hip:
        try:
            torch.cuda.init()
            facts["gpus"] = torch.cuda.device_count()
        except Exception as error:  # whatever driver and runtime have to say to each other
            facts["cuda_error"] = _first_line(error)
    if torch.version.cuda:
        facts["cuda_driver"] = _cuda_of_driver()
    if facts["gpus"]:
        facts |= _gpu(torch)
    return facts


def bf16() -> Facts:
    """A product in bf16 on the device that training takes, and whether the hardware has bf16 itself."""
    import torch

    device = _device()
    native = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    x_TI, w_OI = _matrices(device)
    product_TO = (x_TI.bfloat16() @ w_OI.bfloat16().T).double()
    return {"native": native, "device": device.type, "error": _error(product_TO, x_TI, w_OI)}


def fp8() -> Facts:
    """A product in FP8 as pronk makes it; a GPU without FP8 is told by its capability."""
    import torch

    from pronk.model.kernels.fp8 import multiply_rows, quantize_rows
    from pronk.model.quantize import FP8_CAPABILITY

    device = _device()
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if torch.version.hip or capability < FP8_CAPABILITY:
            return {"device": device.type, "capability": list(capability)}
    x_TI, w_OI = _matrices(device)
    weight = quantize_rows(w_OI.bfloat16())
    product_TO = multiply_rows(quantize_rows(x_TI.bfloat16()), weight.codes_TI, weight.scale_T)
    return {"device": device.type, "error": _error(product_TO.double(), x_TI, w_OI)}


def bitsandbytes() -> Facts:
    """Products with an NF4 and an int8 weight, against the product that was meant."""
    from pronk.model.quantize import quantize_weight

    x_TI, w_OI = _matrices(_device())
    facts: Facts = {}
    for kind in ("nf4", "int8"):
        weight = quantize_weight(w_OI.float(), kind)
        facts[kind] = _error(x_TI @ weight.dequantize().double().T, x_TI, w_OI)
    return facts


def triton() -> Facts:
    """One of pronk's kernels (RMSNorm) against its twin in PyTorch; without a GPU only under Triton's interpreter."""
    import torch
    import triton as library

    from pronk.model.kernels import norm, triton_norm

    device = _device()
    if device.type != "cuda" and not library.knobs.runtime.interpret:
        return {"version": library.__version__}
    x_TD, weight_D = torch.randn(16, SIZE, device=device), torch.rand(SIZE, device=device)
    found_TD, meant_TD = triton_norm.forward(x_TD, weight_D, 1e-5), norm.rms_norm_plain(x_TD, weight_D, 1e-5)
    return {"version": library.__version__, "error": float((found_TD - meant_TD).abs().max())}


def attention() -> Facts:
    """The kernel that attention takes for a Llama's heads, and what was passed over, with reasons."""
    import torch

    from pronk.model.attention_kernels import Heads, choose

    device = _device()
    if device.type != "cuda":
        return {}
    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    chosen = choose(device, dtype, Heads(32, 8, 128))
    return {"chosen": str(chosen), "passed_over": list(chosen.passed_over)}


TRIALS: dict[str, Callable[..., Facts]] = {
    "torch": torch_facts, "bf16": bf16, "fp8": fp8, "bitsandbytes": bitsandbytes, "triton": triton,
    "attention": attention, "hub": ask_hub,
}  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Make one trial and print what it found."""
    name, *rest = arguments
    try:
        told: dict[str, Any] = {"facts": TRIALS[name](*rest)}
    except Exception as error:  # other libraries' code on a machine that may be in any state
        told = {"fault": f"{type(error).__name__}: {_first_line(error)}"}
    print(f"\n{ANSWER}{json.dumps(told)}", flush=True)


def _device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _matrices(device: Any) -> tuple[Any, Any]:
    """x (T × I) and a weight (O × I), normal numbers in float64."""
    import torch

    draw = torch.Generator().manual_seed(0)
    x_TI, w_OI = (torch.randn(SIZE, SIZE, generator=draw, dtype=torch.float64) for _ in range(2))
    return x_TI.to(device), w_OI.to(device)


def _error(product_TO: Any, x_TI: Any, w_OI: Any) -> float:
    """The error of a product, relative to the size of the one that was meant; not finite where it is not."""
    meant_TO = x_TI @ w_OI.T
    return float((product_TO - meant_TO).norm() / meant_TO.norm())


def _gpu(torch: Any) -> Facts:
    free, total = torch.cuda.mem_get_info()
    return {
        "gpu": torch.cuda.get_device_name(), "capability": list(torch.cuda.get_device_capability()),
        "free": free, "total": total, "architectures": torch.cuda.get_arch_list(),
    }  # fmt: skip


def _cuda_of_driver() -> str:
    """The newest CUDA that the driver knows, such as 13.0, asked of the driver itself; empty without one."""
    import ctypes

    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        number = ctypes.c_int(0)
        if driver.cuDriverGetVersion(ctypes.byref(number)) == 0:
            return f"{number.value // 1000}.{number.value % 1000 // 10}"
    return ""


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason is given")[:300]


if __name__ == "__main__":
    main(sys.argv[1:])
