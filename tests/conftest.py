"""One thread for every test process: tensors here are small, and pytest runs a process for each core."""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch and numpy start theirs
    os.environ.setdefault(_variable, "1")
