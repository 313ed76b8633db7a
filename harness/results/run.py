"""A finished run, read from its folder: its tables, its record, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from harness.errors import BadInput
from harness.results.blocks import blocks
from harness.results.columns import ALL_SEEDS, COMPARISON_COLUMNS, READ_VERSIONS, SCORE_COLUMNS
from harness.results.manifest import FILES, MANIFEST, check_manifest
from harness.results.shard import SHARD, why_no_run
from harness.store import read_json

PER_SEED = "per_seed"
"""The ``split`` of a task of which every seed has a split of its own."""

BASELINES = "baselines"
"""The folder of a results folder that holds copies of runs to compare with."""


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder; tables are read when asked for."""

    folder: Path
    record: dict[str, Any]
    """run.json."""

    @property
    def splits_differ(self) -> bool:
        """Whether every seed has a split of its own, so that seeds have other test examples each."""
        return bool(self.record.get("task", {}).get("split") == PER_SEED)

    @cached_property
    def variants(self) -> pd.DataFrame:
        """variants.csv; ``seed`` is text."""
        texts = {"seed": str, "reason": str}
        return pd.read_csv(self.folder / "variants.csv", dtype=texts)

    @cached_property
    def details(self) -> dict[str, dict[str, Any]]:
        """details.json: variant -> seed -> what building it found out (weights, curves, warnings)."""
        return read_json(self.folder / "details.json")

    @cached_property
    def examples(self) -> pd.DataFrame | None:
        """examples.parquet, or None where the folder is a summary without it."""
        path = self.folder / "examples.parquet"
        return pd.read_parquet(path) if path.is_file() else None

    @cached_property
    def places(self) -> dict[str, int]:
        """The position of each test example among those of all seeds, by its id: in the order of ids."""
        table: pd.DataFrame | None = self.__dict__.get("examples")
        if table is None:  # of many millions of rows, no other column
            table = pd.read_parquet(self.folder / "examples.parquet", columns=["example_id"])
        return {name: place for place, name in enumerate(sorted(map(str, table["example_id"].unique())))}

    @cached_property
    def scores(self) -> pd.DataFrame:
        """scores.parquet: a row per variant, seed and metric that has a value; empty where the folder is without it."""
        path = self.folder / "scores.parquet"
        return pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=list(SCORE_COLUMNS))

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """comparisons.parquet; empty where the folder is without it, as those of version 1 are."""
        path = self.folder / "comparisons.parquet"
        return pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=list(COMPARISON_COLUMNS))

    @property
    def scores_of_suite(self) -> list[str]:
        """The metrics that verdicts go by, the one that decides first; runs of version 1 went by accuracy."""
        return list(self.record.get("scores") or ["accuracy"])

    @cached_property
    def measures(self) -> pd.DataFrame:
        """Scores of parts of the task, over all seeds: variants by "metric/task" or "metric/view"; may be empty."""
        table = self.scores
        rows = table[(table["seed"] == ALL_SEEDS) & table["metric"].str.contains("/")]
        return rows.pivot(index="variant", columns="metric", values="value") if len(rows) else pd.DataFrame()

    @cached_property
    def document_measures(self) -> pd.DataFrame | None:
        """measures.parquet, or None where there are none, or where the folder is a summary without it."""
        path = self.folder / "measures.parquet"
        return pd.read_parquet(path) if path.is_file() else None

    @cached_property
    def intermediate(self) -> pd.DataFrame | None:
        """intermediate.parquet, or None where no pipeline was run, or where the folder is a summary without it."""
        path = self.folder / "intermediate.parquet"
        return pd.read_parquet(path) if path.is_file() else None

    @cached_property
    def measured(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The rows of measures.parquet by variant and metric, these as words; empty without the file."""
        table = self.document_measures
        if table is None or table.empty:
            return {}
        pieces = blocks(table["variant"], table["metric"])
        return {(str(variant), str(metric)): pd.concat([table.iloc[rows] for rows in each])
                for (variant, metric), each in sorted(pieces.items())}  # fmt: skip

    @cached_property
    def subsets(self) -> pd.DataFrame | None:
        """correlation.csv, or None where the suite has no study."""
        path = self.folder / "correlation.csv"
        return pd.read_csv(path, dtype={"seed": str, "subset": str}) if path.is_file() else None

    @cached_property
    def correlations(self) -> list[dict[str, Any]]:
        """correlation.json: one entry per pool, metric and seed (or 'all'), with n, members and three coefficients."""
        path = self.folder / "correlation.json"
        return read_json(path) if path.is_file() else []

    @cached_property
    def curves(self) -> dict[str, Any] | None:
        """curves.json (``results.curves``), or None where there is none: of runs from before it, or without costs."""
        path = self.folder / "curves.json"
        return read_json(path) if path.is_file() else None

    def alone(self, variant: str, name: str) -> Run:
        """A view of the run with one variant only, under another name; ``BadInput`` where it does not have it."""
        known = self.variants["variant"].unique()
        if variant not in known:
            raise BadInput(f"the run has no variant '{variant}'", place=str(self.folder), given=variant, choices=known)
        view = Run(self.folder, self.record)
        for key in ("variants", "scores", "comparisons", "examples", "document_measures"):
            table: pd.DataFrame | None = getattr(self, key)
            if table is not None:
                table = table[table["variant"] == variant].assign(variant=name)
            view.__dict__[key] = table  # where the cached properties keep theirs
        return view


def read_run(folder: Path, files: Collection[str] = FILES) -> Run:
    """A finished run, whose tables are read later.

    Args:
        folder: of the run.
        files: those that will be read; the run's manifest has to say of them what they are.

    Raises:
        BadInput: a folder that is no run, is of another schema version, or was changed since it was written.
    """
    folder = Path(folder)
    record_path = folder / "run.json"
    if not record_path.is_file():
        if part := why_no_run(folder):
            raise part
        hint = "name the folder of one run, such as results/mnist/latest"
        raise BadInput(f"no run.json in {folder}", place=str(folder), hint=hint)
    check_manifest(folder, files)
    try:
        record = read_json(record_path)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise BadInput("run.json is not JSON", place=str(record_path), hint="was the file cut off?") from None
    parts = ("suite", "task", "summary")
    if not isinstance(record, dict) or not all(isinstance(record.get(part, {}), dict) for part in parts):
        raise BadInput("run.json is not a run's record", place=str(record_path), hint="was it edited?")
    version = record.get("schema_version")
    if type(version) is not int or version not in READ_VERSIONS:
        known = " and ".join(map(str, READ_VERSIONS))
        raise BadInput(f"results of schema version {version}; this stockpot reads {known}", place=str(folder))
    for name in ("variants.csv", "details.json"):
        if not (folder / name).is_file():
            raise BadInput(f"{name} is missing", place=str(folder), hint="run the suite again")
    return Run(folder, record)


def unchecked(run: Run) -> str | None:
    """A line for readers of a run without a manifest; None where it has one."""
    if (run.folder / MANIFEST).is_file():
        return None
    return f"{run.folder} has no {MANIFEST}: nothing shows whether its files are as they were written"


def has_answer(run: Run) -> bool:
    """Whether the reference has a result, and so there is something that every other variant is compared with."""
    return _status_of_reference(run) == "ok"


def what_failed(run: Run) -> list[str]:
    """A line that counts the variants that failed, and one where the run has no answer; none where all is well."""
    rows = run.variants[run.variants["seed"] == ALL_SEEDS]
    broken = rows[rows["status"] == "failed"]
    lines = []
    if len(broken):
        first = broken.iloc[0]
        which = f"the first is {first['variant']}: {first['reason']}"
        lines.append(f"{len(broken)} of {len(rows)} variants failed; {which}")
    if not has_answer(run):
        name, status = run.record["reference"]["variant"], _status_of_reference(run)
        words = "does not apply" if status == "not_applicable" else "failed"
        scored = int((rows["status"] == "ok").sum())
        lines.append(f"no answer: the reference {name} {words}; {scored} of {len(rows)} variants have scores")
    return lines


def _status_of_reference(run: Run) -> str:
    rows = run.variants[run.variants["seed"] == ALL_SEEDS]
    found = rows.loc[rows["variant"] == run.record["reference"]["variant"], "status"]
    return str(found.iloc[0]) if len(found) else "failed"


def data_difference(record: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """How the data of two runs (their run.json) differs; None where it is the same, as far as both record it."""
    ours, theirs = record["task"], other["task"]
    words = {"name": "task", "source": "task's source", "split": "split of its seeds", "splits": "size of its splits",
             "documents": "number of test documents", "digest": "content"}  # fmt: skip
    if PER_SEED in (ours.get("split"), theirs.get("split")):
        del words["documents"]  # of some of the suite's seeds there are fewer; the digest is of all of them
    return next((f"other data: the {word} differs" for key, word in words.items()
                 if key in ours and key in theirs and ours[key] != theirs[key]), None)  # fmt: skip


def shards_below(root: Path) -> list[Path]:
    """The folders of all shards below a results folder that came to their end."""
    return sorted(path.parent for path in Path(root).glob(f"*/*/{SHARD}") if not path.parent.is_symlink())


def runs_below(root: Path) -> list[Path]:
    """The folders of all finished runs below a results folder, oldest first within each suite; baselines are copies."""
    found = (path.parent for path in Path(root).glob("*/*/run.json") if not path.parent.is_symlink())
    return sorted(folder for folder in found if folder.parent.name != BASELINES)
