"""How many examples a policy's rules need: against closed forms and simulated gates."""

import numpy as np
import pytest
from scipy.stats import nct, norm, t

from harness import stats
from harness.gate.power import rule_powers
from tests.gate.planted import coins, planted, policy, worse

NO_DROP = "{id: no-drop, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.02}, test: paired}"
VS_LINEAR = '{id: vs, match: {variant: "soup*", metric: %s}, vs: "variant:linear", %s, test: paired}'


def powers(tmp_path, rules, variants, examples, earlier=None, more=""):
    return {found.rule: found for found in rule_powers(policy(tmp_path, rules, more), variants, examples, earlier)}


def needed_by_formula(margin, discordance, alpha):
    """Connor 1987 with the variance at the margin under the null, that of equal models under the alternative."""
    at_margin, equal = np.sqrt(discordance - margin**2), np.sqrt(discordance)
    return int(np.ceil(((norm.isf(alpha) * at_margin + norm.ppf(0.8) * equal) / margin) ** 2))


def power_of_losses(spread, margin, examples, alpha=0.05):
    """Of the one-sided t test of paired differences with this deviation, by the non-central t distribution."""
    return nct.sf(t.isf(alpha, examples - 1), examples - 1, margin / spread * np.sqrt(examples))


def fewest_losses(spread, margin, alpha=0.05):
    return next(n for n in range(30, 10**6) if power_of_losses(spread, margin, n, alpha) >= 0.8)


def test_one_rule_on_one_variant(tmp_path):
    found = powers(tmp_path, NO_DROP, ["soup"], 1000)["no-drop"]
    assert found.needed == needed_by_formula(0.02, 0.1, 0.05) == 1542
    assert (found.state, found.lacking, found.tests) == ("too few", 542, 1)
    assert found.power == stats.paired_power(1000, 0.02, 0.1)
    enough = powers(tmp_path, NO_DROP, ["soup"], 1542)["no-drop"]
    assert (enough.state, enough.lacking) == ("enough", 0)
    assert enough.power == pytest.approx(0.8, abs=1e-3)


def test_more_tests_need_more_examples_unless_nothing_is_corrected(tmp_path):
    found = powers(tmp_path, NO_DROP, ["a", "b", "c", "d"], 1000)["no-drop"]
    assert (found.tests, found.needed) == (4, needed_by_formula(0.02, 0.1, 0.05 / 4))
    plain = powers(tmp_path, NO_DROP, ["a", "b", "c", "d"], 1000, more="defaults: {correction: none}")["no-drop"]
    assert plain.needed == 1542


def test_the_variant_that_others_are_compared_with_is_no_test(tmp_path):
    rule = VS_LINEAR.replace("soup*", "*") % ("accuracy", "max_drop: {abs: 0.02}")
    assert powers(tmp_path, rule, ["linear", "soup"], 1000)["vs"].tests == 1


def test_with_this_many_examples_equal_models_pass_four_times_in_five():
    rng, margin, share = np.random.default_rng(0), 0.05, 0.1
    examples = stats.examples_needed(margin, share)
    passes = []
    for _ in range(1000):
        gained, lost, _ = rng.multinomial(examples, [share / 2, share / 2, 1 - share])
        ours, theirs = np.zeros((1, examples)), np.zeros((1, examples))
        ours[0, :gained], theirs[0, gained : gained + lost] = 1, 1
        passes.append(stats.non_inferiority(ours, theirs, margin).p_inferior <= 0.05)
    assert np.mean(passes) == pytest.approx(0.8, abs=0.05)


def test_an_earlier_run_says_how_much_two_variants_differ(tmp_path):
    linear = coins(0.8, n=500)
    earlier = planted({"linear": linear, "soup": worse(linear, 20)})
    rule = VS_LINEAR % ("accuracy", "max_drop: {abs: 0.02}")
    found = powers(tmp_path, rule, ["linear", "soup"], 1000, earlier)["vs"]
    assert found.needed == stats.examples_needed(0.02, 20 / 500)
    assert "4.0 % discordant, in the earlier run" in found.note
    same = planted({"linear": linear, "soup": linear})
    assert powers(tmp_path, rule, ["linear", "soup"], 1000, same)["vs"].needed == stats.examples_needed(0.02, 3 / 500)


def test_retrained_seeds_stand_for_a_release_against_its_baseline(tmp_path):
    answers = coins(0.8, n=500, seeds=3)
    share = np.mean([(answers[i] != answers[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))])
    found = powers(tmp_path, NO_DROP, ["soup"], 1000, planted({"soup": answers}))["no-drop"]
    assert found.needed == stats.examples_needed(0.02, share)
    assert "between the seeds" in found.note
    one_seed = powers(tmp_path, NO_DROP, ["soup"], 1000, planted({"soup": answers[:1]}))["no-drop"]
    assert (one_seed.needed, "assumed" in one_seed.note) == (1542, True)
    unseen = powers(tmp_path, NO_DROP, ["other"], 1000, planted({"soup": answers}))["no-drop"]
    assert (unseen.needed, "assumed" in unseen.note) == (1542, True)


def test_losses_need_an_earlier_run(tmp_path):
    rule = VS_LINEAR % ("nll", "max_increase: {abs: 0.05}")
    unknown = powers(tmp_path, rule, ["linear", "soup"], 1000)["vs"]
    assert (unknown.state, unknown.needed) == ("unknown", None)
    assert "--from RUN" in unknown.note
    linear = coins(0.8, n=500)
    soup = worse(linear, 20)
    found = powers(tmp_path, rule, ["linear", "soup"], 1000, planted({"linear": linear, "soup": soup}))["vs"]
    spread = np.std(soup - linear)  # the planted NLL is 1.5 - correct
    assert found.needed == fewest_losses(spread, 0.05) == 97
    assert found.power == pytest.approx(power_of_losses(spread, 0.05, 1000))
    exactly = powers(tmp_path, rule, ["linear", "soup"], found.needed, planted({"linear": linear, "soup": soup}))
    assert exactly["vs"].power == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("margin", [0.05, 0.15, 5.0])
def test_no_loss_is_decided_from_fewer_examples_than_the_gate_asks_for(tmp_path, margin):
    linear = coins(0.8, n=500)
    earlier = planted({"linear": linear, "soup": worse(linear, 20)})
    rule = VS_LINEAR % ("nll", f"max_increase: {{abs: {margin}}}")
    found = powers(tmp_path, rule, ["linear", "soup"], 29, earlier)["vs"]
    assert (found.state, found.power) == ("too few", 0.0)
    assert found.needed == fewest_losses(np.sqrt(0.04 * 0.96), margin)
    rng = np.random.default_rng(0)
    few = rng.normal(0, 1e-9, (2, 1, 29))
    assert stats.non_inferiority(*few, margin).p_inferior == 1.0


def test_losses_that_never_differ_are_decided_by_the_fewest(tmp_path):
    linear = coins(0.8, n=500)
    rule = VS_LINEAR % ("nll", "max_increase: {abs: 0.05}")
    found = powers(tmp_path, rule, ["linear", "soup"], 30, planted({"linear": linear, "soup": linear}))["vs"]
    assert (found.state, found.needed, found.power) == ("enough", 30, 1.0)


@pytest.mark.parametrize("spread", [0.08, 0.2, 0.5])
def test_with_this_many_losses_equal_models_pass_four_times_in_five_or_more(spread):
    rng, examples = np.random.default_rng(0), fewest_losses(spread, 0.05)
    ours, theirs = rng.normal(0, spread / np.sqrt(2), (2, 1500, 1, examples))
    passes = [stats.non_inferiority(*both, 0.05).p_inferior <= 0.05 for both in zip(ours, theirs, strict=True)]
    assert np.mean(passes) > 0.8 - 0.03
    assert examples == 30 or np.mean(passes) == pytest.approx(0.8, abs=0.03)


def test_a_task_or_view_has_as_many_documents_as_an_earlier_run_says(tmp_path):
    rule = VS_LINEAR % ("acc/x", "max_drop: {abs: 0.02}")
    unknown = powers(tmp_path, rule, ["linear", "soup"], 1000)["vs"]
    assert (unknown.state, unknown.has, unknown.needed) == ("unknown", None, None)
    answers, bits = coins(0.8, n=200), np.random.default_rng(0).normal(2, 1, (1, 150))
    parts = {"linear": {"acc/x": answers, "bits_per_byte": bits},
             "soup": {"acc/x": worse(answers, 8), "bits_per_byte": 4 - bits}}  # fmt: skip
    earlier = planted({name: coins(0.8, n=500) for name in parts}, measures=parts)
    found = powers(tmp_path, rule, ["linear", "soup"], 1000, earlier)["vs"]
    assert (found.has, found.needed) == (200, stats.examples_needed(0.02, 8 / 200))
    assert found.lacking == found.needed - 200
    rule = VS_LINEAR % ("bits_per_byte", "max_increase: {abs: 0.05}")
    found = powers(tmp_path, rule, ["linear", "soup"], 1000, earlier)["vs"]
    assert found.has == 150
    assert found.needed == fewest_losses((2 * bits).std(), 0.05)


def test_a_relative_margin_is_of_the_earlier_score(tmp_path):
    rule = VS_LINEAR % ("accuracy", "max_drop: {rel: 0.05}")
    assert powers(tmp_path, rule, ["linear", "soup"], 1000)["vs"].state == "unknown"
    linear = coins(0.8, n=500)
    found = powers(tmp_path, rule, ["linear", "soup"], 1000, planted({"linear": linear, "soup": worse(linear, 20)}))
    assert found["vs"].margin == pytest.approx(0.05 * 0.8)


def test_rules_without_a_test_and_rules_without_a_variant(tmp_path):
    rules = [
        "{id: floor, match: {metric: accuracy}, min: 0.9}",
        "{id: point, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.02}}",
        "{id: typo, match: {variant: suop, metric: accuracy}, min: 0.9}",
        "{id: exact, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0}, test: paired}",
    ]
    rules += [
        '{id: other, match: {metric: accuracy}, vs: "variant:suop", max_drop: {abs: 0.02}, test: paired}',
        "{id: seed, match: {metric: accuracy, seed: 7}, vs: baseline, max_drop: {abs: 0.02}, test: paired}",
    ]
    found = powers(tmp_path, rules, ["soup"], 1000)
    states = {rule: power.state for rule, power in found.items()}
    assert states == {"floor": "no test", "point": "no test", "typo": "matches nothing", "exact": "unknown",
                      "other": "matches nothing", "seed": "matches nothing"}  # fmt: skip
