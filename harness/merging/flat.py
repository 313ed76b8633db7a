"""A module that reads its weights from one flat vector, so that many candidates take turns in it without a copy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.merging.arithmetic import Weights
from harness.models.weights import without_ties


class FlatModule:
    """A module in eval mode whose floating-point weights are a view of ``vector`` [P], on the module's device.

    Writing to the vector changes the module. Each weight keeps the memory layout of the module's (channels-last stays
    channels-last); ``places`` says where in the vector each tensor lies, tied ones under their first name.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()
        tensors, untied = module.state_dict(keep_vars=True), without_ties(module)
        state = {name: tensors[name] for name in untied if tensors[name].is_floating_point()}
        self._order = {name: _memory_order(tensor) for name, tensor in state.items()}
        self.vector = torch.zeros(sum(t.numel() for t in state.values()), device=next(module.parameters()).device)
        self.places: dict[str, slice] = {}
        start = 0
        for name, tensor in state.items():
            self.places[name] = slice(start, start + tensor.numel())
            # the very same strides: of an axis of length 1 they tell channels-last, and so the quick kernels, apart
            tensor.data = self.vector.as_strided(tensor.shape, tensor.stride(), start)
            start += tensor.numel()

    def flatten(self, weights: Weights) -> Tensor:
        """The vector [P] that would make the module hold these weights."""
        pieces = [weights[n].to(self.vector).permute(order).flatten() for n, order in self._order.items()]
        return torch.cat(pieces)


def _memory_order(tensor: Tensor) -> tuple[int, ...]:
    """The axes from the slowest to the quickest in memory."""
    return tuple(sorted(range(tensor.dim()), key=lambda axis: (-int(tensor.stride()[axis]), axis)))
