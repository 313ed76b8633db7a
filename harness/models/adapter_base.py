"""The model that an adapter is on: its labels in the order that the adapter has them, and what both are asked."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.errors import BadInput
from harness.models import configuration
from harness.models.checkpoint import read_config
from harness.models.heads import CAUSAL, IMAGE
from harness.models.label_names import names_of, order_of
from harness.models.labelled import ZEROS
from harness.models.pretrained import Layout, ReadAs, layout, probe
from harness.models.readers import pixels_of


def base_layout(base: Path, read_as: ReadAs) -> Layout:
    """How a base's files make the model that adapters are on; a head that it lacks is made, for adapters bring theirs.

    Args:
        base: its folder.
        read_as: as its adapters are read.
    """
    return layout(base, _with_head(read_as))


def _with_head(read_as: ReadAs) -> ReadAs:
    return replace(read_as, fresh=ZEROS) if read_as.head.labelled else read_as


def own_order(base: Path, read_as: ReadAs, unnamed: Sequence[str] = ()) -> tuple[ReadAs, tuple[int, ...] | None]:
    """What a base is read as for PEFT, and for each label of the task its row then; None where they agree.

    An adapter has no names of labels: they are its base's. Of a base without a head they are those that the pool names.

    Args:
        base: its folder.
        read_as: with the task's labels.
        unnamed: the labels of adapters on a base without a head where the pool names none; by default they are numbers.

    Raises:
        BadInput: where the labels are not the task's.
    """
    if not read_as.head.labelled:
        return read_as, None
    if base_layout(base, read_as).head.drawn:
        names = read_as.names or tuple(unnamed) or tuple(f"LABEL_{row}" for row in range(len(read_as.labels)))
    else:
        names = read_as.names or names_of(read_config(base, read_as.head))
    order = order_of(names, read_as.labels or names, str(base))
    own = replace(_with_head(read_as), labels=names, names=names)
    return own, None if order == tuple(range(len(order))) else order


def reorder_rows(module: nn.Module, described: Layout, order: Sequence[int] | None) -> None:
    """Give a classifier its rows of labels in another order: the first becomes the one that ``order`` names first."""
    if order is None:
        return
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name in (rows := described.head.rows or {}):
                tensor.copy_(tensor.index_select(rows[name], torch.tensor(order)))


def inverse(order: Sequence[int] | None) -> tuple[int, ...] | None:
    """The order that undoes another."""
    return None if order is None else tuple(sorted(range(len(order)), key=lambda row: order[row]))


def check_brings(module: nn.Module, lacking: Iterable[str], folder: Path) -> None:
    """``BadInput`` unless an adapter has all that its base lacks, which would be drawn at random.

    Args:
        module: the base, as PEFT wrapped it.
        lacking: names of tensors that the base's folder does not have.
        folder: of the adapter.
    """
    from peft.utils.other import ModulesToSaveWrapper

    for name in sorted(lacking):
        path = name.split(".")
        above = (module.get_submodule(".".join(path[:depth])) for depth in range(1, len(path)))
        if not any(isinstance(part, ModulesToSaveWrapper) for part in above):
            raise BadInput(
                f"neither the adapter nor its base has '{name}', which peft would draw at random",
                place=str(folder),
                hint="name a base that has it, or save it with the adapter (modules_to_save)",
            )


def ask(module: Any, base: nn.Module, described: Layout, tokens: Sequence[int]) -> Any:
    """Logits of a model, or of PEFT's around one, on an input that is the same at every call.

    Args:
        module: what is run.
        base: the model itself.
        described: it.
        tokens: some that are to be among the input, where it is text.
    """
    head = configuration.head_of(described.architecture)
    if head == IMAGE:
        reader = configuration.reader_of(described.architecture)
        assert reader is not None
        inner = module.get_base_model() if hasattr(module, "get_base_model") else module
        return inner(pixel_values=pixels_of([_picture()], reader)).logits
    options = {"use_cache": False} if head == CAUSAL else {}
    return module(input_ids=probe(base, *tokens), **options).logits


def _picture() -> bytes:
    """An image of many colours."""
    from PIL import Image

    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    colours = torch.stack([rows * 5, columns * 5, (rows * columns) % 256], dim=-1).to(torch.uint8)
    with io.BytesIO() as file:
        Image.fromarray(colours.numpy()).save(file, format="PNG")
        return file.getvalue()
