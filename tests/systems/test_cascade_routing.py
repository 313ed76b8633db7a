"""Cascade routing: it is the cascade where it has thresholds, and a plain loop over what its routers expect."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.checks.pools import independent, plain_predict, split
from harness.evaluate.routing import fit_router
from harness.systems.acceptance import Confidence, Margin
from harness.systems.cascade_routing import CascadeRouting
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.routers import Router, evidence_of
from harness.systems.rules import Linear
from harness.systems.staged import Staged
from harness.systems.systems import OutputCombination, load_combination

POOL = independent(4)
INPUTS = split("test").inputs
PARTS = [MemberPart(member) for member in POOL.members]
SAID = [plain_predict(part, split("test")) for part in PARTS]
CERTAINTIES = (Confidence, Margin)
"""In the order of ``evidence_of``."""


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def mean_of(*positions):
    return OutputCombination([PARTS[k] for k in positions], Linear(uniform(len(positions))))


STAGES = [mean_of(0), mean_of(1), mean_of(0, 1, 2), mean_of(0, 1, 2, 3)]


@dataclass(frozen=True)
class AtLeast(Router):
    """A threshold as a router: staying is worth the certainty, the next stage the threshold, skipping nothing."""

    certainty: torch.Tensor
    threshold: torch.Tensor
    ahead: torch.Tensor

    def __call__(self, evidence):
        found = torch.full((len(evidence), 1 + int(self.ahead)), -100.0, dtype=torch.float64)
        found[:, 0] = evidence[:, SAID[0].shape[-1] + int(self.certainty)]
        found[:, 1] = self.threshold
        return found

    @property
    def flops(self):
        return 0.0


def expecting(rows):
    """Routers that were fitted on the first rows of test: what they expect is to differ from example to example."""
    labels = split("test").labels
    answers = [stage.replay([SAID[PARTS.index(part)] for part in stage.parts()])[0] for stage in STAGES]
    right = torch.stack([answer.argmax(dim=-1) == labels for answer in answers], dim=1)
    return [fit_router(evidence_of(answers[k])[:rows], right[:rows, k:], "logistic") for k in range(len(STAGES) - 1)]


ROUTERS = expecting(30)
SHARES = (0.1, 0.2, 0.3, 0.4)


@given(st.lists(st.floats(0.0, 1.1), min_size=3, max_size=3), st.sampled_from(CERTAINTIES))
def test_with_thresholds_only_it_is_the_cascade(thresholds, certain):
    thresholds = [at + 1e-4 for at in thresholds]  # none of them is the certainty of an example
    kind = torch.tensor(CERTAINTIES.index(certain))
    routers = [
        AtLeast(kind, torch.tensor(at, dtype=torch.float64), torch.tensor(3 - number))
        for number, at in enumerate(thresholds)
    ]
    ours = CascadeRouting(STAGES, routers, SHARES, 0.0)
    cascade = Staged(STAGES, [certain(at) for at in thresholds])
    for found, expected in zip(ours.replay(SAID), cascade.replay(SAID), strict=True):
        assert torch.equal(found, expected)


def plain_loop(row, price, decisions):
    """What is said of one example, and what has run, as one would write it down."""
    at, ran, made = 0, set(), 0
    while True:
        models = {PARTS.index(part) for part in STAGES[at].parts()}
        ran |= models
        said = STAGES[at].replay([SAID[k][row : row + 1] for k in sorted(models)])[0]
        if at == len(STAGES) - 1 or made == decisions:
            return said[0], ran
        expected = ROUTERS[at](evidence_of(said))[0]
        worth = []
        for ahead, quality in enumerate(expected.tolist()):
            needed = {PARTS.index(part) for part in STAGES[at + ahead].parts()} - ran
            worth.append(quality - price * sum(SHARES[k] for k in needed))
        best = max(range(len(worth)), key=lambda k: worth[k])
        made += 1
        if best == 0:
            return said[0], ran
        at += best


@pytest.mark.parametrize("price", [0.0, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("decisions", [None, 1, 2])
def test_it_is_a_plain_loop(price, decisions):
    system = CascadeRouting(STAGES, ROUTERS, SHARES, price, decisions=decisions)
    log_probs, calls = system.run(INPUTS)
    for row in range(len(INPUTS)):
        said, ran = plain_loop(row, price, decisions)
        torch.testing.assert_close(log_probs[row], said, atol=1e-5, rtol=1e-5)
        assert calls[row].nonzero().flatten().tolist() == sorted(ran)


def test_stages_are_skipped_and_gone_through():
    answers = [stage.replay([SAID[PARTS.index(part)] for part in stage.parts()])[0] for stage in STAGES]
    system = CascadeRouting(STAGES, ROUTERS, SHARES, 0.01)
    asked = system.go_through(len(INPUTS), lambda stage, rows: answers[stage][rows])[2]
    paths = {tuple(path.nonzero().flatten().tolist()) for path in asked}
    assert any(later - before > 1 for path in paths for before, later in itertools.pairwise(path)), paths
    assert len(paths) > 2


def test_predictions_give_what_running_gives_and_each_model_runs_once_for_an_example():
    rows = []

    class Counting(MemberPart):
        def log_probs(self, batch):
            rows.append(len(batch))
            return super().log_probs(batch)

    parts = [Counting(member) for member in POOL.members]
    stages = [OutputCombination([parts[PARTS.index(p)] for p in stage.parts()], stage.rule) for stage in STAGES]
    system = CascadeRouting(stages, ROUTERS, SHARES, 0.01)
    log_probs, calls = system.run(INPUTS)
    assert sum(rows) == calls.sum()
    replayed, same = system.replay(SAID)
    torch.testing.assert_close(log_probs, replayed, atol=1e-5, rtol=1e-5)
    assert torch.equal(calls, same)


def test_at_any_price_it_stays_at_the_first_stage():
    log_probs, calls = CascadeRouting(STAGES, ROUTERS, SHARES, 1e9).replay(SAID)
    assert torch.equal(log_probs, SAID[0])
    assert calls.tolist() == [[1, 0, 0, 0]] * len(INPUTS)


def test_what_is_broken_has_the_last_word():
    broken = [said.clone() for said in SAID]
    broken[0][::2] = torch.nan
    log_probs, calls = CascadeRouting(STAGES, ROUTERS, SHARES, 0.0).replay(broken)
    assert log_probs[::2].isnan().all()
    assert calls[::2].tolist() == [[1, 0, 0, 0]] * len(log_probs[::2])


def test_a_saved_system_is_the_same(tmp_path):
    system = CascadeRouting(STAGES, ROUTERS, SHARES, 0.01, decisions=2, settings=[0.3, 0.05, 0.0])
    system.save(tmp_path)
    loaded = load_combination(tmp_path, POOL)
    for each, again in zip((system, *system.dial()), (loaded, *loaded.dial()), strict=True):
        for found, expected in zip(again.replay(SAID), each.replay(SAID), strict=True):
            assert torch.equal(found, expected)


def test_every_stage_but_the_last_has_a_router():
    with pytest.raises(ValueError, match="4 stages need 3 routers, not 2"):
        CascadeRouting(STAGES, ROUTERS[:2], SHARES, 0.0)
