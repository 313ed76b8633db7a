"""EMA and SWA of one run's checkpoints."""

from dataclasses import replace

import pytest
import torch

from harness.checks.pools import CNN, CNN_BN, build_method, checkpoints, fine_tunes
from harness.merging.ema import exponential_average
from harness.types import NotApplicable, Pool


def run_of(count, architecture=CNN):
    members = fine_tunes(count, architecture).members
    dated = [replace(m, name=f"c{k}", digest=f"c{k}", provenance={"epochs": k + 3}) for k, m in enumerate(members)]
    return Pool("run", "checkpoints", tuple(dated))


def equal(found, weights):
    state = found.module.state_dict()
    return all(torch.equal(state[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("decay", [0.3, 0.5, 0.9])
def test_ema_is_the_average_of_all_checkpoints_in_time_order(decay):
    run = run_of(4)
    found = build_method("ema", run, decay=decay)
    expected = exponential_average([m.weights for m in run.members], decay)
    torch.testing.assert_close(dict(found.module.state_dict()), expected)
    assert found.details == {"checkpoints": ["epoch 3", "epoch 4", "epoch 5", "epoch 6"]}


@pytest.mark.parametrize("architecture", [CNN, CNN_BN], ids=lambda a: a.name)
def test_decay_0_is_the_last_checkpoint_and_one_checkpoint_is_itself_batchnorm_included(architecture):
    run = run_of(3, architecture)
    assert equal(build_method("ema", run, decay=0.0), run.members[-1].weights)
    one = run_of(1, architecture)
    for name in ("ema", "swa"):
        assert equal(build_method(name, one), one.members[0].weights)


@pytest.mark.parametrize("from_epoch", [1, 3, 4, 5])
def test_swa_is_checkpoint_average_counted_from_a_first_epoch(from_epoch):
    run = run_of(4, CNN_BN)
    found = build_method("swa", run, from_epoch=from_epoch)
    n = sum(epoch >= from_epoch for epoch in (3, 4, 5, 6))
    same = build_method("checkpoint_average", run, n=n)
    assert equal(found, same.module.state_dict())
    assert found.details == same.details


def test_what_they_refuse():
    with pytest.raises(NotApplicable, match="no checkpoint from epoch 9 on: the last is 6"):
        build_method("swa", run_of(4), from_epoch=9)
    for name in ("ema", "swa"):
        with pytest.raises(NotApplicable, match="not checkpoints of one run"):
            build_method(name, fine_tunes(3))
        spoiled = checkpoints(3)
        bad = replace(spoiled.members[0], weights={n: t * torch.nan for n, t in spoiled.members[0].weights.items()})
        with pytest.raises(NotApplicable, match="member c0 holds NaN weights"):
            build_method(name, replace(spoiled, members=(bad, *spoiled.members[1:])))
