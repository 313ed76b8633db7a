"""Fine-tunes on one frozen body: the BatchNorm statistics that they share are constants of theirs, and the merge's."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from harness.checks.pools import CNN_BN, build_method, copies, member, on_test, plain_predict, split, trained
from harness.evaluate.correlate import ensembles_and_averages
from harness.models.weights import module_with
from harness.registry import METHODS
from harness.systems.parts import MemberPart
from harness.types import Pool

MERGES = [method for method in METHODS if method.family == "weights"]
STATISTICS = ("running_mean", "running_var")


def shifted():
    """A trained network under statistics that its data do not have, as a body from other data has them."""
    weights = {name: tensor.clone() for name, tensor in trained(CNN_BN, 0).items()}
    for name, tensor in weights.items():
        if name.endswith(STATISTICS):
            tensor.mul_(1.5).add_(0.25)
    return weights


@cache
def frozen_body(count=3):
    """Members whose heads alone were moved from the base's."""
    base, members = shifted(), []
    for k in range(count):
        generator = torch.Generator().manual_seed(k)
        weights = {
            name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator) if name.startswith("head.") else tensor
            for name, tensor in base.items()
        }
        members.append(member(f"m{k}", weights, CNN_BN, provenance={"epochs": k + 1}))
    return Pool("heads", "fine_tunes", tuple(members), member("base", base, CNN_BN))


def pool_for(method):
    return replace(frozen_body(), kind="checkpoints") if method.pool == "checkpoints" else frozen_body()


@pytest.mark.parametrize("method", MERGES, ids=lambda method: method.name)
def test_every_merge_keeps_the_statistics_that_members_and_base_share(method):
    pool = pool_for(method)
    for parameters in method.small:
        found = build_method(method.name, pool, **parameters).module.state_dict()
        for name, value in pool.base.weights.items():
            if name.endswith(STATISTICS):
                assert torch.equal(found[name], value), (parameters, name)


@pytest.mark.parametrize("method", MERGES, ids=lambda method: method.name)
def test_copies_of_one_model_change_nothing_under_batchnorm_too(method):
    pool = copies(pool_for(method))
    expected = plain_predict(MemberPart(pool.members[0]), split("test"))
    for parameters in method.small:
        if method.identical_members_unchanged(method.validate(parameters)):
            found = on_test(build_method(method.name, pool, **parameters))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_task_vector_of_one_member_at_scale_one_is_that_member():
    pool = frozen_body(1)
    found = build_method("task_arithmetic", pool, scale=1.0)
    expected = plain_predict(MemberPart(pool.members[0]), split("test"))
    torch.testing.assert_close(on_test(found), expected, rtol=1e-4, atol=1e-5)


def test_where_one_layer_was_tuned_that_layer_alone_is_measured():
    pool = frozen_body()
    last = [name for name in pool.base.weights if name.endswith("running_mean")][-1]
    weights = {name: tensor.clone() for name, tensor in pool.members[1].weights.items()}
    weights[last] += 0.5
    first, second, third = pool.members
    tuned = replace(pool, members=(first, replace(second, weights=weights), third))
    found = build_method("uniform_soup", tuned).module.state_dict()
    changed = {
        name for name, t in pool.base.weights.items() if name.endswith(STATISTICS) and not torch.equal(found[name], t)
    }
    assert changed == {last, last.replace("mean", "var")}


def test_the_correlation_study_keeps_them():
    """The average's scores are those of the mean of the weights, put together by hand."""
    members, test = frozen_body().members, split("test")
    stacked = torch.stack([plain_predict(MemberPart(m), test) for m in members])
    table = ensembles_and_averages(members, stacked, split("train"), test, [[0, 1, 2]], "linear")
    names = members[0].weights
    mean = {n: torch.stack([m.weights[n].double() for m in members]).mean(dim=0).to(names[n].dtype) for n in names}
    with torch.no_grad():
        logits = module_with(CNN_BN, mean)(test.inputs).double()
    (found,) = table.loc[table["metric"] == "nll", "average"]
    assert found == pytest.approx(float(torch.nn.functional.cross_entropy(logits, test.labels)), rel=1e-5)
