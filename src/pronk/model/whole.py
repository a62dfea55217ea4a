"""All weights of a model, trained in place of an adapter: full fine-tuning behind the interface of WideAdapter.

What is trained is fp32 at least. Where the model computes in bf16, its weights are rounded copies: gradients of
the copies are summed in fp32, the optimizer moves the fp32 weights, and `settle` rounds them again. Small
updates thus add up, where in bf16 alone (8 bits) a step below 1/256 of a weight would be lost.

Such a run has a model, and so a fleet, to itself: its slot is 0, and BASE_SLOT sees the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pronk.errors import RecipeError, StudyError
from pronk.model.adapter import WideAdapter
from pronk.model.route import Routing


class WholeModel:
    """Every weight of a model; tied ones (such as head and embeddings) are one. `detach` freezes them again.

    Raises RecipeError for a quantized model: its weights are no numbers to be moved a little.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.routing = model, Routing()
        self._used: dict[str, nn.Parameter] = dict(model.named_parameters())
        if any(not weight.is_floating_point() for weight in model.state_dict().values()):
            raise RecipeError("full: true trains the weights themselves, and those of this base are quantized")
        self._trained: dict[str, nn.Parameter] = {}
        for name, used in self._used.items():
            precision = torch.promote_types(used.dtype, torch.float32)
            used.requires_grad_(True)
            used.grad_dtype = precision
            self._trained[name] = used if used.dtype == precision else nn.Parameter(used.detach().to(precision))

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The weights that the model computes with; gradients arrive here."""
        return list(self._used.values())

    @property
    def rounded(self) -> bool:
        """Whether the model computes with rounded copies of what is trained."""
        return any(self._used[name] is not trained for name, trained in self._trained.items())

    def allocate_gradients(self) -> Tensor:
        """Give every weight a gradient that is a view of one flat tensor, and return that tensor (fp32 or better)."""
        weights = self.parameters
        sizes = [weight.numel() for weight in weights]
        precision = torch.promote_types(weights[0].dtype, torch.float32)
        flat_N = torch.zeros(sum(sizes), dtype=precision, device=weights[0].device)
        for weight, part in zip(weights, flat_N.split(sizes), strict=True):
            weight.grad = part.view_as(weight)
        return flat_N

    def rows(self, slot: int) -> Iterator[tuple[str, Tensor, slice]]:
        """Name and trained tensor of each weight, and all of its rows."""
        assert slot == 0
        for name, trained in self._trained.items():
            trained.grad = self._used[name].grad
            yield name, trained, slice(None)

    def initialize(self, seeds: Mapping[int, int]) -> None:
        """The start is the base itself, whatever the seed."""

    def settle(self) -> None:
        """After an update: the weights in use become the trained ones, rounded."""
        with torch.no_grad():
            for name, used in self._used.items():
                if used is not self._trained[name]:
                    used.copy_(self._trained[name])

    def clear(self, slot: int) -> None:
        """Nothing: no other run shares these weights, and of a run that failed they are not saved."""

    def state(self, slot: int) -> dict[str, Tensor]:
        """The weights in use, on the CPU, by transformers' names."""
        assert slot == 0
        return {name: used.detach().cpu().clone() for name, used in self._used.items()}

    def load(self, slot: int, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`. Raises StudyError for weights that are not finite."""
        assert slot == 0
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise StudyError("the model holds weights that are not finite numbers; its training went wrong")
        with torch.no_grad():
            for name, trained in self._trained.items():
                trained.copy_(state[name])
        self.settle()

    def size(self, slot: int) -> int:
        """The number of parameters that the run trains."""
        assert slot == 0
        return sum(used.numel() for used in self._used.values())

    def detach(self) -> None:
        """Freeze the model as it stands, and let go of gradients and of the weights in fp32."""
        self._trained = self._used
        for used in self._used.values():
            used.requires_grad_(False)
            used.grad = None


def put_weights(model: Any, state: Mapping[str, Tensor]) -> None:
    """Give a model the weights of WholeModel.state."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(state[name])


Trainable = WideAdapter | WholeModel
