"""Runs with planted outcomes, in memory and in folders, and policies as people write them."""

import copy
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from harness import stats
from harness.evaluate import decisions
from harness.evaluate.decisions import Scored
from harness.gate.policy import read_policy
from harness.registry import METRICS
from harness.results.columns import COMPARISON_COLUMNS, paired
from harness.results.manifest import write_manifest
from harness.results.metric import Outcomes
from harness.results.run import Run
from harness.store import read_json, write_json

TODAY = date(2026, 11, 25)
RUN_ID = "20261125-000000"


def coins(share, n=600, seeds=1, seed=0):
    """Right answers of this share, [seeds, n]: the same number for every seed, in different places."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(np.arange(n) < round(share * n)) for _ in range(seeds)]).astype(float)


def worse(correct, count):
    """The same answers but for ``count`` right ones of every seed that are now wrong."""
    changed = correct.copy()
    for row in changed:
        row[np.flatnonzero(row)[:count]] = 0
    return changed


def scored(correct, *, together):
    """What the registered metrics give right answers [seeds, n]: of one seed alone, or of all together."""
    seeds = []
    for row in correct:
        tested = np.flatnonzero(~np.isnan(row))
        right = row[tested]
        examples = pd.DataFrame({"prediction": right.astype(int), "confidence": 0.5, "correct": right.astype(bool),
                                 "nll": 1.5 - right, "brier": 0.5 - right / 2})  # fmt: skip
        ids = [f"x{i}" for i in tested]
        seeds.append(Outcomes(examples, np.ones(len(tested), int), 2, (), ids))
    metrics = [METRICS.get(name) for name in ("accuracy", "nll", "brier")]
    return {each.name: each.over_seeds(seeds) if together else each.score(seeds[0]) for each in metrics}


def planted(correct, extra=None, not_ok=None, measures=None, **record):
    """A run in memory.

    Args:
        correct: variant -> right answers [seeds, n]; NaN where each seed has its own split, and one lacks an example.
        extra: variant -> metric -> value, in the rows of all seeds.
        not_ok: variant -> (status, reason).
        measures: variant -> metric of a task or view -> its values [seeds, documents].
        record: fields of run.json in place of the usual ones.
    """
    correct = {name: np.asarray(values, float) for name, values in correct.items()}
    seeds = list(range(len(next(iter(correct.values()))))) if correct else [0]
    rows, values_of, examples = [], [], []
    for name, values in correct.items():
        for seed, of in [("all", values), *((str(s), values[s : s + 1]) for s in seeds)]:
            row = {"variant": name, "seed": seed, "status": "ok", "reason": np.nan}
            found = scored(of, together=seed == "all")
            found |= {m: stats.Interval(v, np.nan, np.nan, 0) for m, v in (extra or {}).get(name, {}).items()}
            for metric, interval in found.items():
                row[metric] = interval.value
                bounds = {"low": interval.low, "high": interval.high}
                values_of.append({"variant": name, "seed": seed, "metric": metric, "value": interval.value, **bounds,
                                  "n": of.shape[1], "source": "test split"})  # fmt: skip
            rows.append(row)
        for seed in seeds:
            tested = np.flatnonzero(~np.isnan(values[seed]))
            right = values[seed, tested].astype(bool)
            examples.append(pd.DataFrame({
                "variant": name, "seed": seed, "example_id": [f"x{i}" for i in tested], "task": "t",
                "label": 1, "prediction": right.astype(int), "confidence": 0.5, "correct": right,
                "nll": 1.5 - right, "brier": 0.5 - right / 2,
            }))  # fmt: skip
    documents = []
    for name, values in (measures or {}).items():
        for metric, of in values.items():
            of = np.asarray(of, float)
            for seed, rows_of in [("all", of), *((s, of[s : s + 1]) for s in seeds)]:
                outcomes = np.isin(rows_of, (0, 1)).all()
                found = stats.proportion_over_seeds(rows_of) if outcomes else stats.over_seeds(rows_of)
                values_of.append({"variant": name, "seed": str(seed), "metric": metric, "value": found.value,
                                  "low": found.low, "high": found.high, "n": found.n,
                                  "source": "test split"})  # fmt: skip
                if seed != "all":
                    row = {"variant": name, "seed": seed, "metric": metric, "document": range(rows_of.shape[1])}
                    documents.append(pd.DataFrame({**row, "value": rows_of[0]}))
    for name, (status, reason) in (not_ok or {}).items():
        rows += [{"variant": name, "seed": s, "status": status, "reason": reason} for s in ("all", *map(str, seeds))]
    count = next(iter(correct.values())).shape[1] if correct else 1
    usual = {
        "schema_version": 2,
        "run_id": RUN_ID,
        "status": "incomplete" if any(row["status"] == "failed" for row in rows) else "complete",
        "started": "2026-11-25T00:00:00+00:00",
        "git_commit": "abc",
        "seeds": seeds,
        "limit": None,
        "only": None,
        "dtype": "float32",
        "batch_policy": {"test": 250},
        "machine": {"system": "Linux x86_64", "cpu": "a cpu", "cores": 2, "memory_bytes": 1},
        "device": "cpu",
        "devices": [{"kind": "cpu", "name": "a cpu", "memory_bytes": 1}],
        "engine": {"name": "local", "workers": 2, "threads_per_worker": 1},
        "suite": {"name": "planted", "digest": "d" * 64, "yaml": f"suite: planted\nseeds: {seeds}\n"},
        "task": {"name": "t", "title": "A task", "digest": "t" * 64, "classes": 2, "documents": {"t": count}},
        "reference": {"variant": next(iter(correct), "linear")},
        "planned": list(dict.fromkeys(row["variant"] for row in rows)) or ["linear"],
        "summary": {"variants": sum(row["seed"] == "all" for row in rows)},
    }
    if any(np.isnan(values).any() for values in correct.values()):
        usual["task"]["split"] = "per_seed"
    run = Run(Path("planted"), usual | record)
    run.__dict__["variants"] = pd.DataFrame(rows, columns=["variant", "seed", "status", "reason", "accuracy", "nll",
                                                           "brier", *_more(extra)])  # fmt: skip
    columns = ["variant", "seed", "metric", "value", "low", "high", "n", "source"]
    run.__dict__["scores"] = pd.DataFrame(values_of, columns=columns)
    run.__dict__["examples"] = pd.concat(examples, ignore_index=True) if examples else None
    run.__dict__["comparisons"] = pd.DataFrame(columns=list(COMPARISON_COLUMNS))
    run.__dict__["document_measures"] = pd.concat(documents, ignore_index=True) if documents else None
    return run


def decided(run, correct, references):
    """The run with the comparisons of its variants, all of one pool or as ``references`` says, and with the best."""
    rows, best = [], {}
    for column in paired().values():
        of = {"accuracy": lambda v: v, "nll": lambda v: 1.5 - v, "brier": lambda v: 0.5 - v / 2}.get(column.name)
        if of is None:
            continue
        tables = {name: of(np.asarray(values, float)) for name, values in correct.items()}
        for seed in run.record["seeds"]:
            one = {name: table[[seed]][:, ~np.isnan(table[seed])] for name, table in tables.items()}
            rows += decisions.comparisons(Scored(column, one), references, {}, str(seed))
        rows += decisions.comparisons(Scored(column, tables), references, {}, "all")
        best[column.name] = decisions.best(Scored(column, tables))
    variants = run.variants.copy()
    variants.loc[variants["variant"].isin(references.values()), "verdict"] = "reference"
    named = {f"pool {at}": name for at, name in enumerate(dict.fromkeys(references.values()))}
    return changed(run, variants=variants, comparisons=pd.DataFrame(rows), best=best, references=named)


def _more(extra):
    return sorted({metric for values in (extra or {}).values() for metric in values})


def changed(run, **tables):
    """The run with some of its tables or fields of its record replaced."""
    other = Run(run.folder, copy.deepcopy(run.record))
    kept = ("variants", "scores", "comparisons", "examples", "document_measures")
    other.__dict__.update({name: copy.copy(getattr(run, name)) for name in kept})
    for name, value in tables.items():
        if name in other.__dict__:
            other.__dict__[name] = value
        else:
            other.record[name] = value
    return other


def saved(run, folder):
    """Write a run as ``stockpot run`` leaves it, with an id of its own; returns the folder."""
    folder.mkdir(parents=True)
    run.variants.to_csv(folder / "variants.csv", index=False)
    run.scores.to_parquet(folder / "scores.parquet", index=False)
    if run.examples is not None:
        run.examples.to_parquet(folder / "examples.parquet", index=False)
    run.comparisons.to_parquet(folder / "comparisons.parquet", index=False)
    if run.document_measures is not None:
        run.document_measures.to_parquet(folder / "measures.parquet", index=False)
    write_json(folder / "details.json", {})
    own = f"{RUN_ID}-{folder.name}" if run.record["run_id"] == RUN_ID else run.record["run_id"]
    write_json(folder / "run.json", run.record | {"run_id": own})
    write_manifest(folder)
    return folder


def again(folder, target):
    """A copy of a run as another run that gave the same; returns its folder."""
    shutil.copytree(folder, target)
    record = read_json(target / "run.json")
    write_json(target / "run.json", record | {"run_id": target.name, "started": "2026-11-26T00:00:00+00:00"})
    write_manifest(target)
    return target


def policy(tmp_path, rules, more=""):
    """A policy of these lines of rules."""
    path = tmp_path / "policy.yaml"
    body = "\n".join(f"- {rule}" for rule in ([rules] if isinstance(rules, str) else rules))
    path.write_text(f"version: 1\n{more}\nrules:\n{body}\n")
    return read_policy(path)
