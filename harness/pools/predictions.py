"""The source ``predictions``: members that are known by files of what they said, from any framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from harness.errors import BadInput
from harness.keys import Key, digest, file_digest
from harness.models.lookup import PredictedWeights, architecture_of, save_predictions, why_no_weights
from harness.models.prediction_file import Form, read_predictions
from harness.models.prediction_join import Joined, join
from harness.pools.source import MemberPlan, PoolPlan, PoolSource, source
from harness.says import Says
from harness.store import Store
from harness.strict.fields import Strict
from harness.tasks.table import KIND, LabelsTask
from harness.tasks.task import Task
from harness.types import Part

Path_ = Annotated[str, Field(min_length=1)]


class MemberFile(Strict):
    """One member's file, and what cannot be seen from it."""

    file: Path_
    form: Form | None = None
    floor: Annotated[
        float | None, Field(gt=0, lt=0.1, description="the least probability of a class, for members that give some "
                                                      "a probability of 0: the others are scaled down for it")
    ] = None  # fmt: skip


class PredictionsPool(Strict):
    """Members by name, each with its file of predictions (.npz, .parquet or .csv), relative to the suite file."""

    members: Annotated[dict[Annotated[str, Field(min_length=1)], Path_ | MemberFile], Field(min_length=1)]

    @property
    def files(self) -> dict[str, MemberFile]:
        """What is said of each member."""
        return {name: MemberFile(file=of) if isinstance(of, str) else of for name, of in self.members.items()}


@dataclass(frozen=True)
class PredictionPlan(MemberPlan):
    """A file of predictions: it is read, checked, and kept in the order of the task's rows."""

    file: str
    content: str
    """sha256 of its bytes."""
    form: Form | None
    floor: float | None
    known: Says
    rows: str
    """The digest of the ids and classes that it is joined by (``LabelsTask.rows``)."""

    @property
    def identities(self) -> tuple[str, ...]:
        return (digest([self.content, Path(self.file).suffix, self.form, self.floor, self.rows]),)

    @property
    def says(self) -> Says:
        return self.known

    @property
    def why_no_weights(self) -> str:
        return why_no_weights(self.name)

    def keys(self) -> tuple[Key, ...]:
        return (Key.of("predicted", code=__name__, member=self.identities[0]),)

    def seconds(self, task: Task, per_input: float) -> float:
        return 0.2

    def prepare(self, task: Task, store: Store, device: torch.device) -> None:
        assert isinstance(task, LabelsTask)
        (key,) = self.keys()
        if store.has(key):
            return
        joined = _join(self.file, self.form, self.floor, task)
        if file_digest(Path(self.file)) != self.content:
            raise BadInput("the file was changed since the run was planned", place=self.file, hint="run again")
        with store.write(key) as folder:
            save_predictions(joined.log_probs, joined.costs, folder / FILE)

    def weights(self, store: Store, position: int) -> Mapping[str, Tensor]:
        return PredictedWeights(self.name, store.read(self.keys()[0]) / FILE)

    def provenance(self, store: Store, position: int) -> Mapping[str, Any]:
        return {"file": self.file}

    def examine(self, part: Part) -> list[str]:
        """Nothing: its numbers were checked when they were read."""
        return []

    def describe(self) -> dict[str, Any]:
        said = {"form": self.form, "floor": self.floor}
        return {"how": f"predictions in {self.file}", "seed": None, "says": self.known,
                **{key: value for key, value in said.items() if value is not None}}  # fmt: skip


FILE = "predictions.safetensors"


def _join(file: str, form: Form | None, floor: float | None, task: LabelsTask) -> Joined:
    """What a file says of the task's rows; ``BadInput`` where it is not about them."""
    return join(read_predictions(Path(file)), task.ids, task.class_names, task.says, form, floor)


@lru_cache(maxsize=4096)  # seeds share a task
def _said(file: str, content: str, form: Form | None, floor: float | None, task: LabelsTask) -> Says:
    """What is known from a file with these bytes, checked whole: faults are told before anything runs."""
    return _join(file, form, floor, task).says


class PredictionFiles(PoolSource):
    """Members from files of predictions, joined to the task's rows by id."""

    name = "predictions"
    spec = PredictionsPool

    def size(self, spec: PredictionsPool) -> int:
        return len(spec.members)

    def check(self, spec: PredictionsPool, place: Callable[..., str]) -> None:
        seen: dict[Path, str] = {}
        for name, said in spec.files.items():
            path = Path(said.file)
            if path in seen:
                raise BadInput(f"'{said.file}' is the file of '{seen[path]}' too", place=place("members", name))
            seen[path] = name

    def beside(self, spec: PredictionsPool, folder: Path) -> PredictionsPool:
        def moved(said: MemberFile) -> MemberFile:
            return said.model_copy(update={"file": str(folder / Path(said.file).expanduser())})

        return PredictionsPool(members={name: moved(said) for name, said in spec.files.items()})

    def candidate(self, spec: PredictionsPool, path: Path) -> PredictionsPool:
        return PredictionsPool(members={"candidate": str(path)})

    def plan(self, name: str, spec: PredictionsPool, task: Task, seed: int) -> PoolPlan:
        if not isinstance(task, LabelsTask):
            hint = "predictions go with a table of labels: task: {table: {heldout: …, test: …}}"
            raise BadInput(f"pool '{name}' holds predictions, which the task '{task.name}' is not for", hint=hint)
        members = tuple(_plan(member, said, task) for member, said in spec.files.items())
        return PoolPlan(name, KIND, members, None)


def _plan(name: str, said: MemberFile, task: LabelsTask) -> PredictionPlan:
    path = Path(said.file)
    if not path.is_file():
        raise BadInput("there is no such file", place=said.file)
    content = file_digest(path)
    architecture = architecture_of(len(task.class_names))
    says = _said(said.file, content, said.form, said.floor, task)
    return PredictionPlan(name, architecture, said.file, content, said.form, said.floor, says, task.rows)


source(PredictionFiles())
