"""Fuzz all that is read: python -m tests.fuzz [COUNT of each sort] [FIRST number] [SORT...].

Prints a table, and each fault with the number that makes its input again; exit code 1 where there is one. The table of
all sorts is written to results/reference/fuzz.md, or where the variable TABLE says. The damaged files of faults are
copied to the folder that the variable KEEP names.
"""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch and numpy start theirs
    os.environ.setdefault(_variable, "1")

from harness import environment  # noqa: E402
from tests.fuzz.fuzzing import fuzz_alone  # noqa: E402
from tests.fuzz.sorts import SORTS  # noqa: E402
from tests.fuzz.table import HEADER, row, write_table  # noqa: E402

ROOT = Path(__file__).parents[2]


def main(count: str = "1000", first: str = "0", *sorts: str) -> int:
    """Returns the exit code."""
    numbers = range(int(first), int(first) + int(count))
    keep = Path(os.environ["KEEP"]) if "KEEP" in os.environ else None
    counts = []
    print(*HEADER, sep="\n", flush=True)
    names, context = list(sorts or SORTS), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(environment.cores(), context, max_tasks_per_child=1) as pool:
        # The last take longest, and so are begun first.
        coming = {sort: pool.submit(fuzz_alone, sort, numbers, keep) for sort in reversed(names)}
        for sort in names:
            came = coming[sort].result()
            for number, name, reading in came.faults:
                print(f"{sort} {number} ({name}): {reading.words}\n{reading.trace}", file=sys.stderr, flush=True)
            print(row(came), flush=True)
            counts.append(came)
    if not sorts:
        write_table(Path(os.environ.get("TABLE", ROOT / "results/reference/fuzz.md")), counts, numbers)
    return int(any(came.faults for came in counts))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
