"""A model that is there already, in a folder, as a member of a pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from harness.errors import BadInput
from harness.models.adapters import ADAPTER
from harness.models.causal_lm import vocabulary_of
from harness.models.checkpoint import CONFIG, read_object, refusing
from harness.models.configuration import code_of_transformers
from harness.models.heads import MASKED, SEQUENCE
from harness.models.pretrained import AS_CAUSAL, ZEROS, ReadAs, stored_dtype
from harness.pools.folder_model import FolderModel
from harness.pools.source import MemberPlan
from harness.registry import KINDS
from harness.says import Says
from harness.store import Store
from harness.types import Part, Tokenizer

if TYPE_CHECKING:
    from harness.tasks.task import Task


@dataclass(frozen=True)
class FolderPlan(MemberPlan):
    """A model in a folder: nothing is made."""

    model: FolderModel
    identity: str
    """Digest of what the model says and reads."""
    tuned_from: str | None = None
    """Digest of the base that the suite says it was fine-tuned from."""
    own_head: bool = False
    """Whether its head was not trained from one that it shares with others: their base has none for these labels."""

    @property
    def identities(self) -> tuple[str, ...]:
        return (self.identity,)

    @property
    def start(self) -> str:
        return self.tuned_from or self.digests[-1]

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self.model.tokenizer

    @property
    def says(self) -> Says:
        return "text" if self.model.read_as.head == MASKED else "probabilities"

    @property
    def folder(self) -> Path | None:
        if self.model.is_network:
            return None
        return Path(self.model.base) if self.model.is_adapter and self.model.base else self.model.path

    @property
    def dtype(self) -> str | None:
        if self.folder is None:
            return "float32"
        return str(stored_dtype(self.folder, self.model.read_as.head)).removeprefix("torch.")

    def seconds(self, task: Task, per_input: float) -> float:
        return 2.0

    def check(self, task: Task, pool: str) -> None:
        place, kind, wanted = self.model.folder, self.model.kind, task.test.kind
        if kind != wanted:
            words = KINDS.get(kind).models if kind else "a model"
            raise BadInput(f"pool '{pool}' holds {words}, which the task '{task.name}' is not for", place=place)
        if reason := KINDS.get(wanted).why_not(self.architecture, task):
            raise BadInput(reason, place=place)

    def reads(self, task: Task) -> bool:
        """Whether it has all of the task's tokens, and no tokenizer of its own; a head that nobody trained has nothing
        to say, and a masked language model says no class."""
        if self.model.has_own_head or self.says == "text":
            return False
        if task.heldout.tokenizer is None:
            return True
        largest = max(int(split.inputs.max()) for split in (task.heldout, task.test))
        has_all = (vocabulary_of(self.architecture) or 0) > largest
        return has_all and self.model.tokenizer in (None, task.heldout.tokenizer)

    def weights(self, store: Store, position: int) -> Mapping[str, Tensor]:
        return self.model.weights()

    def check_unchanged(self) -> None:
        if _digest_of(self.model, self.model.files) != self.identity:
            problem = "the model was changed since the run was planned"
            raise BadInput(problem, place=self.model.folder, hint="run again")

    def provenance(self, store: Store, position: int) -> Mapping[str, Any]:
        return {"folder": self.model.folder} | ({"own_head": True} if self.own_head else {})

    @property
    def body(self) -> str:
        model = self.model
        if not model.has_own_head:
            return self.digests[-1]
        return replace(model, read_as=replace(model.read_as, fresh=ZEROS)).digest

    @property
    def preload(self) -> tuple[str, ...]:
        return code_of_transformers(self.architecture)

    def examine(self, part: Part) -> list[str]:
        return [*super().examine(part), *self.model.examine(part.module)]

    def describe(self) -> dict[str, Any]:
        return {"how": f"{'adapter' if self.model.is_adapter else 'folder'} {self.model.folder}", "seed": None}


@lru_cache(maxsize=1024)
def _digest_of(model: FolderModel, files: tuple[tuple[Path, int, int], ...]) -> str:
    """The model's digest, made once for each state of its files."""
    return model.digest


def read_for(task: Task, names: Sequence[str] = (), fresh: int | None = None) -> ReadAs:
    """What folders are read as for a task; ``names`` and ``fresh`` as of ``ReadAs``."""
    head = KINDS.get(task.test.kind).head
    return ReadAs(head, tuple(getattr(task, "labels", ())) if head.labelled else (), tuple(names), fresh)


def plan_folder(name: str, folder: str, base: FolderPlan | None = None, read_as: ReadAs = AS_CAUSAL) -> FolderPlan:
    """The model in a folder, or the adapter on the base; ``BadInput`` where it is none.

    Beside classifiers of texts, a member that its folder says to be a masked language model is one.
    """
    with refusing(Path(folder)):
        if read_as.head == SEQUENCE and read_as.fresh is None and _is_masked(Path(folder)):
            read_as, base = ReadAs(MASKED), None
        model = FolderModel(folder, base.model.folder if base else None, read_as)
        model.check()
        start, own_head = (base.digests[-1], base.model.has_own_head) if base else (None, False)
        return FolderPlan(name, model.architecture, model, model.digest, start, own_head)


def _is_masked(folder: Path) -> bool:
    """Whether a folder's configuration says that it was saved as a masked language model, and is no adapter."""
    if not (folder / CONFIG).is_file() or (folder / ADAPTER).is_file():
        return False
    settings = read_object(folder / CONFIG)
    saved, known = settings.get("architectures"), MASKED.kinds.get(str(settings.get("model_type")))
    return isinstance(saved, list) and known in saved and not settings.get("is_encoder_decoder")
