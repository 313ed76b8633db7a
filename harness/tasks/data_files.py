"""Data files of lm-eval's tasks on this machine: read by their content, not by their time stamps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.keys import digest, file_digest

FORMATS = ("json", "csv", "text", "parquet", "arrow")
"""The loaders of the datasets library whose content is that of the files they are given."""


def data_files(loader: str | None, options: Mapping[str, Any]) -> list[Path] | None:
    """The files that a dataset is read from; None where it names other things than single files on this machine."""
    given = options.get("data_files")
    if loader not in FORMATS or given is None or "data_dir" in options:
        return None
    named = given.values() if isinstance(given, dict) else [given]
    paths = [Path(str(one)) for each in named for one in (each if isinstance(each, list) else [each])]
    seen = all(path.is_file() and not set("*?[") & set(str(path)) for path in paths)
    return [path.absolute() for path in paths] if seen else None


@contextlib.contextmanager
def read_by_content() -> Iterator[None]:
    """The datasets library with a cache for each content of such files.

    It knows a file again by its path and time stamp: other content written within the stamp's resolution, or by a tool
    that keeps the stamp, would be the old documents. And it refuses to read whatever files there happen to be.
    """
    import datasets

    count_no_loads()
    load = datasets.load_dataset

    def load_by_content(path: str, *arguments: Any, **options: Any) -> Any:
        _check_named(path, options)
        if (files := data_files(path, options)) is not None:
            content = digest([file_digest(file) for file in files])
            options.setdefault("cache_dir", str(Path(datasets.config.HF_DATASETS_CACHE) / content[:16]))
        return load(path, *arguments, **options)

    datasets.load_dataset = load_by_content
    try:
        yield
    finally:
        datasets.load_dataset = load


def _check_named(loader: str, options: Mapping[str, Any]) -> None:
    """``BadInput`` where a loader of files is named and no file is: it would read all of the working directory."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    if loader in _PACKAGED_DATASETS_MODULES and options.get("data_files") is None and not options.get("data_dir"):
        problem = f"dataset_path '{loader}' reads files, and dataset_kwargs names none"
        raise BadInput(problem, hint="say there which: data_files: {test: FILE}")


def count_no_loads() -> None:
    """Make the datasets library tell nobody what is loaded, from now on, in this process.

    It asks a server of its own for every name that it loads, also for files of this machine.
    """
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
