"""Rules that name a run's own verdicts: accepted words, scopes, the best set; nothing passes that was tampered with."""

from functools import cache

import numpy as np
import pytest

from harness.errors import BadInput
from harness.gate.decide import decide
from harness.results.evidence import read_tables
from tests.gate.planted import TODAY, changed, coins, decided, planted, policy, saved, worse

REFERENCE = worse(coins(0.9, n=4000, seeds=3), 200)
CORRECT = {
    "best_single": REFERENCE,
    "better": coins(0.9, n=4000, seeds=3),
    "same": worse(REFERENCE, 2),
    "worse": worse(REFERENCE, 300),
    "doubtful": np.where(np.arange(4000) % 9 == 0, 1 - REFERENCE, REFERENCE),
}
CORRECT["doubtful"] = np.where(np.arange(4000) % 40 == 0, coins(0.85, n=4000, seeds=3, seed=1), REFERENCE)
RULE = "{{id: a, match: {{variant: {}, metric: {}}}, {}}}"


@cache
def run_of_all():
    """With the comparisons of all with the first; callers must not change it."""
    return decided(planted(CORRECT), CORRECT, {name: "best_single" for name in CORRECT if name != "best_single"})


def judged(tmp_path, rule, run=None, more=""):
    return decide(policy(tmp_path, rule, more), run or run_of_all(), None, today=TODAY)


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
@pytest.mark.parametrize(
    ("variant", "accepted", "state"),
    [("better", "[better]", "pass"), ("better", "[better, equivalent]", "pass"), ("worse", "[equivalent]", "fail"),
     ("better", "[equivalent]", "fail"), ("worse", "[worse]", "pass"), ("best_single", "[better]", "skipped")],
)  # fmt: skip
def test_the_runs_verdict_is_accepted_or_not(tmp_path, metric, variant, accepted, state):
    (check, *_) = judged(tmp_path, RULE.format(variant, metric, f"verdict: {accepted}")).checks
    assert check.state == state


def test_equivalence_and_doubt(tmp_path):
    (check,) = judged(tmp_path, RULE.format("same", "accuracy", "verdict: [better, equivalent]")).checks
    assert check.state == "pass"
    rule = RULE.format("doubtful", "accuracy", "verdict: [better]")
    row = run_of_all().comparisons.query("variant == 'doubtful' and metric == 'accuracy' and seed == 'all'").iloc[0]
    (check,) = judged(tmp_path, rule).checks
    assert check.state == {"unclear": "inconclusive", "equivalent": "fail"}[row["verdict"]]


def test_each_scope_and_seed_has_its_own(tmp_path):
    for more, scope, seed in (("", "these models", "all"), (", scope: models like these", "models like these", "all")):
        (check,) = judged(tmp_path, RULE.format("better", "accuracy", f"verdict: [better]{more}")).checks
        row = run_of_all().comparisons.query(f"variant == 'better' and metric == 'accuracy' and seed == '{seed}'")
        word = row.set_index("scope").loc[scope, "verdict"]
        assert (check.state, scope in check.reason) == ("pass" if word == "better" else "inconclusive", True)
    rule = "{id: a, match: {variant: worse, metric: nll, seed: 1}, verdict: [worse]}"
    (check,) = judged(tmp_path, rule).checks
    assert (check.state, check.seed) == ("pass", "1")


@pytest.mark.parametrize(("variant", "state"), [("better", "pass"), ("worse", "fail"), ("best_single", "fail")])
def test_the_best_set(tmp_path, variant, state):
    (check,) = judged(tmp_path, RULE.format(variant, "accuracy", "best: true")).checks
    assert check.state == state


def test_a_run_without_comparisons_or_with_changed_ones_has_no_verdict(tmp_path):
    rule = RULE.format("better", "accuracy", "verdict: [better]")
    (check,) = judged(tmp_path, rule, planted(CORRECT)).checks
    assert (check.state, "made before there were any" in check.reason) == ("error", True)
    for column, value, words in (("verdict", "better", "its interval says worse"), ("difference", 0.02, "do not give")):
        table = run_of_all().comparisons.copy()
        table.loc[table["variant"] == "worse", column] = value
        tampered = changed(run_of_all(), comparisons=table)
        (check,) = judged(tmp_path, RULE.format("worse", "accuracy", "verdict: [better]"), tampered).checks
        assert (check.state, words in check.reason) == ("error", True)


def test_it_is_the_same_from_a_folder(tmp_path):
    folder = saved(run_of_all(), tmp_path / "run")
    rule = RULE.format("'*'", "nll", "verdict: [better, equivalent]")
    runs = (run_of_all(), read_tables(folder))
    states = [[check.state for check in judged(tmp_path, rule, run).checks] for run in runs]
    assert states[0] == states[1]


@pytest.mark.parametrize(
    ("rule", "words"),
    [("verdict: [good]", "good"), ("verdict: []", "verdict"), ("verdict: [better], min: 0.5", "or verdict and best"),
     ("min: 0.5, scope: these models", "belongs to verdict"), ("verdict: [better], vs: baseline", "run's own table"),
     ("best: false", "best")],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(tmp_path, rule, words):
    with pytest.raises(BadInput) as raised:
        policy(tmp_path, RULE.format("better", "accuracy", rule))
    assert words in str(raised.value)
    with pytest.raises(BadInput, match="has no verdicts"):
        policy(tmp_path, RULE.format("better", "ece", "verdict: [better]"))
    where = "match: {variant: x, metric: nll, seed: 1}"
    with pytest.raises(BadInput, match="one seed says nothing"):
        policy(tmp_path, f"{{id: a, {where}, verdict: [better], scope: models like these}}")
