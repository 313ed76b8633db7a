"""The outcomes of a run's examples by variant: of the millions of a large run only those that are asked for."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd

from harness.results.blocks import blocks
from harness.results.metric import DOCUMENTS, Column
from harness.results.run import Run

KEPT = 32
"""Parts of columns that are kept once they are read: of a million rows each, as tables are written."""


class Outcomes:
    """A run's examples.parquet, of which columns are read in parts: the groups of rows that the file has."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._part = lru_cache(maxsize=KEPT)(self._read_part)

    @cached_property
    def columns(self) -> list[str]:
        """The columns that there are; none where the folder is a summary without examples."""
        if (whole := self._whole) is not None:
            return [str(name) for name in whole]
        return list(self._file.schema_arrow.names) if self._file is not None else []

    @cached_property
    def _whole(self) -> pd.DataFrame | None:
        """The table, where it was read already; if it is later, rows are still looked for where they were found."""
        table: pd.DataFrame | None = self.run.__dict__.get("examples")
        return table

    @cached_property
    def _file(self) -> Any:
        """The file, opened; None where there is none."""
        path = self.run.folder / "examples.parquet"
        if not path.is_file():
            return None
        import pyarrow.parquet

        return pyarrow.parquet.ParquetFile(path)

    def _read_part(self, name: str, part: int) -> pd.Series:
        """A column of one part; a table that was read already is a single one."""
        if (whole := self._whole) is not None:
            return whole[name]
        column: pd.Series = self._file.read_row_group(part, [name], use_threads=False)[name].to_pandas()
        return column

    @cached_property
    def _rows(self) -> dict[str, list[tuple[int, slice]]]:
        """By variant, its rows: in which part, and where in it, in the order of the seeds."""
        found: dict[str, list[tuple[int, slice]]] = {}
        parts = 0 if not self.columns else 1 if self._whole is not None else self._file.num_row_groups
        for part in range(parts):
            for name, pieces in blocks(self._part("variant", part)).items():
                found.setdefault(str(name), []).extend((part, rows) for rows in pieces)
        return found

    def __contains__(self, variant: str) -> bool:
        return variant in self._rows

    def values(self, variant: str, column: str) -> np.ndarray:
        """A column of a variant's examples, [seeds, examples]; NaN where a seed was not tested on an example."""
        found = self._of(variant, column)
        if not self.run.splits_differ:
            return found
        table = np.full((len(found), len(self.run.places)), np.nan)
        np.put_along_axis(table, self._places(variant), found, axis=1)
        return table

    def scored(self, variant: str, score: Column) -> np.ndarray | None:
        """A variant's values of a score, [seeds, examples] or [seeds, documents]; None where the run has none."""
        if score.outcome == DOCUMENTS:
            return self._documents.get((variant, score.name))
        if variant not in self or score.outcome not in self.columns:
            return None
        return self.values(variant, str(score.outcome)).astype(np.float64)

    @cached_property
    def _documents(self) -> dict[tuple[str, str], np.ndarray]:
        """The scores of documents that are of the whole task, [seeds, documents]."""
        seeds = len(self.run.record["seeds"])
        return {(variant, metric): rows["value"].to_numpy(np.float64).reshape(seeds, -1)
                for (variant, metric), rows in self.run.measured.items() if "/" not in metric}  # fmt: skip

    def clusters(self, score: Column) -> list[str]:
        """Of each example of ``scored``, the cluster that counts as one; empty where every example counts as one."""
        if score.outcome == DOCUMENTS or "cluster" not in self.columns or not self._rows:
            return []
        first = next(iter(self._rows))
        names = self._of(first, "cluster")
        if not self.run.splits_differ:
            return [str(name) for name in names[0]]
        places = self._places(first)
        found = dict(zip(places.ravel().tolist(), names.ravel().tolist(), strict=True))
        return [str(found[place]) for place in range(len(self.run.places))]

    def _of(self, variant: str, column: str) -> np.ndarray:
        """A variant's values of a column, a row for each seed."""
        pieces = [self._part(column, part).iloc[rows].to_numpy() for part, rows in self._rows[variant]]
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return whole.reshape(len(self.run.record["seeds"]), -1)

    def _places(self, variant: str) -> np.ndarray:
        """Of each of a variant's rows, where its example is among those of all seeds."""
        ids, places = self._of(variant, "example_id"), self.run.places
        return np.array([places[str(name)] for name in ids.ravel()]).reshape(ids.shape)
