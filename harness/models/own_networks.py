"""Networks that a function of a user's builds: how it is called, and what it has to return to be of use here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.parameter import is_lazy

from harness.errors import BadInput
from harness.models.own_code import Code, call, load
from harness.types import Reader

if TYPE_CHECKING:
    from harness.kinds.kind import Kind

OWN = ("build", "shape", "reader")
"""Options of such an architecture that are none of the function's."""


def own_network(
    *, build: Code, shape: tuple[tuple[str, int], ...], reader: Reader | None = None, **options: Any
) -> nn.Module:
    """What the function returns.

    Args:
        build: the function.
        shape: what the task says of itself (``classes``, ``side``, ``features``): given to it where it takes that.
        reader: of raw examples, what turns them into the network's inputs.
        options: what the suite says it is called with.

    Raises:
        BadInput: options that it does not take, an error in it, or something that is no network.
    """
    names = parameters_of(build)
    anything = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in names.values())
    given = {name: _thawed(value) for name, value in options.items()}
    if not anything and (strays := sorted(given.keys() - names.keys())):
        raise BadInput(f"'{build.function}' takes no option '{strays[0]}'", given=strays[0], choices=names)
    given |= {name: size for name, size in shape if name in names}
    lacking = [name for name, each in names.items() if each.default is each.empty and name not in given
               and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]  # fmt: skip
    if lacking:
        raise BadInput(f"'{build.function}' needs the option '{lacking[0]}'", hint="name it under 'options'")
    return _usable(call(build, given), build)


def parameters_of(code: Code) -> Mapping[str, inspect.Parameter]:
    """What a user's function takes."""
    function = load(code).function
    try:
        return inspect.signature(function).parameters
    except ValueError:  # one that is written in C
        return {"options": inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)}


def _thawed(value: Any) -> Any:
    """Options are tuples in an architecture, which can be hashed, and lists where a suite says them."""
    return [_thawed(each) for each in value] if isinstance(value, tuple) else value


def _usable(module: Any, code: Code) -> nn.Module:
    """The module on the CPU and in float32, as all networks are loaded; no part of it is frozen."""
    if not isinstance(module, nn.Module):
        raise BadInput(f"'{code.function}' returns {kind_of_value(module)}, and no torch.nn.Module")
    tensors = [*module.parameters(), *module.buffers()]
    if any(map(is_lazy, tensors)):
        hint = "run it once on an example before it is returned"
        raise BadInput(f"'{code.function}' returns a network with lazy layers, which have no weights yet", hint=hint)
    if not any(True for _ in module.parameters()):
        raise BadInput(f"'{code.function}' returns a network without parameters")
    if any(tensor.device.type not in ("cpu", "meta") for tensor in tensors):
        module = module.cpu()
    return module.float().requires_grad_(True)


def kind_of_value(value: Any) -> str:
    """What a value is, in words."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def family_for(kind: Kind[Any, Any]) -> str | None:
    """The name of architectures that users' functions build for a kind of task; None where it runs none of these."""
    return next((name for name, build in kind.families.items() if build is own_network), None)
