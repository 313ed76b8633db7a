"""A model in a folder: a causal language model, an adapter on one, or one of our networks for images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.errors import BadInput
from harness.models.adapters import ADAPTER, ADAPTER_WEIGHTS, AdapterWeights, adapter_architecture
from harness.models.architectures import kind_of, trainable
from harness.models.checkpoint import CONFIG, checkpoint_files, read_config, signature, stored_tensors
from harness.models.pretrained import FolderWeights, check_causal, layout, load_pretrained
from harness.models.tokens import tokenizer_of
from harness.models.weights import ARCHITECTURE, WEIGHTS, LazyWeights, saved_architecture
from harness.store import digest, file_digest
from harness.types import Architecture, Tokenizer


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
    def is_network(self) -> bool:
        """Whether it is a network of ours, as ``save_network`` writes them."""
        return (self.path / ARCHITECTURE).is_file()

    @property
    def kind(self) -> str | None:
        """The kind of task that it is for."""
        return kind_of(self.architecture)

    @property
    def architecture(self) -> Architecture:
        if self.is_network:
            return saved_architecture(self.path)
        if self.is_adapter:
            return adapter_architecture(self.path, self._base)
        return layout(self.path).architecture

    @property
    def _base(self) -> Path:
        if self.base is None:
            raise BadInput("an adapter needs the pool's base model", place=self.folder, hint="name it under hf: base")
        if (Path(self.base) / ADAPTER).is_file():
            raise BadInput("an adapter's base is an adapter", place=self.folder, hint="name a whole model as the base")
        return Path(self.base)

    @property
    def digest(self) -> str:
        """What the model says and reads, wherever it lies."""
        if self.is_adapter:
            files, under = [self.path / ADAPTER_WEIGHTS, self.path / ADAPTER], FolderModel(str(self._base)).digest
        elif self.is_network:
            files, under = [self.path / WEIGHTS], ""
        else:
            files, under = [self.path / CONFIG, *checkpoint_files(self.path, read_config(self.path))], ""
        words = self.tokenizer
        reads = [words.digest, words.begins] if words else None
        return digest([str(self.architecture), [_digest_of(*signature(file)) for file in files], under, reads])

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Its own; weights alone, and an adapter, read the tokens of the model that they belong to."""
        return None if self.is_adapter else tokenizer_of(self.path)

    def weights(self) -> Mapping[str, Tensor]:
        """The tensors by name; those of an adapter are merged into its base's, in memory and in float32."""
        if self.is_network:
            return LazyWeights(self.path / WEIGHTS)
        return AdapterWeights(self.path, self._base) if self.is_adapter else FolderWeights(self.path)

    def check(self) -> None:
        """``BadInput`` where it is no model, or adapter, that can be read without its own code."""
        folder = self.path
        if not folder.is_dir():
            raise BadInput("there is no such folder", place=self.folder)
        if self.is_adapter and not (folder / ADAPTER_WEIGHTS).is_file():
            pickled = (folder / "adapter_model.bin").is_file()
            hint = "pickled weights are not read: save them with safe_serialization" if pickled else None
            raise BadInput(f"{ADAPTER_WEIGHTS} is missing", place=self.folder, hint=hint)
        if self.is_adapter and (folder / CONFIG).is_file() and any(folder.glob("model*.safetensors*")):
            raise BadInput(
                f"there is a whole model beside {ADAPTER}: which of the two is meant?",
                place=self.folder,
                hint="transformers would run both, one on the other: keep each in a folder of its own",
            )
        if self.is_network:
            self._check_network()
        assert self.architecture

    def _check_network(self) -> None:
        try:
            name = saved_architecture(self.path).name
        except (ValueError, TypeError, AttributeError):
            raise BadInput(f"{ARCHITECTURE} is not a name and its options", place=self.folder) from None
        if name not in (known := trainable()):
            raise BadInput(f"unknown architecture '{name}'", place=self.folder, given=name, choices=known)
        if not (self.path / WEIGHTS).is_file():
            raise BadInput(f"{WEIGHTS} is missing", place=self.folder)
        stored_tensors(self.path / WEIGHTS)

    def examine(self, module: nn.Module) -> list[str]:
        """What a reader of its scores should know, from its network; ``BadInput`` where it is no causal model."""
        if self.is_network:
            return []
        check_causal(module, self.folder)
        if not self.is_adapter:
            return [f"{self.folder}: {note}" for note in layout(self.path).notes]
        before, after = load_pretrained(self._base).state_dict(), module.state_dict()
        same = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
        return [f"{self.folder}: the adapter changes nothing, all its deltas are zero"] if same else []


@cache
def _digest_of(file: Path, size: int, modified: int) -> str:
    return file_digest(file)
