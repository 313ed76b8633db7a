"""The interface of a stage of a run: one piece of work, whose artefacts are known before it is done."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from harness.engines.engine import Place
from harness.keys import Key
from harness.models.room import set_room
from harness.pools.source import MemberPlan
from harness.run.stages.setting import Setting


@dataclass(frozen=True, eq=False)
class Stage(ABC):
    """One piece of work. Instances can be pickled: a worker is sent the stage, and calls ``run``.

    Its files are written and read by the module that makes them, or by the stage itself: nobody else knows names.
    """

    setting: Setting

    group: ClassVar[str]
    """What progress bars and tables count it under."""
    place: ClassVar[Place] = "shared"

    @property
    @abstractmethod
    def label(self) -> str:
        """Its name, for people and logs: no other stage of the run has it."""

    @property
    def identity(self) -> Hashable:
        """Two stages that are equal in this are one piece of work, which is done once."""
        return self.label

    @abstractmethod
    def artefacts(self) -> tuple[Key, ...]:
        """The artefacts that it leaves, as far as is known now: a method that turned out not to apply leaves fewer."""

    def needs(self) -> tuple[Stage, ...]:
        """Stages without whose work it cannot be done."""
        return ()

    def after(self) -> tuple[Stage, ...]:
        """Stages that it waits for, whatever becomes of them."""
        return ()

    def seconds(self) -> float:
        """About how long it takes: the long ones are started first, and the time left is estimated from it."""
        return 0.1

    def reads(self) -> tuple[MemberPlan, ...]:
        """The members whose files it reads."""
        return ()

    def claims(self) -> tuple[Key, ...]:
        """What no two processes should make at once, the costly first: one waits for the other (``Store.claimed``)."""
        return self.artefacts()

    def perform(self) -> None:
        """``run``, in any process; what was made of members whose files are others than were planned is not kept.

        Where another run makes the same now, it is waited for; what is there by then is not made again.

        Raises:
            BadInput: their files were changed, before or meanwhile.
        """
        set_room(math.inf if self.place == "alone" else self.setting.memory)  # what is measured is held whole
        self._check_members()
        store = self.setting.store
        with store.claimed(self.claims()):
            if self.is_done():
                store.share(self.artefacts())
                return
            with store.kept_if(self._check_members):
                self.run()

    def _check_members(self) -> None:
        for member in self.reads():
            member.check_unchanged()

    @abstractmethod
    def run(self) -> None:
        """Do the work, in any process; what is in the store already is not made again."""

    def is_done(self) -> bool:
        """Whether all that it leaves is there."""
        store = self.setting.store
        return all(store.has(key) for key in self.artefacts())
