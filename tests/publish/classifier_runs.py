"""Runs of suites of classifiers in folders on made-up texts and images."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
import torch

from harness.results.run import Run, read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.inline import Inline
from tests.methods.classifier_pools import SAID, save_tuned
from tests.models.classifier_folders import LABELS, TEXTS, module_of, picture, save_reader

COUNTS = {"train": 16, "heldout": 12, "test": 15}
DATA = {
    "texts": "{texts: {train: train.csv, heldout: heldout.csv, test: test.csv}}",
    "images": "{images: {train: train.parquet, heldout: heldout.parquet, test: test.parquet}}",
}


def write_data(folder: Path) -> None:
    """Texts and images of three labels, as files."""
    begin = 0
    for split, count in COUNTS.items():
        numbers = range(begin, begin + count)
        begin += count
        labels = [LABELS[n % 3] for n in numbers]
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            texts = [f"{SAID[n % 7] or 'none'} {'rain ' * (n % 6)}{n}" for n in numbers]
            writer.writerows(zip(texts, labels, strict=True))
        images = [picture(n, (18 + n % 3, 16)) for n in numbers]
        pd.DataFrame({"image": images, "label": labels}).to_parquet(folder / f"{split}.parquet")


def write_models(folder: Path, family: str, count: int = 2) -> None:
    """A base whose head is for other labels, and members that have the labels in orders of their own."""
    module_of(family, ("no", "yes")).save_pretrained(folder / "base")
    save_reader(folder / "base", family)
    for k in range(count):
        save_tuned(folder / f"m{k}", family, k + 1, labels=LABELS[k:] + LABELS[:k])


def run_suite(folder: Path, family: str, rest: str) -> Run:
    """The run of a suite that says how its pool and methods are, in a folder with data and models."""
    of = "texts" if family in TEXTS else "images"
    write_data(folder)
    write_models(folder, family)
    (folder / "suite.yaml").write_text(f"suite: own\ntask: {DATA[of]}\n{rest}")
    plan = make_plan(read_suite(folder / "suite.yaml"), Options(folder / "results", workers=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.engines.local._Pools", Inline)
        return read_run(runner.run(plan, Tracker()))


def inputs_of_test(run: Run) -> torch.Tensor:
    suite = read_suite(run.folder.parents[2] / "suite.yaml")
    return make_plan(suite, Options(run.folder.parents[1])).task.test.inputs
