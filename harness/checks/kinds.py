"""The laws of kinds of tasks: what every registered kind owes a run, on one of its tasks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.checks.law import law, laws, require, sent
from harness.checks.tasks import LIMIT, Given, TriedTask, few, tried
from harness.errors import BadInput
from harness.evaluate.predictions import CachedPredictions
from harness.kinds.kind import Evaluation, Kind
from harness.models import forward
from harness.models.weights import load_module
from harness.registry import KINDS
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination, SingleModel
from harness.tasks.task import Task
from harness.types import Combination, Split, Unscored

AnyKind = Kind[Any, Any]


def check_kind(
    name: str,
    task: Given | None = None,
    folder: Path | None = None,
    allow_code: bool = False,
    pool: Mapping[str, Any] | None = None,
) -> None:
    """Run every law on a registered kind of task.

    Args:
        name: of the kind.
        task: what a suite would say under ``task:``, a small one; by default the first that comes with the kind.
        folder: that paths are relative to.
        allow_code: whether what the task's files name may be run.
        pool: what a suite would say under ``pool:``, of a small one, where the kind has no networks of its own.

    Raises:
        BrokenLaw: the first that does not hold.
        BadInput: no task was given, and none comes with it.
    """
    kind = KINDS.get(name)
    task = next(iter(kind.tasks), None) if task is None else task
    if task is None:
        raise BadInput(f"no task comes with the kind '{name}'", hint="give what a suite says under 'task:'")
    on = tried(task, folder, allow_code, pool)
    for each in laws("kind"):
        each(kind, on)


def _splits(task: Task) -> tuple[Split, Split, Split]:
    return task.train, task.heldout, task.test


@law("kind")
def it_knows_the_task(kind: AnyKind, on: TriedTask) -> None:
    """The task is of this kind, and so are its reference and its splits; the reference is hashable and can be sent."""
    require(on.kind.name == kind.name, f"what a suite says, {on.given!r}, is of the kind '{on.kind.name}'")
    reference = on.refer()
    require(reference.kind == kind.name, f"its reference says that it is of the kind '{reference.kind}'")
    require(sent(reference) == reference, "its reference is another one in another process")
    require(hash(on.refer()) == hash(reference) and on.refer() == reference, "referred to twice, it is two references")
    for split in _splits(on.task):
        require(split.kind == kind.name, f"the split '{split.name}' says that it is of the kind '{split.kind}'")


@law("kind")
def splits_are_disjoint(kind: AnyKind, on: TriedTask) -> None:
    """No input is in two splits, or twice in one, by its id; only a training split may be empty."""
    for split in _splits(on.task):
        require(len(split.inputs) > 0 or split is on.task.train, f"the split '{split.name}' is empty")
        require(len(set(split.ids)) == len(split.ids), f"the split '{split.name}' has an id twice")
    for one, other in combinations(_splits(on.task), 2):
        shared = set(one.ids) & set(other.ids)
        require(not shared, f"'{one.name}' and '{other.name}' share {len(shared)} ids: {min(shared, default='')}, ...")


@law("kind")
def splits_fit_together(kind: AnyKind, on: TriedTask) -> None:
    """An id for each input, as many labels for each, groups that the task knows, and a digest of each split's own."""
    for split in _splits(on.task):
        count = len(split.inputs)
        require(len(split.ids) == count, f"'{split.name}' has {len(split.ids)} ids for {count} inputs")
        if not count:
            require(not len(split.labels), f"'{split.name}' has labels and no inputs")
            continue
        whole = split.labels.dtype == torch.int64 and split.labels.ndim == 1 and len(split.labels) % count == 0
        require(whole, f"'{split.name}' has labels {tuple(split.labels.shape)} {split.labels.dtype} of {count} inputs")
        require(int(split.labels.min()) >= 0, f"'{split.name}' has a negative label")
        require(len(split.groups) in (0, count), f"'{split.name}' has {len(split.groups)} groups of {count} inputs")
        require(set(split.groups) <= set(on.task.groups), f"'{split.name}' has groups that the task does not know")
    digests = [split.digest for split in _splits(on.task)]
    require(len(set(digests)) == 3, "two splits have one digest")


@law("kind")
def loaded_twice_it_is_the_same(kind: AnyKind, on: TriedTask) -> None:
    """Loaded again, also where nothing is stored yet, data and digests are equal."""
    for again in (on.load(), tried(on.given, on.folder, on.allow_code).load()):
        require(again.digest == on.task.digest, "loaded twice, the task has two digests")
        for one, other in zip(_splits(on.task), _splits(again), strict=True):
            require(one.digest == other.digest, f"loaded twice, '{one.name}' has two digests")
            same = torch.equal(one.inputs, other.inputs) and torch.equal(one.labels, other.labels)
            require(same and list(one.ids) == list(other.ids), f"loaded twice, '{one.name}' is not the same data")


@law("kind")
def a_limit_keeps_the_first_documents(kind: AnyKind, on: TriedTask) -> None:
    """With a limit, the first documents of each task are scored, under another digest; models are the same."""
    everything, some = on.task.documents, on.limited.documents
    for task in dict.fromkeys(everything.tasks):
        wanted = [i for i, name in zip(everything.ids, everything.tasks, strict=True) if name == task][:LIMIT]
        kept = [i for i, name in zip(some.ids, some.tasks, strict=True) if name == task]
        require(kept == wanted, f"a limit of {LIMIT} keeps {kept}, not {wanted}")
    if len(some.ids) < len(everything.ids):
        require(on.limited.digest != on.task.digest, "with a limit the task has the same digest")
    for one, other in ((on.task.train, on.limited.train), (on.task.heldout, on.limited.heldout)):
        require(one.digest == other.digest, f"with a limit '{one.name}' is other data: models would be made anew")


@law("kind")
def a_fold_is_another_split_of_the_same_data(kind: AnyKind, on: TriedTask) -> None:
    """Where seeds can have splits of their own: fold 0 is the task's split; the next is as large, with other tests.

    Where rows of one cluster stay together, sizes are near each other only.
    """
    try:
        references = [kind.folded(on.refer(), fold) for fold in (0, 1)]
    except BadInput:
        return
    require(hash(references[0]) == hash(on.refer()) and references[0] == on.refer(), "fold 0 has another reference")
    first, second = (kind.load(reference, on.store, None) for reference in references)
    require(first.digest == on.task.digest, "fold 0 has another digest than the task")
    digests = {each.digest for fold in (first, second) for each in (*_splits(fold), fold)}
    require(len(digests) == 8, "two folds have a digest in common")
    labels = dict[str, int]()
    for one, other in zip(_splits(first), _splits(second), strict=True):
        same = len(one.inputs) == len(other.inputs) or len(first.documents.clusters) > 0
        require(same, f"'{one.name}' has another size on another fold")
        for split in (one, other):
            known = {name: int(label) for name, label in zip(split.ids, split.labels, strict=True)}
            same = all(labels.setdefault(name, label) == label for name, label in known.items())
            require(same, f"an id of '{split.name}' names another example on another fold")
    ids = [set(split.ids) for split in _splits(second)]
    require(len(set.union(*ids)) == sum(map(len, ids)), "the splits of a fold share ids")
    require(set(first.test.ids) != ids[2], "two folds have the same test examples")


@law("kind")
def documents_are_what_is_scored(kind: AnyKind, on: TriedTask) -> None:
    """Each has an id of its own, a task and a label; they are test's inputs where the kind says so."""
    documents = on.task.documents
    count = len(documents.labels)
    fits = len(documents.ids) == len(documents.tasks) == count
    require(fits, f"{len(documents.ids)} ids, {len(documents.tasks)} tasks and {count} labels")
    named = list(zip(documents.tasks, documents.ids, strict=True))
    require(len(set(named)) == count, "two documents have one name")
    inside = int(documents.labels.min()) >= 0 and int(documents.labels.max()) < documents.classes
    require(inside, f"labels are not all in 0..{documents.classes - 1}")
    if kind.inputs_are_scored:
        same = list(documents.ids) == list(on.task.test.ids) and torch.equal(documents.labels, on.task.test.labels)
        require(same, "the documents are not test's inputs, which the kind says are scored")


@law("kind")
def its_networks_can_be_built(kind: AnyKind, on: TriedTask) -> None:
    """Each is built from the options that the task asks for alone, the same from the same random state."""
    for name, (architecture, module) in on.networks.items():
        require(any(True for _ in module.parameters()), f"the network '{name}' has no parameters")
        reason = kind.why_not(architecture, on.task)
        require(reason is None, f"the network '{name}' is said not to fit its own task: {reason}")
        state = torch.random.get_rng_state()
        torch.manual_seed(0)
        again = kind.networks[name](**dict(architecture.options)).state_dict()
        torch.random.set_rng_state(state)
        same = all(torch.equal(tensor, again[key]) for key, tensor in module.state_dict().items())
        require(same, f"the network '{name}', built twice from one random state, has other weights")


@law("kind")
def logits_have_a_row_for_each_label(kind: AnyKind, on: TriedTask) -> None:
    """A batch of every split gives finite logits [N, C], one row for each label, and every label a column."""
    for name, (_, module) in on.networks.items():
        for split in _splits(on.task):
            part = few(split, 8)
            with torch.inference_mode():
                logits = forward.logits(module, part.inputs)
            columns = int(split.labels.max()) + 1
            fits = logits.ndim == 2 and len(logits) == len(part.labels) and logits.shape[1] >= columns
            words = f"the network '{name}' gives logits {tuple(logits.shape)} for {len(part.labels)} labels"
            require(fits, f"{words}, the largest of which is {columns - 1}")
            require(torch.isfinite(logits).all(), f"the network '{name}' gives logits that are not finite")


@law("kind")
def networks_can_be_trained(kind: AnyKind, on: TriedTask) -> None:
    """An epoch by the kind's schedule changes weights and leaves them finite."""
    for name, (module, _) in on.trained.items():
        fresh, trained = on.networks[name][1].state_dict(), module.state_dict()
        finite = all(torch.isfinite(tensor).all() for tensor in trained.values())
        require(finite, f"trained, the network '{name}' has weights that are not finite")
        moved = any(not torch.equal(tensor, fresh[key]) for key, tensor in trained.items())
        require(moved, f"training changes no weight of the network '{name}'")


@law("kind")
def saved_networks_are_read_again(kind: AnyKind, on: TriedTask) -> None:
    """Saved and loaded, a trained network gives the same logits, to the bit."""
    inputs = few(on.task.test, 8).inputs
    for name, (module, _) in on.trained.items():
        loaded = load_module(next(member for member in on.members if member.name == name))
        require(not loaded.training, f"the network '{name}' is loaded in training mode")
        with torch.inference_mode():
            same = torch.equal(forward.logits(module, inputs), forward.logits(loaded, inputs))
        require(same, f"the network '{name}', saved and loaded, gives other logits")


@law("kind")
def combinations_are_scored(kind: AnyKind, on: TriedTask) -> None:
    """Every combination has normalised log-probabilities [N, C] and calls [N, parts] of all documents."""
    documents = on.limited.documents
    for combination, evaluation in zip(_combinations(on), _evaluated(kind, on, _combinations(on)), strict=True):
        if isinstance(evaluation, Unscored):
            raise AssertionError(f"{type(combination).__name__} has no scores: {evaluation}")
        count = len(documents.labels)
        fits = evaluation.log_probs.shape == (count, documents.classes)
        words = f"log-probabilities are {evaluation.log_probs.shape}"
        require(fits, f"{words}, of {count} documents and {documents.classes} classes")
        sums = np.exp(evaluation.log_probs.astype(np.float64)).sum(axis=1)
        require(np.allclose(sums, 1.0, atol=1e-4), f"probabilities sum to {sums.min()} to {sums.max()}")
        shape = count, len(combination.parts())
        require(evaluation.calls.shape == shape, f"calls are {evaluation.calls.shape}, not {shape}")
        require((evaluation.calls >= 0).all(), "a part was called less than never")
        json.dumps(dict(evaluation.record), allow_nan=False)
        for name, values in evaluation.measures.items():
            require(values.ndim == 1, f"the measure '{name}' has the shape {values.shape}")
        for name, value in evaluation.scores.items():
            require(math.isfinite(value), f"the score '{name}' is {value}")


@law("kind")
def company_changes_no_score(kind: AnyKind, on: TriedTask) -> None:
    """A combination that is scored alone has the scores that it has among others."""
    together = _evaluated(kind, on, _combinations(on))
    for number, among_others in enumerate(together):
        (alone,) = _evaluated(kind, on, _combinations(on)[number : number + 1])
        if isinstance(alone, Evaluation) and isinstance(among_others, Evaluation):
            same = np.allclose(alone.log_probs, among_others.log_probs, atol=1e-5)
            require(same, f"combination {number} has other log-probabilities alone than among others")


def _combinations(on: TriedTask) -> list[Combination]:
    """A mean of all models, and the first alone; none where there are none: networks may only come in folders."""
    if not on.members:
        return []
    first = on.members[0]
    parts = [MemberPart(member) for member in on.members]
    return [OutputCombination(parts, Linear(uniform(len(parts)))), SingleModel(first.architecture, load_module(first))]


def _evaluated(kind: AnyKind, on: TriedTask, given: Sequence[Combination]) -> list[Evaluation | Unscored]:
    cached = CachedPredictions(on.store, "cpu")
    evaluations: list[Evaluation | Unscored] = kind.evaluate(given, on.limited, on.limited.of_groups(()), cached)
    require(len(evaluations) == len(given), f"{len(given)} combinations have {len(evaluations)} evaluations")
    return evaluations


@law("kind")
def it_is_told_in_words(kind: AnyKind, on: TriedTask) -> None:
    """The task has a title and a source, its models a name in messages, and training an expected time."""
    require(kind.models.split(), "it does not say what its models are called")
    require(kind.seconds_per_input > 0, "training is expected to take no time")
    require(on.task.title and on.task.source, "the task has no title or no source")
    require(all(kind.tasks.values()), "a task that comes with it has no title")
