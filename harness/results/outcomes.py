"""The outcomes of a run's examples by variant: of the millions of a large run only the columns that are asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pandas as pd

from harness.results.blocks import blocks
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
