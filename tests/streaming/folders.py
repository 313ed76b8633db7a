"""Small folders of safetensors and plans over them, for tests of streamed merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.streaming.plan import Plan, Step
from harness.streaming.reading import TORCH
from harness.streaming.rules import REQUIRED, RULES
from harness.streaming.shards import Folder, read_folder

NAMES = {kind: name for name, kind in TORCH.items()}
USUAL = {"weight": 0.5, "t": 0.3}
"""Values of parameters without a default."""


def make(path: Path, tensors: Mapping[str, Tensor]) -> Folder:
    """A folder with these tensors in one file."""
    path.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), path / "model.safetensors")
    return read_folder(path)


def loaded(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, by the library."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found.update(load_file(file))
    return found


def step(
    rule: str, name: str, folders: Sequence[Folder], *, base: int | None = 0, dtype: str | None = None, **values: Any
) -> Step:
    """One tensor by a rule; a value is one for all sources or a list with one for each."""
    sources = tuple(folder.tensors[name] for folder in folders)
    shared, each = {}, {}
    base = base if rule != "copy" and RULES[rule].base != "ignored" else None
    for parameter in RULES[rule].parameters if rule != "copy" else ():
        usual = USUAL.get(parameter.name) if parameter.default is REQUIRED else parameter.default
        value = values.pop(parameter.name.replace("lambda", "lambda_"), usual)
        if parameter.scope == "shared":
            shared[parameter.name] = value
        else:
            all_values = value if isinstance(value, list | tuple) else [value] * len(sources)
            own = [None if parameter.scope == "fine_tune" and i == base else v for i, v in enumerate(all_values)]
            each[parameter.name] = tuple(own)
    assert not values, values
    draws = tuple(f"model {i}" for i in range(len(sources)))
    dtype = dtype or sources[0].dtype
    return Step(name, dtype, sources[0].shape, sources, rule, base, shared, each, draws)


def plan(rule: str, folders: Sequence[Folder], **values: Any) -> Plan:
    """Every tensor of the first folder by one rule."""
    return Plan(tuple(step(rule, name, folders, **values) for name in folders[0].tensors))
