"""Which path to take: the one that is named, or the fastest of a short measurement that is made once for a size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from harness.errors import BadInput
from harness.moe import dispatch  # noqa: F401 (all paths: they are looked up, and keys have to cover their code)
from harness.moe.dispatch.dispatch import Dispatch
from harness.moe.experts import Experts
from harness.moe.routing import Routing
from harness.registry import DISPATCHES

AUTO = "auto"
ROUNDS = 5
"""Timed passes of each path, after one that warms up."""
TOO_MANY = 2**27
"""Numbers between the layers of all experts on all rows, over which a path that makes them is not tried."""
LONG = 1000.0
"""Milliseconds of a first pass, not warm yet, over which a path that is too slow is not run a second time."""
TOO_SLOW = 4.0
"""A path that takes this many times the best one's time so far is not timed again."""


@dataclass(frozen=True)
class Choice:
    """The path that ran, and what is known of the others."""

    path: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """Of every path that was measured: the shortest forward pass, or forward and backward where there are gradients.
    Empty where the path was named."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why the other paths cannot run here."""

    def __str__(self) -> str:
        if not self.milliseconds:
            return f"{self.path} (named)"
        others = [f"{name} {ms:.3g} ms" for name, ms in self.milliseconds.items() if name != self.path]
        told = ", ".join([*others, *(f"{name} not: {why}" for name, why in self.refused.items())])
        return f"{self.path} {self.milliseconds[self.path]:.3g} ms" + (f" ({told})" if told else "")


_KNOWN: dict[tuple[object, ...], Choice] = {}


def choose(name: str, experts: Experts, x: Tensor, routing: Routing) -> Choice:
    """The path for these rows [N, inputs]; ``BadInput`` with the reason where the named one cannot run here."""
    if name != AUTO:
        path = DISPATCHES.get(name)
        if why := path.unavailable(experts, x):
            raise BadInput(f"experts cannot be dispatched by '{name}': {why}", hint=f"'{AUTO}' takes what can")
        return Choice(name)
    size = _size(experts, x, routing)
    if size not in _KNOWN:
        _KNOWN[size] = measure(experts, x, routing)
    return _KNOWN[size]


def choices() -> list[Choice]:
    """What has been measured in this process, in order."""
    return list(_KNOWN.values())


def _size(experts: Experts, x: Tensor, routing: Routing) -> tuple[object, ...]:
    """What times depend on; the rows only to the next power of two, so that batches of many lengths share one."""
    device = torch.cuda.get_device_name(x.device) if x.device.type == "cuda" else x.device.type
    shapes = tuple((tuple(parameter.shape), parameter.dtype) for parameter in experts.parameters())
    rows = (max(len(x), 1) - 1).bit_length()
    threads = torch.get_num_threads() if x.device.type == "cpu" else 0
    grads = _differentiates(experts, x, routing)
    return device, threads, type(experts), shapes, x.dtype, rows, routing.chosen.shape[-1], grads


def _differentiates(experts: Experts, x: Tensor, routing: Routing) -> bool:
    tensors = (x, routing.weights, *experts.parameters())
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def measure(experts: Experts, x: Tensor, routing: Routing) -> Choice:
    """Time every path that can run on these rows as they are routed; gradients and generators stay as they were.

    In turn, and the shortest counts: what else goes on meanwhile makes a pass longer only.
    """
    passes: dict[str, Callable[[], None]] = {}
    times: dict[str, float] = {}
    refused: dict[str, str] = {}
    with _disable_current_modes():  # a counter of operations that is at work must not see this
        for path in DISPATCHES:
            why = path.unavailable(experts, x) or _too_large(path, experts, x)
            if not why:
                work = _pass(path, experts, x, routing)
                try:
                    times[path.name] = _first(work, x.device, min(times.values(), default=math.inf))
                    passes[path.name] = work
                except RuntimeError as error:  # memory is short, or the backend takes the type but not the size
                    why = str(error).splitlines()[0]
            if why:
                refused[path.name] = why
        if not times:
            raise RuntimeError("; ".join(f"{name}: {why}" for name, why in refused.items()))
        worth = [name for name, first in times.items() if first <= TOO_SLOW * min(times.values())]
        for _ in range(ROUNDS - 1):
            for name in worth:
                times[name] = min(times[name], _once(passes[name], x.device))
    return Choice(min(times, key=times.__getitem__), times, refused)


def _too_large(path: Dispatch, experts: Experts, x: Tensor) -> str | None:
    widest = max((size for parameter in experts.parameters() for size in parameter.shape[-2:]), default=1)
    numbers = experts.count * len(x) * widest
    if path.every_expert and numbers > TOO_MANY:
        return f"all experts on all rows are {numbers:,} numbers at once"
    return None


def _pass(path: Dispatch, experts: Experts, x: Tensor, routing: Routing) -> Callable[[], None]:
    if not _differentiates(experts, x, routing):

        def forward() -> None:
            with torch.no_grad():
                path.run(experts, x, routing)

        return forward
    parameters = [parameter for parameter in experts.parameters() if parameter.requires_grad]
    weights = routing.weights.detach().requires_grad_(routing.weights.requires_grad)
    rows = x.detach().requires_grad_(x.requires_grad)
    wanted = [tensor for tensor in (rows, weights, *parameters) if tensor.requires_grad]
    detached = Routing(routing.chosen, weights, routing.logits.detach(), routing.loss.detach(), routing.kept)

    def forward_and_backward() -> None:
        out = path.run(experts, rows, detached)
        torch.autograd.grad(out, wanted, torch.ones_like(out), allow_unused=True)

    return forward_and_backward


def _first(work: Callable[[], None], device: torch.device, best: float) -> float:
    """Milliseconds of a warm pass; of one that is too slow for long, those of the pass that would have warmed it."""
    cold = _once(work, device)
    return cold if cold > max(LONG, TOO_SLOW * best) else _once(work, device)


def _once(work: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - begin)
