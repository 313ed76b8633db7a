"""A user's images with one label each, from folders by class or from tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import BadInput
from harness.keys import file_digest
from harness.store import Store
from harness.tasks import own_rows, raw_task
from harness.tasks.arrow_tables import is_saved
from harness.tasks.image_bytes import check_image
from harness.tasks.image_folder import folders
from harness.tasks.labelled import LabelledTask
from harness.tasks.own_files import OwnReference
from harness.tasks.own_labels import Fault, is_missing
from harness.tasks.own_tables import is_folder
from harness.tasks.raw_task import Source

KIND = "image_files"


@dataclass(frozen=True)
class ImagesReference(OwnReference):
    """Files of images; of tables, ``columns`` is the one of images: their bytes, or paths beside the table."""

    kind: ClassVar[str] = KIND


def rendered(reference: ImagesReference, store: Store) -> ImagesReference:
    """The reference with the key of its images, which were read and checked, and are kept."""
    named = {place[0]: _sources(*place, reference) for place in reference.places}
    return replace(reference, read=raw_task.keep(reference, named, __name__, store))


def load(reference: ImagesReference, store: Store, limit: int | None = None) -> LabelledTask:
    """The images of a suite's files; of test only the first ``limit``."""
    if reference.read is None or not store.has(reference.read):
        reference = rendered(reference, store)
    return raw_task.kept(reference, "images", store, limit)


def _sources(key: str, path: str, reference: ImagesReference) -> Sequence[Source]:
    place = Path(path)
    if not is_folder(place) or is_saved(place):
        return own_rows.tables(key, path, reference, content_of, files_of)
    for column in (reference.id, reference.cluster, reference.split):
        if column:
            raise BadInput(f"a folder of images has no column '{column}'", place=path)
    return folders(key, place)


def content_of(cells: Sequence[Any], table: Path) -> bytes:
    """The bytes of an image, in a cell or in the file that it names; ``Fault`` where they are no image."""
    cell = _bytes_or_path(cells)
    if is_missing(cell) or cell == "":
        raise Fault("it has no image")
    if isinstance(cell, str):
        file = _file(cell, table)
        try:
            content = file.read_bytes()
            check_image(content)
        except Fault as fault:
            raise BadInput(str(fault), place=str(file)) from None
        return content
    if not isinstance(cell, bytes):
        raise Fault(f"an image is bytes, or the path of a file, and this is of the kind {type(cell).__name__}")
    check_image(cell)
    return cell


def files_of(cells: Sequence[Any], table: Path) -> str | None:
    """The digest of the file that a cell names, where it names one."""
    cell = _bytes_or_path(cells)
    return file_digest(_file(cell, table)) if isinstance(cell, str) and cell else None


def _bytes_or_path(cells: Sequence[Any]) -> Any:
    """Of an image as ``datasets`` keeps it its bytes or, if it has none, its path; else the cell itself."""
    (cell,) = cells
    if isinstance(cell, dict) and set(cell) == {"bytes", "path"}:
        return cell["path"] if cell["bytes"] is None else cell["bytes"]
    return cell


def _file(name: str, table: Path) -> Path:
    file = table.parent / name
    if is_folder(file):
        raise Fault(f"'{name}' is a folder, not an image")
    return file
