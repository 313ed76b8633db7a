"""Tensors of merges: a mapping in memory, and one in a file, which no reader can tell apart."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.merging import spilled
from harness.merging.spilled import Results
from harness.models.room import set_room

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool]
tensors = st.builds(
    lambda dtype, shape, seed: torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed)).to(dtype),
    st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3), st.integers(0, 99),
)  # fmt: skip


@pytest.fixture(autouse=True)
def usual_room():
    yield
    set_room(None)


@given(given=st.lists(st.tuples(st.sampled_from("abcde"), tensors), max_size=8), room=st.sampled_from([0, 10**15]),
       unasked=st.sampled_from([0, 60]))  # fmt: skip
def test_results_are_a_dictionary_in_order(given, room, unasked):
    set_room(room)
    usual, spilled.UNASKED = spilled.UNASKED, unasked
    try:
        found, expected = Results(), {}
        for name, tensor in given:
            found[name] = tensor.mT if tensor.dim() == 2 else tensor  # not in the order of memory
            expected[name] = tensor.mT if tensor.dim() == 2 else tensor
    finally:
        spilled.UNASKED = usual
    for each in (found, found.done()):
        assert list(each) == list(expected)
        assert ("z" in each, len(each)) == (False, len(expected))
        for name, tensor in expected.items():
            assert each[name].dtype == tensor.dtype
            assert torch.equal(each[name], tensor)
    assert isinstance(found.done(), dict) or room == 0


def test_results_for_which_there_is_no_room_are_not_in_memory(monkeypatch):
    monkeypatch.setattr(spilled, "UNASKED", 0)
    set_room(0)
    results = Results()
    results["a"] = torch.ones(3)
    kept = results.done()
    assert not isinstance(kept, dict)
    assert kept["a"].data_ptr() != kept["a"].data_ptr()  # read anew each time
    with pytest.raises(KeyError):
        kept["b"]
