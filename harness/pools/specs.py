"""What a suite file says of a pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from harness.strict.fields import Count, Name, Positive, _Strict
from harness.tasks import pretrained


class Vary(_Strict):
    """What differs between the members of a trained pool; they take the combinations in turn."""

    lr: Annotated[list[Positive], Field(min_length=1)] = [1e-3]
    augment: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] = [0.0]
    epochs: Annotated[list[Count], Field(min_length=1)] | None = None
    data: Annotated[list[str], Field(min_length=1)] | None = None
    """What each is trained on: a domain of text, or a view of images; by default the whole training split."""


class HfPool(_Strict):
    """A pool of Hugging Face folders, or of adapters on the base; paths are relative to the suite file.

    In the place of a folder, ``archive:NAME`` is a pretrained model that comes as a data archive.
    """

    base: str | None = None
    members: Annotated[list[str], Field(min_length=1)]

    kind: ClassVar[str] = "fine_tunes"


class TrainPool(_Strict):
    """A pool that is trained here."""

    architecture: Name | Annotated[list[Name], Field(min_length=2)] = "small_cnn"
    start: Literal["shared_base", "independent"]
    base: str | None = None
    """The folder of the shared base (or ``archive:NAME``), which is then not trained."""
    members: Count = 1
    epochs: Count = 6
    base_epochs: Count = 2
    examples: Count | None = None
    """Training inputs of a member at most, spread over its data; all of them if None. A base is trained on all."""
    vary: Vary = Vary()
    bootstrap: bool = False
    checkpoints: Annotated[int, Field(ge=2)] | None = None
    options: dict[str, int | float] = {}

    @property
    def kind(self) -> str:
        """How the members differ, as ``types.Pool.kind``."""
        if self.checkpoints:
            return "checkpoints"
        if self.bootstrap:
            return "bootstrap"
        if isinstance(self.architecture, list):
            return "architectures"
        return "fine_tunes" if self.start == "shared_base" else "independent"

    @property
    def varied(self) -> Mapping[str, list[Any]]:
        """The varied settings by name, in a fixed order."""
        epochs = self.vary.epochs or [self.epochs]
        return {"groups": self.vary.data or [None], "lr": self.vary.lr, "augment": self.vary.augment, "epochs": epochs}

    def contradiction(self) -> tuple[str, str] | None:
        """The key and the sentence of a setting that contradicts another."""
        if self.base is not None and self.start != "shared_base":
            return "base", "a pool with a base has start: shared_base"
        if self.start == "shared_base" and isinstance(self.architecture, list):
            return "architecture", "members of several architectures cannot start from one shared base"
        if self.checkpoints and self.bootstrap:
            return "bootstrap", "'checkpoints' are of one run on all training examples: drop 'bootstrap'"
        if self.checkpoints and self.members != 1:
            return "members", "'checkpoints' are of one run: drop 'members'"
        if self.checkpoints and isinstance(self.architecture, list):
            return "architecture", "'checkpoints' are of one run: name one architecture"
        if isinstance(self.architecture, list) and len(self.architecture) > self.members:
            return "architecture", f"a pool of {self.members} has no member for some of these architectures"
        epochs = self.varied["epochs"][0]  # one run takes the first of everything that varies
        if self.checkpoints and self.checkpoints > epochs:
            return "checkpoints", f"the last {self.checkpoints} checkpoints of a run of {epochs} epochs"
        return None


def located(pool: TrainPool | HfPool, folder: Path) -> TrainPool | HfPool:
    """The pool with its folders as seen from here."""
    return _with_folders(pool, lambda name: _beside(folder, name))


def fetched(pool: TrainPool | HfPool) -> TrainPool | HfPool:
    """The pool with folders in the place of archives' names; what is not there yet is fetched and converted."""
    return _with_folders(pool, pretrained.folder_of)


def _with_folders(pool: TrainPool | HfPool, change: Callable[[str], str]) -> TrainPool | HfPool:
    changes: dict[str, Any] = {"base": change(pool.base) if pool.base else None}
    if isinstance(pool, HfPool):
        changes["members"] = [change(member) for member in pool.members]
    return pool.model_copy(update=changes)


def _beside(folder: Path, name: str) -> str:
    """A path of a suite file, which is relative to that file; an archive's name stays as it is."""
    return name if name.startswith(pretrained.PREFIX) else str(folder / Path(name).expanduser())
