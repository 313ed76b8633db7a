"""Trained pools: planned before they are trained, one seed for each run, and what each run leaves behind."""

from dataclasses import replace

import pytest
import torch

from harness import keys
from harness.checks.pools import split
from harness.models.architectures import build
from harness.models.training import train
from harness.models.weights import module_with
from harness.pools.pool import base_digest, load_pool, member_digests, seed_of
from harness.pools.trained import TrainPool, Vary, plan_pool
from harness.store import Store

CPU = torch.device("cpu")
SHAPE = {"side": 4, "classes": 3}
SMALL = {"architecture": "mlp", "epochs": 2, "base_epochs": 1, "options": {"hidden": 5}}
RECIPES = {
    "fine_tunes": TrainPool(start="shared_base", members=3, vary=Vary(lr=[1e-3, 3e-3], augment=[0.0, 0.2]), **SMALL),
    "independent": TrainPool(start="independent", members=3, **SMALL),
    "bootstrap": TrainPool(start="independent", members=3, bootstrap=True, **SMALL),
    "architectures": TrainPool(
        start="independent", members=3, epochs=1, architecture=["mlp", "small_cnn"], options={"hidden": 5}
    ),
    "checkpoints": TrainPool(start="independent", checkpoints=3, **{**SMALL, "epochs": 5}),
}


def plan(kind, name="main", seed=0, data="train", **changes):
    recipe = RECIPES[kind].model_copy(update=changes)
    return plan_pool(name, recipe, data=data, shape=SHAPE, seed=seed)


def digests(pool):
    return [run.key().digest for run in pool.everyone]


def train_pool(pool, folder):
    store = Store(folder)
    for run in pool.everyone:
        run.run(split("train"), store, CPU)
    return load_pool(pool, store), store


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every kind of pool, trained once."""
    return {kind: train_pool(plan(kind), tmp_path_factory.mktemp(kind)) for kind in RECIPES}


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


# Plans.


@pytest.mark.parametrize("kind", RECIPES)
def test_new_code_and_new_data_are_other_members_with_the_same_random_draws(kind, monkeypatch):
    before, elsewhere, reseeded = plan(kind), plan(kind, data="elsewhere"), plan(kind, seed=1)
    digests, identities = member_digests(before), [each for run in before.members for each in run.identities]
    assert len(set(identities)) == len(identities)
    assert not set(digests) & set(member_digests(elsewhere))
    assert identities == [each for run in elsewhere.members for each in run.identities]
    assert not set(identities) & {each for run in reseeded.members for each in run.identities}
    monkeypatch.setattr(keys, "code_version", lambda module: f"new {module}")
    after = plan(kind)  # a plan's digests are made once
    assert not set(digests) & {each for run in after.members for each in run.digests}
    assert identities == [each for run in after.members for each in run.identities]


@pytest.mark.parametrize("kind", RECIPES)
def test_a_plan_says_how_its_members_differ(kind):
    pool = plan(kind)
    assert pool.kind == kind
    assert (pool.base is not None) == (kind == "fine_tunes")
    assert len(member_digests(pool)) == 3
    assert len(set(member_digests(pool))) == 3
    assert all(run.bootstrap == (kind == "bootstrap") for run in pool.members)


def test_members_take_the_varied_settings_in_turn():
    pool = plan("fine_tunes", members=5)
    found = [(run.schedule.lr, run.schedule.augment) for run in pool.members]
    assert found == [(1e-3, 0.0), (1e-3, 0.2), (3e-3, 0.0), (3e-3, 0.2), (1e-3, 0.0)]
    assert pool.base.schedule.epochs == 1
    assert {run.schedule.epochs for run in pool.members} == {2}


def test_base_and_members_have_rates_and_courses_of_their_own():
    pool = plan("fine_tunes", base_lr=4e-3, base_decay="cycle", decay="constant")
    assert (pool.base.schedule.lr, pool.base.schedule.decay) == (4e-3, "cycle")
    assert {run.schedule.decay for run in pool.members} == {"constant"}
    assert "in one cycle" in pool.base.describe()["how"]
    usual = plan("fine_tunes")
    assert {run.schedule.decay for run in usual.everyone} == {"linear"}
    assert not set(digests(usual)) & set(digests(pool))


@pytest.mark.parametrize("setting", [{"base_lr": 1e-3}, {"base_decay": "cycle"}, {"base_epochs": 3}], ids=str)
def test_a_pool_without_a_base_says_nothing_of_its_training(setting):
    (key,) = setting
    assert TrainPool(start="independent", **setting).contradiction() == (key, "no base is trained here")
    of_folder = TrainPool(start="shared_base", base="folder", **setting).contradiction()
    assert of_folder == (None if key == "base_epochs" else (key, "no base is trained here"))
    assert TrainPool(start="shared_base", **setting).contradiction() is None


def test_members_take_the_architectures_in_turn_with_the_tasks_shape():
    found = [run.architecture for run in plan("architectures").members]
    assert [a.name for a in found] == ["mlp", "small_cnn", "mlp"]
    assert {a.options for a in found} == {(("classes", 3), ("hidden", 5), ("side", 4))}


def test_members_that_share_a_start_say_so_and_others_do_not():
    assert len({run.start for run in plan("fine_tunes").members}) == 1
    for kind in ("independent", "bootstrap", "architectures"):
        assert len({run.start for run in plan(kind).members}) == 3


@pytest.mark.parametrize("kind", RECIPES)
def test_every_run_has_a_seed_of_its_own(kind):
    seeds = [run.seed for run in plan(kind).everyone]
    assert len(set(seeds)) == len(seeds)
    assert not set(seeds) & {run.seed for run in plan(kind, seed=1).everyone}


@pytest.mark.parametrize("kind", ["fine_tunes", "independent", "bootstrap", "architectures"])
def test_seeds_do_not_depend_on_what_else_the_suite_holds(kind):
    few, many = plan(kind), plan(kind, name="another", members=7)
    assert digests(many)[: len(digests(few))] == digests(few)
    assert [run.seed for run in many.everyone][: len(few.everyone)] == [run.seed for run in few.everyone]


def test_two_pools_share_the_runs_that_they_describe_alike_and_no_others():
    assert digests(plan("fine_tunes")) == digests(plan("fine_tunes", name="other"))
    base, *members = digests(plan("fine_tunes"))
    other_base, *others = digests(plan("fine_tunes", epochs=3))
    assert other_base == base
    assert not set(others) & set(members)
    assert not set(digests(plan("fine_tunes", base_epochs=2))) & {base, *members}  # another base, other fine-tunes


@pytest.mark.parametrize(
    "change",
    [{"data": "other"}, {"seed": 1}, {"epochs": 3}, {"options": {"hidden": 6}}, {"vary": Vary(lr=[2e-3])}],
    ids=str,
)
def test_whatever_a_run_depends_on_is_in_its_key(change):
    assert not set(digests(plan("independent", **change))) & set(digests(plan("independent")))


def test_a_seed_for_one_thing_is_the_same_at_every_call_and_fits_a_generator():
    assert seed_of(3, "bootstrap", 1) == seed_of(3, "bootstrap", 1)
    found = {seed_of(*what) for what in ((3, "bootstrap", 1), (4, "bootstrap", 1), (3, "base", 1), (3, "bootstrap", 2))}
    assert len(found) == 4
    assert all(0 <= seed < 2**48 for seed in found)


# What training leaves.


@pytest.mark.parametrize("kind", RECIPES)
def test_digests_known_before_training_are_those_after_it(kind, trained):
    pool, _ = trained[kind]
    assert member_digests(plan(kind)) == tuple(m.digest for m in pool.members)
    assert base_digest(plan(kind)) == (pool.base.digest if pool.base else None)


@pytest.mark.parametrize("kind", RECIPES)
def test_members_say_what_they_are(kind, trained):
    pool, store = trained[kind]
    planned = plan(kind)
    assert (pool.name, pool.kind) == ("main", kind)
    for run in planned.members:
        log = run.log(store)
        assert log.examples == run.schedule.epochs * 60
    if kind == "checkpoints":
        assert [m.name for m in pool.members] == ["c0", "c1", "c2"]
        assert [m.provenance["epochs"] for m in pool.members] == [3, 4, 5]
        return
    for run, member in zip(planned.members, pool.members, strict=True):
        assert (member.name, member.architecture, member.seed) == (run.name, run.architecture, run.seed)
        assert member.start == run.start
        expected = {"epochs": run.schedule.epochs, "lr": run.schedule.lr, "augment": run.schedule.augment}
        assert {key: member.provenance[key] for key in expected} == expected


def by_hand(run, rows=None, start=None):
    """The run's weights from its seed, its schedule and its start alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        module = module_with(start.architecture, start.weights) if start else build(run.architecture)
    train(module, split("train"), run.schedule, seed=run.seed, rows=rows)
    return module.state_dict()


@pytest.mark.parametrize("kind", ["fine_tunes", "independent", "architectures"])
def test_a_member_is_trained_from_its_start_with_its_seed_and_schedule(kind, trained):
    pool, _ = trained[kind]
    for run, member in zip(plan(kind).members, pool.members, strict=True):
        assert same(member.weights, by_hand(run, start=pool.base))
        assert member.provenance["rows"] is None


def test_fine_tunes_start_from_the_base(trained):
    pool, _ = trained["fine_tunes"]
    assert same(pool.base.weights, by_hand(plan("fine_tunes").base))

    def distance(one, other):
        return sum(float((one[name] - other[name]).square().sum()) for name in one)

    apart = trained["independent"][0].members
    assert max(distance(m.weights, pool.base.weights) for m in pool.members) < 0.2 * min(
        distance(one.weights, other.weights) for one, other in [apart[:2], apart[1:]]
    )


def test_bootstrap_rows_are_recorded_and_are_what_was_trained_on(trained):
    pool, _ = trained["bootstrap"]
    found = [m.provenance["rows"] for m in pool.members]
    assert len({tuple(rows) for rows in found}) == 3
    for rows, run, member in zip(found, plan("bootstrap").members, pool.members, strict=True):
        assert len(rows) == 60
        assert set(rows) <= set(range(60))
        assert len(set(rows)) < 60
        assert same(member.weights, by_hand(run, rows=rows))


def test_about_a_third_of_the_examples_are_out_of_the_bag(tmp_path):
    """(1 - 1/N)^N of them, 36.8 %; over ten resamples of 2,000 the share is within half a point of it."""
    large, store = split("train", 2000), Store(tmp_path)
    run = replace(plan("bootstrap").members[0], schedule=replace(plan("bootstrap").members[0].schedule, epochs=1))
    shares = []
    for seed in range(10):
        replace(run, seed=seed).run(large, store, CPU)
        rows = replace(run, seed=seed).member(store).provenance["rows"]
        shares.append(1 - len(set(rows)) / 2000)
    assert sum(shares) / 10 == pytest.approx(0.368, abs=0.01)


def test_checkpoints_are_the_last_epochs_of_one_run(trained, tmp_path):
    """The last is what the run leaves without checkpoints; each is the state after its epoch of the same run."""
    pool, _ = trained["checkpoints"]
    (run,) = plan("checkpoints").members
    alone = replace(run, checkpoints=1)
    store = Store(tmp_path)
    alone.run(split("train"), store, CPU)
    assert same(pool.members[-1].weights, alone.member(store).weights)
    assert alone.member(store).provenance["epochs"] == 5

    states = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        module = build(run.architecture)

    def keep(_):
        states.append({name: tensor.clone() for name, tensor in module.state_dict().items()})

    train(module, split("train"), run.schedule, seed=run.seed, after_epoch=keep)
    assert len(states) == 5
    for member, state in zip(pool.members, states[2:], strict=True):
        assert same(member.weights, state)
    assert not same(states[3], states[4])
    assert len({m.start for m in pool.members}) == 1


def test_training_leaves_the_global_generator_alone_and_does_not_depend_on_it(tmp_path):
    run = plan("bootstrap").members[0]
    found = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.random.get_rng_state()
        store = Store(tmp_path / str(state))
        run.run(split("train"), store, CPU)
        assert torch.equal(torch.random.get_rng_state(), before)
        found.append(run.member(store))
    assert same(found[0].weights, found[1].weights)
    assert found[0].provenance == found[1].provenance


def test_a_run_that_fails_leaves_no_artefact(tmp_path):
    run, store = plan("independent").members[0], Store(tmp_path)
    broken = replace(split("train"), labels=torch.full((60,), 99))
    with pytest.raises(IndexError):
        run.run(broken, store, CPU)
    assert not store.has(run.key())
    assert list(store.artefacts()) == []


def test_a_subset_of_a_pool_keeps_the_asked_order(trained):
    pool, _ = trained["fine_tunes"]
    chosen = pool.subset([2, 0])
    assert [m.name for m in chosen.members] == ["m2", "m0"]
    assert chosen.base is pool.base


# A limit on the examples.


@pytest.mark.parametrize(("limit", "expected"), [(7, 7), (20, 20), (60, 60), (500, 60)])
def test_a_limit_takes_so_many_examples_spread_over_all(tmp_path, limit, expected):
    run, store = replace(plan("independent").members[0], examples=limit), Store(tmp_path)
    run.run(split("train"), store, CPU)
    assert run.log(store).examples == expected * run.schedule.epochs
    rows = [int(i * 60 / expected) for i in range(expected)]
    assert same(run.member(store).weights, by_hand(run, rows=rows))


def test_a_limit_takes_the_chosen_groups_examples_only(tmp_path):
    groups = ["a"] * 20 + ["b"] * 30 + ["a"] * 10
    run, store = replace(plan("independent").members[0], examples=10, groups=("b",)), Store(tmp_path)
    run.run(replace(split("train"), groups=groups), store, CPU)
    assert same(run.member(store).weights, by_hand(run, rows=range(20, 50, 3)))


def test_a_member_says_which_groups_it_was_trained_on(tmp_path):
    for groups in ((), ("b",), ("a", "b")):
        store, run = Store(tmp_path), replace(plan("independent").members[0], groups=groups)
        run.run(replace(split("train"), groups=["a", "b", "c"] * 20), store, CPU)
        assert run.member(store).provenance.get("groups", []) == list(groups)


def test_a_resample_of_limited_examples_draws_from_these(tmp_path):
    run, store = replace(plan("bootstrap").members[0], examples=12), Store(tmp_path)
    run.run(split("train"), store, CPU)
    rows = run.member(store).provenance["rows"]
    assert len(rows) == 12
    assert set(rows) <= set(range(0, 60, 5))


def test_a_limit_is_part_of_what_a_member_is_and_of_how_it_is_described():
    limited = plan("fine_tunes", examples=160)
    assert digests(limited)[0] == digests(plan("fine_tunes"))[0]  # the base is trained on all
    assert not set(digests(limited)[1:]) & set(digests(plan("fine_tunes")))
    assert all("at most 160 examples" in run.describe()["how"] for run in limited.members)
    assert "examples" not in limited.base.describe()["how"]
