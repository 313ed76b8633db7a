"""The laws of methods on what is lacking: training data, weights, or probabilities."""

from __future__ import annotations

from dataclasses import replace

from harness.checks.law import law, require
from harness.checks.methods import Parameters, require_works_or_says_why
from harness.checks.pools import Weightless, built, pool_for, split
from harness.methods.method import Method
from harness.says import Says, says_enough
from harness.types import NotApplicable


@law("method")
def without_training_data_it_works_or_says_why(method: Method, parameters: Parameters) -> None:
    """On a task without a training split it gives a distribution, or ``NotApplicable`` with a reason."""
    train = split("train")
    none = replace(train, inputs=train.inputs[:0], labels=train.labels[:0], ids=[], digest="none")
    require_works_or_says_why(method, parameters, pool_for(method), train_=none)


@law("method")
def without_weights_it_works_or_says_why(method: Method, parameters: Parameters) -> None:
    """Members that can be run and have no weights give a distribution, or ``NotApplicable`` with a reason."""
    pool = pool_for(method)
    members = tuple(replace(member, weights=Weightless(member)) for member in pool.members)
    require_works_or_says_why(method, parameters, replace(pool, members=members))


@law("method")
def of_answers_it_says_whether_they_are_enough(method: Method, parameters: Parameters) -> None:
    """Members without probabilities are combined by methods for which answers are enough (``reads``) alone."""
    if method.family not in ("single", "output", "staged"):
        return
    pool = pool_for(method)
    needed = method.reads(method.validate(parameters))
    less: tuple[Says, ...] = ("correctness", "answers")
    for says in less:
        members = tuple(replace(member, says=says) for member in pool.members)
        try:
            found = built(method, parameters, replace(pool, members=members)).says
        except NotApplicable:
            require(not says_enough(says, needed), f"it declares that {says} is enough, and does not apply")
            continue
        require(says_enough(says, needed), f"it needs {needed}, and takes members that give {says}")
        require(found == says, f"of members that give {says} it makes one that gives {found}")
