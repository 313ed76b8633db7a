"""mergekit's own merges of a recipe's file, and how two folders of weights are compared."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from mergekit.scripts.multimerge import load_config, make_tasks
from torch import Tensor

from harness.recipes.merge import Merged, Options, merge_recipe
from harness.streaming.shards import read_folder


def ours(recipe: Path, out: Path, **options: Any) -> Merged:
    """Our merge of a recipe."""
    return merge_recipe(recipe, out, Options(hashes=False, **options))


def theirs(recipe: Path, out: Path, seed: int = 0) -> None:
    """mergekit's, in this process; of equal magnitudes it keeps the first, as it might by chance left to itself."""
    options = MergeOptions(quiet=True, random_seed=seed)
    with _quiet(), _stable():
        documents = list(yaml.safe_load_all(recipe.read_text()))
        if len(documents) == 1:
            run_merge(MergeConfiguration.model_validate(_absolute(documents[0], recipe.parent)), str(out), options)
            return
        text = yaml.safe_dump_all(_absolute(document, recipe.parent) for document in documents)
        stages = out.with_name(f"{out.name}-stages")
        stages.mkdir()
        merges, needs = load_config(text, str(stages))
        done: set[Any] = set()
        tasks = make_tasks(merges, needs, options, str(stages), str(out), lazy=True)

        def run(task: Any) -> None:
            for needed in task.arguments().values():
                run(needed)
            if task.out_path not in done:
                task.execute()
                done.add(task.out_path)

        for task in tasks:
            run(task)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, of anybody, and after it all of them again."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _absolute(value: Any, folder: Path) -> Any:
    """The document with paths of models that are not relative, for mergekit takes them from where it runs."""
    if isinstance(value, dict):
        return {key: _absolute(each, folder) for key, each in value.items()}
    if isinstance(value, list):
        return [_absolute(each, folder) for each in value]
    return str(folder / value) if isinstance(value, str) and (folder / value).is_dir() else value


@contextmanager
def _stable() -> Iterator[None]:
    sort, argsort = torch.sort, torch.argsort

    def stable_sort(tensor: Tensor, *given: Any, **named: Any) -> Any:
        return sort(tensor, *given, **{**named, "stable": True})

    def stable_argsort(tensor: Tensor, *given: Any, **named: Any) -> Tensor:
        return argsort(tensor, *given, **{**named, "stable": True})

    torch.sort, torch.argsort = stable_sort, stable_argsort
    try:
        yield
    finally:
        torch.sort, torch.argsort = sort, argsort


def weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, of as many files as they are."""
    from safetensors.torch import load_file

    return {name: tensor for file in read_folder(folder).files for name, tensor in load_file(file).items()}


def ulps(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, int]:
    """By tensor, by how many steps of its type two merges differ at most; the names, types and shapes are the same."""
    assert one.keys() == other.keys()
    return {name: _steps(tensor, other[name]) for name, tensor in one.items()}


def _steps(one: Tensor, other: Tensor) -> int:
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    if not one.is_floating_point():
        assert torch.equal(one, other)
        return 0
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    places = [tensor.contiguous().view(integer).long() for tensor in (one, other)]
    lowest = torch.iinfo(integer).min
    ordered = [torch.where(place < 0, lowest - place, place) for place in places]  # as the numbers are ordered
    return int((ordered[0] - ordered[1]).abs().max()) if one.numel() else 0
