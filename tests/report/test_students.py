"""The report's section on students, on runs that were made up."""

import json

import numpy as np
import pytest

from harness import stats
from harness.display.formats import points, points_interval
from harness.report.by_score import score_named, values_of
from harness.report.students import UNCERTAIN, gains_of, students_of
from tests.report.planted import BASE, MEAN, MEMBERS, claim, members, planted, right

NAMES = ["member/index=0", "member/index=1", "member/index=2"]
ENSEMBLE = right(0.8, 11)
SOFT, HARD = "distill/alpha=1,size=half", "distill/alpha=0,size=half"
FLOPS = {SOFT: 25.0, HARD: 25.0}


def run(outcomes=None, **options):
    """Members that are right on 70 %, their ensemble on 80 %, and students."""
    outcomes = {SOFT: right(0.77, 12), HARD: right(0.71, 13)} if outcomes is None else outcomes
    return planted({**members(*MEMBERS), "linear": ENSEMBLE, **outcomes}, flops=FLOPS, **options)


def rows_of(evidence):
    (table,) = students_of(evidence)
    return {row["variant"]: row for row in table["rows"]}


@pytest.mark.parametrize("score", ["accuracy", "nll"])
def test_the_share_is_of_the_gain_over_the_mean_member_whichever_way_the_score_is_better(score):
    evidence = run()
    gains = gains_of(values_of(evidence, score_named(score)), score_named(score), SOFT, "linear", NAMES)
    outcome, ensemble = evidence.correct(SOFT), evidence.correct("linear")
    expected = (outcome.mean() - MEAN.mean()) / (ensemble.mean() - MEAN.mean())
    assert gains.kept == pytest.approx(expected)  # the planted NLL is a linear function of the outcome
    assert gains.interval.value == pytest.approx(expected)
    oracle = stats.crossed_ratio(outcome - MEAN, ensemble - MEAN)
    assert (gains.interval.low, gains.interval.high) == pytest.approx((oracle.low, oracle.high))


def test_a_row_tells_size_start_targets_cost_and_share():
    evidence = run({"distill/alpha=0,size=half,start=fresh": right(0.77, 12)})
    (row,) = rows_of(evidence).values()
    assert (row["size"], row["start"], row["targets"]) == ("half", "fresh", "labels")
    kept = stats.crossed_ratio(right(0.77, 12) - MEAN, ENSEMBLE - MEAN)
    shown = f"{100 * kept.value:.0f} % [{100 * kept.low:.0f} .. {100 * kept.high:.0f}]".replace("-", "−")
    assert row["scores"][0] == (f"{100 * right(0.77, 12).mean():.2f} %", shown, "–")
    assert [row["flops"] for row in rows_of(run()).values()] == ["0.25×", "0.25×"]


def test_the_ensemble_keeps_all_of_its_gain_and_a_member_about_none():
    rows = rows_of(run({"distill/alpha=1": ENSEMBLE, "uniform_soup": MEMBERS[0], "best_single": ENSEMBLE}))
    assert rows["distill/alpha=1"]["scores"][0][1] == "100 % [100 .. 100]"
    assert rows["best_single"]["scores"][0][1] == "100 % [100 .. 100]"
    share = float(rows["uniform_soup"]["scores"][0][1].split(" %")[0].replace("−", "-"))
    assert share == pytest.approx(100 * (MEMBERS[0].mean() - MEAN.mean()) / (ENSEMBLE.mean() - MEAN.mean()), abs=0.5)
    assert {row["start"] for row in rows.values()} == {"–"}


def test_a_student_below_the_mean_member_keeps_none():
    kept = rows_of(run({SOFT: right(0.5, 14), HARD: ENSEMBLE}))
    assert [kept[name]["scores"][0][1] for name in (SOFT, HARD)] == ["none", "100 % [100 .. 100]"]


@pytest.mark.parametrize(
    ("alpha", "words"), [("0", "labels"), ("0.9", "90 % ensemble, 10 % labels"), ("1", "ensemble")]
)
def test_what_a_student_learns_from_adds_up(alpha, words):
    evidence = run({SOFT: BASE})
    evidence.by_name[SOFT]["params"] = json.dumps({"alpha": float(alpha)})
    assert rows_of(evidence)[SOFT]["targets"] == words


def test_where_the_gain_is_not_certain_there_is_no_ratio():
    evidence = planted({**members(*MEMBERS), "linear": right(0.705, 5), SOFT: ENSEMBLE})
    assert all(kept == UNCERTAIN for _, kept, _ in rows_of(evidence)[SOFT]["scores"])


def test_soft_targets_are_told_against_labels_where_nothing_else_differs():
    outcomes = {SOFT: right(0.77, 12), HARD: right(0.5, 13), "distill/alpha=1,size=quarter": BASE}
    evidence = run(outcomes)
    rows = rows_of(evidence)
    gain = stats.over_seeds(evidence.correct(SOFT) - evidence.correct(HARD))
    assert rows[SOFT]["scores"][0][2] == f"{points(gain.value)} [{points_interval(gain.low, gain.high)}]"
    assert rows[HARD]["scores"][0][2] == rows["distill/alpha=1,size=quarter"]["scores"][0][2] == "–"
    (table,) = students_of(evidence)
    assert "is better in 1 and worse in 0 of 1 by accuracy, better in 1 and worse in 0 of 1 by NLL." in table["words"]
    (turned,) = students_of(run({SOFT: right(0.5, 13), HARD: right(0.77, 12)}))
    assert "better in 0 and worse in 1 of 1 by accuracy" in turned["words"]
    (alone,) = students_of(run({SOFT: BASE}))
    assert "differ in nothing" not in alone["words"]


def test_how_sure_the_teacher_was_in_training_is_a_mean_over_the_seeds():
    seeds = {str(k): {"teacher_right": 0.98 + 0.01 * k, "teacher_confidence": 0.9} for k in range(3)}
    (table,) = students_of(run(details={SOFT: seeds}))
    assert "On the training examples the ensemble is right on 99.0 % and 90.0 % sure of its answer" in table["words"]
    (earlier,) = students_of(run(details={SOFT: {"0": {"student": "mlp"}}}))
    assert "sure of" not in earlier["words"]


def test_lower_is_better_where_the_suite_goes_by_a_loss():
    (nll, accuracy) = rows_of(run(scores=("nll", "accuracy")))[SOFT]["scores"]
    assert float(nll[0]) == pytest.approx(np.where(right(0.77, 12), 0.1, 2.0).mean(), abs=1e-3)
    assert nll[2].startswith("+")
    assert accuracy[2].startswith("+")


def test_students_of_some_members_are_measured_against_these():
    ensemble, student = right(0.78, 21), right(0.76, 22)
    evidence = run({"linear/members=0+1": ensemble, "distill/members=0+1": student, "distill/members=0+2": BASE})
    (table,) = students_of(evidence)
    (row,) = table["rows"]
    mean = (MEMBERS[0] + 0.0 + MEMBERS[1]) / 2
    kept = (student.mean() - mean.mean()) / (ensemble.mean() - mean.mean())
    assert row["variant"] == "distill/members=0+1"
    assert row["scores"][0][1].startswith(f"{100 * kept:.0f} % [")
    assert "on the mean of its 2 members" in table["words"]


def test_each_pool_has_a_table_and_one_without_teachers_or_members_none():
    other = {"independent:linear": ENSEMBLE, "independent:distill": BASE}
    (table,) = students_of(run({**other, SOFT: BASE}))
    assert [row["variant"] for row in table["rows"]] == [SOFT]
    both = students_of(run({**members(*MEMBERS, pool="independent"), **other, SOFT: BASE}))
    assert [[row["variant"] for row in each["rows"]] for each in both] == [[SOFT], ["independent:distill"]]
    assert students_of(run({})) is None
    assert students_of(planted({"best_single": BASE, "linear": ENSEMBLE, "distill": BASE})) is None


def test_seeds_with_examples_of_their_own_have_a_share_too():
    ids = [range(seed * 1200, seed * 1200 + 1200) for seed in range(3)]
    row = rows_of(run(ids=ids))[SOFT]
    expected = (right(0.77, 12).mean() - MEAN.mean()) / (ENSEMBLE.mean() - MEAN.mean())
    assert row["scores"][0][1].startswith(f"{100 * expected:.0f} % [")


def test_a_student_with_an_infinite_loss_has_none_of_it_and_keeps_its_accuracy():
    lost = np.where(BASE, 0.1, np.inf)
    row = rows_of(run({SOFT: (BASE, lost)}))[SOFT]
    assert row["scores"][1] == ("–", "–", "–")
    assert row["scores"][0][0] == f"{100 * BASE.mean():.2f} %"


def test_the_claim_says_the_same_share():
    name = "distill/alpha=1,size=same"
    evidence = run({name: right(0.77, 12)})
    share = rows_of(evidence)[name]["scores"][0][1].split(" %")[0]
    assert f"of which it keeps {share} %" in claim("A student keeps most of the ensemble's gain", evidence).note
