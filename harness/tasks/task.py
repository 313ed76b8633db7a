"""What a run needs to know of a task, whatever its kind."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from torch import Tensor

from harness.types import Split


@dataclass(frozen=True)
class TaskReference:
    """What a suite says of its task; each kind of task has a class of its own. It can be hashed and pickled."""

    kind: ClassVar[str]
    """The name of the kind."""
    name: str


@dataclass(frozen=True, eq=False)
class Documents:
    """What the scores of a variant are about, one label each."""

    ids: Sequence[str]
    tasks: Sequence[str]
    """The task that each document comes from."""
    labels: Tensor
    """[N] int64: the right class, or the right choice."""
    classes: int
    notes: Sequence[str] = ()
    """Sentences that a reader of their scores should know."""
    clusters: Sequence[str] = ()
    """Of each document, what it has in common with others (a passage, a user): together they count as one, since what
    is right of one is likelier of the others; empty where every document counts as one."""
    measured: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Scores of documents that have no label, such as bits per byte: by name, the clusters of these documents."""
    written: bool = False
    """Whether answers are texts that models write, of which it is only known whether they are right (class 1)."""


class Task(Protocol):
    """Labelled data in three disjoint splits, and the documents that are scored."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str:
        """The name of its kind (``kinds.Kind``)."""
    @property
    def title(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def train(self) -> Split: ...
    @property
    def heldout(self) -> Split: ...
    @property
    def test(self) -> Split:
        """What costs and the study are about and, where a kind says so (``Kind.inputs_are_scored``), what is scored."""
    @property
    def digest(self) -> str:
        """Of everything that scores depend on."""
    @property
    def shape(self) -> Mapping[str, int]:
        """The options that every architecture needs."""
    @property
    def documents(self) -> Documents: ...
    @property
    def groups(self) -> Collection[str]:
        """What a member can be trained on instead of the whole training split: domains of text, views of images."""
    def of_groups(self, groups: tuple[str, ...]) -> Task:
        """The task of a pool whose members were trained on one of these groups each, or of all of it without any.

        Its training split has rows of these groups, and those it is made of are named by ``Split.groups``.
        """
