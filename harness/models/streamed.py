"""Models that are run and do not fit in memory: a layer's weights are read when it runs, and let go after it.

What such a model says is, bit for bit, what it says when it is held whole: it is the same module of transformers, whose
repeated layers hold their weights only while they run. What is no repeated layer (embeddings, heads) is held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.architectures import build
from harness.models.configuration import head_of, to_be_filled
from harness.models.room import fits
from harness.models.weights import SOURCE, Source, check_fits, load_module, module_with
from harness.types import Architecture, Member

CPU = torch.device("cpu")


def member_to_run(member: Member, device: torch.device = CPU) -> nn.Module:
    """A member's network in eval mode, to be run and not to be changed."""
    if is_held(member.architecture, device):
        return load_module(member).to(device)
    return streamed_module(member.architecture, member.weights, device)


def module_to_run(architecture: Architecture, weights: Mapping[str, Tensor], device: torch.device = CPU) -> nn.Module:
    """A module in eval mode with these weights, to be run and not to be changed."""
    if is_held(architecture, device):
        return module_with(architecture, weights).to(device)
    return streamed_module(architecture, weights, device)


def is_held(architecture: Architecture, device: torch.device) -> bool:
    """Whether a model is held whole: each of ours is small."""
    return head_of(architecture) is None or fits(bytes_of(architecture), device) or not has_layers(architecture)


@lru_cache(maxsize=64)
def bytes_of(architecture: Architecture) -> int:
    """The bytes of a network in float32, tied weights once; nothing is allocated."""
    module = _without_values(architecture)
    return sum(each.numel() * 4 for each in (*module.parameters(), *module.buffers()))


@lru_cache(maxsize=64)
def has_layers(architecture: Architecture) -> bool:
    """Whether a network has repeated layers, and no statistics that a merge measures anew by running it."""
    module = _without_values(architecture)
    batch_norm = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
    return not batch_norm and next(repeated_layers(module), None) is not None


def _without_values(architecture: Architecture) -> nn.Module:
    with torch.device("meta"):
        return build(architecture)


def repeated_layers(module: nn.Module, above: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The entries of the outermost lists of modules, by name."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{above}{name}.{number}", layer) for number, layer in enumerate(child))
        else:
            yield from repeated_layers(child, f"{above}{name}.")


def streamed_module(
    architecture: Architecture, weights: Mapping[str, Tensor], device: torch.device = CPU
) -> nn.Module:
    """A module in eval mode, in float32, whose repeated layers take their weights from ``weights`` as they run.

    Args:
        architecture: a model of transformers.
        weights: by their names in the module, each tied one under one of its names; a tensor is read when asked for.
        device: where it runs.

    Raises:
        ValueError: as ``load_into``.
    """
    with torch.random.fork_rng(devices=[]), to_be_filled(architecture):
        module = build(architecture)  # its memory is not touched yet, so it takes none
    state = module.state_dict()
    names = check_fits(module, weights)
    held_under = Counter(tensor.data_ptr() for tensor in state.values())
    source = Source(weights, {name: state[name].to("meta") for name in _once(names, state)})
    room: dict[tuple[str, torch.Size], Tensor] = {}
    layers = []
    first = next(name for name, _ in module.named_parameters())  # which tells others where the module runs
    for path, layer in repeated_layers(module):
        inside = {name: f"{path}.{name}" for name, _ in (*layer.named_parameters(), *layer.named_buffers())}
        alone = {name: full for name, full in inside.items()
                 if full in source and full != first and held_under[state[full].data_ptr()] == 1}  # fmt: skip
        layers.append(_Layer(layer, alone, source, device, room))
    read = {full for layer in layers for full in layer.names.values()}
    with torch.no_grad():
        for name in source:
            if name not in read:
                state[name].copy_(source[name])
    del state
    for each in layers:
        each.empty()
    module._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(device))
    for each in layers:
        each.attach()
    setattr(module, SOURCE, source)
    return module.eval()


def _once(names: Sequence[str], state: Mapping[str, Tensor]) -> Iterator[str]:
    """The names of tensors, of those that are tied the first."""
    seen: set[int] = set()
    for name in names:
        if state[name].data_ptr() not in seen or not state[name].numel():
            seen.add(state[name].data_ptr())
            yield name


class _Layer:
    """One repeated layer, and where its weights come from."""

    def __init__(
        self,
        layer: nn.Module,
        names: Mapping[str, str],
        source: Source,
        device: torch.device,
        room: dict[tuple[str, torch.Size], Tensor],
    ) -> None:
        self.layer, self.names, self._source, self._device, self._room = layer, names, source, device, room

    def _places(self) -> Iterator[tuple[nn.Module, str, str]]:
        """Of each tensor that is read, the module that holds it, under which attribute, and its name in the layer."""
        for name in self.names:
            path, _, leaf = name.rpartition(".")
            yield self.layer.get_submodule(path), leaf, name

    def empty(self) -> None:
        """Let go of the weights, also after the layer ran."""
        for owner, leaf, _ in self._places():
            _put(owner, leaf, getattr(owner, leaf).to("meta"))

    def attach(self) -> None:
        """Read the weights before the layer runs and let them go after it, also where it fails."""
        self.layer.register_forward_pre_hook(lambda *_: self._fill())
        self.layer.register_forward_hook(lambda *_: self.empty(), always_call=True)

    def _fill(self) -> None:
        with torch.inference_mode(False), torch.no_grad():  # the room is filled again, in that mode or out of it
            for owner, leaf, name in self._places():
                _put(owner, leaf, self._moved(name, self._source.stored(self.names[name])))

    def _moved(self, name: str, stored: Tensor) -> Tensor:
        """A tensor as the module has it; layers that are alike take turns in the same memory."""
        dtype = self._source.places[self.names[name]].dtype
        if stored.dtype == dtype and stored.device == self._device:
            return stored
        key = name, stored.shape
        if key not in self._room:
            self._room[key] = torch.empty(stored.shape, dtype=dtype, device=self._device)
        return self._room[key].copy_(stored)


def _put(owner: Any, leaf: str, tensor: Tensor) -> None:
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    else:
        owner._buffers[leaf] = tensor
