"""A cascade's curve on held-out against plain loops, and what is chosen of it against trying everything."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.evaluate.cascading import NEVER, Stages, at_least, curve, dial, within


@st.composite
def stages(draw, most=3):
    count, rows = draw(st.integers(2, most)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    certainties = rng.integers(0, 6, (count - 1, rows)) / 5  # with ties
    costs = np.cumsum(rng.random(count) + 0.01)
    return Stages(certainties, rng.random((count, rows)) < 0.6, -rng.exponential(size=(count, rows)), costs)


def by_hand(tried, thresholds):
    """Mean cost, accuracy and log-likelihood, an example at a time."""
    found = []
    for row in range(tried.correct.shape[1]):
        stage = 0
        while stage < len(thresholds) and tried.certainties[stage, row] < thresholds[stage]:
            stage += 1
        found.append((tried.costs[stage], tried.correct[stage, row], tried.likelihoods[stage, row]))
    return np.mean(found, axis=0)


@given(stages())
def test_every_point_is_what_a_plain_loop_finds(tried):
    for point in curve(tried):
        expected = by_hand(tried, point.thresholds)
        np.testing.assert_allclose((point.cost, point.accuracy, point.likelihood), expected, atol=1e-12)


@given(stages())
def test_the_curve_has_every_choice_that_makes_a_difference(tried):
    levels = [[*np.unique(certainty), NEVER] for certainty in tried.certainties]
    every = {tuple(np.round(by_hand(tried, at), 9)) for at in itertools.product(*levels)}
    found = {tuple(np.round((p.cost, p.accuracy, p.likelihood), 9)) for p in curve(tried)}
    assert found == every


@given(stages())
def test_it_goes_from_the_first_stage_to_all_of_them(tried):
    points = curve(tried)
    costs = [point.cost for point in points]
    assert costs == sorted(costs)
    assert points[0].thresholds[0] == 0.0
    assert points[0].cost == pytest.approx(tried.costs[0])
    assert points[-1].cost == pytest.approx(tried.costs[-1])
    assert (points[-1].accuracy, points[-1].likelihood) == pytest.approx(tried.alone(len(tried.costs) - 1))


@given(stages(), st.randoms(use_true_random=False))
def test_the_order_of_examples_is_irrelevant(tried, random):
    rows = list(range(tried.correct.shape[1]))
    random.shuffle(rows)
    other = Stages(tried.certainties[:, rows], tried.correct[:, rows], tried.likelihoods[:, rows], tried.costs)
    for one, two in zip(curve(tried), curve(other), strict=True):
        assert one.thresholds == two.thresholds
        assert (one.cost, one.accuracy, one.likelihood) == pytest.approx((two.cost, two.accuracy, two.likelihood))


@given(stages(most=2))
def test_a_higher_threshold_never_costs_less(tried):
    points = sorted(curve(tried), key=lambda point: point.thresholds)
    assert all(a.cost <= b.cost + 1e-12 for a, b in itertools.pairwise(points))


@given(stages(), st.floats(0, 1), st.sampled_from(["accuracy", "nll"]))
def test_the_best_within_a_budget_and_the_cheapest_of_a_quality(tried, share, criterion):
    points = curve(tried)
    budget = tried.costs[0] + share * (tried.costs[-1] - tried.costs[0])
    best = within(points, budget, criterion)
    assert best.cost <= budget * (1 + 1e-9)
    assert all(point.score(criterion) <= best.score(criterion) for point in points if point.cost <= budget)
    wanted = points[0].score(criterion)[0] + share * (best.score(criterion)[0] - points[0].score(criterion)[0])
    cheap = at_least(points, wanted - 1e-12, criterion)
    assert cheap.score(criterion)[0] >= wanted - 1e-12
    assert all(point.cost >= cheap.cost for point in points if point.score(criterion)[0] >= wanted - 1e-12)
    assert within(points, 0.5 * tried.costs[0], criterion) is None
    assert at_least(points, 2.0, criterion) is None


@given(stages(), st.sampled_from(["accuracy", "nll"]))
def test_a_dial_rises_in_cost_and_has_both_ends_of_what_it_shows(tried, criterion):
    points, shown = curve(tried), dial(curve(tried), criterion, most=5)
    assert 1 <= len(shown) <= 5
    costs = [point.cost for point in shown]
    assert costs == sorted(set(costs))
    assert shown[0].cost == points[0].cost
    if len(points[0].thresholds) == 1:
        assert shown[-1].cost == pytest.approx(points[-1].cost)
    else:
        scores = [point.score(criterion) for point in shown]
        assert scores == sorted(scores)


def test_many_values_are_thinned_evenly_by_rank():
    rng = np.random.default_rng(0)
    rows = 3000
    tried = Stages(rng.random((2, rows)) ** 8, rng.random((3, rows)) < 0.5, np.zeros((3, rows)), np.arange(1.0, 4.0))
    points = curve(tried)
    assert 3500 < len(points) < 4500
    first = sorted({point.thresholds[0] for point in points})
    shares = [float((tried.certainties[0] < at).mean()) for at in first]
    assert max(np.diff(shares)) < 0.05


def test_from_tensors():
    said = torch.log_softmax(torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels = torch.tensor([0, 1, 2, 0, 1])
    tried = Stages.of([said[0].exp().amax(dim=1)], list(said), labels, [1.0, 3.0])
    assert tried.correct.tolist() == (said.argmax(dim=-1) == labels).tolist()
    assert tried.alone(1) == pytest.approx(
        (float((said[1].argmax(1) == labels).double().mean()), float(said[1].double()[range(5), labels].mean()))
    )
