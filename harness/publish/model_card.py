"""A variant's scores as metadata for the Hugging Face Hub: ``model-index`` of a model card, and ``.eval_results``.

Formats: https://github.com/huggingface/hub-docs, files modelcard.md and eval_results.yaml.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import yaml

from harness.display.lines import one_line
from harness.errors import BadInput
from harness.results.columns import ALL_SEEDS, portable_scores
from harness.results.run import Run


def model_index(run: Run, variant: str, name: str, kind: str = "other") -> str:
    """YAML of the key ``model-index``: the scores of a variant over all seeds, each with its interval.

    ``kind`` is what the Hub calls such a task ("text-classification").

    Raises:
        BadInput: for a variant that the run does not have, or that has no scores.
    """
    rows = _rows(run, variant)
    chosen = rows[rows["metric"].isin(portable_scores()) | rows["metric"].str.contains("/")]
    name_of_task, title = run.record["task"]["name"], run.record["task"]["title"]
    task = {"type": kind, "name": title}
    dataset = {"type": name_of_task, "name": title, "split": "test"}
    result = {"task": task, "dataset": dataset, "metrics": [_metric(row) for row in chosen.to_dict("records")]}
    return _as_yaml({"model-index": [{"name": name, "results": [result]}]})


def eval_results(run: Run, variant: str, dataset: str, task: str, metric: str) -> str:
    """YAML of a file in a model's folder ``.eval_results``: one score of a variant, for a benchmark's leaderboard.

    Args:
        run: a finished run.
        variant: one of its variants.
        dataset: the benchmark's dataset on the Hub ("cais/hle").
        task: the id that the benchmark gives its task.
        metric: a metric of scores.parquet; of several seeds, the mean.

    Raises:
        BadInput: for a variant or a metric that the run does not have.
    """
    rows = _rows(run, variant)
    chosen = rows[rows["metric"] == metric]
    if chosen.empty:
        raise BadInput(f"no {metric} of '{variant}'", place=str(run.folder), given=metric, choices=rows["metric"])
    row = chosen.iloc[0]
    entry = {
        "dataset": {"id": dataset, "task_id": task},
        "value": float(row["value"]),
        "date": run.record["started"],
        "notes": f"{_metric(row.to_dict())['name']}; Stockpot, suite {run.record['suite']['name']}",
    }
    return _as_yaml([entry])


def _as_yaml(value: Any) -> str:
    """YAML in which every text stays on the line of its key: a run's record may be another's, and CI reads lines."""
    text: str = yaml.safe_dump(_in_lines(value), sort_keys=False, width=math.inf)
    return text


def _in_lines(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_lines(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_in_lines(each) for each in value]
    return one_line(value) if isinstance(value, str) else value


def _rows(run: Run, variant: str) -> pd.DataFrame:
    """The variant's scores over all seeds."""
    rows = run.scores[run.scores["seed"] == ALL_SEEDS]
    chosen = rows[rows["variant"] == variant]
    if chosen.empty:
        names = rows["variant"].unique()
        raise BadInput(f"no scores of '{variant}'", place=str(run.folder), given=variant, choices=names)
    return chosen


def _metric(row: dict[str, Any]) -> dict[str, Any]:
    name = str(row["metric"])
    if row["low"] <= row["high"]:
        name += f" (95 % interval {row['low']:.4g} .. {row['high']:.4g}, n = {row['n']})"
    return {"type": str(row["metric"]), "value": float(row["value"]), "name": name}
