"""The source ``hf``: pools of models that lie in folders, and of adapters on one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from harness.models.adapters import ADAPTER
from harness.models.pretrained import AS_CAUSAL, ZEROS, ReadAs
from harness.pools.folder_plan import plan_folder, read_for
from harness.pools.source import AskedPool, PoolPlan, PoolSource, source
from harness.strict.fields import Strict, without_usual
from harness.tasks import pretrained
from harness.tasks.task import Task


class HfPool(Strict):
    """A pool of Hugging Face folders, or of adapters on the base; paths are relative to the suite file.

    In the place of a folder, ``archive:NAME`` is a pretrained model that comes as a data archive.
    """

    base: str | None = None
    members: Annotated[list[str], Field(min_length=1)]
    labels: list[str] | None = None
    """The names of the models' labels in their own order, where their configurations have none."""

    @pydantic.model_serializer(mode="wrap")
    def _as_before(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_usual(self, handler(self), ("labels",))

    def renamed(self, change: Callable[[str], str]) -> HfPool:
        """The same with other names for its folders."""
        base = change(self.base) if self.base else None
        return HfPool(base=base, members=[change(member) for member in self.members], labels=self.labels)


class Folders(PoolSource):
    """Members that are there already: models that transformers reads, adapters, and networks of ours."""

    name = "hf"
    spec = HfPool

    def size(self, spec: HfPool) -> int:
        return len(spec.members)

    def check(self, spec: HfPool, place: Callable[..., str]) -> None:
        if spec.base:
            pretrained.model_of(spec.base, place("base"))
        for index, member in enumerate(spec.members):
            pretrained.model_of(member, place("members", index))

    def base(self, spec: HfPool) -> str | None:
        return spec.base

    def tokenizer(self, spec: HfPool) -> str | None:
        return spec.base or spec.members[0]

    def folders(self, spec: HfPool) -> Mapping[str, str]:
        base = {"base": spec.base} if spec.base else {}
        return base | {_name(index): folder for index, folder in enumerate(spec.members)}

    def beside(self, spec: HfPool, folder: Path) -> HfPool:
        return spec.renamed(lambda name: pretrained.beside(folder, name))

    def fetched(self, spec: HfPool) -> HfPool:
        return spec.renamed(pretrained.folder_of)

    def plan(self, name: str, spec: HfPool, task: Task, seed: int) -> PoolPlan:
        return plan_folders(name, spec, read_for(task, spec.labels or ()))


FOLDERS = source(Folders())


def plan_folders(name: str, spec: HfPool, read_as: ReadAs = AS_CAUSAL) -> PoolPlan:
    """The members of a pool of folders; ``BadInput`` where a folder is no model."""
    base = plan_folder("base", spec.base, read_as=replace(read_as, fresh=ZEROS)) if spec.base else None
    members = [plan_folder(_name(i), folder, base, read_as) for i, folder in enumerate(spec.members)]
    return PoolPlan(name, "fine_tunes" if base else "independent", tuple(members), base)


def _name(index: int) -> str:
    return f"m{index}"


def pool_of(folder: Path, base: str | None) -> AskedPool:
    """A pool of the one model in a folder; the base's folder is taken if it is an adapter."""
    return AskedPool(FOLDERS, HfPool(base=base if (folder / ADAPTER).is_file() else None, members=[str(folder)]))
