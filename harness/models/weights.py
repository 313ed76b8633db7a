"""Weights on disk: safetensors files written contiguous, read one tensor at a time and only when touched."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.errors import BadInput
from harness.models.architectures import build, marked
from harness.models.configuration import to_be_filled
from harness.models.own_code import Code
from harness.store import read_json, write_json
from harness.types import Architecture, Member, Reader

WEIGHTS, ARCHITECTURE = "model.safetensors", "architecture.json"
"""The files of one of our networks in a folder."""


class ModelWeights(Mapping[str, Tensor]):
    """The tensors of a model that another library reads: what the model is, it says."""

    @abstractmethod
    def module(self) -> nn.Module:
        """The model as that library loads it, new at every call, in float32 and eval mode."""


class LazyWeights(Mapping[str, Tensor]):
    """The tensors of a safetensors file; each is read when it is asked for, and none is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with safe_open(path, framework="pt") as file:
            self._names = dict.fromkeys(file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # a mapping's own would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict; views and layouts are made plain first, as the format asks."""
    if isinstance(weights, Source):  # which does not fit in memory
        _write_one_by_one(weights, path)
    else:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}, path)


CODES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.int32: "I32", torch.float32: "F32", torch.float64: "F64", torch.int64: "I64",
}  # fmt: skip
"""What safetensors calls the types of tensors, in the order in which a file has them, from its end."""


def _write_one_by_one(weights: Source, path: Path) -> None:
    """Write the file that safetensors' ``save_file`` writes, with one tensor in memory at a time."""
    order = list(CODES)
    header: dict[str, Any] = {}
    end = 0
    for name in sorted(weights, key=lambda name: (-order.index(weights.places[name].dtype), name)):
        place = weights.places[name]
        begin, end = end, end + place.numel() * place.itemsize
        header[name] = {"dtype": CODES[place.dtype], "shape": list(place.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in header:
            file.write(memoryview(weights[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().data))


def save_network(architecture: Architecture, module: nn.Module, folder: Path) -> None:
    """Write a network of the zoo, or one that a user's function built, to an existing folder."""
    save_weights(without_ties(module), folder / WEIGHTS)
    options = {
        name: asdict(value) if isinstance(value, Reader | Code) else value for name, value in architecture.options
    }
    write_json(folder / ARCHITECTURE, [architecture.name, options])


def saved_architecture(folder: Path) -> Architecture:
    """The architecture of a folder that ``save_network`` wrote."""
    name, options = read_json(folder / ARCHITECTURE)
    made = {"reader": Reader, "build": Code}
    read = {
        key: made[key](**value) if key in made and isinstance(value, dict) else _frozen(value)
        for key, value in options.items()
    }
    return Architecture(name, tuple(sorted(read.items())))


def _frozen(value: Any) -> Any:
    """A value of a JSON file as options have it: lists are tuples, so that an architecture can be hashed."""
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value


def forget_places(folder: Path) -> None:
    """Leave out of a folder that ``save_network`` wrote where on this machine a user's code and files lie."""
    name, options = read_json(folder / ARCHITECTURE)
    options.pop("reader", None)
    if isinstance(options.get("build"), dict):
        options["build"].pop("root", None)
    write_json(folder / ARCHITECTURE, [name, options])


def module_with(architecture: Architecture, weights: Mapping[str, Tensor]) -> nn.Module:
    """A module in eval mode that holds these weights; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]), to_be_filled(architecture):  # others draw fresh weights from it first
        module = build(architecture)
    load_into(module, weights)
    return module.eval()


def check_fits(module: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """The names of a module's tensors that weights are given for, in its order.

    Raises:
        ValueError: names that are not the module's, or that it lacks.
    """
    expected = module.state_dict()
    missing = sorted(set(without_ties(module)) - set(weights))
    unknown = sorted(set(weights) - set(expected))
    if missing or unknown:
        what = f"'{missing[0]}' is missing" if missing else f"'{unknown[0]}' is not one of its tensors"
        raise ValueError(f"the weights do not fit the network: {what}")
    return [name for name in expected if name in weights]


def load_into(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a module; of tied tensors, which files hold once, the second name may be absent.

    Raises:
        ValueError: names or shapes that are not the module's, or unequal weights for tied names.
    """
    expected = module.state_dict()
    written: set[int] = set()
    with torch.no_grad():
        for name in check_fits(module, weights):
            tensor, place = weights[name], expected[name]
            if tensor.shape != place.shape:
                shapes = f"{list(tensor.shape)}, not {list(place.shape)}"
                raise ValueError(f"the weights do not fit the network: '{name}' is {shapes}")
            if place.data_ptr() in written and not torch.equal(place, tensor.to(place)):
                raise ValueError(f"the weights do not fit the network: '{name}' is tied, and given other values")
            place.copy_(tensor)
            if place.numel():
                written.add(place.data_ptr())


class Source(Mapping[str, Tensor]):
    """The tensors of a module that does not hold all of them, each tied one once; each is read when asked for.

    Args:
        weights: which are read, in whatever precision.
        places: by name in the module, of what shape and type the module has them.
    """

    def __init__(self, weights: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> None:
        self._weights, self.places = weights, places

    def __getitem__(self, name: str) -> Tensor:
        return self.stored(name).to(self.places[name].dtype)

    def stored(self, name: str) -> Tensor:
        """A tensor in the precision that it is stored in."""
        place, tensor = self.places[name], self._weights[name]
        if tensor.shape != place.shape:
            shapes = f"{list(tensor.shape)}, not {list(place.shape)}"
            raise ValueError(f"the weights do not fit the network: '{name}' is {shapes}")
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


SOURCE = "stockpot_source"
"""The attribute of a module that does not hold all of its tensors: the ``Source`` of them."""


def without_ties(module: nn.Module) -> Mapping[str, Tensor]:
    """A module's tensors, each tied one under its first name only, as safetensors files hold them."""
    if isinstance(source := getattr(module, SOURCE, None), Source):
        return source
    seen: set[int] = set()
    tensors = {}
    for name, tensor in module.state_dict().items():
        if tensor.data_ptr() not in seen or not tensor.numel():
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.detach()
    return tensors


def load_module(member: Member) -> nn.Module:
    """A member's network in eval mode."""
    if isinstance(member.weights, ModelWeights):
        return marked(member.weights.module(), member.architecture)
    return module_with(member.architecture, member.weights)


def check_finite(member: str, module: nn.Module) -> None:
    """``BadInput`` where a member's network holds NaN or infinite weights."""
    for name, tensor in without_ties(module).items():
        if reason := why_not_finite(tensor):
            raise BadInput(f"member {member} holds {reason} weights in '{name}'")


def why_not_finite(tensor: Tensor) -> str | None:
    """"NaN" or "infinite" where a tensor is; None for one of finite numbers, or of none."""
    if not tensor.is_floating_point() or torch.isfinite(tensor).all():
        return None
    return "NaN" if torch.isnan(tensor).any() else "infinite"
