"""A task whose test inputs are what is scored, and whose members all see the same data: enough for most kinds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.tasks.task import Documents
from harness.types import Split


@dataclass(frozen=True, eq=False)
class PlainTask:
    """Three disjoint splits with one label for each input; see ``tasks.task.Task``."""

    name: str
    title: str
    source: str
    train: Split
    heldout: Split
    test: Split
    digest: str
    shape: Mapping[str, int]
    """The options that every architecture needs, ``classes`` among them."""

    @property
    def documents(self) -> Documents:
        """The test examples."""
        return Documents(self.test.ids, [self.name] * len(self.test), self.test.labels, self.shape["classes"])

    @property
    def groups(self) -> Collection[str]:
        """None."""
        return ()

    def of_groups(self, groups: tuple[str, ...]) -> PlainTask:
        """The same for every pool."""
        return self
