"""The labels of a classifier by their names: which row of its output is which label of the task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import BadInput

UNNAMED = re.compile(r"LABEL_\d+")
"""What transformers calls labels that were given no name."""


def names_of(config: Any) -> tuple[str, ...]:
    """The names of a classifier's labels in its own order."""
    names: Mapping[Any, Any] = config.id2label or {}
    return tuple(str(names.get(row, names.get(str(row), f"LABEL_{row}"))) for row in range(int(config.num_labels)))


def order_of(names: Sequence[str], labels: Sequence[str], place: str) -> tuple[int, ...]:
    """For each label of a task the row of a classifier's output that stands for it.

    Names are the same but for the case of their letters, where that leaves no doubt. A classifier whose labels have no
    names (``LABEL_0``) is for tasks whose labels are numbers from 0.

    Args:
        names: of the classifier's labels, in its order.
        labels: of the task's.
        place: the classifier's folder, for the message.

    Raises:
        BadInput: where the two are not the same labels.
    """
    hint = "'labels' beside the members names them, in the models' order"
    if len(names) != len(labels):
        raise BadInput(f"it has {len(names)} labels ({_some(names)}), the task {len(labels)} ({_some(labels)})",
                       place=place, hint=hint if all(map(UNNAMED.fullmatch, names)) else None)  # fmt: skip
    if all(map(UNNAMED.fullmatch, names)):
        if list(labels) != [str(row) for row in range(len(labels))]:
            raise BadInput(f"its labels have no names, and the task's are {_some(labels)}", place=place, hint=hint)
        return tuple(range(len(labels)))
    for spelt in (str, str.casefold):
        ours, theirs = [spelt(label) for label in labels], [spelt(name) for name in names]
        if len(set(theirs)) == len(theirs) and set(ours) == set(theirs):
            return tuple(theirs.index(label) for label in ours)
    strays = sorted(set(names) - set(labels)) or sorted(names)
    raise BadInput(f"its labels are {_some(names)}, the task's are {_some(labels)}: '{strays[0]}' is none of these",
                   place=place, hint=hint)  # fmt: skip


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
