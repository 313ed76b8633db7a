"""Tables as a kind of task: a suite of them runs, and every method that its pools are for gives an answer."""

import pandas as pd
import pytest

from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from harness.tasks.archives import TABLES, archive_folder

pytestmark = pytest.mark.usefixtures("in_this_process")

SUITE = """
suite: tables
task: letter
pool:
  train: {architecture: table_mlp, start: shared_base, base_epochs: 1, base_lr: 4e-3, base_decay: cycle, members: 3,
          epochs: 1, decay: constant, vary: {lr: [3e-3]}, options: {hidden: 16}}
pools:
  alone: {train: {architecture: table_mlp, start: independent, members: 2, epochs: 1, options: {hidden: 16}}}
  mixed:
    train: {architecture: [table_mlp, residual_mlp], start: independent, members: 2, epochs: 1, options: {hidden: 16}}
  run: {train: {architecture: table_mlp, start: independent, epochs: 4, checkpoints: 3, options: {hidden: 16}}}
  conflict:
    train: {architecture: table_mlp, start: shared_base, base_epochs: 1, members: 4, epochs: 1, options: {hidden: 16},
            vary: {data: [labels_a_m, labels_n_z, noisy, dropped]}}
seeds: [0]
methods:
  - best_single
  - linear: {weights: [uniform, contextual]}
  - mc_dropout: {passes: 2}
  - uniform_soup
  - fisher
  - regmean
  - distill: {size: [same, half], epochs: 1}
  - moe: {routing: [sparse, dense], epochs: 1}
  - align_average: {pool: alone, to: [best, mean]}
  - linear: {pool: mixed}
  - checkpoint_ensemble: {pool: run, n: 3}
  - swa: {pool: run}
  - ema: {pool: run}
  - member: {pool: conflict, index: [0, 1, 2, 3]}
  - task_arithmetic: {pool: conflict}
cost: {latency: false, memory: false}
"""


LIMIT = 60


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    if not (archive_folder() / TABLES.file).is_file():
        pytest.skip(f"{TABLES.file} is not on this machine, and tests fetch nothing")
    folder = tmp_path_factory.mktemp("tables")
    (folder / "suite.yaml").write_text(SUITE)
    options = Options(out=folder / "results", workers=2, limit=LIMIT)
    return read_run(runner.run(make_plan(read_suite(folder / "suite.yaml"), options), Tracker()))


def test_every_method_gives_an_answer(run):
    table = run.variants[run.variants["seed"] == "0"]
    assert dict(zip(table["variant"], table["status"], strict=True)) == dict.fromkeys(table["variant"], "ok")
    assert len(table) == 22 + 4  # with the reference of each other pool


def test_members_in_conflict_are_scored_on_every_view(run):
    table: pd.DataFrame = run.document_measures
    counts = table[table["variant"] == "conflict:member/index=0"].dropna(subset="value").groupby("metric").size()
    assert set(counts.index) == {f"accuracy/{view}" for view in ("labels_a_m", "labels_n_z", "noisy", "dropped")}
    assert counts["accuracy/noisy"] == counts["accuracy/dropped"] == LIMIT
    assert counts["accuracy/labels_a_m"] + counts["accuracy/labels_n_z"] == LIMIT
