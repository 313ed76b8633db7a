"""The files of an imported pool: one a member, the two splits, and a suite that runs as it is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from harness.errors import BadInput
from harness.exhausted import writing
from harness.folders import remove_abandoned, temporary
from harness.imports.imported import COST, Form, Imported
from harness.imports.splitting import HELDOUT, TEST, split_rows

SUITE = "suite.yaml"
METHODS: Mapping[Form, str] = {
    "probabilities": """\
  - best_single
  - linear: {weights: [uniform, learned]}
  - log_linear
  - majority_vote
  - greedy_ensemble
  - temperature
""",
    "correct": """\
  - best_single
  - majority_vote
""",
}
NOT_CLASSES = {"id", "class", "answer", "correct", "probability", "log_probability", "logit"}
"""Columns that have a meaning of their own in a file of predictions."""


@dataclass(frozen=True)
class Written:
    """What was written."""

    folder: Path
    files: Mapping[str, str]
    """Each member's file."""
    heldout: int
    test: int
    clustered: bool
    """Whether some rows count as one."""

    @property
    def suite(self) -> Path:
        """The suite that runs as it is."""
        return self.folder / SUITE


def write_pool(imported: Imported, folder: Path, source: str, share: float | None = None, seed: int = 0) -> Written:
    """Write an imported pool into a folder that does not exist or is empty; it appears whole or not at all.

    Args:
        imported: what a format's files say.
        folder: where to.
        source: the format's name.
        share: of questions that are held-out; None as the source says, or a usual share.
        seed: of the draw.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput("the folder of --out is not empty", place=str(folder), hint="name a new one")
    heldout = split_rows(imported.questions, share, seed, source)
    clusters = _clusters(imported.questions)
    files = file_names(list(imported.members))
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder.parent, f".{folder.name}.importing")
    with writing(folder.parent), temporary(folder.parent, f".{folder.name}.importing") as partial:
        for name, file in files.items():
            _member_table(imported, name).to_parquet(partial / file, index=False)
        for split, rows in ((HELDOUT, heldout), (TEST, ~heldout)):
            _labels_table(imported.questions, clusters, rows).to_parquet(partial / f"{split}.parquet", index=False)
        written = Written(folder, files, int(heldout.sum()), int((~heldout).sum()), clusters is not None)
        (partial / SUITE).write_text(_suite(imported, written, source), encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        os.replace(partial, folder)
    return written


def file_names(members: list[str]) -> dict[str, str]:
    """A file for each member: its name, in letters that every file system takes, told apart where it must be."""
    files: dict[str, str] = {}
    taken = {HELDOUT, TEST}
    for member in members:
        stem = plain = re.sub(r"[^A-Za-z0-9._-]+", "_", member).strip("._") or "member"
        number = 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{plain}-{number}"
        taken.add(stem.casefold())
        files[member] = f"{stem}.parquet"
    return files


def _clusters(questions: pd.DataFrame) -> pd.Series | None:
    """Which rows count as one; None where all count for themselves."""
    if "group" not in questions or questions["group"].is_unique:
        return None
    return questions["group"]


def _member_table(imported: Imported, name: str) -> pd.DataFrame:
    """A member's rows: wide, or long where a class is called like a column of another meaning."""
    frame = imported.members[name]
    costs = frame[imported.costs].astype(np.float64)
    if imported.form == "correct":
        return pd.concat([frame[["correct"]].astype(np.int8), costs], axis=1).rename_axis("id").reset_index()
    values = frame[list(imported.classes)].astype(np.float64)
    if not any(c in NOT_CLASSES or c.startswith(COST) for c in imported.classes):
        return pd.concat([values, costs], axis=1).rename_axis("id").reset_index()
    count = len(imported.classes)
    long = {"id": np.repeat(frame.index.to_numpy(), count), "class": list(imported.classes) * len(frame)}
    repeated = {cost: np.repeat(costs[cost].to_numpy(), count) for cost in costs}
    return pd.DataFrame({**long, "probability": values.to_numpy().ravel(), **repeated})


def _labels_table(questions: pd.DataFrame, clusters: pd.Series | None, rows: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame({"id": questions.index[rows]})
    if "label" in questions:
        table["label"] = questions["label"].to_numpy()[rows]
    if "stratum" in questions:
        table["task"] = questions["stratum"].to_numpy()[rows]
    if clusters is not None:
        table["cluster"] = clusters.to_numpy()[rows]
    return table


def _suite(imported: Imported, written: Written, source: str) -> str:
    members = len(written.files)
    what = f"{len(imported.classes)} classes" if imported.classes else "right or wrong only"
    name = re.sub(r"[^a-z0-9_-]+", "_", written.folder.resolve().name.lower()).strip("_") or "imported"
    cluster = "\n    cluster: cluster  # rows that ask the same count as one" if written.clustered else ""
    classes = f"\n    classes: {json.dumps(list(imported.classes), ensure_ascii=False)}" if imported.classes else ""
    form = ", form: probabilities" if imported.form == "probabilities" else ""
    listed = "".join(
        f"      {json.dumps(member, ensure_ascii=False)}: {f'{{file: {file}{form}}}' if form else file}\n"
        for member, file in written.files.items()
    )
    return f"""\
# Made by 'stockpot import' from {source}: {members} members, {len(imported.questions)} rows, {what}.
suite: {name}
question: Which way of combining these {members} members is best?
task:
  table:
    heldout: {HELDOUT}.parquet
    test: {TEST}.parquet{cluster}{classes}
pool:
  predictions:
    members:
{listed}methods:
{METHODS[imported.form]}"""
