"""A model in a folder: one that transformers reads, an adapter on one, or a network of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.errors import BadInput
from harness.keys import digest, file_digest
from harness.models.adapters import ADAPTER, ADAPTER_WEIGHTS, AdapterWeights, adapter_architecture
from harness.models.architectures import kind_of, trainable
from harness.models.checkpoint import CONFIG, checkpoint_files, read_config, signature, stored_tensors
from harness.models.confined import check_confined
from harness.models.heads import CAUSAL, MASKED
from harness.models.masked import check_mask
from harness.models.own_code import code_in
from harness.models.pretrained import AS_CAUSAL, ZEROS, FolderWeights, ReadAs, check_causal, layout, load_pretrained
from harness.models.tokens import tokenizer_of
from harness.models.weights import ARCHITECTURE, WEIGHTS, LazyWeights, saved_architecture
from harness.types import Architecture, Tokenizer


@dataclass(frozen=True)
class FolderModel:
    """A model of transformers in a folder, an adapter (PEFT) on another one, or a network of ours."""

    folder: str
    base: str | None = None
    """The folder of the model that an adapter is for."""
    read_as: ReadAs = AS_CAUSAL

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
    def has_own_head(self) -> bool:
        """Whether it is a classifier whose head is made here, for its folder has none for the task's labels."""
        is_whole = self.read_as.head.labelled and not self.is_network and not self.is_adapter
        return is_whole and bool(layout(self.path, self.read_as).head.drawn)

    @property
    def architecture(self) -> Architecture:
        if self.is_network:
            return saved_architecture(self.path)
        if self.is_adapter:
            return adapter_architecture(self.path, self._base, self.read_as)
        return layout(self.path, self.read_as).architecture

    @property
    def _base(self) -> Path:
        if self.base is None:
            raise BadInput("an adapter needs the pool's base model", place=self.folder, hint="name it under hf: base")
        if (Path(self.base) / ADAPTER).is_file():
            raise BadInput("an adapter's base is an adapter", place=self.folder, hint="name a whole model as the base")
        return Path(self.base)

    @property
    def under(self) -> FolderModel:
        """The model that an adapter is for."""
        return FolderModel(str(self._base), read_as=replace(self.read_as, fresh=ZEROS))

    @property
    def digest(self) -> str:
        """What the model says and reads, wherever it lies."""
        if self.is_adapter:
            files, under = [self.path / ADAPTER_WEIGHTS, self.path / ADAPTER], self.under.digest
        elif self.is_network:
            files, under = [self.path / WEIGHTS], ""
        else:
            config = read_config(self.path, self.read_as.head)
            files, under = [self.path / CONFIG, *checkpoint_files(self.path, config)], ""
        words = self.tokenizer
        reads = [words.digest, words.begins] if words else None
        labels = [[self.read_as.labels, self.read_as.names, self.read_as.fresh]] if self.read_as.head.labelled else []
        contents = [digest_of(*signature(file)) for file in files]
        return digest([str(self.architecture), contents, under, reads, *labels])

    @property
    def files(self) -> tuple[tuple[Path, int, int], ...]:
        """The signature of every file of its folder, and of its base's."""
        folders = [self.path, *([Path(self.base)] if self.base else [])]
        return tuple(signature(file) for folder in folders for file in sorted(folder.iterdir()) if file.is_file())

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Its own, of a language model; weights alone, and an adapter, read the tokens of what they belong to.

        (A classifier's is a part of its architecture: it reads raw texts.)
        """
        return None if self.is_adapter or self.read_as.head != CAUSAL else tokenizer_of(self.path)

    def weights(self) -> Mapping[str, Tensor]:
        """The tensors by name; those of an adapter are merged into its base's, in memory and in float32."""
        if self.is_network:
            return LazyWeights(self.path / WEIGHTS)
        if self.is_adapter:
            return AdapterWeights(self.path, self._base, self.read_as)
        return FolderWeights(self.path, self.read_as)

    def check(self) -> None:
        """``BadInput`` where it is no model, or adapter, that can be read without its own code."""
        folder = self.path
        if not folder.is_dir():
            raise BadInput("there is no such folder", place=self.folder,
                           hint="models are read from folders: download it first, and name its folder")  # fmt: skip
        check_confined(folder)
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
            saved = saved_architecture(self.path)
        except (ValueError, TypeError, AttributeError):
            raise BadInput(f"{ARCHITECTURE} is not a name and its options", place=self.folder) from None
        if code := code_in(saved):  # which would run here without having been allowed
            raise BadInput(f"'{code.function}' builds it, a function of a user's", place=self.folder,
                           hint="name it under module: members")  # fmt: skip
        if saved.name not in (known := trainable()):
            problem = f"unknown architecture '{saved.name}'"
            raise BadInput(problem, place=self.folder, given=saved.name, choices=known)
        if not (self.path / WEIGHTS).is_file():
            raise BadInput(f"{WEIGHTS} is missing", place=self.folder)
        stored_tensors(self.path / WEIGHTS)

    def examine(self, module: nn.Module) -> list[str]:
        """What a reader of its scores should know, from its network; ``BadInput`` where it is no causal model."""
        if self.is_network:
            return []
        if self.read_as.head == CAUSAL:
            check_causal(module, self.folder)
        if self.read_as.head == MASKED:
            check_mask(self.path)
        if not self.is_adapter:
            return [f"{self.folder}: {note}" for note in layout(self.path, self.read_as).notes]
        before, after = load_pretrained(self._base, self.under.read_as).state_dict(), module.state_dict()
        same = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
        return [f"{self.folder}: the adapter changes nothing, all its deltas are zero"] if same else []


@cache
def digest_of(file: Path, size: int, modified: int) -> str:
    """sha256 of a file, read once for each ``signature``."""
    return file_digest(file)
