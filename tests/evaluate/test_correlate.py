"""The ensemble-versus-average study: which subsets it takes, and what it makes of planted scores."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import pearsonr, spearmanr

from harness.checks.pools import fine_tunes, plain_predict, split
from harness.evaluate.correlate import _subset_at, choose_subsets, correlations, ensembles_and_averages, study
from harness.systems.parts import MemberPart
from harness.types import NotApplicable


@given(st.integers(2, 9), st.sets(st.integers(2, 9), min_size=1, max_size=4), st.integers(3, 70))
def test_subsets_are_different_of_the_asked_sizes_and_no_more_than_asked(members, sizes, at_most):
    subsets = choose_subsets(members, sorted(sizes), at_most)
    everything = [s for size in sorted(sizes) for s in itertools.combinations(range(members), size)]
    assert len(set(subsets)) == len(subsets) == min(at_most, len(everything))
    assert set(subsets) <= set(everything)
    assert subsets == choose_subsets(members, sorted(sizes), at_most)


@pytest.mark.parametrize(("members", "size"), [(30, 15), (200, 100)])
def test_subsets_are_drawn_where_nobody_could_list_them(members, size):
    """155 million, and more than there are atoms; each member is in about half of what is drawn of their halves."""
    subsets = choose_subsets(members, [2, size], 1000)
    assert len(set(subsets)) == 1000
    assert all(list(subset) == sorted(set(subset)) and len(subset) in (2, size) for subset in subsets)
    halves = [subset for subset in subsets if len(subset) == size]
    times = np.bincount(np.concatenate(halves), minlength=members)
    assert times.max() < 0.6 * len(halves)
    assert times.min() > 0.4 * len(halves)


@given(st.integers(2, 10), st.integers(2, 10))
def test_a_subset_is_found_by_its_position(members, size):
    everything = list(itertools.combinations(range(members), size))
    assert [_subset_at(place, members, size) for place in range(len(everything))] == everything


def test_every_size_gets_its_share():
    sizes = [len(subset) for subset in choose_subsets(8, [2, 3, 4, 5, 6], 64)]
    assert sorted(sizes.count(size) for size in (2, 3, 4, 5, 6)) == [12, 13, 13, 13, 13]


def planted(seeds=(0, 1), shift=5.0):
    """A pool in which the average follows the ensemble, and each seed has a level of its own."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in seeds:
        skill = rng.normal(size=6)
        for subset in itertools.combinations(range(6), 2):
            ensemble = skill[list(subset)].mean()
            rows.append(
                {
                    "pool": "main",
                    "seed": seed,
                    "subset": "+".join(map(str, subset)),
                    "size": 2,
                    "metric": "nll",
                    "ensemble": ensemble + shift * seed,
                    "average": ensemble + 0.5 * rng.normal() - shift * seed,
                    "members": 0.0,
                }
            )
    return pd.DataFrame(rows)


def test_a_score_that_is_infinite_leaves_no_correlation_of_its_metric_on_its_seed_and_over_all():
    study = pd.concat([planted(), planted().assign(metric="accuracy")], ignore_index=True)
    study.loc[3, "ensemble"] = np.nan  # as it is kept
    for found in correlations(study):
        lacking = found["metric"] == "nll" and found["seed"] != "1"
        assert (found["pearson"]["value"] is None) == (found["kendall"]["value"] is None) == lacking
        assert found["n"] == (30 if found["seed"] == "all" else 15)


def test_a_seed_alone_has_scipys_coefficients():
    study = planted()
    found = {c["seed"]: c for c in correlations(study)}
    for seed in (0, 1):
        rows = study[study["seed"] == seed]
        assert found[str(seed)]["pearson"]["value"] == pytest.approx(pearsonr(rows["average"], rows["ensemble"])[0])
        assert found[str(seed)]["spearman"]["value"] == pytest.approx(spearmanr(rows["average"], rows["ensemble"])[0])
        assert found[str(seed)]["n"] == 15
        assert found[str(seed)]["members"] == 6


def test_a_pool_without_a_subset_of_the_sizes_has_no_study():
    with pytest.raises(NotApplicable, match="size"):
        ensembles_and_averages([], torch.zeros(0, 1, 2), None, None, [], "linear")


def test_an_infinite_nll_of_a_subset_is_kept_as_none():
    """Of two members with log-linear mixtures, one rules out a label."""
    members, test = fine_tunes().members, split("test", 40)
    stacked = torch.stack([plain_predict(MemberPart(member), test) for member in members]).double()
    stacked[0, 3, test.labels[3]] = -torch.inf
    stacked = stacked.log_softmax(dim=-1)
    cached = SimpleNamespace(device="cpu", stacked=lambda parts, split: stacked)
    found = study(members, cached, split("train"), test, [(0, 1), (1, 2)], "log_linear")
    rows = pd.DataFrame(json.loads(json.dumps(found["rows"], allow_nan=False))).set_index(["metric", "subset"])
    assert rows.loc[("nll", "0+1"), ["ensemble", "members"]].isna().all()
    assert rows.loc[[("nll", "1+2"), ("accuracy", "0+1")]].notna().all(axis=None)


def test_over_seeds_the_level_of_a_seed_is_no_correlation():
    found = {c["seed"]: c for c in correlations(planted(shift=50.0))}
    assert found["all"]["n"] == 30
    assert found["all"]["members"] == 12
    assert found["all"]["pearson"]["low"] > 0  # the raw scores of both seeds together correlate at almost -1
    assert found["all"]["pearson"]["value"] == pytest.approx(
        {c["seed"]: c for c in correlations(planted(shift=0.0))}["all"]["pearson"]["value"]
    )


def test_one_seed_is_its_own_summary():
    found = correlations(planted(seeds=(3,)))
    assert [c["seed"] for c in found] == ["3", "all"]
    assert found[0]["pearson"] == found[1]["pearson"]


@pytest.mark.parametrize("rule", ["linear", "log_linear"])
def test_each_subset_is_scored_as_an_ensemble_over_all_examples(rule):
    """More examples than are mixed at once; means of probabilities, and of their logarithms, in numpy."""
    members, test = fine_tunes().members, split("test", 620)
    stacked = torch.stack([plain_predict(MemberPart(member), test) for member in members])
    found = ensembles_and_averages(members, stacked, split("train"), test, [(0, 1), (0, 1, 2)], rule)
    for subset in ((0, 1), (0, 1, 2)):
        log_probs = stacked[list(subset)].double().numpy()
        mixed = np.log(np.exp(log_probs).mean(0)) if rule == "linear" else log_softmax(log_probs.mean(0), axis=-1)
        rows = found[found["subset"] == "+".join(map(str, subset))].set_index("metric")
        of_label = mixed[np.arange(620), test.labels]
        assert rows.loc["nll", "ensemble"] == pytest.approx(-of_label.mean(), abs=1e-6)
        assert rows.loc["accuracy", "ensemble"] == pytest.approx((mixed.argmax(-1) == test.labels.numpy()).mean())
