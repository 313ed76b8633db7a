"""RouteLLM's tables of responses: ``prompt``, and for each model whether it answered right.

Columns as github.com/lm-sys/RouteLLM has them in routellm/evals/mmlu/responses/*.csv and, with what the models said in
``<model>_response``, in routellm/evals/gsm8k/gsm8k_responses.csv; routellm/evals/benchmarks.py reads both.
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
from harness.imports.prompts import prompt_groups
from harness.registry import FORMATS

PROMPT, RESPONSE = "prompt", "_response"
TRUE, FALSE = ("True", "true", "TRUE", "1"), ("False", "false", "FALSE", "0")


def _outcomes(path: Path) -> pd.DataFrame:
    """The prompt as text and the models as bools."""
    columns = header(path)
    models = [name for name in columns if name != PROMPT and name.removesuffix(RESPONSE) not in {*columns} - {name}]
    if PROMPT not in columns or not models:
        raise BadInput("the table has no column 'prompt', or no model beside it", place=str(path))
    table = read_table(path, tuple(columns))[[PROMPT, *models]]
    table[PROMPT] = table[PROMPT].fillna("").astype(str)
    for model in models:
        said = table[model].astype(str)
        if (bad := ~said.isin([*TRUE, *FALSE])).any():
            problem = f"'{model}' is neither true nor false in row {bad.to_numpy().argmax()}: '{said[bad].iloc[0]}'"
            raise BadInput(problem, place=str(path))
        table[model] = said.isin(TRUE)
    return table


def recognises(path: Path) -> bool:
    """A table of a prompt and columns that are true or false."""
    columns = header(path)
    if PROMPT not in columns or len(columns) < 2 or "sample_id" in columns:
        return False
    try:
        _outcomes(path)
    except BadInput:
        return False
    return True


def read(given: Sequence[Given], asked: Asked) -> Imported:
    """Right and wrong of every model; several tables are one below another, and each is a task called as its file."""
    tables = {}
    for one in given:
        if one.path.stem in tables:
            raise BadInput(f"two tables are called '{one.path.stem}'", place=str(one.path))
        if not asked.tasks or one.path.stem in asked.tasks:
            table = _outcomes(one.path)
            tables[one.path.stem] = table.set_axis([f"{one.path.stem}/{row}" for row in range(len(table))])
    if not tables:
        raise BadInput("no table is called so", place=str(given[0].path), choices=[one.path.stem for one in given])
    models = sorted(set.intersection(*(set(table.columns) for table in tables.values())) - {PROMPT})
    if not models:
        raise BadInput("the tables have no model in common", place=str(given[0].path))
    left = sorted({name for table in tables.values() for name in table} - {PROMPT, *models})
    whole = pd.concat(list(tables.values()))
    whole.index = whole.index.astype(object)
    refuse_twice(whole.index, str(given[0].path))
    questions = pd.DataFrame(
        {"stratum": [name.rpartition("/")[0] for name in whole.index], "group": prompt_groups(whole[PROMPT])},
        index=whole.index,
    )
    members = {model: whole[[model]].astype(bool).set_axis(["correct"], axis=1) for model in models}
    return Imported("correct", questions, members, (), [f"the model {m}, which not all tables have" for m in left])


FORMATS.add(
    Format(
        "routellm",
        "RouteLLM's csv of responses: a column 'prompt', and a column true or false for each model",
        recognises,
        read,
        ("tasks",),
        module=__name__,
    )
)
