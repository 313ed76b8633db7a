"""Whether the tables of a run have all that the run was to do, and say the same of what became of it."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from harness.results.columns import ALL_SEEDS
from harness.results.other_columns import BUILDING
from harness.results.run import Run

STATES = ("ok", "not_applicable", "failed")
BUILT = tuple(column.name for column in BUILDING)
"""What it took to train and build is known of variants without results, too."""
FIRST = 3
"""Faults of one kind that are told."""


def row_faults(run: Run) -> Iterator[str]:
    """Why the rows of the tables are not those of the run, one line each.

    Every variant that was planned has a row for each seed and one of all; those that are ok have examples, all of the
    task's on every seed, and those that are not have none, and no scores either.
    """
    states = _states(run)
    yield from _of_variants(run, states)
    yield from _of_examples(run, states)
    for name, table in (("scores.parquet", run.scores), ("measures.parquet", run.document_measures),
                        ("comparisons.parquet", run.comparisons)):  # fmt: skip
        if table is not None and len(table):
            of_results = table[~table["metric"].isin(BUILT)]
            pairs = of_results[["variant", "seed"]].drop_duplicates().astype(str).itertuples(index=False, name=None)
            for variant, seed in sorted(pair for pair in pairs if states.get(pair) != "ok")[:FIRST]:
                state = states.get((variant, seed), "not a variant of the run")
                yield f"{name} has numbers of '{variant}', seed {seed}, which is {state}"


def _states(run: Run) -> dict[tuple[str, str], str]:
    rows = run.variants
    keys = zip(rows["variant"].astype(str), rows["seed"].astype(str), strict=True)
    return dict(zip(keys, rows["status"].astype(str), strict=True))


def _of_variants(run: Run, states: dict[tuple[str, str], str]) -> Iterator[str]:
    seeds = [str(seed) for seed in run.record.get("seeds") or []]
    named = dict.fromkeys(variant for variant, _ in states)
    planned = run.record.get("planned") or list(named)
    wanted = {(variant, seed) for variant in planned for seed in (ALL_SEEDS, *seeds)}
    for variant, seed in sorted(wanted - states.keys())[:FIRST]:
        yield f"variants.csv has no row of '{variant}', seed {seed}, which the run was to have"
    for variant, seed in sorted(states.keys() - wanted)[:FIRST]:
        yield f"variants.csv has a row of '{variant}', seed {seed}, which the run was not to have"
    if odd := sorted(set(states.values()) - set(STATES)):
        yield f"variants.csv has a status '{odd[0]}', which there is not"
    for variant in planned:
        of_seeds = {states.get((variant, seed)) for seed in seeds}
        summary = states.get((variant, ALL_SEEDS))
        if summary == "ok" and of_seeds != {"ok"}:
            yield f"'{variant}' is ok over all seeds, and not on each of them"
        if summary == "not_applicable" and "not_applicable" not in of_seeds:
            yield f"'{variant}' does not apply over all seeds, and does on each of them"
    summary = run.record.get("summary", {})
    for status in STATES:
        count = sum(states[pair] == status for pair in states if pair[1] == ALL_SEEDS)
        if status in summary and summary[status] != count:
            yield f"variants.csv has {count} variants that are {status}, run.json {summary[status]}"


def _of_examples(run: Run, states: dict[tuple[str, str], str]) -> Iterator[str]:
    if run.examples is None:
        yield "the run has no examples.parquet"
        return
    counts = _counts(run.examples)
    documents = run.record.get("task", {}).get("documents")
    wanted = sum(documents.values()) if isinstance(documents, dict) else None
    for pair in sorted(states.keys() | counts.keys()):
        variant, seed = pair
        if seed == ALL_SEEDS:
            continue
        if states.get(pair) != "ok" and pair in counts:
            what = states.get(pair, "not a variant of the run")
            yield f"examples.parquet has examples of '{variant}', seed {seed}, which is {what}"
            return
        if states.get(pair) == "ok" and pair not in counts:
            yield f"examples.parquet has no examples of '{variant}', seed {seed}, which is ok"
            return
        if pair in counts and wanted is not None and not run.splits_differ and counts[pair] != wanted:
            yield f"examples.parquet has {counts[pair]} examples of '{variant}', seed {seed}, run.json {wanted}"
            return


def _counts(examples: pd.DataFrame) -> dict[tuple[str, str], int]:
    sizes = examples.groupby(["variant", "seed"], observed=True).size()
    return {(str(variant), str(seed)): int(size) for (variant, seed), size in sizes.items() if size}
