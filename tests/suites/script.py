"""The scripts of suites/, which are no package, as modules."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from harness.tasks.archives import Archive, archive_folder

FOLDER = Path(__file__).parents[2] / "suites"


def load_script(name: str, *archives: Archive) -> ModuleType:
    """A script by name; the test is skipped where an archive that it reads is missing, for tests fetch nothing."""
    for archive in archives:
        if not (archive_folder() / archive.file).is_file():
            pytest.skip(f"{archive.file} is not on this machine, and tests fetch nothing")
    path = FOLDER / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"suites_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
