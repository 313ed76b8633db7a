"""A model that is trained here: one training run, and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from harness.keys import Key, digest
from harness.models.architectures import build, code_of
from harness.models.training import Schedule, TrainingLog, train
from harness.models.weights import LazyWeights, load_module, save_weights, without_ties
from harness.pools.source import MemberPlan
from harness.store import Store, read_json, write_json
from harness.types import Split

if TYPE_CHECKING:
    from harness.tasks.task import Task


@dataclass(frozen=True)
class TrainingPlan(MemberPlan):
    """One training run: it leaves one member, or its last ``checkpoints`` ones."""

    schedule: Schedule
    data: str
    """Digest of the training split."""
    bootstrap: bool = False
    checkpoints: int = 1
    examples: int | None = None
    """How many inputs it sees at most, spread evenly over its groups; all of them if None."""

    verb: ClassVar[str] = "train"

    def _settings(self) -> dict[str, Any]:
        """All that it depends on but for its base and the code."""
        settings = {of.name: getattr(self, of.name) for of in fields(self) if of.name not in ("name", "base")}
        return settings | {"architecture": str(self.architecture), "schedule": asdict(self.schedule)}

    def key(self) -> Key:
        """The key of its weights and of what they cost."""
        return self._key

    @cached_property
    def _key(self) -> Key:
        code = (__name__, *code_of(self.architecture))
        start = self.base.digests[-1] if self.base else None
        return Key.of("training", code=code, start=start, **self._settings())

    def keys(self) -> tuple[Key, ...]:
        return (self.key(),)

    @property
    def _kept(self) -> list[int]:
        """The epochs whose checkpoints it leaves."""
        return list(range(self.schedule.epochs - self.checkpoints + 1, self.schedule.epochs + 1))

    @property
    def identities(self) -> tuple[str, ...]:
        """Without the digest of the data, which code is in: all members of a pool are trained on one task."""
        settings = {name: value for name, value in self._settings().items() if name != "data"}
        start = self.base.identities[-1] if self.base else None
        return tuple(digest([settings, start, epoch]) for epoch in self._kept)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        run = self.key().digest
        return tuple(digest([run, epoch]) for epoch in self._kept)

    @property
    def start(self) -> str:
        return self.base.body if self.base else digest([str(self.architecture), self.seed])

    @property
    def folder(self) -> Path | None:
        return self.base.folder if self.base else None

    def seconds(self, task: Task, per_input: float) -> float:
        split = task.train
        inputs = sum(group in self.groups for group in split.groups) if self.groups else len(split.inputs)
        return self.schedule.epochs * min(inputs, self.examples or inputs) * per_input + 0.5

    def prepare(self, task: Task, store: Store, device: torch.device) -> None:
        if not store.has(self.key()):
            self.run(task.train, store, device)

    def run(self, split: Split, store: Store, device: torch.device) -> None:
        """Train as planned and store the weights and what it cost; the plan's key is the artefact."""
        start = self.base.member(store) if self.base else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            module = load_module(start) if start else build(self.architecture)
        rows = self._rows(split)
        kept: list[int] = []
        with store.write(self.key()) as folder:

            def keep(epoch: int) -> None:
                if epoch in self._kept:
                    save_weights(without_ties(module), folder / _file(epoch))
                    kept.append(epoch)

            log = train(module.to(device), split, self.schedule, seed=self.seed, rows=rows, after_epoch=keep)
            resample = rows if self.bootstrap else None
            write_json(folder / "training.json", {"rows": resample, "epochs": kept, **asdict(log)})

    def _rows(self, split: Split) -> list[int]:
        """The inputs that it sees, in the split's order, or as they were drawn for a bootstrap resample."""
        rows = torch.arange(len(split.inputs))
        if self.groups:
            rows = torch.tensor([row for row, group in enumerate(split.groups) if group in self.groups])
        if self.examples and self.examples < len(rows):
            rows = rows[torch.arange(self.examples) * len(rows) // self.examples]
        if self.bootstrap:
            generator = torch.Generator().manual_seed(self.seed)
            rows = rows[torch.randint(len(rows), (len(rows),), generator=generator)]
        return rows.tolist()

    def weights(self, store: Store, position: int) -> Mapping[str, Tensor]:
        return LazyWeights(store.read(self.key()) / _file(self._record(store)["epochs"][position]))

    def provenance(self, store: Store, position: int) -> Mapping[str, Any]:
        record = self._record(store)
        how = {"lr": self.schedule.lr, "augment": self.schedule.augment}
        head = {"own_head": True} if getattr(self.base, "own_head", False) else {}
        trained_on = {"groups": list(self.groups)} if self.groups else {}
        return {"epochs": record["epochs"][position], **how, "rows": record["rows"], **head, **trained_on}

    def _record(self, store: Store) -> dict[str, Any]:
        record: dict[str, Any] = read_json(store.read(self.key()) / "training.json")
        return record

    def log(self, store: Store) -> TrainingLog:
        """What training cost; nothing, where it has not run."""
        if not store.has(self.key()):
            return TrainingLog(0.0, 0)
        record = self._record(store)
        return TrainingLog(record["seconds"], record["examples"])

    def spent(self, store: Store) -> float:
        return self.log(store).seconds

    def describe(self) -> dict[str, Any]:
        words = f"rate {self.schedule.lr:g}, {self.schedule.epochs} epochs"
        words += {"constant": " at this rate", "cycle": " in one cycle"}.get(self.schedule.decay, "")
        words += f", noise {self.schedule.augment:g}" if self.schedule.augment else ""
        words += f", on {' and '.join(self.groups)}" if self.groups else ""
        words += f", at most {self.examples} examples" if self.examples else ""
        words += ", on a bootstrap resample" if self.bootstrap else ""
        words += ", bfloat16 matrix products" if self.schedule.precision == "bfloat16" else ""
        settings = {key: getattr(self.schedule, key) for key in ("epochs", "lr", "augment", "precision")}
        return {"how": words, "seed": self.seed, "groups": list(self.groups), **settings}


def _file(epoch: int) -> str:
    return f"epoch-{epoch:03d}.safetensors"
