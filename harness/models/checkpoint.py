"""The files of a model's folder: which there are, what they are called, and what their headers and settings say."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.display.lines import one_line, said_by
from harness.errors import BadInput
from harness.models.confined import check_timm, lies_in
from harness.models.heads import CAUSAL, Head
from harness.models.settings import check_layers, kernels, read_object
from harness.models.vision_imports import import_timm, mend_torchvision
from harness.types import NotApplicable

# Both before transformers is imported, which only happens within functions.
mend_torchvision()
os.environ.setdefault("USE_HUB_KERNELS", "NO")  # else it fetches code from the hub for some models and runs it

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
TIMM = "timm_wrapper"
"""What transformers calls a model of timm."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' warnings and bars: what they would say is checked here, and refused or kept as a note."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def read_config(folder: Path, head: Head = CAUSAL) -> Any:
    """A folder's configuration as transformers reads it, old spellings brought up to date; the caller may change it.

    Raises:
        BadInput: no configuration, no kind of model that has such a head, quantised weights.
    """
    if not (folder / CONFIG).is_file():
        raise BadInput("config.json is missing", place=str(folder), hint="name a Hugging Face model folder")
    files = [file for file in sorted(folder.glob("config*.json")) if file.is_file()]  # it may name another one
    try:
        contents = tuple((file.name, file.read_bytes()) for file in files)
    except OSError as error:
        raise BadInput(f"{CONFIG} cannot be read: {error.strerror}", place=str(folder)) from None
    return copy.deepcopy(_read_config(folder, head, contents))


@lru_cache(maxsize=64)
def _read_config(folder: Path, head: Head, contents: tuple[tuple[str, bytes], ...]) -> Any:
    """The same of files with these contents: transformers takes milliseconds, and a plan asks dozens of times."""
    settings = read_object(folder / CONFIG)
    check_layers(settings, str(folder))
    from transformers import AutoConfig

    if kernel := next(kernels(settings), None):
        raise BadInput(f"config.json names a kernel of the hub, which is code: '{kernel}'", place=str(folder))
    kind = TIMM if is_timm(settings) else settings.get("model_type")
    if not isinstance(kind, str) or kind not in head.kinds:
        own = "the model brings its own code, which is not run; " if "auto_map" in settings else ""
        raise BadInput(f"{own}'{kind}' is no {head.words} that transformers knows", place=str(folder))
    if kind == TIMM:
        check_timm(settings, str(folder))
        import_timm(str(folder))
    if settings.get("quantization_config"):
        hint = "save it with plain weights (dequantize) first"
        raise BadInput("quantised weights cannot be combined", place=str(folder), hint=hint)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a configuration's own checks raise
        raise BadInput(f"config.json is refused by transformers: {error_line(error)}", place=str(folder)) from None
    if kind == TIMM and config.model_args:  # timm writes the number of classes here too, and transformers asks it twice
        config.model_args = {name: value for name, value in config.model_args.items() if name != "num_classes"}
    return config


def is_timm(settings: Mapping[str, Any]) -> bool:
    """Whether a config.json is timm's, by transformers' rule."""
    from transformers.utils.generic import is_timm_config_dict

    found: bool = is_timm_config_dict(dict(settings))
    return found


def error_line(error: Exception) -> str:
    """An error in one line."""
    return one_line(f"{type(error).__name__}: {said_by(error)}", 300)


@contextmanager
def refusing(folder: Path) -> Iterator[None]:
    """Around what reads a folder: whatever its files make transformers, torch or peft raise is a ``BadInput``.

    Each has checks of its own and none for all that damage can do to a file, or a person write into one.
    """
    try:
        yield
    except (BadInput, NotApplicable):
        raise
    except Exception as error:
        hint = "is one of its files damaged, or written by hand?"
        raise BadInput(f"the model cannot be read: {error_line(error)}", place=str(folder), hint=hint) from error


def checkpoint_files(folder: Path, config: Any) -> list[Path]:
    """The safetensors files that ``from_pretrained`` would read; ``BadInput`` where one is missing or elsewhere."""
    from transformers.modeling_utils import _get_resolved_checkpoint_files

    if not (folder / "model.safetensors").is_file() and (folder / INDEX).is_file():
        _check_index(folder)
    try:
        with quiet():
            found, _ = _get_resolved_checkpoint_files(
                str(folder),
                variant=None,
                gguf_file=None,
                use_safetensors=True,
                user_agent=None,
                is_remote_code=False,
                transformers_explicit_filename=getattr(config, "transformers_weights", None),
                download_kwargs={"local_files_only": True},
            )
    except (OSError, ValueError):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        hint = "pickled weights are not read: save them with safe_serialization" if pickled else None
        raise BadInput("model.safetensors is missing", place=str(folder), hint=hint) from None
    files = [Path(file) for file in found or []]
    if strays := [file.name for file in files if not lies_in(file, folder)]:  # config.json may name the file
        raise BadInput(f"'{strays[0]}' lies outside the folder", place=str(folder))
    return files


def _check_index(folder: Path) -> None:
    """An index names shards of its own folder."""
    names = read_object(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(shard, str) for shard in names.values()):
        raise BadInput(f"{INDEX} has no weight_map", place=str(folder), hint="was it cut off?")
    for shard in sorted(set(names.values())):
        if Path(shard).name != shard:
            raise BadInput(f"shard '{shard}' lies outside the folder", place=str(folder))
        if not (folder / shard).is_file():
            raise BadInput(f"{shard} is missing", place=str(folder))
    stored = {name for shard in set(names.values()) for name in stored_tensors(folder / shard)}
    if lost := sorted(names.keys() - stored):
        raise BadInput(f"{len(lost)} tensors of {INDEX} are missing, the first is '{lost[0]}'", place=str(folder))


def stored_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file without their values, from its header; ``BadInput`` where it is not whole."""
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {
                name: torch.empty(each.get_shape(), dtype=_dtype(each.get_dtype()), device="meta")
                for name, each in slices.items()
            }
    except (SafetensorError, OSError) as error:
        hint = "was it cut off?"
        raise BadInput(f"{file.name} cannot be read: {error}", place=str(file.parent), hint=hint) from None


def _dtype(code: str) -> torch.dtype:
    from transformers.modeling_utils import str_to_torch_dtype

    known: dict[str, torch.dtype] = str_to_torch_dtype
    return known[code]


def signature(file: Path) -> tuple[Path, int, int]:
    """What changes whenever a file does."""
    status = file.stat()
    return file, status.st_size, status.st_mtime_ns
