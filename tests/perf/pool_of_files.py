"""A pool of predictions in files, a suite of fifty rules over it, and the seconds and memory that its run takes."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

MEMBERS, HELDOUT, TEST, CLASSES = 100, 2_000, 10_000, 10
HALVES = [list(range(0, MEMBERS, 2)), list(range(1, MEMBERS, 2))]
TENS = [list(range(first, first + 10)) for first in range(0, MEMBERS, 10)]
METHODS = f"""methods:
  - best_single
  - member: {{index: [0, 1, 2, 3, 4, 5, 6, 7]}}
  - linear: {{weights: [uniform, learned, contextual]}}
  - log_linear: {{weights: [uniform, learned, contextual]}}
  - majority_vote
  - greedy_ensemble: {{metric: [nll, accuracy], rounds: [20, 50]}}
  - temperature: {{of: [linear, log_linear, best_single]}}
  - linear: {{members: {HALVES}, weights: [uniform, learned, contextual]}}
  - log_linear: {{members: {HALVES}, weights: [uniform, learned]}}
  - linear: {{members: {TENS}, weights: [uniform]}}
  - log_linear: {{members: {TENS[:5]}, weights: [uniform]}}
  - majority_vote: {{members: {TENS[:2]}}}
"""
"""Fifty variants: all fits are among them, on all members and on halves of them."""


def write_pool(folder: Path) -> Path:
    """Files of predictions of random members, a third of each sort, and the suite."""
    rng = np.random.default_rng(0)
    rows = HELDOUT + TEST
    labels = rng.integers(CLASSES, size=rows)
    names = [f"c{k}" for k in range(CLASSES)]
    ids = np.array([f"row-{i:06d}" for i in range(rows)])
    table = pd.DataFrame({"id": ids, "label": np.array(names)[labels]})
    table[:HELDOUT].to_parquet(folder / "heldout.parquet", index=False)
    table[HELDOUT:].to_parquet(folder / "test.parquet", index=False)
    shared = rng.normal(size=(rows, CLASSES))
    files = {}
    for k in range(MEMBERS):
        logits = shared + rng.normal(size=(rows, CLASSES))
        logits[np.arange(rows), labels] += 1.5 + rng.random()
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        frame = pd.DataFrame(probabilities.astype(np.float32), columns=names).assign(id=ids)
        name = f"m{k:03d}"
        files[name] = f"{name}{('.parquet', '.csv', '.npz')[k % 3]}"
        path = folder / files[name]
        if k % 3 == 0:
            frame.to_parquet(path, index=False)
        elif k % 3 == 1:
            frame.to_csv(path, index=False, float_format="%.7g")
        else:
            np.savez(path, ids=ids, classes=names, probabilities=probabilities)
    members = "".join(f"      {name}: {file}\n" for name, file in files.items())
    suite = folder / "suite.yaml"
    suite.write_text(
        "suite: pool\ntask: {table: {heldout: heldout.parquet, test: test.parquet}}\n"
        f"pool:\n  predictions:\n    members:\n{members}{METHODS}"
    )
    return suite


def run_suite(suite: Path, out: Path, *flags: str) -> int:
    """The run, report and all, in a process of its own; the largest memory in bytes that it and its workers took.

    Of memory that processes share each has its part (proportional set size, where the system tells it).
    """
    command = [sys.executable, "-m", "harness.cli", "run", str(suite), "--out", str(out), *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = [0]
    watch = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watch.start()
    _, errors = process.communicate()
    watch.join()
    if process.returncode:
        raise RuntimeError(errors)
    return peak[0]


def _watch(root: int, peak: list[int]) -> None:
    while psutil.pid_exists(root):
        try:
            top = psutil.Process(root)
            tree = [top, *top.children(recursive=True)]
            peak[0] = max(peak[0], sum(map(_bytes, tree)))
            if top.status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.2)


def _bytes(process: psutil.Process) -> int:
    try:
        found = process.memory_full_info()
        return getattr(found, "pss", found.rss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def read_plainly(folder: Path) -> float:
    """The floor: every file read and decoded once, and the accuracy of their mean on test."""
    total = np.zeros((HELDOUT + TEST, CLASSES))
    for path in sorted(folder.glob("m*.*")):
        if path.suffix == ".npz":
            with np.load(path) as file:
                total += file["probabilities"]
        else:
            frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
            total += frame.drop(columns="id").to_numpy()
    labels = pd.read_parquet(folder / "test.parquet")["label"].str[1:].astype(int)
    return float((total[HELDOUT:].argmax(axis=1) == labels).mean())
