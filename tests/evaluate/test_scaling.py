"""A task vector at a given scale, or at those that do best on held-out."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from harness.checks.pools import CNN_BN, MLP, fine_tunes, ingredients, split
from harness.evaluate.heldout import predict_module, score
from harness.evaluate.scaling import add_task_vector
from harness.merging.task_vectors import TaskVectors, merge_task_vectors
from harness.merging.ties import SUM

GRID = [0.0, 0.25, 0.5, 1.0]
HELDOUT = split("heldout")


@cache
def given(architecture=MLP, dtype=torch.float32):
    """Ingredients, and the sum of the members' task vectors."""
    pool = fine_tunes(3, architecture)
    base, *tuned = ({n: _cast(t, dtype) for n, t in m.weights.items()} for m in (pool.base, *pool.members))
    vector = merge_task_vectors(TaskVectors(base, tuned), lambda t, *_: t, SUM).tensors
    return ingredients(replace(pool, base=replace(pool.base, weights=base))), vector


def _cast(tensor, dtype):
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def heldout_score(module):
    return score(predict_module(module, HELDOUT), HELDOUT.labels)


@pytest.mark.parametrize(
    ("architecture", "dtype"), [(MLP, torch.float32), (MLP, torch.bfloat16), (CNN_BN, torch.float32)]
)
def test_a_searched_scale_gives_the_very_model_of_that_scale(architecture, dtype):
    """So each point of the curve is the score of what would be handed out, to the last bit."""
    there, vector = given(architecture, dtype)
    module, told = add_task_vector(there, vector, "heldout", GRID)
    assert [point["scale"] for point in told["curve"]] == GRID
    for point in told["curve"]:
        plain, alone = add_task_vector(there, vector, point["scale"], GRID)
        assert alone == {"scale": point["scale"]}
        assert heldout_score(plain) == (point["accuracy"], -point["nll"])
        if point["scale"] == told["scale"]:
            state = plain.state_dict()
            assert all(torch.equal(t, state[n]) for n, t in module.state_dict().items())
    assert told["scale"] == min(told["curve"], key=lambda p: (-p["accuracy"], p["nll"]))["scale"]
    assert told["heldout_evaluations"] == len(GRID)
    assert told["search_seconds"] > 0


def test_the_worst_is_found_where_it_is_asked_for():
    there, vector = given()
    _, told = add_task_vector(there, vector, "heldout", GRID, lowest=True)
    assert told["scale"] == min(told["curve"], key=lambda p: (p["accuracy"], -p["nll"]))["scale"]


@pytest.mark.parametrize("lowest", [False, True])
def test_scales_by_layer_are_never_worse_than_the_best_shared_one(lowest):
    there, vector = given()
    shared, _ = add_task_vector(there, vector, "heldout", GRID, lowest=lowest)
    own, told = add_task_vector(there, vector, "heldout_per_layer", GRID, lowest=lowest)
    found, before = heldout_score(own), heldout_score(shared)
    assert found <= before if lowest else found >= before
    layers = {name.rpartition(".")[0] for name in vector}
    assert set(told["scale"]) == layers
    assert len(GRID) < told["heldout_evaluations"] <= (1 + len(layers)) * len(GRID)
    expected = {n: t + told["scale"][n.rpartition(".")[0]] * vector[n] for n, t in there.base.weights.items()}
    torch.testing.assert_close(dict(own.state_dict()), expected)
