"""The scores of one suite over its runs, from the folders that lie beside each other."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.display.lines import one_line, said_by
from harness.errors import BadInput
from harness.results.columns import ALL_SEEDS
from harness.results.metric import Column
from harness.results.run import Run, data_difference, read_run, runs_below, shards_below
from harness.results.scoring import in_order, score_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """A variant's score over all seeds of a run, with its 95 % interval (NaN where the metric has none)."""

    variant: str
    value: float
    low: float
    high: float
    accuracy: float
    """Whatever the score is."""


@dataclass(frozen=True)
class Entry:
    """One run of the suite."""

    run_id: str
    started: str
    """UTC, ISO 8601."""
    metric: Column
    """What the scores are: the newest run's first score."""
    reference: Score | None
    """None where it has no scores."""
    best: Mapping[str, Score]
    """The best variant of each family that has one by this score; equal ones: fewer FLOPs, then the name."""
    marks: tuple[str, ...]
    """Why its scores are not those of the same task done in full, as compared with the newest run."""


def history(run: Run) -> list[Entry]:
    """The run and those of its suite in the same folder that were started before it, oldest first.

    Later runs do not count, so that what is said of a run stays the same. One that is damaged is left out.
    """
    earlier = [other for other in _beside(run) if _order(other) < _order(run)]
    entries = (_entry_of_another(other, run) for other in sorted(earlier, key=_order))
    return [*(entry for entry in entries if entry), _entry(run, run)]


def newest_runs(out: Path, suite: str | None = None) -> list[Run]:
    """The run that was started last of every suite with runs in ``out``, or of the one that is named.

    Raises:
        BadInput: where the suite has no runs there.
    """
    found = {}
    for folder in sorted({path.parent for path in runs_below(out)}):
        runs = [run for run in _runs_in(folder) if run.record["suite"]["name"] == folder.name]
        if runs:
            found[folder.name] = max(runs, key=_order)
    if suite is not None and suite not in found:
        parts = {folder.parent.name for folder in shards_below(out)}
        hint = "its shards are not merged yet: stockpot merge-runs SHARD..." if suite in parts else ""
        raise BadInput(f"the suite '{suite}' has no runs", place=str(out), given=suite, choices=found, hint=hint)
    return [run for name, run in found.items() if suite in (None, name)]


def _beside(run: Run) -> list[Run]:
    folder = run.folder.resolve()
    name = run.record["suite"]["name"]
    runs = [other for other in _runs_in(folder.parent) if other.folder.resolve() != folder]
    return [other for other in runs if other.record["suite"]["name"] == name]


def _runs_in(folder: Path) -> list[Run]:
    """The runs that can be read; ``latest`` is a link to one of them."""
    return [found for found in _tried_in(folder) if isinstance(found, Run)]


def left_out_of(out: Path, suite: str | None = None) -> list[str]:
    """A line for each run in ``out``, or of one suite there, that cannot be read, and so is in no history."""
    folders = sorted({path.parent for path in runs_below(out) if suite in (None, path.parent.name)})
    return [str(found) for folder in folders for found in _tried_in(folder) if isinstance(found, BadInput)]


def _tried_in(folder: Path) -> Iterator[Run | BadInput]:
    for path in sorted(folder.glob("*/run.json")):
        if path.parent.is_symlink():
            continue
        try:
            run = read_run(path.parent, READ)
            _ = run.variants[["variant", "seed", "status", "family"]], _order(run)
            yield run
        except BadInput as problem:  # of another schema version, cut off, or changed since
            yield problem
        except (OSError, ValueError, KeyError, TypeError) as problem:
            reason = next(iter(str(problem).splitlines()), "") or type(problem).__name__
            yield BadInput(f"the run cannot be read: {reason}", place=str(path.parent))


READ = ("run.json", "variants.csv", "scores.parquet")
"""What a history reads of a run."""


def _order(run: Run) -> tuple[str, str]:
    return str(run.record["started"]), str(run.record["run_id"])


def _entry_of_another(other: Run, run: Run) -> Entry | None:
    try:
        return _entry(other, run)
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:  # whatever damage may lead to
        line = f"{other.folder}: left out of the history, since its files cannot be read ({said_by(error)})"
        _log.warning("%s", one_line(line))
        return None


def _entry(run: Run, newest: Run) -> Entry:
    column = score_of(newest)
    rows = run.variants.reindex(columns=dict.fromkeys((*run.variants, column.name, *column.bounds)))
    rows = rows[(rows["seed"] == ALL_SEEDS) & (rows["status"] == "ok") & rows[column.name].notna()]
    ordered = in_order(rows, column)
    record, name = run.record, run.record["reference"]["variant"]
    best = {str(row["family"]): _score(row, column) for row in ordered.drop_duplicates("family").to_dict("records")}
    reference = next((_score(row, column) for row in rows.to_dict("records") if row["variant"] == name), None)
    marks = tuple(_marks(record, newest.record))
    return Entry(str(record["run_id"]), str(record["started"]), column, reference, best, marks)


def _score(row: Mapping[str, Any], column: Column) -> Score:
    names = (column.name, *(column.bounds or ("", "")), "accuracy")
    return Score(str(row["variant"]), *(float(row.get(name, math.nan)) for name in names))


def _marks(record: Mapping[str, Any], newest: Mapping[str, Any]) -> list[str]:
    marks = []
    if record["suite"]["digest"] != newest["suite"]["digest"]:
        marks.append("another suite file")
    if record["seeds"] != newest["seeds"]:
        marks.append("other seeds")
    if record["limit"] is not None:
        marks.append(f"limited to {record['limit']} examples")
    elif other := data_difference(record, newest):
        marks.append(other)
    if record["only"] is not None:
        marks.append(f"only {record['only']}")
    if record["status"] != "complete":
        marks.append(str(record["status"]))
    return marks
