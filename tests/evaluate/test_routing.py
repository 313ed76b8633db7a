"""Routers against scikit-learn's own predictions, and prices against trying all of them."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from harness.cost import flops
from harness.evaluate.cascading import within
from harness.evaluate.routing import Priced, fit_router, out_of_fold
from harness.systems.routers import Router, evidence_of


def planted(rows=120, width=5, members=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    evidence = torch.randn(rows, width, generator=generator)
    chance = torch.sigmoid(2 * evidence[:, :members])
    return evidence, torch.rand(rows, members, generator=generator) < chance


def test_the_logistic_router_is_scikit_learns():
    evidence, right = planted()
    new, _ = planted(seed=1)
    scaler = StandardScaler().fit(evidence.double().numpy())
    expected = [
        LogisticRegression(C=0.1, max_iter=1000)
        .fit(scaler.transform(evidence.double().numpy()), column)
        .predict_proba(scaler.transform(new.double().numpy()))[:, 1]
        for column in right.T.numpy()
    ]
    found = fit_router(evidence, right, "logistic")(new).numpy()
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=1e-9)


def test_the_neighbours_are_scikit_learns():
    evidence, right = planted()
    new, _ = planted(seed=1)
    scaler = StandardScaler().fit(evidence.double().numpy())
    known, asked = (scaler.transform(rows.double().numpy()) for rows in (evidence, new))
    expected = KNeighborsRegressor(32, algorithm="brute").fit(known, right.numpy()).predict(asked)
    np.testing.assert_allclose(fit_router(evidence, right, "neighbours")(new).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("kind", ["logistic", "neighbours"])
def test_a_router_says_of_each_row_the_same_alone_is_saved_and_counts_its_operations(kind, tmp_path):
    evidence, right = planted()
    router = fit_router(evidence, right, kind)
    alone = torch.cat([router(row.unsqueeze(0)) for row in evidence])
    torch.testing.assert_close(alone, router(evidence), atol=1e-12, rtol=0)
    router.save(tmp_path)
    assert torch.equal(Router.load(tmp_path)(evidence), router(evidence))
    assert flops.count(lambda: router(evidence[:7])) == 7 * router.flops


@pytest.mark.parametrize("kind", ["logistic", "neighbours"])
def test_a_model_that_is_always_or_never_right_is_known_as_that(kind):
    evidence, _ = planted()
    right = torch.stack([torch.ones(120), torch.zeros(120)], dim=1).bool()
    always, never = fit_router(evidence, right, kind)(evidence).T
    assert always.min() > 0.98
    assert never.max() < 0.02


def test_out_of_fold_nobody_has_seen_the_example():
    """Evidence is noise of many columns: on what it has seen the nearest neighbour would be sure, unseen it is not."""
    generator = torch.Generator().manual_seed(0)
    evidence, right = torch.randn(100, 40, generator=generator), torch.rand(100, 1, generator=generator) < 0.5
    found = out_of_fold(evidence, right, "logistic", generator)
    seen = fit_router(evidence, right, "logistic")(evidence)

    def agreement(said):
        return float(((said > 0.5) == right).double().mean())

    assert agreement(seen) > 0.7
    assert 0.3 < agreement(found) < 0.7


def test_the_chosen_price_is_the_best_within_its_budget_and_the_cheapest_of_equals():
    points = [Priced(0.0, 0.9, 0.8, -0.5), Priced(0.1, 0.5, 0.8, -0.5), Priced(0.2, 0.2, 0.6, -0.4)]
    assert within(points, 1.0, "accuracy").price == 0.1
    assert within(points, 1.0, "nll").price == 0.2
    assert within(points, 0.3, "accuracy").price == 0.2
    assert within(points, 0.1, "accuracy") is None


def test_evidence_is_finite_where_a_class_has_no_probability_and_where_there_is_one_class():
    assert evidence_of(torch.tensor([[0.0, -torch.inf]])).isfinite().all()
    assert evidence_of(torch.zeros(2, 1)).tolist() == [[0.0, 1.0, 1.0, 0.0]] * 2
