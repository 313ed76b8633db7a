"""The laws of kinds of tasks: ours keep them, and a kind that breaks one is caught by it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.checks import BrokenLaw, check_kind, laws
from harness.checks.tasks import TriedTask, tried
from harness.errors import BadInput
from harness.registry import KINDS
from harness.tasks.tabular import TASKS
from tests.checks.planted_kind import Line, Planted, Reference
from tests.pools import planted_predictions
from tests.tasks.local_tasks import write_task
from tests.tasks.picture_files import write_classes
from tests.tasks.planted_table import SPEC
from tests.tasks.table_files import write_csv

LAWS = {law.__name__: law for law in laws("kind")}


@pytest.fixture(scope="module")
def images():
    return tried("digits")


@pytest.fixture
def tabular(tables, monkeypatch):
    monkeypatch.setitem(TASKS, "planted_table", SPEC)
    return tables


@pytest.fixture(scope="module")
def tables():
    return TriedTask(KINDS.get("tabular"), "planted_table", Path())


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for name in ("planted_one", "planted_two"):
        write_task(folder, name)
    return tried({"lm_eval": ["planted_one", "planted_two"], "include_path": "."}, folder)


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    folder = planted_predictions.write_pool(tmp_path_factory.mktemp("predictions"))
    return tried(planted_predictions.TABLE, folder, pool=planted_predictions.POOL)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    rows = {"text": [f"text {i}" for i in range(60)], "label": ["neg", "pos", "so"] * 20, "user": range(60)}
    write_csv(folder / "a.csv", rows)
    return tried({"texts": {"train": "a.csv", "heldout": 0.2, "test": 0.2}}, folder)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clusters")
    users = [f"u{i % 17}" for i in range(60)]
    write_csv(folder / "a.csv", {"text": users, "label": ["neg", "pos", "so"] * 20, "user": users})
    return tried({"texts": {"train": "a.csv", "heldout": 0.2, "test": 0.2, "cluster": "user"}}, folder)


@pytest.fixture(scope="module")
def image_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image_files")
    write_classes(folder / "pictures", count=10)
    return tried({"images": {"train": "pictures", "heldout": 0.2, "test": 0.3}}, folder)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("name", ["images", "tabular", "text", "texts", "image_files", "predictions"])
def test_kind(name, law, request):
    law(KINDS.get(name), request.getfixturevalue(name))


def test_every_kind_is_checked():
    assert set(KINDS.all()) == {"images", "tabular", "text", "texts", "image_files", "predictions"}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_kind_whose_clusters_stay_whole_keeps_the_laws(law, clusters):
    law(KINDS.get("texts"), clusters)


class NamesAnother(Planted):
    def refer(self, given, suite, folder, models):
        return type("Other", (Reference,), {"kind": "images"})(given)


class SharesIds(Planted):
    def split(self, name, count, limit):
        return super().split("train" if name == "heldout" else name, count, limit)


class LosesIds(Planted):
    def split(self, name, count, limit):
        found = super().split(name, count, limit)
        return replace(found, ids=found.ids[1:])


class DrawsAnew(Planted):
    def split(self, name, count, limit):
        found = super().split(name, count, limit)
        return replace(found, inputs=found.inputs + torch.rand(1))


class IgnoresLimits(Planted):
    def split(self, name, count, limit):
        return super().split(name, count, None)


class LimitsTraining(Planted):
    def split(self, name, count, limit):
        found = super().split(name, count, limit)
        return found if limit is None else replace(found, digest=f"{found.digest} {limit}")


class FoldsAlike(Planted):
    def folded(self, reference, fold):
        return reference


class CountsClassesWrong(Planted):
    def load(self, reference, store, limit):
        return replace(super().load(reference, store, limit), shape={"features": 3, "classes": 1})


class DrawsWeights(Line):
    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.bias.data += float(np.random.rand())


class ExtraDimension(Line):
    def forward(self, batch):
        return super().forward(batch)[:, None]


class Diverges(Line):
    def forward(self, batch):
        return super().forward(batch) * (float("nan") if self.training else 1.0)


class Forgets(Line):
    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.register_buffer("offset", torch.rand(2), persistent=False)

    def forward(self, batch):
        return super().forward(batch) + self.offset


def with_network(network):
    return type(network.__name__, (Planted,), {"networks": {"line": network}})


class Unnormalised(Planted):
    def evaluate(self, *given):
        return [replace(found, log_probs=found.log_probs + 1) for found in super().evaluate(*given)]


class CountsNoCalls(Planted):
    def evaluate(self, *given):
        return [replace(found, calls=found.calls[:, :0]) for found in super().evaluate(*given)]


class LosesOne(Planted):
    def evaluate(self, *given):
        return super().evaluate(*given)[1:]


class DependsOnCompany(Planted):
    def evaluate(self, combinations, *given):
        found = super().evaluate(combinations, *given)
        return [replace(each, log_probs=each.log_probs[:, ::-1]) for each in found] if len(found) > 1 else found


class Wordless(Planted):
    models = ""


WRONG = [
    (NamesAnother, "it_knows_the_task"),
    (SharesIds, "splits_are_disjoint"),
    (LosesIds, "splits_fit_together"),
    (DrawsAnew, "loaded_twice_it_is_the_same"),
    (IgnoresLimits, "a_limit_keeps_the_first_documents"),
    (LimitsTraining, "a_limit_keeps_the_first_documents"),
    (FoldsAlike, "a_fold_is_another_split_of_the_same_data"),
    (CountsClassesWrong, "documents_are_what_is_scored"),
    (with_network(DrawsWeights), "its_networks_can_be_built"),
    (with_network(ExtraDimension), "logits_have_a_row_for_each_label"),
    (with_network(Diverges), "networks_can_be_trained"),
    (with_network(Forgets), "saved_networks_are_read_again"),
    (Unnormalised, "combinations_are_scored"),
    (CountsNoCalls, "combinations_are_scored"),
    (LosesOne, "combinations_are_scored"),
    (DependsOnCompany, "company_changes_no_score"),
    (Wordless, "it_is_told_in_words"),
]


@pytest.mark.parametrize(("wrong", "law"), WRONG, ids=lambda given: getattr(given, "__name__", given))
def test_a_wrong_kind_is_caught(wrong, law, monkeypatch):
    kind = wrong()
    monkeypatch.setattr(KINDS, "_known", {**KINDS.all(), "planted": kind})
    with pytest.raises(BrokenLaw, match="kind 'planted'") as caught:
        LAWS[law](kind, tried("planted"))
    assert caught.value.law == law
    assert type(caught.value.__cause__) is AssertionError
    with pytest.raises(BrokenLaw):
        check_kind("planted")


def test_every_law_of_kinds_catches_something():
    assert {law for _, law in WRONG} == set(LAWS)


def test_a_right_kind_passes(monkeypatch):
    monkeypatch.setattr(KINDS, "_known", {**KINDS.all(), "planted": Planted()})
    check_kind("planted")


def test_a_kind_without_tasks_of_its_own_asks_for_one(monkeypatch):
    without = type("Without", (Planted,), {"tasks": {}})()
    monkeypatch.setattr(KINDS, "_known", {**KINDS.all(), "planted": without})
    with pytest.raises(BadInput, match="give what a suite says under 'task:'"):
        check_kind("planted")
