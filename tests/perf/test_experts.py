"""Every dispatch path of a layer of experts against transformers' Mixtral block and all experts on all rows."""

import pytest
import torch

from tests.perf.experts import OURS, TOLERANCE, Cell, Contest, as_row

ROUNDS = 5
SIZES = [(256, 1024), (512, 2048)]


@pytest.fixture(autouse=True)
def _two_threads(_one_thread):
    """Products of this size are for both cores."""
    torch.set_num_threads(2)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(("inputs", "hidden"), SIZES, ids=lambda size: str(size))
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "bfloat16"])
def test_experts(benchmark, dtype, inputs, hidden, backward):
    cell = Cell(inputs, hidden, experts=8, k=2, rows=4096, dtype=dtype, backward=backward)
    contest = Contest(cell)
    if backward:  # which compares the outputs too
        assert max(contest.gaps().values()) <= TOLERANCE[dtype]
    times = contest.first_times()
    benchmark.pedantic(lambda: contest.run(OURS), setup=lambda: contest.time_again(times, but=OURS), rounds=ROUNDS)
    times[OURS] = [1000 * seconds for seconds in benchmark.stats.stats.data]
    row = as_row(contest, times)
    theirs = times[row["best_of_transformers"]][1:]
    single = [other / ours for other, ours in zip(theirs, times[OURS], strict=True)]
    benchmark.extra_info.update(
        row,
        what=f"{cell}, against transformers' best",
        other_seconds=row["milliseconds"][row["best_of_transformers"]] / 1000,
        ratio_low=min(single),
        ratio_high=max(single),
        target=">= 1",
    )
