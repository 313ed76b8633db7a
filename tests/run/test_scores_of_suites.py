"""What a suite's score decides before anything runs: what held-out choices go by, and whether the task has it."""

import pytest

from harness.errors import BadInput
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.stages.setting import task_of
from harness.suite.suite import read_suite

SUITE = """
suite: scored
task: digits
pool: {train: {architecture: mlp, start: shared_base, members: 2}}
pools:
  views: {train: {architecture: mlp, start: shared_base, members: 2, vary: {data: [inverted, blurred]}}}
methods:
- best_single
- linear: {pool: [main, views]}
"""


def planned(folder, score):
    (folder / "suite.yaml").write_text(SUITE + (f"score: {score}\n" if score else ""))
    return make_plan(read_suite(folder / "suite.yaml"), Options(folder / "results", device="cpu"))


@pytest.mark.parametrize(
    ("score", "criterion"),
    [(None, "accuracy"), ("accuracy", "accuracy"), ("nll", "nll"), ("brier", "nll"), ("[nll, accuracy]", "nll"),
     ("[accuracy, nll]", "accuracy")],
)  # fmt: skip
def test_held_out_choices_go_by_the_score_that_decides(tmp_path, score, criterion):
    plan = planned(tmp_path, score)
    assert plan.task.heldout.criterion == criterion
    assert task_of(plan.setting, plan.pools[0]["views"].groups).heldout.criterion == criterion


def test_another_criterion_is_another_choice_and_no_other_training(tmp_path):
    usual, by_nll = planned(tmp_path, None), planned(tmp_path, "nll")
    names = ("best_single", "linear", "views:linear")
    assert all(usual.variants[0][name].build_key != by_nll.variants[0][name].build_key for name in names)
    ours, theirs = (plan.pools[0]["main"] for plan in (usual, by_nll))
    assert [member.key() for member in ours.members] == [member.key() for member in theirs.members]


def test_a_score_that_the_task_has_not_is_refused_before_the_run(tmp_path):
    with pytest.raises(BadInput, match="the suite's score is bits_per_byte, and its task has none"):
        planned(tmp_path, "bits_per_byte")
