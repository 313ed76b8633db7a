"""Networks by name: ``build`` turns any ``Architecture`` of any kind of task into a module."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.errors import BadInput
from harness.keys import named
from harness.models.configuration import head_of
from harness.models.forward import as_read_by
from harness.models.own_code import code_in
from harness.models.own_networks import OWN, parameters_of
from harness.models.settings import check_layers
from harness.models.smaller import half_width
from harness.registry import KINDS
from harness.types import Architecture

if TYPE_CHECKING:
    from harness.kinds.kind import Kind


def trainable() -> list[str]:
    """The networks that a suite may have trained, of all kinds of task."""
    return sorted(name for kind in KINDS for name in kind.networks)


def kind_of(architecture: Architecture) -> str | None:
    """The name of the kind of task that an architecture is for; None for one that no kind builds."""
    kind = _kinds().get(architecture.name)
    return kind.name if kind else None


def _kinds() -> dict[str, Kind[Any, Any]]:
    """The kind of task that each architecture is for, by its name."""
    return {family: kind for kind in KINDS for family in kind.families}


def _kind_that_builds(name: str) -> Kind[Any, Any]:
    kinds = _kinds()
    if name not in kinds:
        raise BadInput(f"unknown architecture '{name}'", given=name, choices=kinds)
    return kinds[name]


def code_of(architecture: Architecture) -> tuple[str, ...]:
    """What builds an architecture, runs it on a batch and says how it is trained: keys name it, no import shows it.

    (A function of the user's that builds it is a part of the architecture itself, with the digest of its code.)
    """
    kind = _kinds().get(architecture.name)
    if kind is None:
        return ()
    return tuple(named(each) for each in (kind.families[architecture.name], kind.logits, kind.schedule))


def build(architecture: Architecture) -> nn.Module:
    """A module with fresh weights from torch's global generator; ``BadInput`` on an unknown name or option.

    Convolutions are laid out channels-last: on a CPU that halves the time of a forward pass of these networks. Those of
    a network that a user's function builds stay as it made them.
    """
    kind = _kind_that_builds(architecture.name)
    try:
        module = kind.families[architecture.name](**dict(architecture.options))
    except TypeError as error:
        raise BadInput(f"architecture '{architecture.name}': {str(error).split('() ')[-1]}") from None
    if code_in(architecture) is None:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return marked(module, architecture)


def marked(module: nn.Module, architecture: Architecture) -> nn.Module:
    """A module of an architecture, marked with the kind of task that it is for and what reads examples for it."""
    return as_read_by(kind_of(architecture), module, dict(architecture.options).get("reader"))


def check_options(architecture: Architecture, *, by_name: bool = False) -> None:
    """``BadInput`` for options that no network can be built with; nothing is allocated.

    ``by_name``: only that there are such options, and that none is missing, which needs no imports.
    """
    try:
        if by_name:
            inspect.signature(_kind_that_builds(architecture.name).families[architecture.name]).bind(
                **dict(architecture.options)
            )
            return
        check_layers(dict(architecture.options), f"architecture '{architecture.name}'")
        with torch.device("meta"):
            build(architecture)
    except TypeError as error:
        raise BadInput(f"architecture '{architecture.name}': {error}") from None
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        raise BadInput(f"architecture '{architecture.name}' cannot be built: {error}") from None


def takes(architecture: Architecture, option: str) -> bool:
    """Whether networks of one of our families can be built with an option: what a user's function does with it,
    nobody knows."""
    return code_in(architecture) is None and option in _parameters(architecture)


def _parameters(architecture: Architecture) -> Mapping[str, inspect.Parameter]:
    """The options that networks of a family, or of a user's function, are built with."""
    if code := code_in(architecture):
        return {name: each for name, each in parameters_of(code).items() if name not in OWN}
    return inspect.signature(_kind_that_builds(architecture.name).families[architecture.name]).parameters


def with_options(architecture: Architecture, **options: Any) -> Architecture:
    """The same family with some options changed."""
    return Architecture(architecture.name, tuple(sorted({**dict(architecture.options), **options}.items())))


def half_size(architecture: Architecture) -> Architecture:
    """The same family at about half the width of every layer (a quarter of most matrices).

    Raises:
        BadInput: for a model of transformers whose configuration does not allow it, or a function of the user's that
            takes no width.
    """
    if head_of(architecture):
        return half_width(architecture)
    widths = ("width", "hidden")
    known, given = _parameters(architecture), dict(architecture.options)
    present = {w: given.get(w, known[w].default) for w in widths if w in known}
    if (code := code_in(architecture)) and not all(type(size) is int for size in present.values() or [None]):
        raise BadInput(f"'{code.function}' takes no number as {' or '.join(widths)}")
    return with_options(architecture, **{w: max(1, value // 2) for w, value in present.items()})
