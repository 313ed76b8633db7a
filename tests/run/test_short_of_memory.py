"""Where memory is short a run has the same numbers in smaller batches, and says so; training says what to do."""

import pandas as pd
import pytest
import torch
from torch import nn

from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.run.test_interrupted import SUITE

pytestmark = pytest.mark.usefixtures("in_this_process")
SCORES = ["accuracy", "nll", "brier", "ece", "flops_per_example"]


def run(folder):
    folder.mkdir(exist_ok=True)
    (folder / "suite.yaml").write_text(SUITE)
    plan = make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / "out", workers=1))
    return read_run(runner.run(plan, Tracker()))


def memory_for(monkeypatch, most, *, training):
    """Layers that find no memory for more examples; an error of torch's own allocator."""
    plain = nn.Linear.forward

    def forward(layer, batch):
        if len(batch) > most and torch.is_grad_enabled() == training:
            torch.empty(1 << 60, dtype=torch.uint8)
        return plain(layer, batch)

    monkeypatch.setattr(nn.Linear, "forward", forward)


def test_numbers_are_those_of_full_batches_and_the_batch_is_told(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    memory_for(monkeypatch, 20, training=False)  # FLOPs are counted on more
    short = run(tmp_path / "short")
    assert short.record["status"] == "complete"
    pd.testing.assert_frame_equal(short.variants[SCORES], whole.variants[SCORES], rtol=1e-5)
    batches = {each["batch"] for seeds in short.details.values() for each in seeds.values()}
    assert batches == {15}  # of 250, 125, 62, 31
    assert short.record["batch_policy"] == whole.record["batch_policy"]  # what was stated
    warning = "linear, uniform_soup: memory ran out, and batches were halved until 15 examples fitted"
    assert warning in short.record["warnings"]
    assert warning not in whole.record["warnings"]


def test_training_is_never_done_in_other_batches(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        memory_for(patch, 20, training=True)
        rows = run(tmp_path).variants
    assert set(rows["status"]) == {"failed"}
    assert rows["reason"].str.contains(r"no memory to train on \d+ examples at once: .*--workers.*larger machine").all()
    assert run(tmp_path).record["status"] == "complete"
