"""A hundred members known by files, fifty rules with fits, intervals and report, against reading the files plainly."""

import itertools

from tests.perf.pool_of_files import read_plainly, run_suite, write_pool


def test_fifty_rules_over_a_hundred_files(in_turn, benchmark, tmp_path):
    suite = write_pool(tmp_path)
    runs = itertools.count()
    peaks = []
    what = "100 files of 12,000 x 10 read plainly, over 50 rules with fits, intervals and report"
    in_turn(what, lambda: peaks.append(run_suite(suite, tmp_path / f"out-{next(runs)}")),
            lambda: read_plainly(tmp_path), rounds=1, target="<= 60 s, <= 2 GB")  # fmt: skip
    benchmark.extra_info["peak_bytes"] = max(peaks)
    print(f"\npeak memory of the run's processes: {max(peaks) / 1e9:.2f} GB")
