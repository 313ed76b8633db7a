"""The outcomes of a run's examples by variant: of the millions of a large run only the columns that are asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pandas as pd

from harness.results.blocks import blocks
from harness.results.metric import DOCUMENTS, Column
from harness.results.run import Run


class Outcomes:
    """A run's examples.parquet, read column by column."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._read: dict[str, pd.Series] = {}

    @cached_property
    def columns(self) -> list[str]:
        """The columns that there are; none where the folder is a summary without examples."""
        if (whole := self._whole) is not None:
            return [str(name) for name in whole]
        path = self.run.folder / "examples.parquet"
        if not path.is_file():
            return []
        import pyarrow.parquet

        return list(pyarrow.parquet.read_schema(path).names)

    @property
    def _whole(self) -> pd.DataFrame | None:
        """The table, where it was read already."""
        table: pd.DataFrame | None = self.run.__dict__.get("examples")
        return table

    def _column(self, name: str) -> pd.Series:
        if name not in self._read:
            whole, path = self._whole, self.run.folder / "examples.parquet"
            self._read[name] = whole[name] if whole is not None else pd.read_parquet(path, columns=[name])[name]
        return self._read[name]

    @cached_property
    def _rows(self) -> dict[str, list[slice]]:
        """By variant, its rows: a piece for each seed, in the order of the seeds."""
        if not self.columns:
            return {}
        return {str(name): pieces for name, pieces in blocks(self._column("variant")).items()}

    def __contains__(self, variant: str) -> bool:
        return variant in self._rows

    def values(self, variant: str, column: str) -> np.ndarray:
        """A column of a variant's examples, [seeds, examples]; NaN where a seed was not tested on an example."""
        found = self._of(variant, self._column(column).to_numpy())
        if not self.run.splits_differ:
            return found
        table = np.full((len(found), len(self.run.places)), np.nan)
        np.put_along_axis(table, self._of(variant, self._places), found, axis=1)
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
        names = self._of(first, self._column("cluster").astype(str).to_numpy())
        if not self.run.splits_differ:
            return [str(name) for name in names[0]]
        places = self._of(first, self._places)
        found = dict(zip(places.ravel().tolist(), names.ravel().tolist(), strict=True))
        return [str(found[place]) for place in range(len(self.run.places))]

    def _of(self, variant: str, column: np.ndarray) -> np.ndarray:
        """A variant's rows of a column, a row for each seed."""
        pieces = [column[rows] for rows in self._rows[variant]]
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return whole.reshape(len(self.run.record["seeds"]), -1)

    @cached_property
    def _places(self) -> np.ndarray:
        """Of each row, where its example is among those of all seeds."""
        ids, places = self._column("example_id").astype("category"), self.run.places
        return np.array([places[str(name)] for name in ids.cat.categories])[ids.cat.codes.to_numpy()]
