"""RouterBench's wide tables: a score and a cost of each model for each prompt.

Columns as github.com/withmartian/routerbench (convertors/common.py) makes them: ``sample_id, prompt, eval_name``, and
for each model ``<model>``, ``<model>|model_response`` and ``<model>|total_cost`` in dollars. The published files are
pickles.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from harness.errors import BadInput
from harness.imports.files import header, read_table
from harness.imports.format import Asked, Format, Given
from harness.imports.imported import Imported
from harness.imports.joining import refuse_twice
from harness.imports.outcomes import right_or_wrong
from harness.imports.prompts import prompt_groups
from harness.registry import FORMATS

COST, RESPONSE = "|total_cost", "|model_response"
TEXT = ("sample_id", "prompt", "eval_name")


def _models(columns: Sequence[str]) -> list[str]:
    """Models with a score, and with a cost or a response."""
    known = set(columns)
    named = dict.fromkeys(name.removesuffix(end) for name in columns for end in (COST, RESPONSE) if name.endswith(end))
    return [name for name in named if name in known]


def recognises(path: Path) -> bool:
    """A table with ``sample_id`` and columns of models."""
    columns = header(path)
    return "sample_id" in columns and bool(_models(columns))


def read(given: Sequence[Given], asked: Asked) -> Imported:
    """Right and wrong of every model, and its cost in money; several tables are one below another."""
    tables = []
    for one in given:
        table = read_table(one.path, TEXT)
        if "sample_id" not in table or not _models(list(table.columns)):
            raise BadInput("the table has no sample_id, or no model with |total_cost", place=str(one.path))
        tables.append(table)
    place = str(given[0].path)
    models = sorted(set.intersection(*(set(_models(list(table.columns))) for table in tables)))
    if not models:
        raise BadInput("the tables have no model in common", place=place)
    left = sorted({name for table in tables for name in _models(list(table.columns))} - set(models))
    whole = pd.concat(tables, ignore_index=True)
    index = pd.Index(whole["sample_id"].astype(str), dtype=object, name=None)
    refuse_twice(index, place)
    whole = whole.set_axis(index)
    tasks = whole["eval_name"].astype(str) if "eval_name" in whole else pd.Series("the table", index)
    dropped = [f"the model {name}, which not all tables have" for name in left]
    if asked.tasks:
        for name in asked.tasks:
            if name not in set(tasks):
                raise BadInput(f"unknown task '{name}'", place=place, given=name, choices=sorted(set(tasks)))
        whole, tasks = whole[tasks.isin(asked.tasks)], tasks[tasks.isin(asked.tasks)]
    answered = whole[models].notna().all(axis=1)
    if not answered.all():
        dropped.append(f"{(~answered).sum()} of {len(whole)} rows that not all models answered")
    try:
        scores = whole.loc[answered, models].astype(float)
        costs = whole.loc[answered, [f"{m}{COST}" for m in models if f"{m}{COST}" in whole]].astype(float)
    except ValueError as fault:
        raise BadInput(f"a score or cost is no number ({fault})", place=place) from None
    right, partial = right_or_wrong(scores, tasks[answered], asked.threshold, place)
    rows = right.index
    questions = pd.DataFrame({"stratum": tasks[rows]}, index=rows)
    if "prompt" in whole:
        questions["group"] = prompt_groups(whole.loc[rows, "prompt"])
    members = {}
    for model in models:
        members[model] = right[[model]].set_axis(["correct"], axis=1)
        if f"{model}{COST}" in costs:
            members[model] = members[model].assign(cost_money=costs.loc[rows, f"{model}{COST}"])
    return Imported("correct", questions, members, (), dropped + partial)


FORMATS.add(
    Format(
        "routerbench",
        "RouterBench's wide table (csv or parquet): right and wrong, and cost in money, of every model",
        recognises,
        read,
        ("tasks", "threshold"),
        "pandas.read_pickle('routerbench_0shot.pkl').to_parquet('routerbench_0shot.parquet')",
        module=__name__,
    )
)
