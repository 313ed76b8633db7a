"""Measuring a declared cost: the keys of what is kept, and what is kept of what a meter gave."""

from __future__ import annotations

from typing import Any

from harness.cost import runnable
from harness.cost.cost import Bench, Cost, Figures
from harness.keys import Key
from harness.store import Store, read_json, write_json

FILE = "cost.json"


class NotGiven(Exception):
    """Why a meter gave no figure this time: nothing is kept, so that the next run tries again."""


def cost_key(cost: Cost, *, build: str, test: str, batch: int, machine: str, reference: str) -> Key:
    """The key of one cost of one variant.

    Args:
        cost: what is measured.
        build: the digest of the built variant's key.
        test: the digest of the split whose inputs are run.
        batch: inputs in a full batch.
        machine: ``environment.machine_digest()`` of the driver.
        reference: as ``build``, of the suite's reference; nothing to costs that are not measured beside it.
    """
    beside = {"reference": reference} if cost.beside_reference else {}
    return Key.of(cost.name, code=_code(cost), build=build, test=test, batch=batch, machine=machine, **beside)


def once_key(cost: Cost, *, device: str, test: str, batch: int, machine: str) -> Key:
    """The key of what ``Cost.once`` finds; the arguments are those of ``cost_key``."""
    return Key.of(f"{cost.name}_once", code=_code(cost), device=device, test=test, batch=batch, machine=machine)


def _code(cost: Cost) -> tuple[str, ...]:
    return cost.module, __name__, runnable.__name__


def measure(cost: Cost, bench: Bench) -> Figures:
    """What a cost's function gives.

    Raises:
        NotGiven: its first column is missing; with the reason if it tells one.
        ValueError: a figure that is no number, or that its column cannot have: it is not kept.
    """
    found = cost.measure(bench)
    needed = cost.columns[0].name
    if found.get(needed) is None:
        raise NotGiven(found.get(cost.source or "") or f"{cost.name}: the meter gave no {needed}")
    if problem := next(iter(cost.faults(found).values()), None):
        raise ValueError(f"{cost.name}: {problem}")
    return found


def unmeasured(cost: Cost, reason: str) -> Figures:
    """What is kept of a variant that cannot be run on the test split, and never will be: why, if it has words."""
    return {cost.source: f"unavailable: {reason}"} if cost.source else {}


def keep(store: Store, key: Key, found: Figures) -> None:
    """Write figures to the store; ``ValueError`` or ``TypeError`` where one is NaN or no JSON value."""
    with store.write(key) as folder:
        write_json(folder / FILE, dict(found))


def kept(store: Store, key: Key) -> dict[str, Any] | None:
    """The figures in the store; None where there are none."""
    if not store.has(key):
        return None
    found: dict[str, Any] = read_json(store.read(key) / FILE)
    return found
