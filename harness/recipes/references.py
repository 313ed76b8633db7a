"""Models as a recipe names them: folders, relative to its file, adapters on them, and stages of the same file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInput


@dataclass(frozen=True)
class Reference:
    """A model that a recipe names."""

    text: str
    """As written, without what a path may hold in vain ("./a/" is "a"): two models of one recipe differ in it."""
    folder: Path | None
    """Of the model; None where it is a stage of the recipe's file, or known by its name."""
    stage: str | None = None
    adapter: Path | None = None
    """The folder of an adapter that is added to the model."""


@dataclass(frozen=True)
class Around:
    """What names in a recipe may mean."""

    folder: Path
    """That paths are relative to."""
    stages: Collection[str] = ()
    """Names of the merges in the same file."""
    names: Collection[str] = ()
    """Names of models that are known without a folder."""

    def reference(self, text: str, place: str) -> Reference:
        """The model that is meant.

        Args:
            text: a folder or a stage; with "+" and a folder, a LoRA adapter on it.
            place: of the text, for messages.

        Raises:
            BadInput: a revision of a hub, several adapters, or a folder that does not exist.
        """
        if "@" in text:
            hint = "models are read from folders: name the folder that this revision was downloaded to"
            raise BadInput(f"'{text}' names a revision", place=place, hint=hint)
        model, *adapters = text.split("+")
        if len(adapters) > 1 or not model.strip() or not all(each.strip() for each in adapters):
            raise BadInput(f"'{text}' names no model", place=place, hint="write FOLDER or FOLDER+ADAPTER")
        adapter = self._existing(adapters[0], place) if adapters else None
        said = "+".join(os.path.normpath(each) for each in (model, *adapters))
        if model in self.stages:
            return Reference("+".join([model, *said.split("+")[1:]]), None, model, adapter)
        if text in self.names:
            return Reference(text, None)
        return Reference(said, self._existing(model, place), None, adapter)

    def _existing(self, text: str, place: str) -> Path:
        path = self.folder / Path(text).expanduser()
        if path.is_dir():
            return path
        if path.exists():
            raise BadInput(f"'{text}' is no folder", place=place, hint="name the folder that its config.json is in")
        hint = "paths are relative to the recipe's file; a model of a hub must be downloaded first"
        choices = [*self.stages, *_likely(text, path)]
        raise BadInput(f"there is no folder '{text}'", place=place, given=text, choices=choices, hint=hint)


def _likely(text: str, path: Path) -> list[str]:
    """The folder beside a missing one that has nearly its name."""
    try:
        names = [each.name for each in path.parent.iterdir() if each.is_dir()]
    except OSError:
        return []
    return [str(Path(text).with_name(name)) for name in difflib.get_close_matches(path.name, names, n=1)]
