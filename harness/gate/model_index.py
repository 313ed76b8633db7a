"""A variant's scores as metadata of a Hugging Face model card.

Format: https://github.com/huggingface/hub-docs/blob/main/modelcard.md, key ``model-index``.
"""

from __future__ import annotations

from typing import Any

import yaml

from harness.errors import BadInput
from harness.results import ALL_SEEDS, Run

QUALITY = ("accuracy", "nll", "brier", "ece", "adaptive_ece", "aurc", "macro_f1", "bits_per_byte", "nll_calibrated",
           "ece_calibrated")  # fmt: skip
"""The metrics that mean something outside this run and this machine."""


def model_index(run: Run, variant: str, name: str) -> str:
    """YAML of the key ``model-index``: the scores of a variant over all seeds, each with its interval.

    Raises:
        BadInput: for a variant that the run does not have, or that has no scores.
    """
    rows = run.scores[run.scores["seed"] == ALL_SEEDS]
    chosen = rows[(rows["variant"] == variant) & (rows["metric"].isin(QUALITY) | rows["metric"].str.contains("/"))]
    if chosen.empty:
        raise BadInput(f"no scores of '{variant}'", place=str(run.folder), given=variant,
                       choices=rows["variant"].unique())  # fmt: skip
    name_of_task, title = run.record["task"]["name"], run.record["task"]["title"]
    task = {"type": "other", "name": title}
    dataset = {"type": name_of_task, "name": title, "split": "test"}
    result = {"task": task, "dataset": dataset, "metrics": [_metric(row) for row in chosen.to_dict("records")]}
    text: str = yaml.safe_dump({"model-index": [{"name": name, "results": [result]}]}, sort_keys=False)
    return text


def _metric(row: dict[str, Any]) -> dict[str, Any]:
    name = str(row["metric"])
    if row["low"] <= row["high"]:
        name += f" (95 % interval {row['low']:.4g} .. {row['high']:.4g}, n = {row['n']})"
    return {"type": str(row["metric"]), "value": float(row["value"]), "name": name}
