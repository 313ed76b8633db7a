"""Many averages of the same few models: their weights are flattened once, and one module takes each average in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from harness.merging.arithmetic import Weights
from harness.models.weights import without_ties


class FlatModels:
    """Weights of M models as the rows of one matrix [M, P], and one module whose weights are a view of one vector [P].

    An average is then a single matrix-vector product written to where the module reads its weights: no copy of the
    module, no state dict. Each weight keeps the memory layout of the module's (channels-last stays channels-last).
    """

    def __init__(self, module: nn.Module, models: Sequence[Weights]) -> None:
        self.module = module.eval()
        tensors, untied = module.state_dict(keep_vars=True), without_ties(module)
        state = {name: tensors[name] for name in untied if tensors[name].is_floating_point()}
        order = {name: _memory_order(tensor) for name, tensor in state.items()}
        self.matrix = torch.empty(len(models), sum(tensor.numel() for tensor in state.values()))
        for row, weights in zip(self.matrix, models, strict=True):
            torch.cat([weights[n].to(torch.float32).permute(order[n]).flatten() for n in state], out=row)
        self.vector = torch.zeros(self.matrix.shape[1])
        start = 0
        for name, tensor in state.items():
            permuted = tensor.permute(order[name])
            view = self.vector[start : start + tensor.numel()].view(permuted.shape)
            tensor.data = view.permute(_inverse(order[name]))
            start += tensor.numel()

    def averages(self, subsets: Sequence[Sequence[int]]) -> Iterator[nn.Module]:
        """The module with the uniform mean of each subset's weights; the next one overwrites it."""
        for subset in subsets:
            coefficients = torch.zeros(len(self.matrix))
            coefficients[list(subset)] = 1 / len(subset)
            torch.mv(self.matrix.T, coefficients, out=self.vector)
            yield self.module


def _memory_order(tensor: Tensor) -> tuple[int, ...]:
    """The axes from the slowest to the quickest in memory."""
    return tuple(sorted(range(tensor.dim()), key=lambda axis: (-int(tensor.stride()[axis]), axis)))


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    return tuple(order.index(axis) for axis in range(len(order)))
