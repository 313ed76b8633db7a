"""The scores of a variant: exact ties, infinite losses, one seed and several."""

import numpy as np
import pytest
import torch

from harness.evaluate.outcomes import per_example, tabulate
from harness.evaluate.scores import (
    NonFinite,
    calibrated,
    check_finite,
    check_numbers,
    score,
    score_aggregates,
    score_measures,
    score_over_seeds,
)
from harness.registry import METRICS
from harness.results.metric import Column, Outcomes, metric
from harness.stats.interval import Interval
from harness.tasks.answers import Aggregate
from tests.evaluate.added_metrics import declare


def table(seed, labels, classes=3):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(labels), classes)) + 1.5 * np.eye(classes)[labels]
    return per_example(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), labels)


def log_probs(seed):
    logits = np.random.default_rng(seed).normal(size=(len(LABELS), 3)) + 1.5 * np.eye(3)[LABELS]
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def outcomes(table, classes=3):
    return Outcomes(table, LABELS, classes)


LABELS = np.random.default_rng(0).integers(0, 3, size=300)


def with_zeros(seed, count):
    """What a system says whose first labels have probability 0."""
    said = log_probs(seed)
    said[np.arange(count), LABELS[:count]] = -np.inf
    return said - np.log(np.exp(said).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("clusters", [(), tuple(str(row // 2) for row in range(len(LABELS)))], ids=["rows", "clusters"])
@pytest.mark.parametrize("ids", [(), ("own", "splits")], ids=["shared", "per seed"])
def test_labels_without_probability_leave_the_nll_empty_and_all_else_as_it_is(ids, clusters):
    """On one seed, and over seeds of which one has such labels."""
    said = {count: tabulate(with_zeros(0, count), LABELS) for count in (0, 3)}
    whole = tabulate(log_probs(1), LABELS)
    names = [tuple(f"{each}{row}" for row in range(len(LABELS))) for each in ids] or [(), ()]
    first, second, finite = (
        Outcomes(table, LABELS, 3, clusters, of)
        for table, of in ((said[3], names[0]), (whole, names[1]), (said[3].assign(nll=0.5), names[0]))
    )
    check_finite(said[3])
    over_seeds = [score_over_seeds([each, second]) for each in (first, finite)]
    for found, other in ((score(first), score(finite)), over_seeds):
        empty = {name for name in found if found[name] is None and other[name] is not None}
        assert empty == {"nll", "nll_low", "nll_high"}
        assert {name: found[name] for name in found if name not in empty} == {
            name: other[name] for name in found if name not in empty
        }


def test_a_temperature_leaves_a_probability_of_zero_and_its_nll_is_not_known():
    said, heldout = torch.from_numpy(with_zeros(0, 3)), torch.from_numpy(log_probs(1))
    found = calibrated(said, torch.from_numpy(LABELS), heldout, torch.from_numpy(LABELS))
    assert found["nll_calibrated"] is None
    assert 0 <= found["ece_calibrated"] <= 1


def test_what_a_metric_makes_of_infinite_losses_is_not_known(monkeypatch):
    declare(monkeypatch)
    metric(Column("perplexity", "of labels"))(lambda each: float(np.exp(each.examples["nll"].mean())))
    assert score(outcomes(tabulate(with_zeros(0, 3), LABELS)))["perplexity"] is None
    assert score(outcomes(tabulate(with_zeros(0, 0), LABELS)))["perplexity"] > 1


def test_a_measure_that_is_infinite_anywhere_is_no_score():
    finite, infinite = np.array([0.1, 0.2]), np.array([0.1, np.inf])
    seeds = [{"bits/t": bits, "acc/t": finite} for bits in (finite, infinite)]
    assert set(score_measures(seeds)) == {"acc/t"}
    aggregate = {"f1/t": Aggregate(0.5, np.array([0.4, 0.6]), 9)}
    assert score_aggregates([aggregate, {}]) == score_aggregates([{}, aggregate]) == {}


def test_one_seed_over_seeds_has_the_values_of_that_seed():
    examples = outcomes(table(1, LABELS))
    one, several = score(examples), score_over_seeds([examples])
    assert one.keys() == several.keys()
    for name in METRICS.all():
        assert several[name] == pytest.approx(one[name], abs=1e-9)


def test_seeds_that_disagree_widen_the_interval():
    near, far = table(1, LABELS), table(1, (LABELS + 1) % 3)
    far["correct"] = far["prediction"] == LABELS
    near, far = outcomes(near), outcomes(far)
    same, mixed = score_over_seeds([near, near]), score_over_seeds([near, far])
    assert mixed["accuracy_high"] - mixed["accuracy_low"] > 2 * (same["accuracy_high"] - same["accuracy_low"])


def test_calibration_undoes_a_temperature():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=generator)
    labels = torch.distributions.Categorical(logits=logits).sample()
    sharp = torch.log_softmax(4 * logits, dim=-1)
    found = calibrated(sharp[2000:], labels[2000:], sharp[:2000], labels[:2000])
    assert found["temperature"] == pytest.approx(4.0, rel=0.15)
    true = torch.nn.functional.cross_entropy(logits[2000:], labels[2000:]).item()
    assert found["nll_calibrated"] == pytest.approx(true, abs=0.01)


def aggregates(values, n=300, draws=4000):
    """The mean as if it were no mean: its value, and that of documents drawn with replacement."""
    rows = np.random.default_rng(7).integers(n, size=(draws, n))
    return {"f1/t": Aggregate(float(values.mean()), values[rows].mean(axis=1), n)}


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_score_from_its_draws_is_that_of_a_mean_where_it_is_one(seeds):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=300) + rng.normal() / 10 for _ in range(seeds)]
    found = score_aggregates([aggregates(each) for each in values])["f1/t"]
    expected = score_measures([{"f1/t": each} for each in values])["f1/t"]
    assert found["value"] == pytest.approx(expected["value"])
    assert found["n"] == expected["n"] == 300
    for end in ("low", "high"):
        assert found[end] - found["value"] == pytest.approx(expected[end] - expected["value"], rel=0.1)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_score_that_some_draw_does_not_have_has_no_interval(seeds):
    lost = {"f1/t": Aggregate(0.5, np.array([0.4, np.nan, 0.6]), 9)}
    assert score_aggregates([lost] * seeds) == {"f1/t": {"value": 0.5, "low": None, "high": None, "n": 9}}


def test_measures_of_seeds_with_other_documents_are_means_over_the_seeds_means():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=40), rng.normal(size=30)
    first[5] = np.nan  # which a view leaves out, also where the other seed has the document
    ids = [[f"x{i}" for i in range(40)], [f"x{i}" for i in range(30, 60)]]
    found = score_measures([{"m/t": first}, {"m/t": second}], ids)["m/t"]
    assert found["value"] == pytest.approx((np.nanmean(first) + second.mean()) / 2)
    assert found["n"] == 59
    assert found["low"] < found["value"] < found["high"]
    none = np.full(30, np.nan)
    assert score_measures([{"m/t": first}, {"m/t": none}], ids)["m/t"]["n"] == 29
    aggregate = {"f1/t": Aggregate(0.5, np.array([0.4, 0.6]), 9)}
    assert score_aggregates([aggregate] * 2, ids)["f1/t"]["low"] is None


def test_a_measure_that_no_document_has_is_no_score():
    assert score_measures([{"acc/t": np.array([np.nan, np.nan])}]) == {}


def test_a_score_of_lm_eval_that_is_no_number_is_a_failure_with_its_name():
    assert check_numbers({"acc/t": 0.5}) == []
    assert check_numbers({"acc/t": 0.5, "word_perplexity/t": float("inf")}) == ["word_perplexity/t"]
    with pytest.raises(NonFinite, match="lm-eval's mcc/t is nan"):
        check_numbers({"acc/t": 0.5, "mcc/t": float("nan")})


# metrics that are added


def test_an_added_metric_is_scored_with_the_interval_that_it_gives(monkeypatch):
    declare(monkeypatch, "mcc", "top2")
    seeds = [outcomes(tabulate(log_probs(seed), LABELS)) for seed in (1, 2)]
    one = score(seeds[0])
    assert one["mcc_low"] < one["mcc"] < one["mcc_high"]
    assert one["top2"] == seeds[0].examples["in_top2"].mean() > one["accuracy"]
    several = score_over_seeds(seeds)
    assert several["mcc"] == pytest.approx((one["mcc"] + score(seeds[1])["mcc"]) / 2)
    assert (several["mcc_low"], several["mcc_high"]) == (None, None)  # it has no interval over seeds
    assert several["top2_low"] < several["top2"] < several["top2_high"]
    alone = score_over_seeds(seeds[:1])
    assert [alone[f"mcc{end}"] for end in ("", "_low", "_high")] == [one[f"mcc{end}"] for end in ("", "_low", "_high")]


@pytest.mark.parametrize(
    ("interval", "value", "error", "words"),
    [
        (None, np.nan, NonFinite, "odd is nan"),
        (None, np.inf, NonFinite, "odd is inf"),
        ("odd", Interval(np.nan, 0.0, 1.0, 3), NonFinite, "odd is nan"),
        (None, Interval(0.5, 0.0, 1.0, 3), RuntimeError, "'odd' gives an interval, and its column declares none"),
        (None, ZeroDivisionError("no class"), RuntimeError, "metric 'odd' failed: ZeroDivisionError: no class"),
    ],
)
def test_a_metric_that_breaks_its_contract_is_named(monkeypatch, interval, value, error, words):
    def odd(_):
        if isinstance(value, Exception):
            raise value
        return value

    declare(monkeypatch)
    metric(Column("odd", "strange", interval=interval))(odd)
    with pytest.raises(error, match=words):
        score(outcomes(table(1, LABELS)))


def test_what_a_metric_does_not_apply_to_is_empty_and_so_are_bounds_that_it_does_not_know(monkeypatch):
    declare(monkeypatch)
    metric(Column("none", "of two classes", interval="none"))(lambda _: None)
    metric(Column("point", "without bounds", interval="point"))(lambda _: Interval(0.5, np.nan, np.nan, 1))
    seed = outcomes(table(1, LABELS))
    for found in (score(seed), score_over_seeds([seed, seed])):
        assert [found[f"none{end}"] for end in ("", "_low", "_high")] == [None, None, None]
        assert [found[f"point{end}"] for end in ("", "_low", "_high")] == [0.5, None, None]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_outcome_that_is_not_finite_is_a_failure_with_its_name(bad):
    lost = table(1, LABELS).assign(margin=1.0)
    lost.loc[[3, 5], "margin"] = bad
    with pytest.raises(NonFinite, match="margin is not finite on 2 of 300"):
        check_finite(lost)


@pytest.mark.parametrize(("bad", "failures"), [(np.inf, 0), (np.nan, 2)])
def test_an_outcome_may_be_infinite_where_the_label_has_probability_zero_but_not_nan(bad, failures):
    lost = tabulate(with_zeros(0, 3), LABELS).assign(margin=1.0)
    lost.loc[[0, 2], "margin"] = bad
    if not failures:
        check_finite(lost)
        return
    with pytest.raises(NonFinite, match=f"margin is not finite on {failures} of 300"):
        check_finite(lost)
