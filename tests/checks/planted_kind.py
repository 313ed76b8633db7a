"""A kind of task that keeps all laws, in the smallest way; tests break one law in each copy."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from harness.keys import digest
from harness.kinds.inputs import evaluate_on_inputs
from harness.kinds.kind import Kind
from harness.tasks.plain import PlainTask
from harness.tasks.task import TaskReference
from harness.types import Split

SIZES = {"train": 40, "heldout": 12, "test": 12}


class Line(nn.Linear):
    def __init__(self, *, features: int, classes: int) -> None:
        super().__init__(features, classes)


@dataclass(frozen=True)
class Reference(TaskReference):
    kind: ClassVar[str] = "planted"


class Planted(Kind):
    name = "planted"
    models = "a line"
    seconds_per_input = 1e-5
    tasks: ClassVar = {"planted": "two clouds of points"}
    networks: ClassVar = {"line": Line}

    def refer(self, given, suite, folder, models):
        return Reference(given)

    def load(self, reference, store, limit):
        splits = {name: self.split(name, count, limit) for name, count in SIZES.items()}
        shape = {"features": 3, "classes": 2}
        return PlainTask("planted", "clouds", "here", **splits, digest=digest(limit), shape=shape)

    def split(self, name, count, limit):
        generator = torch.Generator().manual_seed(count)
        labels = torch.randint(2, (count,), generator=generator)
        inputs = labels[:, None] + torch.randn(count, 3, generator=generator)
        kept = limit if name == "test" else None
        ids = [f"{name}-{i}" for i in range(count)][:kept]
        return Split(name, inputs[:kept], labels[:kept], ids, digest([name, kept]), kind="planted")

    def evaluate(self, combinations, task, seen, cached):
        return [evaluate_on_inputs(each, task, cached) for each in combinations]
