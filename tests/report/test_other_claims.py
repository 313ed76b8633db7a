"""Claims that are no plain comparison: of errors, conflicting members, correlations and barriers."""

import numpy as np
import pytest

from tests.report.planted import BASE, EXAMPLES, MEAN, MEMBERS, SEEDS, claim, members, planted

TRACKS = "Averaging tracks ensembling where members share a start"
BARRIER = "Alignment lowers the loss barrier"
OR_AND = "Linear acts as OR, log-linear as AND"
ZEROS = "A label that one member rules out keeps probability under linear and loses it under log-linear"
ERRORS = "The members' errors are not fully correlated"


def test_the_members_errors_are_compared_pair_by_pair():
    found = claim(ERRORS, planted(members(*MEMBERS)))
    pairs = [(0, 1), (0, 2), (1, 2)]
    apart = np.mean([(MEMBERS[a] ^ MEMBERS[b]).mean() for a, b in pairs])
    assert (found.verdict, found.estimate) == ("held", pytest.approx(apart))
    assert f"errs on {100 * (1 - MEAN.mean()):.2f} %" in found.note
    copies = claim(ERRORS, planted(members(BASE, BASE, BASE)))
    assert (copies.estimate, copies.verdict) == (0, "not held")
    assert "errors is 1.00" in copies.note
    few = planted(members(BASE[:, :20], BASE[:, :20]))
    assert claim(ERRORS, few).verdict == "undecided"


def believers(conflicts, doubt, pool="main"):
    """Two members, one of which is sure of the label and the other sure it is something else, on so many examples."""
    first = np.full((SEEDS, EXAMPLES), 0.6)
    second = first.copy()
    first[:, :conflicts], second[:, :conflicts] = 0.9, doubt
    odds = np.sqrt(first * second), np.sqrt((1 - first) * (1 - second))
    said = {**members(first, second), "linear": (first + second) / 2, "log_linear": odds[0] / (odds[0] + odds[1])}
    prefix = "" if pool == "main" else f"{pool}:"
    return {f"{prefix}{name}": (p > 0.5, -np.log(p)) for name, p in said.items()}


@pytest.mark.parametrize(("sentence", "doubt"), [(OR_AND, 0.001), (ZEROS, 1e-5)])
def test_linear_keeps_what_one_member_believes_and_log_linear_what_none_vetoes(sentence, doubt):
    outcomes = believers(40, doubt)
    found = claim(sentence, planted(outcomes))
    assert (found.verdict, found.n) == ("held", 40)
    lower = outcomes["log_linear"][1] + 1
    assert claim(sentence, planted({**outcomes, "linear": (BASE, lower)})).verdict == "not held"
    few = claim(sentence, planted(believers(4, doubt)))
    assert (few.verdict, few.n, few.low) == ("undecided", 4, None)
    none = claim(sentence, planted(believers(0, doubt)))
    assert (none.verdict, "there is no example" in none.note) == ("not tested", True)
    assert claim(sentence, planted(members(BASE))).verdict == "not tested"


def test_two_members_of_many_may_be_in_conflict():
    outcomes = believers(40, 0.001)
    pair = {f"{rule}/members=0+2": outcomes[rule] for rule in ("linear", "log_linear")}
    three = members(outcomes["member/index=0"], BASE, outcomes["member/index=1"])
    found = claim(OR_AND, planted(three | pair))
    assert (found.verdict, found.n) == ("held", 40)
    assert claim(OR_AND, planted(three | {"linear": pair["linear/members=0+2"]})).verdict == "not tested"


@pytest.mark.parametrize(("sentence", "doubt"), [(OR_AND, 0.001), (ZEROS, 1e-5)])
def test_where_no_label_is_left_that_all_accept_the_vetoes_cancel(sentence, doubt):
    """Experts for different labels: each rules out what the other one chooses."""
    outcomes = believers(80, doubt)
    likely = np.exp(-outcomes["log_linear"][1])
    likely[:, 40:80] = 0.9
    outcomes["log_linear"] = likely > 0.5, -np.log(likely)
    found = claim(sentence, planted(outcomes))
    assert (found.verdict, found.n) == ("held", 40)
    assert f"on {40 * SEEDS} others vetoes may cancel" in found.note


def test_conflict_is_looked_for_where_it_is_greatest():
    outcomes = believers(31, 0.001) | believers(50, 0.001, "conflict")
    pair = {f"{rule}/members=0+1": outcomes[rule] for rule in ("linear", "log_linear")}
    found = claim(OR_AND, planted(outcomes | pair | members(BASE, BASE, BASE, pool="independent")))
    assert (found.n, "of conflict:linear and conflict:log_linear" in found.note) == (50, True)
    kept = [np.exp(-outcomes[f"conflict:{rule}"][1])[:, :50].mean() for rule in ("linear", "log_linear")]
    assert found.estimate == pytest.approx(kept[0] - kept[1])


def test_seeds_without_such_an_example_are_left_out():
    outcomes = believers(40, 1e-5)
    for name, doubt in (("member/index=0", 0.6), ("member/index=1", 0.6)):
        outcomes[name][1][0] = -np.log(doubt)
    assert claim(ZEROS, planted(outcomes)).verdict == "held"


@pytest.mark.parametrize(
    ("coefficient", "verdict"),
    [((0.9, 0.7, 0.97), "held"), ((-0.6, -0.9, -0.1), "not held"), ((0.2, -0.3, 0.6), "undecided"),
     ((0.9, None, None), "not tested"), ((None, None, None), "not tested")],
)  # fmt: skip
def test_averaging_tracks_ensembling(coefficient, verdict):
    pearson = dict(zip(("value", "low", "high"), coefficient, strict=True))
    places = [("independent", "nll", "all"), ("main", "accuracy", "all"), ("main", "nll", "0"), ("main", "nll", "all")]
    keys = ("pool", "metric", "seed")
    entries = [{"n": 20, "members": 8, "pearson": pearson, **dict(zip(keys, place, strict=True))} for place in places]
    pools = {"independent": {"members": 2}}
    found = claim(TRACKS, planted({"best_single": BASE}, correlations=entries, pools=pools))
    assert found.verdict == verdict
    assert ("of the pool independent r is" in found.note) == (verdict != "not tested")
    assert claim(TRACKS, planted({"best_single": BASE}, correlations=entries[:3], pools=pools)).verdict == "not tested"


def barriers(*pairs):
    return {str(seed): {"barrier": {"before": pair[0], "after": pair[1]}} for seed, pair in enumerate(pairs)}


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [([(0.9, 0.2), (0.8, 0.2), (0.9, 0.1)], "held"), ([(0.2, 0.9), (0.2, 0.8), (0.1, 0.9)], "not held"),
     ([(0.9, 0.2), (0.5, 0.3), (0.3, 0.5)], "undecided"), ([(0.9, 0.2)], "not tested")],
    ids=["held", "not held", "undecided", "a seed is missing"],
)  # fmt: skip
def test_alignment_lowers_the_barrier(pairs, verdict):
    name = "independent:align_average/to=mean"
    details = {"align_average": barriers((0, 0.4), (0, 0.5), (0, 0.4)), name: barriers(*pairs)}
    details["gone"] = barriers((1, 0), (1, 0), (1, 0))
    found = claim(BARRIER, planted({name: BASE}, details=details))
    assert found.verdict == verdict
    if verdict != "not tested":
        assert found.estimate == pytest.approx(np.mean([before - after for before, after in pairs]))
        assert (found.n, found.unit, found.scope) == (SEEDS, "nats", "models like these")
        assert name in found.note
    both = claim(BARRIER, planted({"align_average": BASE, name: BASE}, details=details))
    worse = "not held" if verdict == "not tested" else verdict  # independent members are where it is meant to help
    assert both.verdict == worse


def test_of_one_seed_a_fall_is_told_and_not_decided():
    evidence = planted({"align_average": BASE}, details={"align_average": barriers((0.9, 0.2))})
    evidence.run.record["seeds"] = [0]
    found = claim(BARRIER, evidence)
    assert (found.verdict, found.low, found.n) == ("undecided", None, 1)
    assert found.estimate == pytest.approx(0.7)
