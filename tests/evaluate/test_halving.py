"""Where memory is short batches are halved, and what is said of every example is the same."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from harness.checks.pools import independent, split
from harness.evaluate.halving import NoMemory, in_batches, with_fewer
from harness.evaluate.predictions import CachedPredictions
from harness.store import Store
from harness.systems.parts import MemberPart


def no_memory():
    """An error of torch's own allocator."""
    torch.empty(1 << 60, dtype=torch.uint8)


def numpy_has_none():
    raise MemoryError


def cuda_has_none():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


FAULTS = [no_memory, numpy_has_none, cuda_has_none]


@given(st.integers(0, 40), st.integers(1, 20), st.integers(1, 20), st.sampled_from(FAULTS))
def test_every_example_is_run_once_in_batches_that_memory_holds(count, size, most, fault):
    inputs, ran = torch.arange(count), []

    def run(batch):
        if len(batch) > most:
            fault()
        ran.append(len(batch))
        return 2 * batch

    found, left = in_batches(run, inputs, size)
    assert torch.cat([inputs[:0], *found]).tolist() == [2 * each for each in range(count)]
    assert max(ran, default=0) <= min(size, most)
    assert left == size if size <= most or count <= most else left <= most
    assert 2 * left + 1 > min(size, most, max(count, 1))  # no smaller than need be


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_halved_says_what_to_do(fault):
    def run(batch):
        fault()

    with pytest.raises(NoMemory, match=r"no memory for a single example.*--workers.*larger machine"):
        in_batches(run, torch.zeros(5), 4)
    with pytest.raises(NoMemory, match=r"for a batch of 4.*draws anew"):
        in_batches(run, torch.zeros(5), 4, by_row=False)
    with pytest.raises((RuntimeError, MemoryError)):
        with_fewer(lambda count: fault(), 4)


def test_another_error_is_no_lack_of_memory():
    calls = []

    def run(batch):
        calls.append(len(batch))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    for ask in (lambda: in_batches(run, torch.zeros(5), 4), lambda: with_fewer(lambda n: run(torch.zeros(n)), 4)):
        with pytest.raises(RuntimeError, match="shapes"):
            ask()
    assert calls == [4, 4]


def test_what_is_kept_of_a_part_is_what_it_says_in_full_batches_and_names_the_batch(tmp_path, monkeypatch):
    part, given_split = MemberPart(independent(1).members[0]), split("test")
    whole = CachedPredictions(Store(tmp_path / "whole"), "cpu")
    expected = whole(part, given_split)
    assert whole.batch(part, given_split) == given_split.batch
    plain = nn.Linear.forward

    def forward(layer, batch):
        return no_memory() if len(batch) > 3 else plain(layer, batch)

    monkeypatch.setattr(nn.Linear, "forward", forward)
    short = CachedPredictions(Store(tmp_path / "short"), "cpu")
    torch.testing.assert_close(short(part, given_split), expected)
    assert short.batch(part, given_split) <= 3
