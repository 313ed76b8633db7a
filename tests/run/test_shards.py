"""Shards of a plan: together they do all of it, each has what it needs, and none has much more than its share."""

import json

import pytest

from harness.engines.engine import Job
from harness.engines.local import LocalEngine
from harness.errors import BadInput
from harness.results.run import read_run, runs_below
from harness.results.shard import SHARD, SHARD_FIELDS, Part, read_part, read_shard
from harness.run import collecting, runner, shards
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.shards import divided, part_of
from harness.run.stages.measure import Measure
from harness.run.stages.prepare import Prepare
from harness.run.stages.score import Summarise
from harness.suite.suite import read_suite

pytestmark = pytest.mark.usefixtures("in_this_process")

SUITE = """
suite: divided
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 3, epochs: 1, options: {hidden: 8}}
pools:
  mixed:
    train: {architecture: [mlp, small_cnn], start: independent, members: 2, epochs: 1}
seeds: [0, 1, 2]
methods:
  - best_single
  - linear: {weights: [uniform, learned]}
  - uniform_soup
  - distill
  - linear: {pool: mixed}
correlate: {pools: [main], subsets: {sizes: [2], at_most: 3}}
"""
COUNTS = [1, 2, 3, 7, 40]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    (folder / "suite.yaml").write_text(SUITE)
    return make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / "results", workers=1))


@pytest.mark.parametrize("count", COUNTS)
def test_shards_together_do_all_but_what_puts_seeds_together(plan, count):
    done = set().union(*divided(plan, count))
    left = [planned for planned in plan.jobs if planned.job.name not in done]
    assert [type(planned.stage) for planned in left] == [Summarise] * len(plan.variants[0])


@pytest.mark.parametrize("count", COUNTS)
def test_a_shard_has_all_that_its_jobs_need_or_wait_for_in_the_order_of_the_plan(plan, count):
    for number in range(1, count + 1):
        jobs = [planned.job for planned in part_of(plan, Part(number, count)).jobs]
        names = [job.name for job in jobs]
        everything = [planned.job.name for planned in plan.jobs]
        assert names == sorted(names, key=everything.index)
        assert {name for job in jobs for name in (*job.needs, *job.after)} <= set(names)


@pytest.mark.parametrize("count", COUNTS)
def test_what_only_one_shard_does_is_what_a_variant_a_pass_or_a_study_is(plan, count):
    """Members and the reference are needed by many; everything else has one shard."""
    reference = plan.suite.file.reference
    for name in (planned.job.name for planned in plan.jobs if not isinstance(planned.stage, Prepare | Summarise)):
        holders = sum(name in jobs for jobs in divided(plan, count))
        assert holders == 1 or name.endswith((f"build {reference}", f"measure {reference}", " once")), name


@pytest.mark.parametrize("count", [2, 3, 7])
def test_no_shard_has_much_more_than_its_share(plan, count):
    by_name = {planned.job.name: planned for planned in plan.jobs}
    units = shards._units(plan, by_name)
    total, longest = sum(unit.seconds for unit in units), max(unit.seconds for unit in units)
    loads = []
    for jobs in divided(plan, count):
        own = [unit for unit in units if all(planned.job.name in jobs for planned in unit.jobs)]
        loads.append(sum(unit.seconds for unit in own))
    assert sum(loads) == pytest.approx(total)
    assert max(loads) <= total / count + longest
    assert total == pytest.approx(sum(planned.job.cost for planned in plan.jobs
                                      if not isinstance(planned.stage, Summarise)
                                      and not planned.job.name.endswith(" once")))  # fmt: skip


def test_the_parts_do_not_depend_on_what_is_done(plan, tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    again = make_plan(read_suite(path), Options(out=plan.options.out, workers=1))
    assert divided(again, 3) == divided(plan, 3)
    runner.run(part_of(again, Part(3, 40)), Tracker())
    assert divided(again, 3) == divided(plan, 3)


def test_every_member_is_begun_with_by_one_shard_and_members_of_others_come_later(plan):
    count = 3
    parts = [part_of(plan, Part(number, count)) for number in range(1, count + 1)]
    for planned in plan.jobs:
        if isinstance(planned.stage, Prepare):
            ranks = [each.job.rank for part in parts for each in part.jobs if each.job.name == planned.job.name]
            assert ranks.count(0) == 1
            assert len(set(ranks)) == len(ranks)  # no two shards come to it at the same time


def test_each_machine_that_measures_also_measures_the_reference(plan):
    reference = plan.suite.file.reference
    names = {jobs.job.name for jobs in plan.jobs if isinstance(jobs.stage, Measure)}
    own = {name for name in names if name.endswith(f" {reference}")}
    for jobs in divided(plan, 7):
        assert own <= jobs or not names & jobs


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/4", "1/4/2", "-1/4", "1 /4", "", "1/9999999", "/"])
def test_other_words_for_a_part_are_refused_in_one_line(text):
    with pytest.raises(BadInput, match=r"bad --shard .* counted from 1"):
        read_part(text)


def test_parts_are_read_as_array_tasks_write_them():
    assert [read_part(text) for text in ("1/1", "3/12", "007/040")] == [Part(1, 1), Part(3, 12), Part(7, 40)]


def test_a_shard_says_what_it_is_and_is_no_run(plan):
    """Nothing that reads runs takes it for one, a later run leaves it alone, and its artefacts are not collected."""
    out = plan.options.out
    first, second = (runner.run(part_of(plan, Part(number, 40)), Tracker()) for number in (1, 2))
    assert [folder.name[15:] for folder in (first, second)] == ["-shard-1-of-40", "-shard-2-of-40"]
    assert sorted(path.name for path in first.iterdir()) == ["artefacts.json", "log.jsonl", SHARD]
    found = read_shard(first)
    assert set(found.record) == set(SHARD_FIELDS)
    assert (found.record["status"], found.part) == ("part", Part(1, 40))
    assert found.store.samefile(out / ".store")
    assert runs_below(out) == []
    assert not (first.parent / "latest").exists()
    with pytest.raises(BadInput, match=r"this is a shard, a part of a run.*merge-runs"):
        read_run(first)
    kept = [each for each in collecting.stored(plan.store, collecting.runs_that_stay(out)) if each.kept]
    made = {plan.store.path(key) for planned in part_of(plan, Part(1, 40)).jobs for key in planned.stage.artefacts()}
    assert made <= {each.folder for each in kept}


def test_what_is_no_shard_is_refused_in_one_line(plan, tmp_path):
    with pytest.raises(BadInput, match=r"no shard\.json in "):
        read_shard(tmp_path)
    folder = runner.run(part_of(plan, Part(5, 40)), Tracker())
    record = json.loads((folder / SHARD).read_text())
    damages = [{key: value for key, value in record.items() if key != gone} for gone in record]
    damages += [{**record, key: None} for key in record if record[key] is not None and key != "git_commit"]
    damages += [{**record, "number": 41}, {**record, "number": True}, {**record, "version": 2}, [], "no", None]
    for damaged in damages:
        (folder / SHARD).write_text(json.dumps(damaged))
        with pytest.raises(BadInput, match=r"shard\.json is not what a shard writes|a shard of version 2"):
            read_shard(folder)
    for text in ("", "{", "[" * 100_000, "\x00"):
        (folder / SHARD).write_text(text)
        with pytest.raises(BadInput, match=r"shard\.json is not what a shard writes"):
            read_shard(folder)


def test_jobs_of_a_lower_rank_are_begun_first_whatever_they_cost():
    began = []
    jobs = [Job(f"{rank}, {cost}", str, {}, cost=cost, rank=rank) for rank in (2, 0, 1) for cost in (1.0, 9.0)]
    LocalEngine(1).run(jobs, lambda what, job: began.append((job.rank, -job.cost)) if what == "start" else None)
    assert began == sorted(began)
    assert len(began) == len(jobs)
