"""From the artefacts of a run to the files of its results folder (``harness.results.columns`` says what they hold)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from harness.display.lines import one_line
from harness.evaluate import correlate
from harness.evaluate.families import Family
from harness.evaluate.quality_cost import quality_cost
from harness.keys import Key
from harness.results.columns import (
    ALL_SEEDS,
    COMPARISON_COLUMNS,
    CORRELATION_COLUMNS,
    example_columns,
    is_column,
    numbers,
    paired,
    variant_columns,
)
from harness.results.manifest import finish
from harness.results.metric import DOCUMENTS
from harness.results.run import Run
from harness.results.serving import title_of
from harness.run import tables as table_code
from harness.run.dialled import dialled
from harness.run.folder import write_artefacts
from harness.run.plan import Plan
from harness.run.record import run_record
from harness.run.stages.setting import documents_of
from harness.run.tables import Tables
from harness.store import read_json, write_json

Table = Literal["examples", "measures", "intermediate"]


def write_results(folder: Path, plan: Plan, errors: Mapping[str, str], done: Mapping[str, Any]) -> None:
    """Write every file of a run's folder but the log.

    Args:
        folder: the run's folder, existing.
        plan: what was run.
        errors: why stages failed, by their labels.
        done: the fields of run.json that only the runner knows.
    """
    tables = Tables(plan, errors)
    rows = tables.rows()
    variants = pd.DataFrame(rows, columns=list(variant_columns()))
    variants.to_csv(folder / "variants.csv", index=False)
    write_json(folder / "details.json", tables.details)
    _tidy(variants, tables.measures, plan.setting.kind.scored_by).to_parquet(folder / "scores.parquet", index=False)
    comparisons = pd.DataFrame(tables.decided.rows if plan.compares else [], columns=list(COMPARISON_COLUMNS))
    ends = ["low", "high", "low_together", "high_together"]
    comparisons = comparisons.astype(dict.fromkeys(ends, float))  # also where none is known
    comparisons.to_parquet(folder / "comparisons.parquet", index=False)
    _write_once(plan, tables, "examples", folder)
    _write_once(plan, tables, "measures", folder)
    _write_once(plan, tables, "intermediate", folder)
    warnings = [one_line(warning) for warning in (*_write_study(folder, plan, errors), *tables.warnings)]
    record = run_record(plan, rows, tables, warnings, done)
    summary = {row["variant"]: row for row in rows if row["seed"] == ALL_SEEDS and row["status"] == "ok"}
    unit = title_of(tables.serving["cost"] or "")
    reference = tables.serving_cost(summary.get(plan.suite.file.reference, {}))
    write_curves(Run(folder, record), list(dialled(plan, summary, unit, reference)), _clusters(plan))
    write_artefacts(folder, plan.store)
    finish(folder, record)


def write_curves(run: Run, added: Sequence[Family] = (), clusters: Sequence[str] | None = None) -> None:
    """Write curves.json where it can be said what quality costs, from the tables that the folder has by now.

    Args:
        run: whose record need not be written yet.
        added: the settings of systems with a dial (``Family`` says what they need).
        clusters: of each document of the score, where examples.parquet does not have them.
    """
    if (found := quality_cost(run, added, clusters)) is not None:
        write_json(run.folder / "curves.json", found)


def _clusters(plan: Plan) -> list[str] | None:
    """Of each document that the score is a mean of, where these are no examples, the cluster that counts as one."""
    score = paired()[plan.suite.file.scores[0]]
    known = documents_of(plan.setting).measured
    return list(known.get(score.name, ())) if score.outcome == DOCUMENTS else None


def _write_once(plan: Plan, tables: Tables, what: Table, folder: Path) -> None:
    """Write one of the tables with millions of rows, which the next run of the same has in the store."""
    name = f"{what}.parquet"
    code, columns = (__name__, table_code.__name__), list(example_columns())
    key = Key.of("table", code=code, what=what, columns=columns, of=tables.scored())
    if not plan.store.has(key):
        made = {"examples": tables.examples, "measures": tables.document_measures, "intermediate": tables.intermediate}
        table = made[what]()
        with plan.store.write(key) as kept:
            table.to_parquet(kept / name, index=False)
            write_json(kept / "rows.json", len(table))
    kept = plan.store.read(key)
    if what == "examples" or read_json(kept / "rows.json"):  # not every kind of task has the others
        shutil.copyfile(kept / name, folder / name)


def _tidy(variants: pd.DataFrame, measures: list[dict[str, Any]], source: str) -> pd.DataFrame:
    """scores.parquet: one row per variant, seed and metric, with its interval where it has one, and its source."""
    columns = list(numbers().values())
    nowhere = np.full(len(variants), np.nan)

    def read(name: str) -> np.ndarray:
        return pd.to_numeric(variants[name]).to_numpy(float) if name else nowhere

    values = [read(column.name) for column in columns]
    lows, highs = ([read(column.bounds[end] if column.bounds else "") for column in columns] for end in (0, 1))
    given = [np.flatnonzero(~np.isnan(each)) for each in values]

    def gathered(tables: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([table[rows] for table, rows in zip(tables, given, strict=True)])

    rows, counts = np.concatenate(given), [len(each) for each in given]
    table = variants[["variant", "seed"]].take(rows).reset_index(drop=True)
    table["metric"] = np.repeat([column.name for column in columns], counts)
    table["value"], table["low"], table["high"] = gathered(values), gathered(lows), gathered(highs)
    table["n"] = pd.to_numeric(variants["n"]).astype("Int64").array.take(rows)
    sources = [variants[column.source] if is_column(column.source) else pd.Series(column.source, variants.index)
               for column in columns]  # fmt: skip
    table["source"] = pd.Series(gathered([each.to_numpy(object) for each in sources]), dtype="str")
    if not measures:
        return table
    return pd.concat([table, pd.DataFrame(measures).astype({"low": float, "high": float}).assign(source=source)],
                     ignore_index=True)  # fmt: skip


def _write_study(folder: Path, plan: Plan, errors: Mapping[str, str]) -> list[str]:
    """correlation.csv and correlation.json; returns warnings for the pools that have no study."""
    tables, warnings = [], []
    for study in plan.studies:
        place = f"the study of pool '{study.pool.name}', seed {study.seed}"
        if reason := errors.get(study.label):
            warnings.append(f"{place}, failed: {reason}")
            continue
        record = study.read()
        if record["status"] != "ok":
            warnings.append(f"{place}, does not apply: {record['reason']}")
            continue
        tables.append(pd.DataFrame(record["rows"]).assign(pool=study.pool.name, seed=study.seed))
    if tables:
        whole = pd.concat(tables, ignore_index=True)[list(CORRELATION_COLUMNS)]
        whole = whole.astype(dict.fromkeys(("ensemble", "average", "members"), float))  # also where none is known
        whole.to_csv(folder / "correlation.csv", index=False)
        write_json(folder / "correlation.json", correlate.correlations(whole))
    return warnings
