"""What makes a run unfit to be judged, and two runs unfit to be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from harness.results.columns import ALL_SEEDS
from harness.results.complete import row_faults
from harness.results.recorded import field_faults, suite_of
from harness.results.run import Run, data_difference

Comparable = Literal["suite_digest", "example_ids", "dtype", "batch_policy"]
"""What a policy may ask to be alike in a run and its baseline."""


INTERRUPTED = "interrupted"
"""The status of a run that Ctrl-C or SIGTERM ended."""


def run_faults(run: Run) -> list[str]:
    """Why a run is not all of its suite, one line each."""
    record = run.record
    if faults := list(field_faults(record)):
        return faults  # what the other checks read is not there
    if record.get("status") != "complete":
        why = "a variant failed, or the reference has no result; see its report"
        if record.get("status") == INTERRUPTED:
            why = "run the same command again, which continues it"
        faults.append(f"the run is {record.get('status') or 'of unknown status'}: {why}")
    if record.get("limit") is not None:
        faults.append(f"the run was limited to {record['limit']} test examples (--limit)")
    if record.get("only") is not None:
        faults.append(f"the run holds only some variants (--only {record['only']})")
    if (asked := _seeds_asked(record)) != record.get("seeds"):
        faults.append(f"the run has seeds {record.get('seeds')}, its suite asks for {asked}")
    rows = run.variants.loc[run.variants["seed"] == ALL_SEEDS, "variant"].nunique()
    expected = record.get("summary", {}).get("variants")
    if not rows or rows != expected:
        faults.append(f"variants.csv has {rows} of the run's {expected} variants")
    for name, table, columns in (
        ("variants.csv", run.variants, ["variant", "seed"]),
        ("scores.parquet", run.scores, ["variant", "seed", "metric"]),
    ):
        named = table[columns].astype(str)
        if named.duplicated().any():  # rows that are equal throughout say one thing
            named = named[~table.duplicated()]
        if len(twice := named[named.duplicated()]):
            faults.append(f"{name} says two things of {', '.join(twice.iloc[0])}")
    return [*faults, *row_faults(run)]


def _seeds_asked(record: dict[str, Any]) -> Any:
    """The seeds of the suite file that the run keeps; None where it keeps none that can be read."""
    suite = suite_of(record)
    return suite.get("seeds", [0]) if suite else None


def differences(run: Run, baseline: Run, keys: Sequence[Comparable]) -> list[str]:
    """Why a run and its baseline are not comparable, one line each; what one of them does not record is a difference.

    The same data are asked of any two runs, and the same seeds, since the summary rows are means over them.
    """
    compare = {"suite_digest": _suites, "example_ids": _examples}
    found = [compare.get(key, _recorded)(run, baseline, key) for key in keys]
    found += [_recorded(run, baseline, "seeds"), _data(run, baseline)]
    return [line for line in found if line]


def _recorded(run: Run, baseline: Run, key: str) -> str | None:
    ours, theirs = (r.record.get(key) for r in (run, baseline))
    if ours is None or theirs is None:
        return f"{key} is not recorded in the {'run' if ours is None else 'baseline'}"
    return f"{key} differs: {ours}, in the baseline {theirs}" if ours != theirs else None


def _suites(run: Run, baseline: Run, key: str) -> str | None:
    ours, theirs = (r.record.get("suite", {}).get("digest") for r in (run, baseline))
    if ours is None or theirs is None:
        return f"{key} is not recorded in the {'run' if ours is None else 'baseline'}"
    return "the suite was changed since the baseline was set" if ours != theirs else None


def _examples(run: Run, baseline: Run, key: str) -> str | None:
    tables = []
    for name, r in (("run", run), ("baseline", baseline)):
        if r.examples is None or r.examples.empty:
            return f"{key} is not recorded in the {name}: it has no examples.parquet"
        distinct = r.examples[["example_id", "label"]].drop_duplicates()
        tables.append(set(zip(distinct["example_id"].astype(str), distinct["label"], strict=True)))
    ours, theirs = tables
    if ours == theirs:
        return None
    return f"the test examples differ: {len(ours - theirs)} are new or relabelled, {len(theirs - ours)} are gone"


def _data(run: Run, baseline: Run) -> str | None:
    """How the data differ: examples of the same names may not ask the same."""
    if not all(r.record.get("task", {}).get("digest") for r in (run, baseline)):
        return "the content of the task is not recorded"
    return data_difference(run.record, baseline.record)


def hardware_difference(run: Run, baseline: Run) -> str | None:
    """How the machines of two runs differ in what timings and memory depend on; None where they are alike."""
    for name, each in (("run", run), ("baseline", baseline)):
        if machines_differ(each.record):
            return f"the {name}'s shards ran on machines that differ"
    ours, theirs = _hardware(run.record), _hardware(baseline.record)
    for key, value in ours.items():
        if value is None or theirs[key] is None:
            return f"{key} is not recorded"
        if value != theirs[key]:
            return f"{key} differs: {value}, in the baseline {theirs[key]}"
    return None


def machines_differ(record: dict[str, Any]) -> bool:
    """Whether a run was put together from shards whose machines differ in what timings and memory depend on."""
    machines = [_hardware(shard) for shard in record.get("shards") or []]
    return any(machine != machines[0] for machine in machines)


def _hardware(record: dict[str, Any]) -> dict[str, Any]:
    machine, engine, devices = (record.get(key) for key in ("machine", "engine", "devices"))
    found = {key: (machine or {}).get(key) for key in ("system", "cpu", "cores")}
    found |= {key: (engine or {}).get(key) for key in ("workers", "threads_per_worker")}
    found["device"] = record.get("device")
    names = [f"{device.get('kind')} {device.get('name')}" for device in devices or []]
    return found | {"devices": ", ".join(names) or None}
