"""A task that is loaded for checks, from what a suite says under ``task:``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.errors import BadInput
from harness.kinds.kind import Kind
from harness.models.architectures import build
from harness.models.training import train
from harness.models.weights import LazyWeights, save_weights, without_ties
from harness.pools.pool import load_pool
from harness.pools.source import AskedPool
from harness.registry import KINDS, SOURCES
from harness.store import Store
from harness.tasks.task import Task, TaskReference
from harness.types import Architecture, Member, Split

Given = str | Mapping[str, Any]
"""What stands under ``task:`` of a suite: a name, or a mapping."""
USUAL: Given = "digits"
LIMIT = 5
FEW = 32


class TriedTask:
    """A task in a store of its own, and what is made for it, each once: networks, and their training.

    Args:
        kind: the kind of task.
        given: what a suite says of it.
        folder: that paths are relative to.
        allow_code: whether what the task's files name may be run.
        pool: what a suite says under ``pool:``, of a small one, where the kind has no networks of its own.
    """

    def __init__(
        self,
        kind: Kind[Any, Any],
        given: Given,
        folder: Path,
        allow_code: bool = False,
        pool: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind, self.given, self.folder, self.allow_code, self.pool = kind, given, folder, allow_code, pool
        self._place = tempfile.TemporaryDirectory()
        self.store = Store(Path(self._place.name))

    def refer(self, limit: int | None = None) -> TaskReference:
        """The reference, as a run is planned for it."""
        said = self.given
        value = said if isinstance(said, str) or self.kind.spec is None else self.kind.spec.model_validate(dict(said))
        reference = self.kind.refer(value, "checked", self.folder, None)
        rendered: TaskReference = self.kind.rendered(reference, self.store, limit, self.allow_code)
        return rendered

    def load(self, limit: int | None = None) -> Task:
        """The task, read anew."""
        task: Task = self.kind.load(self.refer(limit), self.store, limit)
        return task

    @cached_property
    def task(self) -> Task:
        return self.load()

    @cached_property
    def limited(self) -> Task:
        return self.load(LIMIT)

    @cached_property
    def networks(self) -> dict[str, tuple[Architecture, nn.Module]]:
        """Every network that a suite may have trained, fresh, with the options that the task asks for."""
        fresh = {}
        for name in self.kind.networks:
            architecture = Architecture(name, tuple(sorted(self.task.shape.items())))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                fresh[name] = architecture, build(architecture).eval()
        return fresh

    @cached_property
    def members(self) -> list[Member]:
        """Models of the task: each of its networks after its training, or those of the pool."""
        if self.pool is not None:
            (name, said), *_ = self.pool.items()
            source = SOURCES.get(name)
            spec = source.fetched(source.beside(source.spec.model_validate(dict(said)), self.folder))
            plan = AskedPool(source, spec).plan("main", self.task, 0)
            for planned in plan.everyone:
                planned.prepare(self.task, self.store, torch.device("cpu"))
            return list(load_pool(plan, self.store).members)
        return [self._member(name) for name in self.trained]

    def _member(self, name: str) -> Member:
        weights, identity = LazyWeights(self.trained[name][1]), f"{self.task.digest} {name}"
        return Member(name, self.networks[name][0], weights, f"start of {name}", 0, {}, identity)

    @cached_property
    def trained(self) -> dict[str, tuple[nn.Module, Path]]:
        """Each after an epoch on a few inputs, and the file that it was saved in."""
        found = {}
        for name, (architecture, fresh) in self.networks.items():
            module = build(architecture)
            module.load_state_dict(fresh.state_dict())
            train(module, few(self.task.train), self.kind.schedule(1), seed=0)
            path = Path(self._place.name) / f"{name}.safetensors"
            save_weights(without_ties(module), path)
            found[name] = module, path
        return found


def tried(
    given: Given = USUAL,
    folder: Path | None = None,
    allow_code: bool = False,
    pool: Mapping[str, Any] | None = None,
) -> TriedTask:
    """The task that a suite would mean by this; ``BadInput`` where no kind knows it."""
    by_name = {name: kind for kind in KINDS for name in kind.tasks}
    known = by_name if isinstance(given, str) else {kind.key: kind for kind in KINDS if kind.key}
    words: Sequence[str] = [given] if isinstance(given, str) else list(given)
    kind = next((known[word] for word in words if word in known), None)
    if kind is None:
        raise BadInput(f"no kind of task knows {given!r}", given=words[0] if words else None, choices=known)
    return TriedTask(kind, given, folder or Path(), allow_code, pool)


def few(split: Split, count: int = FEW) -> Split:
    """The first inputs of a split, with their labels."""
    labels = len(split.labels) // len(split.inputs)  # of one input
    return replace(
        split,
        inputs=split.inputs[:count],
        labels=split.labels[: count * labels],
        ids=split.ids[:count],
        groups=split.groups[:count],
    )
