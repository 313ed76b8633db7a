"""What a suite says under ``task:``: a name that some kind of task knows, or a mapping whose key names a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pydantic

from harness.errors import BadInput
from harness.registry import KINDS
from harness.strict import yaml
from harness.strict.model import read_part

if TYPE_CHECKING:
    from harness.kinds.kind import Kind

KEY: yaml.Position = ("task",)


@dataclass(frozen=True)
class Given:
    """What a suite says of its task, checked."""

    kind: Kind[Any, Any]
    value: str | pydantic.BaseModel
    """A name of the kind's ``tasks``, or an instance of its ``spec``."""

    def as_json(self) -> Any:
        """For the digest of the suite."""
        return self.value if isinstance(self.value, str) else self.value.model_dump(mode="json")


def read_task(given: str | Mapping[str, Any], document: yaml.Document) -> Given:
    """The task of a suite file; ``BadInput`` names its place, the known names or keys, and the nearest of them."""
    if isinstance(given, str):
        by_name = {name: kind for kind in KINDS for name in kind.tasks}
        if given not in by_name:
            raise BadInput(f"unknown task '{given}'", place=document.place(KEY), given=given, choices=by_name)
        return Given(by_name[given], given)
    by_key = {kind.key: kind for kind in KINDS if kind.key}
    kind = next((by_key[key] for key in given if key in by_key), None)
    if kind is None:
        if not given:
            raise BadInput("'task' is empty", place=document.place(KEY), choices=by_key)
        first = next(iter(given))
        raise BadInput(f"unknown key '{first}'", place=document.place((*KEY, first)), given=first, choices=by_key)
    assert kind.spec is not None
    return Given(kind, read_part(kind.spec, document, KEY))


def task_schema() -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON schema of what may stand under ``task:``, and the definitions that it refers to, by name."""
    names = sorted(name for kind in KINDS for name in kind.tasks)
    specs = [kind.spec.model_json_schema() for kind in KINDS if kind.spec]
    definitions = {name: each for spec in specs for name, each in spec.pop("$defs", {}).items()}
    return {"title": "Task", "anyOf": [{"type": "string", "enum": names}, *specs]}, definitions
