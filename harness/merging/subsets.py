"""Many averages of the same few models: their weights are flattened once, and one module takes each average in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from harness.merging.arithmetic import Weights
from harness.merging.flat import FlatModule


class FlatModels:
    """Weights of M models as the rows of one matrix [M, P], and one module whose weights are a view of one vector [P].

    An average is then a single matrix-vector product written to where the module reads its weights: no copy of the
    module, no state dict.
    """

    def __init__(self, module: nn.Module, models: Sequence[Weights]) -> None:
        self.flat = FlatModule(module)
        self.matrix = torch.empty(len(models), len(self.flat.vector))
        for row, weights in zip(self.matrix, models, strict=True):  # each model is held once, not twice
            row.copy_(self.flat.flatten(weights))

    def averages(self, subsets: Sequence[Sequence[int]]) -> Iterator[nn.Module]:
        """The module with the uniform mean of each subset's weights; the next one overwrites it."""
        for subset in subsets:
            coefficients = torch.zeros(len(self.matrix), device=self.matrix.device)
            coefficients[list(subset)] = 1 / len(subset)
            torch.mv(self.matrix.T, coefficients, out=self.flat.vector)
            yield self.flat.module
