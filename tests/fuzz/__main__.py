"""Fuzz all that is read: python -m tests.fuzz [COUNT of each sort] [FIRST number] [SORT...].

Prints a table, and each fault with the number that makes its input again; exit code 1 where there is one. With KEEP, a
folder, the damaged files of faults are copied there.
"""

import os
import sys
import tempfile
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from tests.fuzz.fuzzing import HEADER, fuzz  # noqa: E402
from tests.fuzz.sorts import SORTS  # noqa: E402


def main(words: list[str]) -> int:
    """Returns the exit code."""
    count, first = (int(word) for word in [*words[:2], "1000", "0"][: max(2, 0)]) if len(words) > 1 else (
        int(words[0]) if words else 1000, 0)  # fmt: skip
    keep = Path(os.environ["KEEP"]) if "KEEP" in os.environ else None
    counts = []
    for sort in words[2:] or SORTS:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
            counts.append(fuzz(sort, range(first, first + count), Path(place), keep))
        for number, name, reading in counts[-1].faults:
            print(f"{sort} {number} ({name}): {reading.words}\n{reading.trace}", file=sys.stderr)
    print("\n".join([HEADER, *(each.row() for each in counts)]))
    return int(any(each.faults for each in counts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
