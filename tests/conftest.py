"""What holds for every test process: one thread, for tensors are small and each core has a process; which examples."""

import gc
import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch and numpy start theirs
    os.environ.setdefault(_variable, "1")

import tests.examples  # noqa: E402, F401 (for tests that name no number)


def pytest_collection_finish() -> None:
    """Leave what was imported out of all later collections: libraries ask for whole ones, at every call some."""
    gc.collect()
    gc.freeze()
