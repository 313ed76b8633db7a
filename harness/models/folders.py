"""Models in folders: read lazily from safetensors, refused with a reason where they cannot be trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from harness.errors import BadInput
from harness.models import causal_lm
from harness.models.architectures import TRAINABLE
from harness.models.weights import ARCHITECTURE, WEIGHTS, load_into, saved_architecture, without_ties
from harness.store import digest, file_digest
from harness.types import Architecture, Tokenizer

INDEX = "model.safetensors.index.json"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class FolderWeights(Mapping[str, Tensor]):
    """The tensors of a folder's safetensors shards by name; each is read when asked for, and none is kept."""

    def __init__(self, folder: Path) -> None:
        self._files = _tensor_files(folder)

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._files[name], framework="pt") as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _tensor_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for shard in shards(folder):
        files |= dict.fromkeys(_tensors_of(shard), shard)
    if (folder / INDEX).is_file():
        promised = _object(folder / INDEX)["weight_map"]
        if lost := sorted(set(promised) - set(files)):
            raise BadInput(f"{len(lost)} tensors of {INDEX} are missing, the first is '{lost[0]}'", place=str(folder))
    return files


def _tensors_of(file: Path) -> list[str]:
    """The names in a safetensors file, from its header; ``BadInput`` where it is not whole."""
    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as error:
        hint = "was it cut off?"
        raise BadInput(f"{file.name} cannot be read: {error}", place=str(file.parent), hint=hint) from None


def _object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a model's folder; ``BadInput`` where it holds none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise BadInput(f"{file.name} is not JSON", place=str(file.parent), hint="was it cut off?") from None
    if not isinstance(found, dict):
        raise BadInput(f"{file.name} is not a model's configuration", place=str(file.parent))
    return found


def shards(folder: Path) -> list[Path]:
    """The safetensors files of a model, in order; ``BadInput`` where there are none, or one lies elsewhere."""
    index = _object(folder / INDEX)["weight_map"] if (folder / INDEX).is_file() else {"": WEIGHTS}
    named = sorted(set(index.values()))
    if outside := next((name for name in named if Path(name).name != name), None):
        raise BadInput(f"shard '{outside}' lies outside the folder", place=str(folder))
    found = [folder / name for name in named]
    for shard in found:
        if not shard.is_file():
            pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
            hint = "pickled weights are not read: save them with safe_serialization" if pickled else None
            raise BadInput(f"{shard.name} is missing", place=str(folder), hint=hint)
    return found


@dataclass(frozen=True)
class FolderModel:
    """A causal language model in a folder, an adapter (PEFT) on another one, or one of our networks for images."""

    folder: str
    base: str | None = None
    """The folder of the model that an adapter is for."""

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def is_adapter(self) -> bool:
        return (self.path / ADAPTER).is_file()

    @property
    def kind(self) -> Literal["images", "text"]:
        """What it reads."""
        return "images" if (self.path / ARCHITECTURE).is_file() else "text"

    @property
    def architecture(self) -> Architecture:
        if self.kind == "images":
            return saved_architecture(self.path)
        return causal_lm.architecture_of(_settings(self._base if self.is_adapter else self.path))

    @property
    def _base(self) -> Path:
        if self.base is None:
            raise BadInput("an adapter needs the pool's base model", place=self.folder, hint="name it under hf: base")
        return Path(self.base)

    @property
    def digest(self) -> str:
        """What the weights are, wherever they lie."""
        files = [self.path / ADAPTER_WEIGHTS] if self.is_adapter else shards(self.path)
        own = [_digest_of(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        adapter = (self.path / ADAPTER).read_text() if self.is_adapter else None
        under = FolderModel(self.base).digest if self.is_adapter and self.base else None
        return digest([str(self.architecture), own, adapter, under])

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Its own; weights alone, and an adapter, read the tokens of the model that they belong to."""
        return None if self.is_adapter else tokenizer_of(self.path)

    def weights(self) -> Mapping[str, Tensor]:
        """The tensors by name; those of an adapter are merged into its base's, in memory and in float32."""
        if not self.is_adapter:
            return FolderWeights(self.path)
        from peft import PeftModel

        module = load_folder(self._base)
        merged = PeftModel.from_pretrained(module, self.folder, local_files_only=True).merge_and_unload()
        return without_ties(merged)


def tokenizer_of(folder: Path) -> Tokenizer | None:
    """The tokenizer in a folder; None where there is none."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    return Tokenizer(_tokenizer_digest(file, file.stat().st_size, file.stat().st_mtime_ns), str(folder))


@cache
def _tokenizer_digest(file: Path, size: int, modified: int) -> str:
    does: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for setting in ("version", "padding", "truncation"):  # how it was last called, which makes no other tokens
        does.pop(setting, None)
    return digest(does)


def check_folder(folder: Path) -> None:
    """``BadInput`` where a folder is no model, or adapter, that can be read without its own code."""
    if not folder.is_dir():
        raise BadInput("there is no such folder", place=str(folder))
    if (folder / ARCHITECTURE).is_file():
        _check_network(folder)
        return
    if (folder / ADAPTER).is_file():
        if not (folder / ADAPTER_WEIGHTS).is_file():
            raise BadInput(f"{ADAPTER_WEIGHTS} is missing", place=str(folder))
        _object(folder / ADAPTER)
        _tensors_of(folder / ADAPTER_WEIGHTS)
        return
    settings = _settings(folder)
    if "auto_map" in settings:
        raise BadInput("the model brings its own code, which is not run", place=str(folder))
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = settings.get("model_type")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise BadInput(f"'{kind}' is no causal language model that transformers knows", place=str(folder))
    AutoConfig.for_model(**settings)
    _tensor_files(folder)


def _check_network(folder: Path) -> None:
    try:
        name = saved_architecture(folder).name
    except (ValueError, TypeError, AttributeError):
        raise BadInput(f"{ARCHITECTURE} is not a name and its options", place=str(folder)) from None
    if name not in TRAINABLE["images"]:
        raise BadInput(f"unknown architecture '{name}'", place=str(folder), given=name, choices=TRAINABLE["images"])
    _tensor_files(folder)


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise BadInput("config.json is missing", place=str(folder), hint="name a Hugging Face model folder")
    return _object(file)


def load_folder(folder: Path) -> nn.Module:
    """A folder's model in float32 and eval mode."""
    check_folder(folder)
    module = causal_lm.from_configuration(config=json.dumps(_settings(folder)))
    try:
        load_into(module, FolderWeights(folder))
    except ValueError as error:
        raise BadInput(str(error), place=str(folder)) from None
    return module.eval()


@cache
def _digest_of(file: Path, size: int, modified: int) -> str:
    return file_digest(file)
