"""A user's texts, or pairs of texts, with one label each, from tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from harness.store import Store
from harness.tasks import own_rows, raw_task
from harness.tasks.labelled import LabelledTask
from harness.tasks.own_files import OwnReference
from harness.tasks.own_labels import Fault, text_of

KIND = "texts"


@dataclass(frozen=True)
class TextsReference(OwnReference):
    """Files of texts; ``columns`` are one, or two whose texts make a pair."""

    kind: ClassVar[str] = KIND


def rendered(reference: TextsReference, store: Store) -> TextsReference:
    """The reference with the key of its texts, which were read and checked, and are kept."""
    named = {place[0]: own_rows.tables(*place, reference, content_of) for place in reference.places}
    return replace(reference, read=raw_task.keep(reference, named, __name__, store))


def load(reference: TextsReference, store: Store, limit: int | None = None) -> LabelledTask:
    """The texts of a suite's files; of test only the first ``limit``."""
    if reference.read is None or not store.has(reference.read):
        reference = rendered(reference, store)
    return raw_task.kept(reference, "texts", store, limit)


def content_of(cells: Sequence[Any], path: Path) -> bytes:
    """The bytes of an example: a JSON list of its texts; ``Fault`` where it has none."""
    texts = [text_of(cell) for cell in cells]
    if not any(text.strip() for text in texts):
        raise Fault("its text is blank")
    return json.dumps(texts, ensure_ascii=False).encode()
