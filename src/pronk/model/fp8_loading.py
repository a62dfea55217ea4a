"""Loading a base in FP8: a quantization method of our own, by the seam that transformers has for them.

transformers reads a weight onto the device, hands it here, and lets go of it: no two linear layers are ever
dense at once. `quantize.take_over` then makes the layers ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from pronk.model.kernels.fp8 import quantize_rows
from pronk.model.quantize import FP8_SCALES

METHOD = "pronk_fp8"


@register_quantization_config(METHOD)
class LoadInFP8(QuantizationConfigMixin):
    """What from_pretrained is given as quantization_config."""

    def __init__(self) -> None:
        super().__init__(METHOD)


@register_quantizer(METHOD)
class FP8Quantizer(HfQuantizer):
    """Which weights are quantized: those of all linear layers but the output head."""

    def param_needs_quantization(self, model: Any, param_name: str, **more: Any) -> bool:
        del more  # what other methods ask for
        layer, _, name = param_name.rpartition(".")
        module = model.get_submodule(layer)
        return name == "weight" and isinstance(module, nn.Linear) and module is not model.get_output_embeddings()

    def param_element_size(self, model: Any, param_name: str, param: torch.Tensor) -> float:
        return 1 if self.param_needs_quantization(model, param_name) else param.element_size()

    def get_quantize_ops(self) -> Any:
        return _Quantize()

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return True


class _Quantize(ConversionOps):
    """A weight as its FP8 codes (bytes), which carry their scales along."""

    def convert(self, input_dict: dict[str, Any], **_: Any) -> dict[str, torch.Tensor]:
        converted: dict[str, torch.Tensor] = {}
        for name, value in input_dict.items():
            rows = quantize_rows(value[0] if isinstance(value, list) else value)
            converted[name] = nn.Parameter(rows.codes_TI.view(torch.uint8), requires_grad=False)
            setattr(converted[name], FP8_SCALES, rows.scale_T)
        return converted
