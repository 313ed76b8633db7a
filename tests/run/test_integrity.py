"""Whatever becomes of a store's files, the next run has the numbers of a first one."""

import shutil

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.evaluate import predictions
from harness.publish.export import export
from harness.registry import COSTS
from harness.report.document import write_report
from harness.results.history import history, left_out_of
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages import setting, variant
from harness.run.stages.prepare import Prepare
from harness.store import Store, check_again
from harness.suite.suite import read_suite
from tests.examples import examples
from tests.inline import in_this_process
from tests.run.test_keys import MLP, image_model
from tests.test_store import DAMAGE

SUITE = """
suite: damaged
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 3, epochs: 1, options: {hidden: 8}}
methods: [best_single, {linear: {weights: learned}}, uniform_soup, cascade]
correlate: {pools: [main], subsets: {sizes: [2], at_most: 3}}
cost: {latency: false, memory: true, energy: false}
"""
FOLDERS = """
suite: folders
task: digits
pool: {hf: {members: [a, b]}}
methods: [linear]
reference: linear
cost: {latency: false, memory: false, energy: false}
"""
TIMED = ["build_seconds", "members_train_seconds"]


def run(folder):
    check_again()  # and read again, as a new process would
    for cached in (setting.task_of, setting.documents_of, variant.pool_of, variant._built, predictions._read):
        cached.cache_clear()
    (folder / "suite.yaml").write_text(SUITE)
    plan = make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / "results", workers=1))
    return read_run(runner.run(plan, Tracker()))


def numbers(found):
    measured = [column.name for cost in COSTS for column in cost.columns]
    timed = [name for name in (*TIMED, *measured) if name in found.variants]
    return found.variants.drop(columns=timed), found.examples


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    with in_this_process():
        folder = tmp_path_factory.mktemp("integrity")
        yield folder, numbers(run(folder))


def files_of(folder):
    """The files of the store by the kind of artefact and their names."""
    store = Store(folder / "results/.store")
    found = {}
    for artefact in store.folders():
        for path in sorted(path for path in artefact.rglob("*") if path.is_file()):
            found.setdefault((artefact.parent.parent.name, path.name), []).append(path)
    return sorted(found.items())


def test_every_kind_of_artefact_is_there(first):
    kinds = {kind for (kind, _), _ in files_of(first[0])}
    assert kinds >= {"build", "evaluation", "score", "summary", "training", "predictions", "member", "task", "study",
                     "settings", "memory", "memory_once", "need", "decisions", "table"}  # fmt: skip


ANY = st.integers(0, 10**6)


@given(st.lists(st.tuples(ANY, ANY, st.sampled_from(sorted(DAMAGE))), min_size=1, max_size=4))
@examples(15)
def test_after_any_damage_the_numbers_are_those_of_a_fresh_run(first, damages):
    folder, (variants, of_examples) = first
    kinds = files_of(folder)
    for kind, place, how in damages:
        paths = kinds[kind % len(kinds)][1]
        if (path := paths[place % len(paths)]).is_file():  # it may be damaged already
            DAMAGE[how](path)
    found = run(folder)
    assert found.record["status"] == "complete"
    again = numbers(found)
    pd.testing.assert_frame_equal(again[0], variants, check_exact=True)
    pd.testing.assert_frame_equal(again[1], of_examples, check_exact=True)
    assert Store(folder / "results/.store").damaged() == {}


def test_who_cannot_make_it_again_is_told_the_file_and_the_next_run_makes_it(first, tmp_path):
    folder, (variants, _) = first
    latest = read_run(folder / "results/damaged/latest")
    (build,) = [path for (kind, name), paths in files_of(folder) if (kind, name) == ("build", "model.safetensors")
                for path in paths]  # fmt: skip
    DAMAGE["flipped"](build)
    check_again()
    with pytest.raises(BadInput, match=f"{build}: its sha256 is not the recorded one"):
        export(latest, "uniform_soup", tmp_path / "soup")
    assert not (tmp_path / "soup").exists()
    assert build.is_file() is False
    pd.testing.assert_frame_equal(numbers(run(folder))[0], variants)
    export(latest, "uniform_soup", tmp_path / "soup")


def test_an_old_run_that_is_damaged_is_nothing_to_the_next_and_is_named(first):
    folder, (variants, _) = first
    old = (folder / "results/damaged/latest").resolve()
    for path in old.iterdir():
        if path.is_file() and path.name != "run.json":
            DAMAGE["emptied"](path)
    found = run(folder)
    pd.testing.assert_frame_equal(numbers(found)[0], variants)
    assert old.name not in [entry.run_id for entry in history(found)]
    assert any(str(old) in line for line in left_out_of(folder / "results"))
    assert write_report(found.folder).is_file()


def planned(folder):
    for cached in (setting.task_of, variant.pool_of):
        cached.cache_clear()
    (folder / "suite.yaml").write_text(FOLDERS)
    return make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / "results", workers=1))


def losses(plan):
    with in_this_process():
        found = read_run(runner.run(plan, Tracker()))
    return found.variants["nll"].tolist(), " ".join(found.variants["reason"].dropna())


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_weights_that_are_swapped_after_planning_are_not_kept_for_those_that_were_planned(tmp_path, monkeypatch, when):
    for seed, name in enumerate("ab"):
        image_model(tmp_path / name, MLP, seed)
    right, _ = losses(planned(tmp_path))
    shutil.rmtree(tmp_path / "results")
    kept, plan = (tmp_path / "b/model.safetensors").read_bytes(), planned(tmp_path)
    prepare = Prepare.run

    image_model(tmp_path / "c", MLP, 7)

    def swap():
        shutil.copyfile(tmp_path / "c/model.safetensors", tmp_path / "b/model.safetensors")

    def while_it_is_read(stage):
        if stage.member.model.path == tmp_path / "b":
            swap()
        prepare(stage)

    if when == "before":
        swap()
    else:
        monkeypatch.setattr(Prepare, "run", while_it_is_read)
    _, reason = losses(plan)
    assert f"{tmp_path / 'b'}: the model was changed since the run was planned; run again" in reason
    monkeypatch.undo()
    other, _ = losses(planned(tmp_path))
    (tmp_path / "b/model.safetensors").write_bytes(kept)
    assert losses(planned(tmp_path))[0] == right
    assert other != right
