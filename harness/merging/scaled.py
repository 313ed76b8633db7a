"""Many models along one task vector, ``theta_0 + scale * tau``: in turn in one module, or made as they run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from harness.merging.arithmetic import Weights
from harness.merging.batchnorm import recalibrate
from harness.merging.flat import FlatModule
from harness.merging.layers import layer_of, layers_of
from harness.models.streamed import streamed_module
from harness.types import Member


class ScaledTaskVector:
    """The models that a search over scales tries, each with the weights that ``apply_task_vector`` would give it.

    Args:
        module: the network that takes their weights, on its device; it is changed.
        base: theta_0.
        vector: tau by tensor name; a tensor without one stays the base's.
        batches: training inputs, for the BatchNorm statistics of each model.
        keep: the statistics that stay the module's, by tensor name (``shared_statistics``).
    """

    def __init__(
        self,
        module: nn.Module,
        base: Weights,
        vector: Mapping[str, Tensor],
        batches: Sequence[Tensor],
        keep: Collection[str] = (),
    ) -> None:
        self.flat, self.batches, self.keep = FlatModule(module), batches, keep
        self.layers = layers_of(name for name in self.flat.places if name in vector)
        self._base = self.flat.flatten(base)
        zeros = {name: torch.zeros_like(base[name]) for name in self.flat.places if name not in vector}
        self._vector = self.flat.flatten({**vector, **zeros})
        dtypes = [(place, base[name].dtype) for name, place in self.flat.places.items()]
        self._narrow = [(place, dtype) for place, dtype in dtypes if dtype.itemsize < 4]

    def at(self, scale: float) -> nn.Module:
        """The module with ``theta_0 + scale * tau``; the next one overwrites it."""
        torch.mul(self._vector, scale, out=self.flat.vector)
        return self._added()

    def at_each(self, scales: Mapping[str, float]) -> nn.Module:
        """The module in which each layer's task vector has a scale of its own (0 for a layer that is not named)."""
        for name, place in self.flat.places.items():
            torch.mul(self._vector[place], scales.get(layer_of(name), 0.0), out=self.flat.vector[place])
        return self._added()

    def _added(self) -> nn.Module:
        """The module with the base added to the vector: a sum after the product, as a fused one rounds differently."""
        self.flat.vector.add_(self._base)
        for place, dtype in self._narrow:
            self.flat.vector[place] = self.flat.vector[place].to(dtype)
        recalibrate(self.flat.module, self.batches, self.keep)
        return self.flat.module


class StreamedTaskVector:
    """The same models where one does not fit in memory: each makes a layer's weights when the layer runs.

    Args:
        base: theta_0.
        vector: tau by tensor name; a tensor without one stays the base's.
        device: where the models run.
    """

    def __init__(self, base: Member, vector: Mapping[str, Tensor], device: torch.device) -> None:
        self._base, self._vector, self._device = base, vector, device
        self.layers = layers_of(name for name in base.weights if name in vector)

    def at(self, scale: float) -> nn.Module:
        """The module with ``theta_0 + scale * tau``."""
        return self._with(lambda name: scale)

    def at_each(self, scales: Mapping[str, float]) -> nn.Module:
        """The module in which each layer's task vector has a scale of its own (0 for a layer that is not named)."""
        return self._with(lambda name: scales.get(layer_of(name), 0.0))

    def _with(self, scale_of: Callable[[str], float]) -> nn.Module:
        weights = _Scaled(self._base.weights, self._vector, scale_of)
        return streamed_module(self._base.architecture, weights, self._device)


class _Scaled(Mapping[str, Tensor]):
    """``theta_0 + scale * tau``, rounded to the precision of theta_0: each tensor is made when it is asked for."""

    def __init__(self, base: Weights, vector: Mapping[str, Tensor], scale_of: Callable[[str], float]) -> None:
        self._base, self._vector, self._scale_of = base, vector, scale_of

    def __getitem__(self, name: str) -> Tensor:
        start = self._base[name]
        if name not in self._vector:
            return start
        change = self._vector[name] * self._scale_of(name)
        return change.add_(start.to(change.dtype)).to(start.dtype)

    def __contains__(self, name: object) -> bool:
        return name in self._base

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)
