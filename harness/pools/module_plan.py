"""A network that a function of the user's builds, with its weights in a file, as a member of a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from harness.errors import BadInput
from harness.keys import digest
from harness.models.checkpoint import signature
from harness.models.own_checks import check_logits, check_weights
from harness.models.own_code import code_in
from harness.models.own_weights import OwnWeights
from harness.pools.folder_model import digest_of
from harness.pools.source import MemberPlan
from harness.store import Store

if TYPE_CHECKING:
    from harness.tasks.task import Task


@dataclass(frozen=True)
class ModulePlan(MemberPlan):
    """Weights in a file: nothing is made. To plan it the function's files are read, and only ``check`` runs it."""

    file: str
    """The safetensors file."""
    identity: str
    """Digest of the architecture, which the function's code is a part of, and of the file."""
    tuned_from: str | None = None
    """Digest of the base that the suite says it was fine-tuned from."""

    @property
    def identities(self) -> tuple[str, ...]:
        return (self.identity,)

    @property
    def start(self) -> str:
        return self.tuned_from or self.digests[-1]

    def seconds(self, task: Task, per_input: float) -> float:
        return 2.0

    def check(self, task: Task, pool: str) -> None:
        """The network is built, and run on two examples."""
        check_weights(Path(self.file), self.architecture)
        check_logits(self.architecture, task.heldout, task.documents.classes)

    def weights(self, store: Store, position: int) -> Mapping[str, Tensor]:
        return OwnWeights(Path(self.file), self.architecture)

    def check_unchanged(self) -> None:
        if identity_of(self.architecture, Path(self.file)) != self.identity:
            raise BadInput("the file was changed since the run was planned", place=self.file, hint="run again")

    def provenance(self, store: Store, position: int) -> Mapping[str, Any]:
        return {"file": self.file}

    def describe(self) -> dict[str, Any]:
        code = code_in(self.architecture)
        return {"how": f"module {code.function if code else ''} with {self.file}", "seed": None}


def identity_of(architecture: Any, file: Path) -> str:
    """What a network of an architecture says with the weights in a file, wherever they lie."""
    return digest([str(architecture), digest_of(*signature(file))])
