"""The interface of a stage of a run: one piece of work, whose artefacts are known before it is done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from harness.engines.engine import Job, Place
from harness.store import Key, Store


class Stage(ABC):
    """One piece of work of a run. Instances can be pickled: a worker is sent the stage and calls ``run``."""

    group: ClassVar[str]
    """What progress bars and tables count it under."""
    place: ClassVar[Place] = "shared"

    @property
    @abstractmethod
    def label(self) -> str:
        """Its name, for people and as the name of its job: no other stage of the run has it."""

    @property
    @abstractmethod
    def store(self) -> Store: ...

    @abstractmethod
    def keys(self) -> tuple[Key, ...]:
        """The artefacts that it leaves; it is not run if all of them are there."""

    def needs(self) -> tuple[Stage, ...]:
        """Stages without whose work it cannot be done."""
        return ()

    def after(self) -> tuple[Stage, ...]:
        """Stages that it waits for, whatever becomes of them."""
        return ()

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        return 0.1

    @abstractmethod
    def run(self) -> None:
        """Do the work, in any process."""

    def job(self) -> Job:
        """As an engine takes it."""
        needs, after = (tuple(stage.label for stage in stages) for stages in (self.needs(), self.after()))
        return Job(self.label, self.run, {}, needs, after, self.place, self.seconds)

    def is_done(self) -> bool:
        """Whether all that it leaves is there."""
        return all(self.store.has(key) for key in self.keys())
