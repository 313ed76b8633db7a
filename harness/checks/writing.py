"""The laws of methods that answer in writing: built on the small pools as any other, and run on none."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from harness.checks.law import law, require
from harness.checks.methods import SHORTEST_REASON, Parameters, extremes, fingerprint
from harness.checks.pools import built, pool_for, split
from harness.errors import BadInput
from harness.methods.method import Method, describe_type
from harness.systems.systems import load_combination
from harness.systems.written import WrittenAnswers
from harness.types import NotApplicable, Pool


@law("writing method")
def building_it_changes_nothing_and_draws_nothing(method: Method, parameters: Parameters) -> None:
    """Members stay as they were, to the bit, and so does the global generator; equal ingredients give equal systems."""
    pool = pool_for(method)
    before, state = fingerprint(pool), torch.random.get_rng_state()
    first, again = (_made(method, parameters, pool) for _ in range(2))
    require(fingerprint(pool) == before, "the weights of a member or of the base have changed")
    require(torch.equal(torch.random.get_rng_state(), state), "torch's global generator is in another state")
    require(_said(first) == _said(again), "built twice, it is two systems")


@law("writing method")
def it_says_why_it_has_no_probabilities(method: Method, parameters: Parameters) -> None:
    """Asked for the probabilities of classes, it raises ``NotApplicable`` with a reason."""
    made = _made(method, parameters, pool_for(method))
    require(len(made.parts()) >= 1, "it runs no model")
    for ask in (made.log_probs, made.run):
        try:
            ask(split("test").inputs[:2])
        except NotApplicable as reason:
            require(len(str(reason)) > SHORTEST_REASON, f"it is not applicable without a reason: '{reason}'")
            continue
        raise AssertionError("it gives probabilities of classes")


@law("writing method")
def what_is_loaded_is_what_was_saved(method: Method, parameters: Parameters) -> None:
    """Saved, without any pickle, and loaded again it is the same system of the same members."""
    pool = pool_for(method)
    made = _made(method, parameters, pool)
    with TemporaryDirectory() as folder:
        made.save(Path(folder))
        suffixes = {path.suffix for path in Path(folder).rglob("*") if path.is_file()}
        require(suffixes <= {".json", ".safetensors"}, f"it saves files of other kinds: {sorted(suffixes)}")
        again = load_combination(Path(folder), pool)
    require(isinstance(again, WrittenAnswers) and _said(again) == _said(made), "loaded, it is another system")


@law("writing method")
def parameters_behave_or_it_says_why(method: Method, parameters: Parameters) -> None:
    """An empty pool is refused; extreme numbers and lists make a system, or are refused with a reason."""
    full, pool = method.validate(parameters), pool_for(method)
    try:
        built(method, full, Pool(pool.name, pool.kind, (), pool.base))
    except NotApplicable:
        pass
    else:
        raise AssertionError("it was built from an empty pool")
    for name, field in method.parameters.model_fields.items():
        for value in extremes(describe_type(field)):
            try:
                _made(method, {**full, name: value}, pool)
            except (NotApplicable, BadInput) as reason:
                require(len(str(reason)) > SHORTEST_REASON, f"{name} = {value} is refused without a reason: '{reason}'")


def _made(method: Method, parameters: Parameters, pool: Pool) -> WrittenAnswers:
    found = built(method, parameters, pool)
    if not isinstance(found, WrittenAnswers):
        raise AssertionError(f"it declares that it writes, and makes a {type(found).__name__}")
    return found


def _said(system: WrittenAnswers) -> Any:
    return type(system).__name__, [part.reference() for part in system.parts()], system.describe()
