"""What is found out about a network that a user's function builds, and about a file of its weights, before a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from harness.errors import BadInput
from harness.models import forward
from harness.models.architectures import build
from harness.models.checkpoint import stored_tensors
from harness.models.own_code import code_in, running
from harness.models.own_networks import kind_of_value
from harness.types import Architecture, Split

PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files begin that torch.save, or pickle, has written."""


@dataclass(frozen=True)
class Tensors:
    """The tensors of a network, without values."""

    shapes: Mapping[str, tuple[int, ...]]
    floats: frozenset[str]
    """Those of floating-point numbers."""
    names: Mapping[str, tuple[str, ...]]
    """All names of each, by its first one: tied tensors have several."""


@lru_cache(maxsize=64)
def tensors_of(architecture: Architecture) -> Tensors:
    """The tensors that networks of a user's architecture have.

    Raises:
        BadInput: as ``own_network``; a function that gives the same network, or parts of it, at every call: two members
            would share their weights.
    """
    with torch.random.fork_rng(devices=[]):
        module, other = build(architecture), build(architecture)
    state = module.state_dict()
    shared = {each.data_ptr() for each in state.values() if each.numel()}
    if any(each.data_ptr() in shared for each in other.state_dict().values() if each.numel()):
        hint = "it has to build a new network at every call"
        raise BadInput(f"'{_function(architecture)}' returns the same tensors at every call", hint=hint)
    by_place: dict[Any, list[str]] = {}
    for name, tensor in state.items():
        by_place.setdefault(tensor.data_ptr() if tensor.numel() else name, []).append(name)
    return Tensors(
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        frozenset(name for name, tensor in state.items() if tensor.is_floating_point()),
        {names[0]: tuple(names) for names in by_place.values()},
    )


def _function(architecture: Architecture) -> str:
    code = code_in(architecture)
    return code.function if code else str(architecture)


@lru_cache(maxsize=64)
def check_logits(architecture: Architecture, split: Split, classes: int) -> None:
    """``BadInput`` where a network cannot be run on examples of a split, or does not give a logit for each label."""
    code, batch = code_in(architecture), split.inputs[:2]
    network = f"the network of '{_function(architecture)}'"
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        module = build(architecture).eval()
        with running(f"{network} fails on the task's examples", code.root if code else None):
            found = forward.logits(module, batch)
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise BadInput(f"{network} gives {kind_of_value(found)}, and no logits")
    if found.shape != (len(batch), classes):
        shape = f"{list(found.shape)} for {len(batch)} examples"
        raise BadInput(f"{network} gives logits {shape}, and the task has {classes} labels")


def check_weights(file: Path, architecture: Architecture) -> None:
    """``BadInput`` where a file of weights is no safetensors file, or does not fit a network tensor by tensor."""
    check_is_safetensors(file)
    stored, known = stored_tensors(file), tensors_of(architecture)
    missing = [first for first, names in known.names.items() if not stored.keys() & set(names)]
    unknown = sorted(stored.keys() - known.shapes.keys())
    if missing or unknown:
        what = f"'{missing[0]}' is missing" if missing else f"'{unknown[0]}' is not one of its tensors"
        raise _misfit(what, file, _wrapper(unknown, known))
    for name, tensor in stored.items():
        if tuple(tensor.shape) != known.shapes[name]:
            raise _misfit(f"'{name}' is {list(tensor.shape)}, not {list(known.shapes[name])}", file)
        if name in known.floats and not tensor.is_floating_point():
            raise _misfit(f"'{name}' holds {str(tensor.dtype).removeprefix('torch.')} numbers", file)
    with safe_open(file, framework="pt") as opened:
        for names in known.names.values():
            first, *others = [name for name in names if name in stored]
            if not all(torch.equal(opened.get_tensor(first), opened.get_tensor(other)) for other in others):
                raise _misfit(f"'{first}' and '{others[0]}' are tied, and given different values", file)


def check_is_safetensors(file: Path) -> None:
    """``BadInput`` where there is no such file, or it is a pickle."""
    if not file.is_file():
        raise BadInput("there is no such file", place=str(file))
    with file.open("rb") as opened:
        if opened.read(4).startswith(PICKLED):
            hint = "write the weights with safetensors.torch.save_model(network, 'weights.safetensors')"
            raise BadInput("it is a pickle, which is not read", place=str(file), hint=hint)


def _misfit(what: str, file: Path, hint: str | None = None) -> BadInput:
    return BadInput(f"the weights do not fit the network: {what}", place=str(file), hint=hint)


def _wrapper(unknown: list[str], known: Tensors) -> str | None:
    """What to do where all names begin with that of a wrapper, such as "module." of DataParallel."""
    prefixes = {name.partition(".")[0] for name in unknown}
    if len(prefixes) == 1 and {name.partition(".")[2] for name in unknown} <= known.shapes.keys():
        return f"its names begin with '{min(prefixes)}.': save the network that is inside"
    return None
