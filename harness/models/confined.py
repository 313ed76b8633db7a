"""What a model's folder may lead to: the files in it, and no others; what it names is read and not run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import BadInput

SNAPSHOTS = "snapshots"
"""The folder of the hub's cache in which each revision of a model is one of links to the files beside it, in blobs."""
OUTSIDE = "copy the file into the folder, or name the folder that it lies in"


def check_confined(folder: Path) -> None:
    """``BadInput`` where a file of a model's folder is a link that leads out of it.

    What a downloaded folder links to would be read, and copied into what is made of the model. The folder itself may be
    a link, for the user names it, and the cache of the hub is links within a model's own folder.
    """
    try:
        files = sorted(path for each in (folder, *folder.glob("*/")) for path in each.iterdir() if path.is_symlink())
    except OSError as error:
        raise BadInput(error.strerror or str(error), place=str(folder)) from None
    for file in files:
        if not lies_in(file, folder):
            name = file.relative_to(folder)
            raise BadInput(f"'{name}' is a link that leads out of the folder", place=str(folder), hint=OUTSIDE)


def lies_in(file: Path, folder: Path) -> bool:
    """Whether a file, links followed, is below a model's folder, or of the same model in the hub's cache."""
    whole = folder.resolve()
    root = whole.parents[1] if whole.parent.name == SNAPSHOTS else whole
    try:
        return file.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a circle of links
        return False


def check_timm(settings: Mapping[str, Any], place: str) -> None:
    """``BadInput`` where a configuration of timm names more than a network of timm's: a file, a folder or the hub."""
    name, options = settings.get("architecture"), settings.get("model_args")
    if not isinstance(name, str) or set(name) & set(":/\\"):
        raise BadInput(f"config.json names no network of timm's: '{name}'", place=place)
    for key in options if isinstance(options, dict) else ():
        if key.startswith("pretrained") or key in ("checkpoint_path", "cache_dir", "scriptable", "exportable"):
            raise BadInput(f"config.json asks timm to load other weights: 'model_args' has '{key}'", place=place)


READS_OTHERS = {
    "XLORA": "it is of kind XLORA, which reads other adapters that its file names",
}
"""Kinds of adapters that PEFT reads more for than the folder."""


def check_adapter(settings: Mapping[str, Any], place: str) -> None:
    """``BadInput`` where an adapter's settings make PEFT import a module or read other folders, or the hub."""
    if reason := READS_OTHERS.get(str(settings.get("peft_type"))):
        raise BadInput(f"the adapter cannot be a member: {reason}", place=place)
    if settings.get("megatron_config"):
        core = settings.get("megatron_core")
        raise BadInput(f"the adapter names a module that peft would import: '{core}' (megatron_config)", place=place)
