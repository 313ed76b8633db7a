"""Small task files with data of their own, as a user of lm-eval writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

PLAIN = {
    "dataset_path": "json",
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "{{q}}:",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


class _Function(str):
    """A function of a module beside the file: "module.name"."""


yaml.SafeDumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))
function = _Function


def metrics(*names: str, **more: Any) -> list[dict[str, Any]]:
    """The setting for metrics with lm-eval's own aggregations."""
    return [{"metric": name, "higher_is_better": True, **more} for name in names]


def rows(count: int = 8, choices: int = 3) -> list[dict[str, Any]]:
    """Documents of three choices of unlike lengths, the right one in every place."""
    return [
        {"q": f"question {row}", "choices": [f"{'long ' * place}answer {row}" for place in range(choices)],
         "gold": row * 7 % 5 % choices}
        for row in range(count)
    ]  # fmt: skip


def write_task(folder: Path, name: str, data: list[dict[str, Any]] | None = None, **settings: Any) -> Path:
    """A task in its own file below ``folder``, with its documents beside it unless another dataset is named."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**PLAIN, "task": name, **settings}
    if "custom_dataset" not in config:
        lines = "".join(json.dumps(row) + "\n" for row in (rows() if data is None else data))
        (folder / f"{name}.jsonl").write_text(lines)
        config["dataset_kwargs"] = {"data_files": {"test": str(folder / f"{name}.jsonl")}}
    else:
        del config["dataset_path"]
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder / f"{name}.yaml"
