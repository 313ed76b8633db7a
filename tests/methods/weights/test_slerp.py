"""The method around the arc: which two members, what it refuses, what it reports."""

import pytest
import torch

from harness.checks.pools import CNN_BN, build_method, fine_tunes, independent, mixed
from harness.merging.slerp import slerp
from harness.types import NotApplicable


def test_it_takes_the_two_members_at_the_positions_given():
    pool = fine_tunes(3)
    found = build_method("slerp", pool, t=0.3, first=2, second=0)
    expected = slerp(pool.members[2].weights, pool.members[0].weights, 0.3)
    torch.testing.assert_close(dict(found.module.state_dict()), expected)
    assert found.details == {"members": ["m2", "m0"]}


@pytest.mark.parametrize(("t", "end"), [(0.0, 0), (1.0, 1)])
@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_at_the_ends_it_is_a_member(t, end, scope):
    pool = fine_tunes(2)
    state = build_method("slerp", pool, t=t, scope=scope).module.state_dict()
    assert all(torch.equal(state[n], tensor) for n, tensor in pool.members[end].weights.items())


def test_batchnorm_statistics_are_measured_anew():
    pool = fine_tunes(2, CNN_BN)
    state = build_method("slerp", pool).module.state_dict()
    plain = slerp(*(m.weights for m in pool.members), 0.5)
    for name, tensor in plain.items():
        same = torch.allclose(state[name].float(), tensor.float(), rtol=1e-5, atol=1e-6)
        assert same == ("running" not in name and "tracked" not in name), name


def test_what_it_refuses_and_warns_of():
    with pytest.raises(NotApplicable, match="no member 4: the pool has 3"):
        build_method("slerp", fine_tunes(3), second=4)
    with pytest.raises(NotApplicable, match="no member 1: the pool has 1"):
        build_method("slerp", fine_tunes(1))
    with pytest.raises(NotApplicable, match="different architectures"):
        build_method("slerp", mixed())
    assert "2 different initialisations" in build_method("slerp", independent(2)).details["warnings"][0]
