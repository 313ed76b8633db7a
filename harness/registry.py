"""What there is of each sort: our own declarations, found in a folder, and those of installed plug-ins.

A method, metric, cost, kind of task, source of members or engine declares itself once, where it is defined; everybody
else reads the declarations here, and nobody lists names.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from harness.errors import BadInput

if TYPE_CHECKING:
    from harness.cost.cost import Cost
    from harness.engines.engine import Engine
    from harness.imports.format import Format
    from harness.kinds.kind import Kind
    from harness.methods.method import Method
    from harness.moe.dispatch.dispatch import Dispatch
    from harness.pools.source import PoolSource
    from harness.results.metric import Metric


class Declared(Protocol):
    """What every declaration says of itself."""

    @property
    def name(self) -> str: ...


Declaration = TypeVar("Declaration", bound=Declared)


def module_of(declared: Declared) -> str:
    """The module that a declaration is written in: the keys of its artefacts name it."""
    return str(getattr(declared, "module", None) or declared.__module__)


class Registry(Generic[Declaration]):
    """The declarations of one sort, by name; they are looked for when they are first asked for.

    Args:
        what: the sort in words, for messages ("method").
        package: the folder of ours; all its modules are imported.
        group: the entry-point group of plug-ins. An entry point names a module whose import declares something.
    """

    def __init__(self, what: str, package: str, group: str) -> None:
        self.what, self.package, self.group = what, package, group
        self._known: dict[str, Declaration] = {}

    def add(self, declared: Declaration) -> None:
        """Take in a declaration; two modules may not declare one name."""
        other = self._known.get(declared.name)
        if other is not None and module_of(other) != module_of(declared):
            places = f"{module_of(other)} and {module_of(declared)}"
            raise ValueError(f"the {self.what} '{declared.name}' is declared by {places}")
        self._known[declared.name] = declared

    def declared(self) -> dict[str, Declaration]:
        """What has been taken in so far; nothing is looked for."""
        return dict(self._known)

    @cached_property
    def _found(self) -> bool:
        package = importlib.import_module(self.package)
        folder = getattr(package, "__path__", ())
        for info in sorted(pkgutil.walk_packages(folder, f"{self.package}."), key=lambda each: each.name):
            importlib.import_module(info.name)
        for point in sorted(metadata.entry_points(group=self.group), key=lambda each: (each.name, each.value)):
            try:
                importlib.import_module(point.module)
            except (Exception, SystemExit) as error:
                problem = f"the {self.what} of a plug-in cannot be loaded: {type(error).__name__}: {error}"
                place = f"{point.dist.name if point.dist else 'entry point'}: {point.value}"
                raise BadInput(problem, place=place, hint="mend or uninstall it") from error
        return True

    def all(self) -> dict[str, Declaration]:
        """Every declaration, sorted by name: the order does not depend on what was imported first."""
        _ = self._found
        return dict(sorted(self._known.items()))

    def get(self, name: str, place: str | None = None) -> Declaration:
        """One of them; ``BadInput`` with the nearest known name otherwise."""
        _ = self._found
        if name not in self._known:
            raise BadInput(f"unknown {self.what} '{name}'", place=place, given=str(name), choices=self.all())
        return self._known[name]

    def __iter__(self) -> Iterator[Declaration]:
        return iter(self.all().values())


METHODS: Registry[Method] = Registry("method", "harness.methods", "stockpot.methods")
METRICS: Registry[Metric] = Registry("metric", "harness.evaluate.metrics", "stockpot.metrics")
COSTS: Registry[Cost] = Registry("cost", "harness.cost", "stockpot.costs")
KINDS: Registry[Kind[Any, Any]] = Registry("kind of task", "harness.kinds", "stockpot.kinds")
SOURCES: Registry[PoolSource] = Registry("source of members", "harness.pools", "stockpot.sources")
ENGINES: Registry[type[Engine]] = Registry("engine", "harness.engines", "stockpot.engines")
FORMATS: Registry[Format] = Registry("format of predictions", "harness.imports", "stockpot.imports")
DISPATCHES: Registry[Dispatch] = Registry("dispatch path", "harness.moe.dispatch", "stockpot.dispatches")
