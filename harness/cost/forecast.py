"""How much memory models will need, before they are there: weights counted, and a pass run that computes nothing.

The pass uses fake tensors, which have shapes and no values (torch.compile's), so neither weights nor activations take
memory or time; what is alive at once is added up.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.models import forward
from harness.models.architectures import build
from harness.systems.rules import mix_linear
from harness.systems.systems import stacked_log_probs
from harness.types import Architecture


@dataclass(frozen=True)
class Need:
    """What models of one architecture need at inference, the process itself left out; members run one after another.

    Activations grow in proportion to the inputs of a batch. Of an ensemble, those of one member and the predictions of
    all are there at once, so they grow by the same for every member from the second on.
    """

    parameters: int
    """Of one model."""
    weights: int
    """Bytes of one model, buffers included."""
    loading: int
    """Bytes of the largest tensor on a CPU, where it is there twice while it is loaded; 0 on a GPU."""
    one: float
    """Bytes for each input, at the peak of one model."""
    two: float
    """At the peak of an ensemble of two."""
    more: float
    """More of them for every further member."""

    def per_input(self, models: int) -> float:
        """Bytes for each input of a batch at the peak, of so many models."""
        return self.one if models == 1 else self.two + (models - 2) * self.more

    def bytes(self, models: int, batch: int) -> int:
        """Bytes of so many models on batches of this size."""
        return round(models * self.weights + max(self.loading, batch * self.per_input(models)))

    def largest_batch(self, models: int, room: float) -> int:
        """Inputs that so many models can be given at once within ``room`` bytes; 0 if not even one."""
        left = room - models * self.weights
        return int(left / self.per_input(models)) if left >= self.loading else 0

    def largest_ensemble(self, batch: int, room: float) -> int:
        """Models that fit within ``room`` bytes on batches of this size; 0 if not even one."""
        if self.bytes(2, batch) > room:
            return int(self.bytes(1, batch) <= room)
        by_activations = 2 + (room - 2 * self.weights - batch * self.two) / (self.weights + batch * self.more)
        return int(min(by_activations, (room - self.loading) / self.weights))


def need(architecture: Architecture, inputs: Tensor, device: torch.device) -> Need:
    """What models of this architecture need on inputs like these [B, ...]; B is the batch that is looked at."""
    with torch.device("meta"):
        module = build(architecture).eval()
    with FakeTensorMode(), torch.no_grad():
        _without_values(module)
        batch = torch.empty(inputs.shape, dtype=inputs.dtype)
        one, two, three = (_peak(module, batch, models) / len(inputs) for models in (1, 2, 3))
        held = {*module.parameters(), *module.buffers()}
        sizes = [tensor.nbytes for tensor in held]
    parameters = sum(parameter.numel() for parameter in module.parameters())
    loading = max(sizes) if device.type == "cpu" else 0
    return Need(parameters, sum(sizes), loading, one, two, three - two)


def _peak(module: nn.Module, batch: Tensor, models: int) -> int:
    """Bytes alive at the peak of a linear ensemble of the module with itself, weights and batch left out."""
    with _Alive(known=(*module.parameters(), *module.buffers(), batch)) as alive:
        stacked = stacked_log_probs([partial(forward.log_probs, module)] * models, batch)
        if models > 1:
            mix_linear(stacked, torch.full((models,), 1 / models))
    return alive.peak


def _without_values(module: nn.Module) -> None:
    """Put fake tensors of the CPU in the place of a module's own, which are on the meta device; tied ones stay tied.

    On the meta device attention would be taken apart, and its matrices counted that no CPU or GPU ever holds.
    """
    made: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
            made[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
        return made[id(tensor)]

    for part in module.modules():
        holders: Sequence[dict[str, Any]] = (part._parameters, part._buffers)
        for held in holders:
            held.update({name: fake(tensor) for name, tensor in held.items() if tensor is not None})


class _Alive(TorchDispatchMode):
    """Adds up the bytes of the tensors that are alive; those of ``known`` and views of them are not counted."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.logsumexp.default:
            # inside, where no dispatch shows it, are the argument less its maxima, the maxima, and the result
            self.peak = max(self.peak, self.now + args[0].nbytes + 2 * result.nbytes)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self.seen:
            return
        self.seen.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, identity: int, size: int) -> None:
        self.seen.discard(identity)
        self.now -= size
