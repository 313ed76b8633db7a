"""Experts: several small networks with the same inputs and outputs.

Stacked experts keep the weights of all of them in one tensor [E, out, in], each as ``nn.Linear`` has it and under the
names of transformers' experts, so that ``load_state_dict`` of a block of transformers works. Any modules will do too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

Linear = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
"""Rows, weight and bias to the product: what ``functional.linear`` is for one expert, a dispatch path is for all."""
Layer = tuple[Tensor, Tensor | None]
"""A weight and a bias, of one expert or of all."""


class Experts(nn.Module, ABC):
    """``count`` networks from [rows, inputs] to [rows, outputs]."""

    count: int
    inputs: int
    outputs: int

    @abstractmethod
    def each(self, dtype: torch.dtype) -> list[Callable[[Tensor], Tensor]]:
        """The experts, one by one, for rows of this type."""

    @property
    def parameters_of_one(self) -> int:
        """Parameters of a single expert: the largest of them, where they differ."""
        return sum(parameter.numel() for parameter in self.parameters()) // self.count


class StackedExperts(Experts):
    """A linear layer, an activation and, if there is one, a second linear layer, stacked over the experts."""

    @abstractmethod
    def layers(self) -> Sequence[Layer]:
        """The first weight [E, width, inputs] and its bias [E, width] or None, then the second [E, outputs, hidden]."""

    @abstractmethod
    def activate(self, between: Tensor, in_place: bool = False) -> Tensor:
        """[..., width] to [..., hidden]; in place it may write into what it is given."""

    def run(self, rows: Tensor, linear: Linear) -> Tensor:
        """All experts at once, in the arrangement of rows that ``linear`` takes with the stacked weights."""
        return self._through([_as(pair, rows.dtype) for pair in self.layers()], linear, rows)

    def each(self, dtype: torch.dtype) -> list[Callable[[Tensor], Tensor]]:
        # unbind, not weight[e]: the backward of an index writes a gradient as large as all experts each time
        layers = [_unbound(_as(pair, dtype)) for pair in self.layers()]
        return [partial(self._through, of_one, functional.linear) for of_one in zip(*layers, strict=True)]

    def _through(self, layers: Sequence[Layer], linear: Linear, rows: Tensor) -> Tensor:
        first, *second = layers
        hidden = self.activate(linear(rows, *first), not torch.is_grad_enabled())
        return linear(hidden, *second[0]) if second else hidden


def _as(pair: Layer, dtype: torch.dtype) -> Layer:
    weight, bias = pair
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def _unbound(pair: Layer) -> list[Layer]:
    weight, bias = pair
    biases: Sequence[Tensor | None] = [None] * len(weight) if bias is None else bias.unbind()
    return list(zip(weight.unbind(), biases, strict=True))


class PerceptronExperts(StackedExperts):
    """``down(relu(up(x)))``, or without ``outputs`` ``relu(up(x))`` alone; biases unless ``bias`` is False.

    Started as ``nn.Linear`` is.
    """

    def __init__(self, experts: int, inputs: int, hidden: int, outputs: int | None = None, *, bias: bool = True):
        super().__init__()
        self.count, self.inputs, self.hidden, self.outputs = experts, inputs, hidden, outputs or hidden
        self.up_proj = nn.Parameter(torch.empty(experts, hidden, inputs))
        self.up_proj_bias = nn.Parameter(torch.empty(experts, hidden)) if bias else None
        self.down_proj = nn.Parameter(torch.empty(experts, outputs, hidden)) if outputs else None
        self.down_proj_bias = nn.Parameter(torch.empty(experts, outputs)) if outputs and bias else None
        _start(self.layers())

    def layers(self) -> list[Layer]:
        up = (self.up_proj, self.up_proj_bias)
        return [up] if self.down_proj is None else [up, (self.down_proj, self.down_proj_bias)]

    def activate(self, between: Tensor, in_place: bool = False) -> Tensor:
        return functional.relu(between, inplace=in_place)


class SwiGLUExperts(StackedExperts):
    """``down(silu(gate(x)) * up(x))`` without biases unless ``bias`` is True: the experts of Mixtral, Qwen and OLMoE.

    ``gate_up_proj`` [E, 2 hidden, inputs] has the gate's rows first, then those of ``up``.
    """

    def __init__(self, experts: int, inputs: int, hidden: int, outputs: int | None = None, *, bias: bool = False):
        super().__init__()
        self.count, self.inputs, self.hidden, self.outputs = experts, inputs, hidden, outputs or inputs
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * hidden, inputs))
        self.gate_up_proj_bias = nn.Parameter(torch.empty(experts, 2 * hidden)) if bias else None
        self.down_proj = nn.Parameter(torch.empty(experts, self.outputs, hidden))
        self.down_proj_bias = nn.Parameter(torch.empty(experts, self.outputs)) if bias else None
        _start(self.layers())

    def layers(self) -> list[Layer]:
        return [(self.gate_up_proj, self.gate_up_proj_bias), (self.down_proj, self.down_proj_bias)]

    def activate(self, between: Tensor, in_place: bool = False) -> Tensor:
        gate, up = between.chunk(2, dim=-1)
        gate = functional.silu(gate, inplace=in_place)
        return gate.mul_(up) if in_place else gate * up


def _start(layers: Sequence[Layer]) -> None:
    """As ``nn.Linear`` starts, each expert on its own."""
    for weight, bias in layers:
        bound = 1 / math.sqrt(weight.shape[-1])
        for tensor in (weight, bias):
            if tensor is not None:
                nn.init.uniform_(tensor, -bound, bound)


class ModuleExperts(Experts):
    """Any modules from [rows, inputs] to [rows, outputs]; paths that need stacked weights do not take them."""

    def __init__(self, modules: Sequence[nn.Module], inputs: int, outputs: int) -> None:
        super().__init__()
        if not modules:
            raise ValueError("there must be at least one expert")
        self.count, self.inputs, self.outputs = len(modules), inputs, outputs
        self.experts = nn.ModuleList(modules)

    def each(self, dtype: torch.dtype) -> list[Callable[[Tensor], Tensor]]:
        return list(self.experts)

    @property
    def parameters_of_one(self) -> int:
        return max(sum(parameter.numel() for parameter in expert.parameters()) for expert in self.experts)
