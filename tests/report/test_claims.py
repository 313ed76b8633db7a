"""Every claim that one variant scores better than another: held, not held and undecided on runs made up to be so."""

import json

import numpy as np
import pytest

from harness.display import formats
from harness.report.claims import as_json, claims
from tests.report.planted import (
    BASE,
    BETTER,
    CLOSE,
    EXAMPLES,
    MEAN,
    MEMBERS,
    SEEDS,
    WORSE,
    claim,
    members,
    planted,
    right,
)

TAKEN = {str(seed): {"members": ["m0"]} for seed in range(SEEDS)}
ENSEMBLE = right(0.95, 11)
MIDDLE = (MEAN + ENSEMBLE) / 2


def pair(one, other):
    return lambda outcome: planted({one: outcome, other: BASE})


def of_members(name, pool="main"):
    return lambda outcome: planted({**members(BASE, BASE, BASE, pool=pool), name: outcome})


def of_starts(outcome):
    return planted({"linear": BASE, "uniform_soup": BASE, "independent:linear": BASE,
                    "independent:uniform_soup": outcome})  # fmt: skip


def soups(outcome):
    outcomes = {"unequal:greedy_soup": outcome, "unequal:uniform_soup": BASE}
    return planted(outcomes, details={"unequal:greedy_soup": TAKEN}, pools={"unequal": {"members": 4}})


def of_checkpoints(method):
    return lambda outcome: planted({f"run:{method}/n=2": outcome, "run:member/index=1": BASE},
                                   pools={"run": {"members": 2}})  # fmt: skip


def bags(outcome):
    pools = {"bagged": {"members": 2}, "independent": {"members": 3}}
    return planted({"bagged:bagging": outcome, "independent:linear": BETTER,
                    "independent:linear/members=0+1": BASE}, pools=pools)  # fmt: skip


def students(size):
    name = f"distill/epochs=9,size={size}"
    return lambda outcome: planted({**members(*MEMBERS), "linear": ENSEMBLE, name: outcome})


def experts(outcome):
    return planted({"moe/epochs=9": outcome, "moe/epochs=9,routing=dense": BASE}, flops={"moe/epochs=9": 50.0})


FOR_THE_BETTER = {
    "An ensemble beats the best single model": pair("linear", "best_single"),
    "An ensemble of independent starts beats the best of them": pair("independent:linear", "independent:best_single"),
    "An ensemble beats its mean member": of_members("linear"),
    "An average of checkpoints beats the last one": of_checkpoints("checkpoint_average"),
    "An ensemble of checkpoints beats the last one": of_checkpoints("checkpoint_ensemble"),
    "The greedy soup is no worse than the uniform one where members are unequal": soups,
    "Bagging beats its mean member": of_members("bagged:bagging", "bagged"),
    "Sparse experts cost less than dense ones, at no loss": experts,
    "Added task vectors compose": of_members("task_arithmetic"),
}
FOR_THE_WORSE = {
    "Averaging needs a shared start": of_starts,
    "Bagging is no better than as many independent starts": bags,
    "Negated task vectors lose the skill": pair("task_arithmetic/coefficients=negate,scale=1", "best_single"),
}
NO_LOSS = {"The greedy soup is no worse than the uniform one where members are unequal",
           "Sparse experts cost less than dense ones, at no loss",
           "Bagging is no better than as many independent starts"}  # fmt: skip


@pytest.mark.parametrize("sentence", [*FOR_THE_BETTER, *FOR_THE_WORSE])
@pytest.mark.parametrize(("outcome", "verdict"), [(BETTER, 1), (WORSE, -1), (CLOSE, 0), (BASE, None)],
                         ids=["better", "worse", "unclear", "equal"])  # fmt: skip
def test_a_claim_goes_by_the_difference(sentence, outcome, verdict):
    """Equal ones: nothing is lost, and nothing gained."""
    made, sign = (FOR_THE_BETTER | FOR_THE_WORSE)[sentence], 1 if sentence in FOR_THE_BETTER else -1
    found = claim(sentence, made(outcome))
    words = {0: "undecided", sign: "held", -sign: "not held", None: "held" if sentence in NO_LOSS else "not held"}
    assert found.verdict == words[verdict], found
    assert found.estimate == pytest.approx(outcome.mean() - BASE.mean())
    assert (found.n, found.unit, found.scope) == (EXAMPLES, "points", "these models")
    assert "by NLL" in found.note


@pytest.mark.parametrize(("size", "words"), [("same", "A student"), ("half", "A student of half the size")])
@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [(ENSEMBLE, "held"), (MEMBERS[0], "not held"), (right(0.82, 12), "undecided")],
    ids=["held", "not held", "undecided"],
)
def test_a_student_keeps_most_of_the_gain(size, words, outcome, verdict):
    found = claim(f"{words} keeps most of the ensemble's gain", students(size)(outcome))
    assert found.verdict == verdict
    assert found.estimate == pytest.approx((outcome - MIDDLE).mean())
    kept = (outcome.mean() - MEAN.mean()) / (ENSEMBLE.mean() - MEAN.mean())
    assert f"of which it keeps {max(100 * kept, 0):.0f} %" in found.note


def test_what_learns_from_labels_alone_is_no_student_of_the_ensemble():
    untaught, taught = {"distill/alpha=0,size=same": ENSEMBLE}, {"distill/alpha=0.5,size=same": MEMBERS[0]}
    run = {**members(*MEMBERS), "linear": ENSEMBLE, **untaught}
    sentence = "A student keeps most of the ensemble's gain"
    assert claim(sentence, planted(run)).verdict == "not tested"
    found = claim(sentence, planted({**run, **taught}))
    assert found.verdict == "not held"
    assert "distill/alpha=0.5" in found.statistic


def test_without_a_gain_there_is_nothing_to_keep():
    evidence = planted({**members(*MEMBERS), "linear": MEMBERS[0], "distill": ENSEMBLE})
    found = claim("A student keeps most of the ensemble's gain", evidence)
    assert (found.verdict, "which is not certain" in found.note) == ("undecided", True)


@pytest.mark.parametrize(
    ("loss", "verdict"), [(1.0, "held"), (3.0, "not held"), (None, "undecided")], ids=["held", "not held", "undecided"]
)
def test_dropout_is_judged_by_its_nll_and_the_most_passes(loss, verdict):
    single = np.random.default_rng(5).exponential(2.0, (SEEDS, EXAMPLES))
    noise = np.random.default_rng(6).normal(0, 1, single.shape)
    given = single + 10 * noise - 10 * noise.mean() if loss is None else single + loss - 2 + 0.1 * noise
    few = {"mc_dropout/passes=2": (BASE, single + 5)}
    evidence = planted({"best_single": (BASE, single), "mc_dropout": (BASE, given), **few})
    found = claim("MC dropout is better calibrated than its model without dropout", evidence)
    assert (found.verdict, found.unit) == (verdict, "nats")
    assert found.statistic == "NLL of mc_dropout minus best_single, nats"
    assert "calibration error" in found.note
    assert f"mean confidence minus accuracy {formats.points(0.9 - BASE.mean())}" in found.note


def test_dropout_is_judged_in_each_pool_against_the_very_model():
    outcomes = {"best_single": BASE, "mc_dropout": BASE, "run:best_single": BETTER, "run:member/index=1": BASE}
    found = claims(planted({**outcomes, "run:mc_dropout/member=1,passes=9": WORSE}))
    words = "MC dropout is better calibrated than its model without dropout"
    statistics = {c.claim: c.statistic for c in found if c.claim.startswith("MC dropout")}
    assert statistics == {
        words: "NLL of mc_dropout minus best_single, nats",
        f"{words}: pool run": "NLL of run:mc_dropout/member=1,passes=9 minus run:member/index=1, nats",
    }


def test_the_score_of_the_suite_decides_and_another_is_told_beside_it():
    sentence = "An ensemble beats the best single model"
    outcomes = {"linear": (BETTER, np.full(BASE.shape, 0.9)), "best_single": (BASE, np.full(BASE.shape, 0.5))}
    outcomes["linear"][1][:, ::2] += 0.1
    by_accuracy, by_nll = (claim(sentence, planted(outcomes, scores=[score])) for score in ("accuracy", "nll"))
    assert (by_accuracy.verdict, by_nll.verdict) == ("held", "not held")
    assert f"by NLL {by_nll.shown} nats, not held" in by_accuracy.note
    assert f"by accuracy {by_accuracy.shown}, held" in by_nll.note
    assert (by_nll.estimate, by_nll.unit) == (pytest.approx(0.45), "nats")


def test_a_score_that_a_variant_lacks_does_not_decide():
    outcomes = {"linear": BETTER, "best_single": BASE}
    found = claim("An ensemble beats the best single model", planted(outcomes, scores=["bits_per_byte", "brier"]))
    assert (found.verdict, found.unit, "by accuracy" in found.note) == ("held", "nats", True)


def test_a_loss_is_equivalent_within_its_hundredth():
    loss = np.random.default_rng(0).exponential(1.0, BASE.shape)
    evidence = planted({"linear": (BASE, loss * 0.999), "best_single": (BASE, loss)}, scores=["nll"])
    found = claim("An ensemble beats the best single model", evidence)
    assert found.verdict == "held"  # by ever so little, but surely
    noisy = loss + 0.01 * np.random.default_rng(1).normal(size=loss.shape)
    evidence = planted({"linear": (BASE, noisy), "best_single": (BASE, loss)}, scores=["nll"])
    found = claim("An ensemble beats the best single model", evidence)
    assert (found.verdict, "any difference is below 0.01" in found.note) == ("not held", True), found.note


INFINITE = np.where(BETTER, 0.1, np.inf)


@pytest.mark.parametrize("which", ["linear", "best_single"])
def test_an_infinite_loss_leaves_a_claim_by_it_untested(which):
    outcomes = {"linear": BETTER, "best_single": BASE}
    evidence = planted(outcomes | {which: (outcomes[which], INFINITE)}, scores=["nll"])
    found = claim("An ensemble beats the best single model", evidence)
    assert (found.verdict, found.note) == ("not tested", f"the NLL of {which} is infinite")


def test_a_claim_by_accuracy_stands_where_losses_are_infinite():
    lost = {"member/index=2": (MEMBERS[2], INFINITE)}
    evidence = planted({"linear": BETTER, "best_single": BASE, **members(*MEMBERS[:2]), **lost})
    for sentence in ("An ensemble beats the best single model", "An ensemble beats its mean member"):
        found = claim(sentence, evidence)
        assert found.verdict == "held"
        assert ("NLL" in found.note) == ("single" in sentence)


def test_seeds_with_splits_of_their_own_are_put_together_by_example():
    ids = [[f"e{(i + 200 * seed):04d}" for i in range(EXAMPLES)] for seed in range(SEEDS)]
    outcomes = {"linear": BETTER, "best_single": BASE}
    apart, shared = (claim("An ensemble beats the best single model", planted(outcomes, ids=i)) for i in (ids, None))
    assert (apart.verdict, apart.estimate) == ("held", pytest.approx(shared.estimate))
    assert apart.n == EXAMPLES + 200 * (SEEDS - 1)


def test_sparse_experts_that_cost_no_less_are_not_what_was_claimed():
    evidence = planted({"moe": BETTER, "moe/routing=dense": BASE})
    found = claim("Sparse experts cost less than dense ones, at no loss", evidence)
    assert (found.verdict, "1.00 times the FLOPs" in found.note) == ("not held", True)


def test_as_many_bagged_members_as_independent_ones_are_compared():
    found = claim("Bagging is no better than as many independent starts", bags(BASE))
    assert "independent:linear/members=0+1" in found.statistic
    others = planted({"bagged:bagging": BASE, "independent:linear": BASE},
                     pools={"bagged": {"members": 2}, "independent": {"members": 3}})  # fmt: skip
    found = claim("Bagging is no better than as many independent starts", others)
    assert (found.verdict, found.note) == (
        "not tested", "needs linear of 2 independent starts of the same architecture"
    )  # fmt: skip


def test_the_soup_is_tried_where_it_leaves_out_the_most():
    soups = ("greedy_soup", "uniform_soup")
    outcomes = {f"{pool}{soup}": BASE for pool in ("", "far:", "independent:") for soup in soups}
    many = {seed: {"members": ["m0", "m1"]} for seed in TAKEN}
    details = {"greedy_soup": many, "far:greedy_soup": TAKEN, "independent:greedy_soup": TAKEN}
    evidence = planted(outcomes, details=details, pools={p: {"members": 4} for p in ("main", "far", "independent")})
    found = claim("The greedy soup is no worse than the uniform one where members are unequal", evidence)
    assert "far:greedy_soup minus far:uniform_soup" in found.statistic
    assert "of 4 members it takes 1.0" in found.note


def test_without_the_last_checkpoint_the_best_one_stands_for_it():
    evidence = planted({"run:checkpoint_average": BETTER, "run:best_single": BASE}, pools={"run": {"members": 2}})
    found = claim("An average of checkpoints beats the last one", evidence)
    assert (found.verdict, "run:member/index=1 is not in the suite" in found.note) == ("held", True)


def test_a_claim_that_lacks_its_variants_is_not_tested_and_says_which():
    found = claims(planted({"best_single": BASE}))
    assert {c.verdict for c in found} == {"not tested"}
    notes = {c.claim: c.note for c in found}
    assert notes["Sparse experts cost less than dense ones, at no loss"] == "needs results of moe"
    assert "every member" in claim("An ensemble beats its mean member", planted({"linear": BASE})).note
    assert json.loads(json.dumps(as_json(found)))[0]["verdict"] == "not tested"
    assert {c.shown for c in found} == {"–"}
    assert len(notes) == len(found)


def test_members_count_only_where_all_are_there():
    few = planted({**members(*MEMBERS[:2]), "linear": BASE}, pools={"main": {"members": 3}})
    assert claim("An ensemble beats its mean member", few).verdict == "not tested"
