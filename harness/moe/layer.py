"""A mixture-of-experts layer: a gate, experts, and a path on which rows reach their experts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.errors import BadInput
from harness.moe.choose import AUTO, Choice, choose
from harness.moe.experts import Experts, PerceptronExperts, StackedExperts
from harness.moe.gating import Gate, NoisyTopK
from harness.registry import DISPATCHES


class MixtureOfExperts(nn.Module):
    """``y = sum_i G_i(x) E_i(x)`` over the k experts that the gate picks for each row [..., inputs].

    The gate computes in float32 at least, the experts in the type of the rows. No row is dropped unless there is a
    capacity. After a forward pass ``aux_loss`` holds the gate's losses (0 in eval mode), ``dropped`` how many pairs of
    a row and an expert the capacity left out, and ``choice`` the path that ran and why. The ``Routing`` itself is what
    ``gate`` returns: a forward hook on it sees every one.

    Args:
        gate, experts: of the same number of experts and size of rows.
        dispatch: the path: a registered name ("dense", "sorted", ...), or "auto" for the fastest by a short
            measurement of the first pass of each device, type and size (``choose``). A choice by time may differ
            between two runs, and with it the last bits of results: name a path where these have to be the same.
        capacity: at most ``capacity * N k / E`` rows for an expert (rounded up); None: no limit.
    """

    def __init__(self, gate: Gate, experts: Experts, *, dispatch: str = AUTO, capacity: float | None = None) -> None:
        super().__init__()
        if (gate.experts, gate.inputs) != (experts.count, experts.inputs):
            raise ValueError(
                f"the gate is for {gate.experts} experts with {gate.inputs} inputs, "
                f"but there are {experts.count} with {experts.inputs}"
            )
        if capacity is not None and not capacity > 0:
            raise ValueError(f"a capacity must be greater than 0, not {capacity}")
        if dispatch != AUTO:
            DISPATCHES.get(dispatch)
        self.gate, self.experts, self.dispatch, self.capacity = gate, experts, dispatch, capacity
        self.aux_loss: Tensor = torch.zeros(())
        self.dropped: Tensor = torch.zeros((), dtype=torch.int64)
        self.choice: Choice | None = None

    @property
    def active_parameters(self) -> int:
        """Parameters that one row uses: the gate and k experts, or all where the path runs every expert."""
        everywhere = self.dispatch != AUTO and DISPATCHES.get(self.dispatch).every_expert
        running = self.gate.experts if everywhere else self.gate.k
        return self.gate.active_parameters + running * self.experts.parameters_of_one

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        routing = self.gate(rows)
        if self.capacity is not None:
            routing = routing.within(self.capacity)
        self.aux_loss, self.dropped = routing.loss, routing.dropped
        if autocast := torch.is_autocast_enabled(x.device.type):
            rows = rows.to(torch.get_autocast_dtype(x.device.type))
        stacked = isinstance(self.experts, StackedExperts)  # they cast their weights to the rows' type themselves
        with torch.autocast(x.device.type, enabled=autocast and not stacked):
            self.choice = choose(self.dispatch, self.experts, rows, routing)
            out = DISPATCHES.get(self.choice.path).run(self.experts, rows, routing)
        return out.view(*x.shape[:-1], self.experts.outputs)


PATHS = {"sparse": "sorted", "dense": "dense"}
"""The path of each ``routing`` of a classifier: named ones, so that the same seed gives the same weights."""


def classifier_layer(
    inputs: int,
    outputs: int,
    *,
    experts: int = 4,
    k: int = 2,
    routing: str = "sparse",
    dispatch: str | None = None,
    balance_weight: float = 0.1,
) -> MixtureOfExperts:
    """The hidden layer of a classifier: noisy top-k gating (Shazeer et al. 2017) over linear layers with a ReLU.

    An expert is what the layer would be without experts, so that one expert alone is the classifier itself.
    ``routing`` "sparse" runs an expert only on its own rows, "dense" every expert on every row, with the same result;
    ``dispatch`` names another path.
    """
    if routing not in PATHS:
        raise BadInput(f"unknown routing '{routing}'", given=routing, choices=PATHS)
    gate = NoisyTopK(inputs, experts, k, balance_weight=balance_weight)
    stacked = PerceptronExperts(experts, inputs, outputs)
    return MixtureOfExperts(gate, stacked, dispatch=dispatch or PATHS[routing])
