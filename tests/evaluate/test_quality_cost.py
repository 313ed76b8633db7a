"""The record of curves.json: families of a run's variants, their numbers, and what is added to them."""

import json

import numpy as np
import pandas as pd
import pytest

from harness.evaluate.curves import aiq, hull
from harness.evaluate.families import Family, Points
from harness.evaluate.operating import Curve, Point
from harness.evaluate.oracle import luck_corrected, oracle
from harness.evaluate.quality_cost import ORACLE, quality_cost
from harness.evaluate.ways import CASCADES, ENSEMBLES, MERGED, PASSES, SINGLE, STUDENTS, WAYS
from harness.results.curves import CURVES_FIELDS
from tests.report.compared import gained, planted, right

BASE = right(0.8, 1)
MEMBERS = {f"member/index={at}": gained(gained(BASE, share, at), -0.03, 9 + at)
           for at, share in enumerate((0.03, 0.02, 0.01))}
ENSEMBLE = {"linear/members=0+1": gained(BASE, 0.01, 7), "linear": gained(BASE, 0.03, 8)}
OUTCOMES = {"best_single": BASE, **MEMBERS, **ENSEMBLE, "linear/weights=learned": gained(BASE, 0.12, 9),
            "log_linear": gained(BASE, 0.15, 9), "temperature": BASE, "uniform_soup": gained(BASE, 0.02, 10),
            "mc_dropout": gained(BASE, -0.01, 11), "distill": gained(BASE, 0.01, 12)}  # fmt: skip
COSTS = {"linear/members=0+1": 2, "linear": 3, "linear/weights=learned": 3, "log_linear": 3, "mc_dropout": 5,
         "temperature": 3, "distill": 0.5, "member/index=2": 0.25}  # fmt: skip


@pytest.fixture(scope="module")
def run():
    return planted(OUTCOMES, costs=COSTS).run


@pytest.fixture(scope="module")
def found(run):
    return quality_cost(run)


def family(found, name):
    (of,) = [each for each in found["families"] if each["name"] == name]
    return of


def scores(*names):
    return np.array([OUTCOMES[name].mean() for name in names])


def test_the_record_has_the_fields_that_are_documented_and_is_json(found):
    assert found.keys() == CURVES_FIELDS.keys()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["reference"] == {"variant": "best_single", "score": pytest.approx(BASE.mean())}
    assert found["cost"] == {"name": "flops_per_example", "title": "FLOPs"}
    assert (found["examples"], found["score"]) == (BASE.size, "accuracy")


def test_every_variant_of_a_way_is_a_point_and_ensembles_grow_by_members_alone(found):
    points = {each["name"]: [point["name"] for point in each["points"]] for each in found["families"]}
    assert points == {
        SINGLE: ["member/index=2", "member/index=0", "member/index=1"],
        ENSEMBLES: ["linear/members=0+1", "linear"],
        PASSES: ["mc_dropout"],
        MERGED: ["uniform_soup"],
        STUDENTS: ["distill"],
    }
    assert list(points) == [way for way in WAYS if way in points]
    for each in found["families"]:
        for point in each["points"]:
            assert point["cost"] == COSTS.get(point["name"], 1)
            assert point["score"] == pytest.approx(OUTCOMES[point["name"]].mean())
            assert point["low"] < point["score"] < point["high"]
            assert point["gain"]["value"] == pytest.approx(point["score"] - BASE.mean())


def test_other_pools_are_left_out():
    more = {"run:best_single": BASE, "run:linear": gained(BASE, 0.15, 3)}
    alone, beside = (quality_cost(planted(OUTCOMES | each, costs=COSTS).run) for each in ({}, more))
    assert [each["points"] for each in beside["families"]] == [each["points"] for each in alone["families"]]


def test_without_members_the_reference_stands_for_the_single_models():
    few = quality_cost(planted({"best_single": BASE, "log_linear": OUTCOMES["linear"]}, costs={"log_linear": 4}).run)
    assert [point["name"] for point in family(few, SINGLE)["points"]] == ["best_single"]
    assert [point["name"] for point in family(few, ENSEMBLES)["points"]] == ["log_linear"]
    assert family(few, SINGLE)["aiq"]["why"] == "one point is no curve"


def test_every_way_may_fall_back_on_the_reference_over_one_range_of_budgets(found):
    assert found["budgets"] == [1.0, 3.0]
    expected = {
        SINGLE: aiq([1, *(COSTS.get(name, 1) for name in MEMBERS)], [BASE.mean(), *scores(*MEMBERS)], 1, 3),
        ENSEMBLES: aiq([1, 2, 3], scores("best_single", *ENSEMBLE), 1, 3),
        MERGED: OUTCOMES["uniform_soup"].mean(),  # it costs no more than the reference
        PASSES: BASE.mean(),  # worse and dearer
        STUDENTS: aiq([1, 0.5], scores("best_single", "distill"), 1, 3),
    }
    for name, value in expected.items():
        each = family(found, name)
        assert each["aiq"]["value"] == pytest.approx(value)
        assert each["gain"]["value"] == pytest.approx(value - BASE.mean())
    ensembles = family(found, ENSEMBLES)
    assert 0 < ensembles["gain"]["low"] < ensembles["gain"]["high"]
    wide, narrow = (each["high"] - each["low"] for each in (ensembles["aiq"], ensembles["gain"]))
    assert narrow < wide  # what all examples share is not in a difference
    assert family(found, PASSES)["gain"]["low"] is None
    assert "alike" in family(found, PASSES)["gain"]["why"]


def test_the_hull_is_that_of_all_points_and_chance_is_a_line(found):
    names = [point["name"] for each in found["families"] for point in each["points"]]
    x, y = hull(np.array([1, *(COSTS.get(name, 1) for name in names)]), np.array([BASE.mean(), *scores(*names)]))
    assert np.array(found["hull"]) == pytest.approx(np.transpose([x, y]))
    ends = scores("best_single", "linear")
    assert (found["random"]["from"], found["random"]["to"]) == ("best_single", "linear")
    assert np.array(found["random"]["points"]) == pytest.approx(np.array([[1, ends[0]], [3, ends[1]]]))


def test_the_oracle_is_over_the_single_models(found):
    table, costs = np.concatenate(list(MEMBERS.values())), np.array([1, 1, 0.25])
    score, cost = oracle(table, costs)
    told = found["oracle"]
    assert (told["models"], told["why"], told["cost"]) == (3, None, pytest.approx(cost.mean()))
    assert told["score"]["value"] == pytest.approx(score.mean())
    assert told["gain"]["value"] == pytest.approx(score.mean() - BASE.mean())
    assert told["luck_corrected"]["value"] == pytest.approx(luck_corrected(table, costs).mean())
    for name in ORACLE:
        assert told[name]["low"] < told[name]["value"] < told[name]["high"]
    fewer = quality_cost(planted({name: OUTCOMES[name] for name in ("best_single", "linear")}).run)["oracle"]
    assert fewer["why"] == fewer["score"]["why"] == "there are fewer than two single models"
    assert fewer["score"]["value"] is None


def test_a_loss_is_turned_so_that_gains_are_above_0_where_it_falls():
    told = quality_cost(planted(OUTCOMES, costs=COSTS, score="nll").run)
    losses = {name: np.where(each, 0.1, 2.0).mean() for name, each in OUTCOMES.items()}
    ensembles = family(told, ENSEMBLES)
    assert told["reference"]["score"] == pytest.approx(losses["best_single"])
    assert [point["score"] for point in ensembles["points"]] == pytest.approx([losses[name] for name in ENSEMBLE])
    low, value, high = (ensembles["aiq"][end] for end in ("low", "value", "high"))
    assert low < value < high
    assert value == pytest.approx(-aiq([1, 2, 3], [-losses[name] for name in ("best_single", *ENSEMBLE)]))
    assert ensembles["gain"]["value"] == pytest.approx(losses["best_single"] - value)
    assert told["hull"][0][1] > told["hull"][-1][1]
    assert told["oracle"] == quality_cost(planted(OUTCOMES, costs=COSTS).run)["oracle"]  # it is of right and wrong


def dial(run, shares=(0.2, 0.6)):
    """A cascade's settings: so many of the examples, the hardest of the first model, go on to the ensemble."""
    weak, strong = (OUTCOMES[name].astype(float) for name in ("best_single", "linear"))
    order = np.random.default_rng(0).random(weak.shape) + weak
    points = []
    for share in shares:
        called = (order <= np.quantile(order, share)).astype(float)
        points.append(Point.of(f"share {share}", np.where(called, strong, weak), 1 + 3 * called, called))
    return Family(CASCADES, tuple(points), Point.of("best_single", weak, 1), Point.of("linear", strong, 3))


def test_the_settings_of_a_system_with_a_dial_are_added(run, found):
    added = dial(run)
    told = family(quality_cost(run, [added]), CASCADES)
    assert [point["name"] for point in told["points"]] == ["share 0.2", "share 0.6"]
    assert [point["cost"] for point in told["points"]] == pytest.approx([1.6, 2.8], abs=0.01)
    assert told["apgr"] == Curve(added.points, (), added.weak, added.strong).apgr().as_json()
    assert told["cpt"].keys() == {"0.5", "0.8", "0.95"}
    assert told["apgr"]["low"] > 0.5  # it knows more than chance
    others = [each for each in quality_cost(run, [added])["families"] if each["name"] != CASCADES]
    assert [each["points"] for each in others] == [each["points"] for each in found["families"]]
    other = quality_cost(run, [Family("my router", added.points)])["families"][-1]
    assert (other["name"], other["apgr"], other["cpt"]) == ("my router", None, None)


def test_settings_join_the_variants_of_their_way_and_one_of_the_same_name_stands_for_it():
    outcomes = OUTCOMES | {"cascade": gained(BASE, 0.02, 20)}
    run = planted(outcomes, costs=COSTS | {"cascade": 2}).run
    joined = Points(run).families([dial(run)])
    assert [point.name for each in joined if each.name == CASCADES for point in each.points] == [
        "cascade", "share 0.2", "share 0.6"]  # fmt: skip
    again = Family(CASCADES, (Point.of("cascade", outcomes["cascade"].astype(float), 1.5),))
    assert family(quality_cost(run, [dial(run)]), CASCADES)["apgr"]["value"] > 0.5  # of those between the two models
    (cascades,) = [each for each in Points(run).families([again]) if each.name == CASCADES]
    assert [float(point.costs.mean()) for point in cascades.points] == [1.5]


def test_a_variant_with_a_dial_is_a_family_of_its_own_with_its_settings():
    outcomes = OUTCOMES | {"cascade": gained(BASE, 0.02, 20), "cascade/threshold=0.9": gained(BASE, 0.01, 21)}
    run = planted(outcomes, costs=COSTS | {"cascade": 2, "cascade/threshold=0.9": 2.5}).run
    settings = dial(run)
    told = quality_cost(run, [Family("cascade", settings.points, settings.weak, settings.strong, CASCADES)])
    of_dial, others = family(told, "cascade"), family(told, CASCADES)
    assert [point["name"] for point in of_dial["points"]] == ["share 0.2", "cascade", "share 0.6"]
    assert (of_dial["way"], others["way"]) == (CASCADES, CASCADES)
    assert of_dial["apgr"]["value"] > 0.5
    assert [point["name"] for point in others["points"]] == ["cascade/threshold=0.9"]


def test_costs_follow_the_calls_where_these_vary():
    run = planted(OUTCOMES | {"cascade": gained(BASE, 0.02, 20)}, costs=COSTS | {"cascade": 2}).run
    is_fourth = np.arange(len(run.examples)) % 4 == 0
    calls = np.where(is_fourth & (run.examples["variant"] == "cascade"), 3, 1)
    run.__dict__["examples"] = run.examples.assign(calls=calls)
    points = Points(run)
    assert points.point("cascade").costs.mean() == pytest.approx(2)
    assert sorted(np.unique(points.point("cascade").costs)) == pytest.approx([2 / 1.5, 6 / 1.5])
    assert np.unique(points.point("linear").costs).tolist() == [3]


def test_examples_of_a_cluster_count_as_one():
    run = planted(OUTCOMES, costs=COSTS).run
    of = [f"c{at // 3:04d}" for at in range(BASE.size)]
    run.__dict__["examples"] = run.examples.assign(cluster=of * len(OUTCOMES))
    apart, together = quality_cost(planted(OUTCOMES, costs=COSTS).run), quality_cost(run)
    assert together["examples"] == BASE.size / 3
    ours, theirs = (family(each, ENSEMBLES)["aiq"] for each in (together, apart))
    assert ours["value"] == pytest.approx(theirs["value"])
    assert ours["low"] != theirs["low"]


def test_there_are_no_curves_without_costs_or_examples_or_a_reference():
    run = planted(OUTCOMES).run
    run.record["serving"] = {"cost": None, "why_no_costs": "nothing is run"}
    assert quality_cost(run) is None
    for table, change in (("examples", None), ("variants", lambda table: table[table["variant"] != "best_single"])):
        run = planted(OUTCOMES).run
        run.__dict__[table] = change and change(run.variants)
        assert quality_cost(run) is None


def test_seeds_that_differ_in_their_examples():
    run = planted({name: np.repeat(each, 2, axis=0) for name, each in OUTCOMES.items()}, costs=COSTS).run
    halves = [f"e{at:04d}" for at in range(2 * BASE.size)]
    run.record["task"] = {"name": "planted", "split": "per_seed"}
    run.__dict__["examples"] = run.examples.assign(example_id=pd.Categorical(halves * len(OUTCOMES)))
    told = quality_cost(run)
    assert told["examples"] == 2 * BASE.size
    assert family(told, ENSEMBLES)["points"][1]["score"] == pytest.approx(OUTCOMES["linear"].mean())
    best = oracle(np.concatenate(list(MEMBERS.values())), np.ones(3))[0]
    assert told["oracle"]["score"]["value"] == pytest.approx(best.mean())
