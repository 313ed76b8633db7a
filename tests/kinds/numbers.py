"""A plug-in as a package from outside has it, in one file: tables of numbers, with a small network of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pydantic
import torch
from torch import nn

from harness.errors import BadInput
from harness.keys import digest, file_digest
from harness.kinds.inputs import evaluate_on_inputs
from harness.kinds.kind import Kind
from harness.strict.model import STRICT
from harness.tasks.task import Documents, TaskReference
from harness.types import Split


class Spec(pydantic.BaseModel):
    """A CSV file of numbers, relative to the suite file, and the column that holds the class."""

    model_config = STRICT

    numbers: str
    label: str = "label"


@dataclass(frozen=True)
class Reference(TaskReference):
    kind: ClassVar[str] = "numbers"
    file: str
    label: str
    digest: str = ""


@dataclass(frozen=True, eq=False)
class Table:
    name: str
    source: str
    train: Split
    heldout: Split
    test: Split
    digest: str
    classes: int
    title: str = "a table of numbers"
    groups: tuple[str, ...] = ()

    @property
    def shape(self):
        return {"features": self.train.inputs.shape[1], "classes": self.classes}

    @property
    def documents(self):
        return Documents(self.test.ids, [self.name] * len(self.test), self.test.labels, self.classes)

    def of_groups(self, groups):
        return self


class Perceptron(nn.Module):
    """Gives its hidden units too, so that nobody can run it who does not ask its kind how."""

    def __init__(self, *, features: int, classes: int, hidden: int = 16) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(hidden, classes)

    def forward(self, rows):
        hidden = self.inner(rows)
        return hidden, self.head(hidden)


class Numbers(Kind[Reference, Table]):
    name = "numbers"
    models = "a network for numbers"
    key = "numbers"
    spec = Spec
    seconds_per_input = 1e-4

    @property
    def networks(self):
        return {"perceptron": Perceptron}

    @staticmethod
    def logits(module, batch):
        return module(batch)[1]

    def refer(self, given: Spec, suite: str, folder: Path, tokenizer: str | None) -> Reference:
        return Reference(suite, str(folder / given.numbers), given.label)

    def rendered(self, reference, store, limit, allow_code):
        if not Path(reference.file).is_file():
            raise BadInput("there is no such table", place=reference.file)
        return replace(reference, digest=file_digest(Path(reference.file)))

    def load(self, reference, store, limit):
        table = pd.read_csv(reference.file)
        labels = torch.tensor(table.pop(reference.label).to_numpy())
        inputs = torch.tensor(table.to_numpy(), dtype=torch.float32)
        rows = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))
        cuts = [len(rows) // 2, 3 * len(rows) // 4]
        parts = dict(zip(("train", "heldout", "test"), rows.tensor_split(cuts), strict=True))
        parts["test"] = parts["test"][:limit]
        splits = {
            name: Split(name, inputs[of], labels[of], [str(i) for i in of.tolist()],
                        digest([reference.digest, name, len(of)]), kind=self.name)
            for name, of in parts.items()
        }  # fmt: skip
        identity = digest([reference.digest, limit])
        return Table(reference.name, reference.file, **splits, digest=identity, classes=int(labels.max()) + 1)

    def evaluate(self, combinations, task, seen, cached):
        return [evaluate_on_inputs(combination, task, cached) for combination in combinations]
