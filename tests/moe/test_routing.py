"""What a routing says of itself, and what a capacity leaves of it, against a loop over the pairs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.moe.cases import choices, routing


def by_hand(chosen, experts, capacity):
    """The pairs that stay: first choices first, then rows in order, while an expert has room."""
    rows, k = chosen.shape
    room = [math.ceil(capacity * rows * k / experts)] * experts
    kept = torch.zeros(rows, k, dtype=torch.bool)
    for j in range(k):
        for n in range(rows):
            if room[chosen[n, j]]:
                room[chosen[n, j]] -= 1
                kept[n, j] = True
    return kept


@examples(60)
@given(
    rows=st.integers(0, 20),
    experts=st.integers(1, 5),
    data=st.data(),
    capacity=st.sampled_from([0.1, 0.5, 1.0, 1.25, 3.0]),
    seed=st.integers(0, 99),
)
def test_a_capacity_keeps_what_fits(rows, experts, data, capacity, seed):
    k = data.draw(st.integers(1, experts))
    given_routing = routing(choices(rows, experts, k, seed=seed), experts, torch.float64)
    found = given_routing.within(capacity)
    expected = by_hand(given_routing.chosen, experts, capacity)
    assert torch.equal(found.kept, expected)
    assert found.dropped == int((~expected).sum())
    assert torch.equal(found.load(), torch.bincount(given_routing.chosen[expected], minlength=experts))
    assert (found.load() <= math.ceil(capacity * rows * k / experts)).all()
    gates = given_routing.gates()
    for n, j in (~expected).nonzero().tolist():
        gates[n, given_routing.chosen[n, j]] = 0
    torch.testing.assert_close(found.gates(), gates)


def test_without_a_capacity_nothing_is_dropped():
    given_routing = routing(torch.zeros(50, 1, dtype=torch.int64), 8, torch.float32)  # all to one
    assert given_routing.dropped == 0
    assert given_routing.load().tolist() == [50] + [0] * 7
    assert given_routing.experts == 8


@pytest.mark.parametrize("experts", [3, 8])
def test_room_for_all_drops_nothing(experts):
    given_routing = routing(torch.zeros(50, 1, dtype=torch.int64), experts, torch.float32)
    assert given_routing.within(float(experts)).dropped == 0
    assert given_routing.within(1.0).dropped == 50 - math.ceil(50 / experts)
