"""A small table of four classes, which needs no archive: clouds of points, some of them twice."""

import numpy as np

from harness.tasks.tabular import TableSpec

COPIES = 15
SIZES = (80, 40, 60)


def read():
    rng = np.random.default_rng(5)
    labels = rng.choice(4, size=200, p=[0.1, 0.2, 0.3, 0.4])
    table = np.round(rng.normal(3 * np.eye(4, 6)[labels], 1.0, size=(200, 6)), 3).astype(np.float32)
    table[:, 5] = 2.0  # a column that says nothing
    copied = rng.choice(200, size=COPIES, replace=False)
    order = rng.permutation(200 + COPIES)
    return np.concatenate([table, table[copied]])[order], np.concatenate([labels, labels[copied]])[order]


SPEC = TableSpec("Four clouds", "planted", SIZES, {"first": (0, 1), "second": (2, 3)}, read)
