"""Fuzz all that is read: python -m tests.fuzz [COUNT of each sort] [FIRST number] [SORT...].

Prints a table, and each fault with the number that makes its input again; exit code 1 where there is one. The damaged
files of faults are copied to the folder that the variable KEEP names.
"""

import os
import sys
import tempfile
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch and numpy start theirs
    os.environ.setdefault(_variable, "1")

from tests.fuzz.fuzzing import HEADER, fuzz  # noqa: E402
from tests.fuzz.sorts import SORTS  # noqa: E402


def main(count: str = "1000", first: str = "0", *sorts: str) -> int:
    """Returns the exit code."""
    keep = Path(os.environ["KEEP"]) if "KEEP" in os.environ else None
    numbers = range(int(first), int(first) + int(count))
    failed = False
    print(HEADER)
    for sort in sorts or SORTS:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
            came = fuzz(sort, numbers, Path(place), keep)
        for number, name, reading in came.faults:
            print(f"{sort} {number} ({name}): {reading.words}\n{reading.trace}", file=sys.stderr, flush=True)
        print(came.row(), flush=True)
        failed = failed or bool(came.faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
