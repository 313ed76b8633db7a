"""The packages of the extra ``vision``, imported so that a torchvision for CUDA works beside a torch for CPUs."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

import torch

from harness.errors import BadInput

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_timm(place: str | None = None) -> ModuleType:
    """The package timm; ``BadInput`` where the extra is missing."""
    for package in ("timm", "torchvision"):
        if importlib.util.find_spec(package) is None:
            raise BadInput(f"the package {package} is missing", place=place, hint="pip install 'stockpot[vision]'")
    import_torchvision()
    return importlib.import_module("timm")


def import_torchvision() -> ModuleType:
    """The package torchvision.

    PyPI has wheels for CUDA only. Beside a torch for CPUs their compiled operators cannot load, and the import stops
    where it describes two of these, for boxes. No classifier calls them, so it is enough that they are declared.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    for operator in _OPERATORS:
        torch.library.define(f"torchvision::{operator}", _SCHEMA)
    return importlib.import_module("torchvision")


def mend_torchvision() -> None:
    """Import a torchvision that is beside a torch for CPUs, where one is installed.

    transformers imports it on its own, even for language models, and would stop where it stops.
    """
    if torch.version.cuda is None and importlib.util.find_spec("torchvision") is not None:
        import_torchvision()
