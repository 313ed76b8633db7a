"""The head of a classifier's folder: read in the order of a task's labels, or made for them where it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import BadInput
from harness.models.checkpoint import quiet
from harness.models.configuration import without_values
from harness.models.heads import Head
from harness.models.label_names import names_of, order_of

if TYPE_CHECKING:
    from harness.models.pretrained import ReadAs

ZEROS = -1
SEVERAL = {"regression": "a number", "multi_label_classification": "any number of labels at once"}
"""What a head gives by its configuration (``problem_type``) that is no probability of one label each."""


@dataclass(frozen=True)
class LabelledHead:
    """How a folder's head becomes one for a task's labels."""

    order: tuple[int, ...] | None = None
    """For each label of the task the row that stands for it in the file; None where they agree."""
    rows: Mapping[str, int] | None = None
    """The tensors with a row for each label, and which of their dimensions that is."""
    drawn: frozenset[str] = frozenset()
    """The tensors that are made here, not read."""
    notes: tuple[str, ...] = ()


def read_head(config: Any, model: Any, missing: Sequence[str], read_as: ReadAs, folder: Path) -> LabelledHead:
    """How the head in a folder is read; the configuration is given the task's labels in their order.

    Args:
        config: of the folder.
        model: made of it, without values.
        missing: the model's tensors that the folder does not have.
        read_as: for which labels, and whether a head is made where there is none for them.
        folder: for messages.

    Raises:
        BadInput: where no head is made, and there is none, or it is for other labels.
    """
    head, rows = read_as.head, _rows_by_label(config, model, read_as.head)
    headless = bool(missing) and all(_is_of_head(name, model, rows) for name in missing)
    if missing and not headless:
        return LabelledHead(rows=rows)
    own = read_as.names or names_of(config)
    labels = read_as.labels or own
    if headless and read_as.fresh is None:
        fault = f"the folder has no head: '{missing[0]}' is missing, and would be drawn at random"
        raise BadInput(fault, place=str(folder), hint=f"fine-tune it first, and save the {head.words} whole")
    unlike = None if headless else _unlike(config, read_as, own, labels, str(folder))
    if unlike is not None and read_as.fresh is None:
        raise unlike
    name_labels(config, labels)
    if not headless and unlike is None:
        found = order_of(own, labels, str(folder))
        return LabelledHead(None if found == tuple(range(len(found))) else found, rows)
    config.problem_type = None
    zeros = "one of zeros stands for it" if read_as.fresh == ZEROS else "one is drawn"
    note = f"it has no head for these labels ({unlike.problem if unlike else 'the folder has none'}): {zeros}"
    return LabelledHead(None, rows, frozenset(missing if headless else rows), (note,))


def _unlike(config: Any, read_as: ReadAs, own: Sequence[str], labels: Sequence[str], place: str) -> BadInput | None:
    """Why a stored head is not for these labels."""
    if read_as.names and len(own) != config.num_labels:
        return BadInput(f"'labels' names {len(own)}, and it has {config.num_labels}", place=place)
    if (kind := getattr(config, "problem_type", None)) in SEVERAL or config.num_labels == 1:
        given = SEVERAL[kind if kind in SEVERAL else "regression"]
        return BadInput(f"it gives {given}, not one label of several", place=place)
    try:
        order_of(own, labels, place)
    except BadInput as fault:
        return fault
    return None


def name_labels(config: Any, labels: Sequence[str]) -> None:
    """Give a classifier's configuration labels in an order; their number is theirs."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: row for row, label in enumerate(labels)}
    if hasattr(config, "label_names"):
        config.label_names = list(labels)  # as timm has them


def _is_of_head(name: str, model: Any, rows: Mapping[str, int]) -> bool:
    """Whether a tensor belongs to a classifier's head, or to what it alone reads."""
    return name in rows or not name.startswith(f"{model.base_model_prefix}.") or "pooler" in name


def _rows_by_label(config: Any, model: Any, head: Head) -> dict[str, int]:
    """The tensors that have a row for each label, and in which dimension: those that one more label makes larger."""
    more = deepcopy(config)
    name_labels(more, [str(row) for row in range(config.num_labels + 1)])
    with quiet():
        larger = without_values(more, head).state_dict()
    found = {}
    for name, tensor in model.state_dict().items():
        sizes = zip(tensor.shape, larger[name].shape, strict=True)
        grown = [dim for dim, (size, other) in enumerate(sizes) if size < other]
        if grown:
            found[name] = grown[0]
    return found


def draw(module: Any, drawn: frozenset[str], seed: int) -> None:
    """Give tensors of a loaded model the values that transformers starts them with, by a seed; zeros for ``ZEROS``."""
    tensors = module.state_dict(keep_vars=True)
    if seed == ZEROS:
        with torch.no_grad():
            for name in drawn:
                tensors[name].zero_()
        return
    for name, tensor in tensors.items():
        tensor._is_hf_initialized = name not in drawn  # what its initialisation leaves alone
    for part in module.modules():
        part._is_hf_initialized = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module.initialize_weights()
