"""What a run keeps of its examples and documents gives the scores that it was written with, of every metric."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.evaluate import decisions, scores
from harness.evaluate.decisions import Scored
from harness.evaluate.outcomes import aligned, per_example
from harness.evaluate.rescoring import Rescoring
from harness.registry import METRICS
from harness.results.columns import paired
from harness.results.metric import Outcomes
from harness.results.run import Run

CLASSES, SEEDS = 3, (5, 2)


def said(shift, rng, truth, clusters=(), ids=()):
    """A variant's outcomes on one seed."""
    logits = rng.normal(size=(len(truth), CLASSES)) + shift * np.eye(CLASSES)[truth]
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return Outcomes(per_example(log_probs, truth), truth, CLASSES, clusters, ids)


def planted(split, clustered, seeds=SEEDS):
    """A run as its folder is read, and the outcomes that it was made of, by variant and seed."""
    rng, tables, made = np.random.default_rng(0), [], {}
    names = np.array([f"x{i}" for i in range(60)])
    truth = rng.integers(CLASSES, size=60)
    for variant, shift in (("ref", 0.5), ("mix", 1.0)):
        for seed in seeds:
            chosen = np.random.default_rng(seed).permutation(60)[:40] if split == "per_seed" else np.arange(60)
            clusters = [f"c{i // 4}" for i in chosen] if clustered else []
            each = said(shift, rng, truth[chosen], clusters, names[chosen].tolist())
            made[variant, seed] = each
            table = each.examples.assign(variant=variant, seed=seed, example_id=each.ids, label=each.labels)
            tables.append(table.assign(cluster=clusters) if clustered else table)
    whole = pd.concat(tables, ignore_index=True).astype({"variant": "category", "example_id": "category"})
    run = Run(Path("planted"), {"seeds": list(seeds), "task": {"classes": CLASSES, "split": split}})
    run.__dict__["examples"] = whole.astype({"nll": "float32", "brier": "float32"})
    run.__dict__["document_measures"] = None
    return run, made


def is_close(found, cells, metric):
    """The same value and interval: to the digits that float32 leaves of losses."""
    column = METRICS.get(metric).column
    wanted = [cells[name] for name in (metric, *column.bounds)]
    given = [found.value, *((found.low, found.high) if column.bounds else ())]
    np.testing.assert_allclose(np.array(given, float), np.array(wanted, float), rtol=1e-6, atol=1e-7, err_msg=metric)


@pytest.mark.parametrize("split", ["shared", "per_seed"])
@pytest.mark.parametrize("clustered", [False, True])
def test_every_metric_is_what_it_was_on_each_seed_and_over_all(split, clustered):
    run, made = planted(split, clustered)
    again = Rescoring(run)
    of_seed = scores.score(made["mix", SEEDS[0]])
    over = scores.score_over_seeds([made["mix", seed] for seed in SEEDS])
    for metric in METRICS:
        for label, cells in ((str(SEEDS[0]), of_seed), ("all", over)):
            found = again.score("mix", label, metric.name)
            if cells[metric.name] is None:
                assert np.isnan(found.value)
            else:
                is_close(found, cells, metric.name)
    assert again.score("mix", "all", "latency_ms_p50") is None


@pytest.mark.parametrize("split", ["shared", "per_seed"])
def test_comparisons_and_the_best_are_those_of_the_whole_table(split):
    run, made = planted(split, clustered=False)
    again = Rescoring(run)
    for column in paired().values():
        if column.outcome not in made["mix", SEEDS[0]].examples:
            continue
        tables = {name: aligned([made[name, seed].examples[column.outcome].to_numpy(float) for seed in SEEDS],
                                [made[name, seed].ids for seed in SEEDS]) for name in ("ref", "mix")}  # fmt: skip
        scored = Scored(column, tables)
        for row in decisions.comparisons(scored, {"mix": "ref"}, {}, "all"):
            (found,) = again.comparisons(column, "all", {"mix": "ref"}, None)["mix", row["scope"]]
            for end in ("difference", "low", "high", "low_together", "high_together", "p", "p_adjusted", "margin"):
                assert found[end] == pytest.approx(row[end], rel=1e-4, abs=1e-6), (column.name, end)
        assert again.best(column)["set"] == decisions.best(scored)["set"]


@pytest.mark.parametrize("clustered", [False, True])
def test_measures_of_documents_are_what_they_were(clustered):
    """Documents that no seed has a value of are in no file, and some values may be missing on one seed."""
    run, _ = planted("shared", clustered=False)
    values = {seed: np.random.default_rng(seed).normal(size=30) for seed in SEEDS}
    for of in values.values():
        of[[3, 7]] = np.nan
    values[SEEDS[0]][11] = np.nan
    clusters = [f"c{i // 3}" for i in range(30)]
    own = {"variant": "mix", "metric": "its_own/task", "document": range(30)}
    own |= {"cluster": clusters} if clustered else {}
    tables = [pd.DataFrame({**own, "seed": seed, "value": of}).dropna() for seed, of in values.items()]
    run.__dict__["document_measures"] = pd.concat(tables, ignore_index=True)
    wanted = scores.score_measures([{"m": values[seed]} for seed in SEEDS], (), {"m": clusters} if clustered else {})
    found = Rescoring(run).score("mix", "all", "its_own/task")
    ends = tuple(wanted["m"][end] for end in ("value", "low", "high"))
    assert (found.value, found.low, found.high) == pytest.approx(ends)
