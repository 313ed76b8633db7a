"""Ours and a plain reading or a peer, run in turn in one process: what counts is the ratio of their medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.perf import experts

Work = Callable[[], Any]


@pytest.fixture(autouse=True)
def _one_thread():
    """As the workers of a run; a test about threads sets its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def in_turn(benchmark: Any) -> Callable[..., float]:
    """Time ours (as the benchmark) with the other before every round; returns other/ours, which is also recorded."""

    def run(what: str, ours: Work, other: Work, *, rounds: int = 5, target: str = "") -> float:
        times: list[float] = []

        def other_first() -> None:
            begin = time.perf_counter()
            other()
            times.append(time.perf_counter() - begin)

        benchmark.pedantic(ours, setup=other_first, rounds=rounds, warmup_rounds=1)
        own = list(benchmark.stats.stats.data)
        others = times[-rounds:]
        ratios = sorted(o / mine for o, mine in zip(others, own, strict=True))
        ratio = statistics.median(others) / statistics.median(own)
        benchmark.extra_info.update(
            what=what,
            other_seconds=statistics.median(others),
            ratio=ratio,
            ratio_low=ratios[0],
            ratio_high=ratios[-1],
            target=target,
        )
        return ratio

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table of ratios, as Markdown."""
    session = getattr(config, "_benchmarksession", None)
    found = [b for b in session.benchmarks if "ratio" in b.extra_info] if session else []
    if not found:
        return
    terminalreporter.write_line("")
    terminalreporter.write_line("| what | ours, s | other, s | ratio (of single rounds) | target |")
    terminalreporter.write_line("|---|--:|--:|---|---|")
    for bench in found:
        info = bench.extra_info
        spread = f"{info['ratio']:.2f} ({info['ratio_low']:.2f} to {info['ratio_high']:.2f})"
        times = f"{bench.stats.median:.3f} | {info['other_seconds']:.3f}"
        terminalreporter.write_line(f"| {info['what']} | {times} | {spread} | {info['target']} |")
    if rows := [bench.extra_info for bench in found if "milliseconds" in bench.extra_info]:
        terminalreporter.write_line("")
        for line in experts.table(rows):
            terminalreporter.write_line(line)
