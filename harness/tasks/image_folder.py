"""Images in folders, one for each class, as torchvision's ``ImageFolder`` reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.keys import file_digest
from harness.tasks.image_bytes import check_image
from harness.tasks.own_files import NAMES, split_called
from harness.tasks.own_labels import Fault
from harness.tasks.own_tables import is_folder
from harness.tasks.raw_task import Example

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
"""torchvision's, and GIF; files of other names are passed over."""


class FolderSource:
    """The images below a folder; each has the name of its class's folder as label, and its path as id.

    Classes are in the order of their names; names that begin with a dot or two underscores are passed over.
    """

    def __init__(self, path: Path, split: str) -> None:
        self.path, self.split = path, split
        self.classes = sorted(folder.name for folder in _shown(path) if folder.is_dir())
        if not self.classes:
            hint = "a folder of images has one folder for each class"
            raise BadInput("there are no folders of classes in it", place=str(path), hint=hint)

    @cached_property
    def files(self) -> list[tuple[str, Path]]:
        """Each image, with its class."""
        found = [(name, file) for name in self.classes for file in _images(self.path / name, self.path)]
        for name in self.classes:
            if name not in {of for of, _ in found}:
                hint = f"images are files of these names: {', '.join(ENDINGS)}"
                raise BadInput("there are no images in the folder of a class", place=str(self.path / name), hint=hint)
        return found

    def identity(self) -> Any:
        """The path below the folder, and the content, of each image."""
        return [[self._id(file), file_digest(file)] for _, file in self.files]

    def examples(self) -> Iterator[Example]:
        for name, file in self.files:
            try:
                content = file.read_bytes()
                check_image(content)
            except Fault as fault:
                raise BadInput(str(fault), place=str(file)) from None
            yield Example(content, name, self._id(file), "", self.split)

    def _id(self, file: Path) -> str:
        return f"{self.split}/{file.relative_to(self.path).as_posix()}"


def folders(key: str, path: Path) -> list[FolderSource]:
    """The folder of a split; or, of one with folders that are called as splits are, that of each split."""
    names = [folder.name for folder in _shown(path) if folder.is_dir()]
    known = {each for of in NAMES.values() for each in of}
    if key in NAMES or not names or not all(name.lower() in known for name in names):
        return [FolderSource(path, key if key in NAMES else "train")]
    by_split: dict[str, str] = {}
    for name in sorted(names):
        if (split := split_called(name)) in by_split:
            raise BadInput(f"'{by_split[split]}' and '{name}' are both {split}", place=str(path))
        by_split[split] = name
    return [FolderSource(path / name, split) for split, name in by_split.items()]


def _shown(folder: Path) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__"))]
    except OSError as error:
        raise BadInput(f"the folder cannot be read: {error.strerror}", place=str(folder)) from None


def _images(folder: Path, root: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """The images below a folder, in the order of their paths; links are followed, but not in circles."""
    real = os.path.realpath(folder)
    if real in above:
        raise BadInput("a link leads back to a folder above it", place=str(folder))
    for path in _shown(folder):
        if path.is_dir():
            yield from _images(path, root, above | {real})
        elif path.suffix.lower() in ENDINGS:
            is_folder(path)  # refuses what is no file either
            yield path
