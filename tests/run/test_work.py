"""Laws of the work that a plan tells: what models run on is what was planned, and it grows as the formulas say."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import _get_current_dispatch_mode

from harness.models.image_networks import MLP
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages import build, prepare
from harness.run.work import BYTES_READ, FORWARD_PASSES, SECONDS, Work, work_of
from harness.suite.suite import read_suite

pytestmark = pytest.mark.usefixtures("in_this_process")

SUITE = """suite: work
task: digits
pool: {train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 3, epochs: 1, options: {hidden: 4}}}
seeds: [0, 1]
methods:
  - best_single
  - linear: {weights: [uniform, learned], members: [[0, 1], [1, 2]]}
  - uniform_soup
  - uniform_soup: {members: [[0, 2]]}
  - task_arithmetic: {scale: [0.1, 0.5]}
cost: {latency: false, memory: false, energy: false}
"""


def plan_of(folder, text=SUITE):
    (folder / "suite.yaml").write_text(text)
    return make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / "results", workers=1))


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    return plan_of(tmp_path_factory.mktemp("work"))


def test_models_run_on_as_many_examples_as_was_planned(planned):
    rows = []

    def note(module, inputs, _):
        counted = _get_current_dispatch_mode() is not None  # its FLOPs are counted, on one batch
        if isinstance(module, MLP) and not module.training and not counted:
            rows.append(len(inputs[0]))

    told = work_of(planned, planned.missing())
    hook = register_module_forward_hook(note)
    try:
        runner.run(planned, Tracker())
    finally:
        hook.remove()
    assert sum(rows) == told.forward_passes
    assert work_of(planned, planned.missing()).forward_passes == 0


def test_counts_are_those_of_the_suite(planned):
    told = work_of(planned, planned.jobs)
    assert (told.members, told.variants, told.own) == (2 * 4, 2 * 9, 2 * 4)
    assert (told.merged, told.combined) == (2 * (3 + 2 + 3 + 3), 2 * (3 + 4 * 2))
    assert (told.heldout, told.test, told.documents) == (len(planned.task.heldout), len(planned.task.test), None)
    weights = sum(tensor.nbytes for tensor in MLP(side=8, classes=10, hidden=4).state_dict().values())
    assert (told.weight_bytes, told.prediction_bytes) == (weights, 4 * 10)
    assert told.seconds == pytest.approx(sum(each.job.cost for each in planned.jobs))


COUNTS = st.integers(0, 1_000)


@given(st.builds(Work, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS | st.none(), st.just(True),
                 COUNTS, COUNTS, st.floats(0, 9), st.floats(0, 9), st.floats(0, 9)))  # fmt: skip
def test_the_formulas_that_are_printed_are_those_that_are_computed(work):
    letters = {"M": work.members, "V": work.variants, "W": work.own, "U": work.merged, "R": work.combined,
               "h": work.heldout, "n": work.test, "d": work.documents, "w": work.weight_bytes,
               "p": work.prediction_bytes, "a": work.member_seconds, "b": work.variant_seconds,
               "c": work.other_seconds}  # fmt: skip

    def value(formula):
        product = formula.replace(" (", " * (")
        for letter in letters:
            product = product.replace(f" {letter}", f" * {letter}").replace("+ *", "+").replace("( * ", "(")
        return eval(product, {}, letters)

    assert work.forward_passes == value(FORWARD_PASSES[work.documents is not None])
    assert work.bytes_read == value(BYTES_READ[True])
    assert work.bytes_read - (work.members + work.merged) * work.weight_bytes == value(BYTES_READ[False])
    assert work.seconds == pytest.approx(value(SECONDS))
    assert replace(work, runs=False).forward_passes == 0


def test_what_many_variants_need_of_a_pool_is_looked_up_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(build, "preparations", lambda *of: asked.append(of) or prepare.preparations(*of))
    scales = [round(0.01 * k, 2) for k in range(1, 60)]
    plan = plan_of(tmp_path, SUITE.replace("[0.1, 0.5]", str(scales)))
    assert len(plan.variants[0]) > len(scales)
    assert len(asked) == 2 * (1 + 2 + 1 + 1)  # a seed: all, two pairs of ensembles, one of soups, all with the base
