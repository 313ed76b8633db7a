"""Thresholds and routers of language models: fitted on held-out documents with choices, none of which is scored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.errors import BadInput
from harness.evaluate.predictions import CachedPredictions
from harness.kinds.text import LmEval, Text
from harness.lm.evaluation import score_combinations
from harness.lm.heldout import said_of_heldout
from harness.registry import METHODS
from harness.store import Store
from harness.systems.fitting import uniform
from harness.systems.routers import evidence_of
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination
from harness.types import Ingredients, NotApplicable, Pool
from tests.lm.written_tasks import small_domain, store_of, trained_parts, write_task

CHOICES = {"output_type": "multiple_choice", "doc_to_choice": ["a", "e", "t"], "metric_list": [{"metric": "acc"}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tasks of the same passages, which are asked otherwise, and one that asks what the first one does."""
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("tasks")
    small_domain(patch)
    for name, asked, right in (("scored", "{{context}}", 1), ("seen", " {{context}}", 0), ("same", "{{context}}", 2)):
        write_task(folder, name, filter_list=None, doc_to_text=asked, doc_to_target=right, **CHOICES)
    write_task(folder, "written")
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(store_of(tmp_path_factory))


def load(folder, store, lm_eval=("scored",), heldout=("seen",)):
    """The task as a run has it."""
    kind, given = Text(), LmEval(lm_eval=list(lm_eval), heldout=list(heldout) or None, include_path=str(folder))
    reference = kind.rendered(kind.refer(given, "toy", folder, None), store, None, allow_code=False)
    return kind.load(reference, store, None)


@pytest.fixture(scope="module")
def task(folder, store):
    return load(folder, store)


@pytest.fixture(scope="module")
def pool(task):
    return Pool("main", "independent", tuple(part.member for part in trained_parts(task)))


def mean_of(*parts):
    return OutputCombination(parts, Linear(uniform(len(parts))))


def ingredients(task, store, pool, method):
    cached = CachedPredictions(store, "cpu")
    return Ingredients(pool, task.train, task.heldout, cached, 0, METHODS.get(method).needs)


def build(task, store, pool, method, **parameters):
    declared = METHODS.get(method)
    return declared.apply(ingredients(task, store, pool, method), declared.validate(parameters))


def accuracy(said, labels):
    return float((said.argmax(dim=-1) == labels).double().mean())


def test_systems_say_of_held_out_what_they_would_be_scored_by(task, store, pool):
    """Rules over tokens, as at test: the mean of the choices' probabilities would be something else."""
    parts = trained_parts(task)
    systems = [mean_of(*parts), mean_of(parts[1]), parts[2]]
    found = said_of_heldout(systems, ingredients(task, store, pool, "cascade"))
    said, labels = found.log_probs, found.labels
    documents = task.heldout.documents
    expected = score_combinations([*systems[:2], mean_of(parts[2])], documents).answers
    for one, answers in zip(said, expected, strict=True):
        np.testing.assert_allclose(one, answers.log_probs, atol=1e-6)
    assert labels.tolist() == documents.documents.labels.tolist() == [0] * 24
    alone = torch.stack([torch.from_numpy(each.log_probs) for each in score_combinations(
        [mean_of(part) for part in parts], documents).answers])  # fmt: skip
    assert (said[0] - (alone.logsumexp(dim=0) - np.log(3))).abs().max() > 1e-4


def test_a_cascades_threshold_is_the_best_on_held_out_documents(task, store, pool):
    system = build(task, store, pool, "cascade", stages=["0", "0+1+2"], cost=0.7)
    parts = trained_parts(task)
    found = said_of_heldout([mean_of(parts[0]), mean_of(*parts)], ingredients(task, store, pool, "cascade"))
    (first, last), labels = found.log_probs, found.labels
    certain = first.max(dim=-1).values.exp()
    best = -np.inf
    for threshold in [0.0, *(np.sort(certain)[1:] + np.sort(certain)[:-1]) / 2, 1.1]:
        stops = certain >= threshold
        cost = float(torch.where(stops, 1 / 3, 1.0).mean())
        if cost <= 0.7:
            best = max(best, accuracy(torch.where(stops[:, None], first, last), labels))
    assert system.details["heldout"]["accuracy"] == pytest.approx(best, abs=1e-5)
    assert system.details["heldout"]["cost"] <= 0.7


def test_a_router_is_fitted_on_held_out_documents_and_scored_on_others(task, store, pool):
    system = build(task, store, pool, "routed_members", router="neighbours")
    found = said_of_heldout(system.members, ingredients(task, store, pool, "routed_members"))
    right = torch.stack([each.argmax(dim=-1) == found.labels for each in found.log_probs], dim=1)
    assert torch.equal(system.router.right, right.double())
    (answers,) = score_combinations([system], task).answers
    assert len(answers.log_probs) == 24
    assert answers.scores["acc/scored"] == pytest.approx(accuracy(torch.from_numpy(answers.log_probs), 1))


@pytest.mark.parametrize("price", [0.0, 0.1, 1e9])
def test_cascade_routing_goes_from_choices_to_choices(task, store, pool, price):
    """As a plain loop over the documents, from what each stage alone says of them."""
    system = build(task, store, pool, "cascade_routing", stages=["0", "1", "0+1+2"], price=price)
    parts = trained_parts(task)
    scored = score_combinations([mean_of(parts[0]), mean_of(parts[1]), mean_of(*parts), system], task)
    *alone, found = scored.answers
    for row in range(24):
        at, ran = 0, {0}
        while at < 2:
            said = torch.from_numpy(alone[at].log_probs[row : row + 1])
            toll = [0, 1 / 3, (3 - len(ran)) / 3] if at == 0 else [0, (3 - len(ran)) / 3]
            worth = system.routers[at](evidence_of(said))[0] - price * torch.tensor(toll, dtype=torch.float64)
            ahead = int((worth * 1e9).round().argmax())
            if not ahead:
                break
            at += ahead
            ran |= {1} if at == 1 else {0, 1, 2}
        np.testing.assert_array_equal(found.log_probs[row], alone[at].log_probs[row])
        assert scored.calls[-1][row].nonzero()[0].tolist() == sorted(ran)


def test_what_is_scored_changes_nothing_that_is_fitted(folder, store, task):
    """Held-out is one thing whatever is scored, and another thing where its documents are others."""
    assert load(folder, store, ["scored", "written"]).heldout.digest == task.heldout.digest
    assert load(folder, store, ["written"], ["same"]).heldout.digest != task.heldout.digest
    assert load(folder, store, heldout=()).digest == task.digest


def test_windows_of_text_alone_are_told_to_be_none(folder, store, pool):
    bare = load(folder, store, heldout=())
    for method in ("cascade", "cascade_routing", "routed_members"):
        with pytest.raises(NotApplicable, match="windows of text are none: name tasks with choices"):
            build(bare, store, pool, method)
    build(bare, store, pool, "cascade", threshold=0.5)  # it takes none


def test_a_router_of_language_models_picks_one(task, store, pool):
    with pytest.raises(NotApplicable, match="picks one language model"):
        build(task, store, pool, "routed_members", pick=2)


@pytest.mark.parametrize(
    ("heldout", "words"),
    [
        (["scored"], "'scored' is under lm_eval and under heldout"),
        (["same"], "document 'same/0' asks what 'scored/0' asks, which is scored"),
        (["written"], "no task has choices to decide by"),
    ],
    ids=["name", "documents", "written"],
)
def test_held_out_documents_are_others_than_the_scored_ones_and_have_choices(folder, store, heldout, words):
    with pytest.raises(BadInput) as error:
        load(folder, store, heldout=heldout)
    assert words in str(error.value)


def test_a_suite_without_held_out_tasks_keeps_its_digest():
    said = {"lm_eval": ["a"], "include_path": "tasks"}
    assert LmEval(**said).model_dump(mode="json") == said
    assert LmEval(**said, heldout=["b"]).model_dump(mode="json") == said | {"heldout": ["b"]}


def test_a_member_with_a_tokenizer_of_its_own_is_a_stage_as_others_are(task, store, pool):
    """Its choices are asked in its own tokens, and operations that cannot be compared count as calls."""
    other = replace(pool.members[1], tokenizer=replace(task.heldout.tokenizer, digest="another"))
    mixed = Pool("main", "independent", (pool.members[0], other))
    system = build(task, store, mixed, "cascade", stages=["0", "1"])
    assert system.details["cost_unit"] == "calls"
    (answers,) = score_combinations([system], task).answers
    assert answers.log_probs.shape == (24, 3)
