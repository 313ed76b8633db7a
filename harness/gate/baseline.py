"""Baselines: a copy of a finished run that people agreed on, with the reason, and a hash that shows it unchanged."""

from __future__ import annotations

import os
import shutil
from datetime import date
from pathlib import Path

from harness.display.lines import plain_line
from harness.errors import BadInput
from harness.exhausted import writing
from harness.folders import remove_abandoned, temporary
from harness.gate.policy import Policy
from harness.keys import digest, file_digest
from harness.results.comparable import run_faults
from harness.results.evidence import read_tables
from harness.results.manifest import MANIFEST, write_manifest
from harness.results.recorded import field_faults
from harness.results.run import BASELINES, Run, unchecked
from harness.store import read_json, write_json

NEEDED = ("run.json", "variants.csv", "details.json", "scores.parquet", "examples.parquet")
FILES = (*NEEDED, "measures.parquet", "comparisons.parquet")
"""What a comparison reads of a run; not every run has the last two."""

RECORD = "baseline.json"
DESCRIBED = ("name", "run", "date", "reason", "git_commit", "sha256")


def baselines_folder(out: Path) -> Path:
    """Where baselines are kept below a results folder."""
    return Path(out) / BASELINES


def files_sha256(folder: Path) -> str:
    """One hash of the files of a run that a comparison reads; a file that is missing is part of it."""
    return digest({name: file_digest(folder / name) for name in FILES if (folder / name).is_file()})


def set_baseline(run_folder: Path, out: Path, name: str, reason: str, today: date) -> Path:
    """Copy a run to ``out/baselines/name`` in place of what was there; returns the folder.

    baseline.json beside the copy holds {name, reason, date, run, git_commit, sha256}.

    Raises:
        BadInput: a folder that is no run, a run that is not all of its suite, no examples, no reason, a bad name.
    """
    run = read_tables(run_folder)
    if faults := run_faults(run):
        raise BadInput(f"this run cannot be a baseline: {faults[0]}", place=str(run_folder))
    if missing := [file for file in NEEDED if not (run.folder / file).is_file()]:
        raise BadInput(f"{missing[0]} is missing", place=str(run_folder), hint="name the folder of a whole run")
    if not reason.strip():
        raise BadInput("a baseline needs a reason", hint='say why it is right: --reason "release 1.2, reviewed by ..."')
    if not name.replace("-", "").replace("_", "").isalnum():
        raise BadInput(f"'{name}' is no name for a baseline", hint="use letters, digits, - and _")
    folder = baselines_folder(out) / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadInput(f"no baseline can be put there: {problem.strerror}", place=str(folder.parent)) from None
    remove_abandoned(folder.parent, f".{name}.setting")
    with writing(folder.parent), temporary(folder.parent, f".{name}.setting") as fresh:
        for file in FILES:
            if (run.folder / file).is_file():
                shutil.copyfile(run.folder / file, fresh / file)
        record = {
            "name": name,
            "reason": reason.strip(),
            "date": today.isoformat(),
            "run": run.record.get("run_id"),
            "git_commit": run.record.get("git_commit"),
            "sha256": files_sha256(fresh),
        }
        if (run.folder / MANIFEST).is_file():  # of a run from before there were any, no one can say what it was
            write_manifest(fresh)
        write_json(fresh / RECORD, record)
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
        os.rename(fresh, folder)
    return folder


def open_baseline(folder: Path, expected: str | None) -> tuple[Run | None, str | None, list[str]]:
    """A baseline, or any run in its place: the run, the hash of its files, and why it cannot be trusted.

    Args:
        folder: of a baseline or a run.
        expected: the sha256 that the policy names, if it does. The one in baseline.json is checked in any case.
    """
    try:
        run = read_tables(folder)
        recorded = read_json(folder / RECORD)["sha256"] if (folder / RECORD).is_file() else None
    except BadInput as problem:
        return None, None, [f"the baseline cannot be read: {problem}"]
    except (ValueError, KeyError, TypeError):
        return None, None, [f"the baseline cannot be read: {folder / RECORD} is not what it was written as"]
    if fault := next(field_faults(run.record), None):
        return None, None, [f"the baseline: {fault}"]
    found = files_sha256(folder)
    faults = [f"the baseline: {fault}" for fault in run_faults(run)]
    if recorded is None and expected is None and (remark := unchecked(run)):
        faults.append(f"the baseline: {remark}")
    if expected is not None and found != expected:
        faults.append(f"the baseline is not the one the policy names: its sha256 is {found}, not {expected}")
    if recorded is not None and found != recorded:
        faults.append(f"the files of the baseline were changed since it was set: their sha256 is {found}")
    return run, found, faults


def copy_fault(run: Run, baseline: Run) -> str | None:
    """Why a run is no evidence against its baseline: both are one run, wherever the folders are; None where not."""
    ours, theirs = run.record, baseline.record
    suites = [record.get("suite", {}).get("name") for record in (ours, theirs)]
    if suites[0] != suites[1]:
        return None
    times = [[record.get(key) for key in ("started", "wall_seconds")] for record in (ours, theirs)]
    if ours.get("run_id") == theirs.get("run_id") or (times[0] == times[1] and None not in times[0]):
        return "the baseline is a copy of the run itself, which shows no change: run the suite again"
    return None


def no_hash(policy: Policy) -> str:
    """What is said of an outcome where the policy takes any baseline."""
    return f"{policy.path} names no sha256 of the baseline: a baseline that was changed and set again passes as well"


def describe(folder: Path) -> str:
    """One baseline in lines of text."""
    if not (folder / RECORD).is_file():
        hint = "set one: stockpot baseline set RUN --reason TEXT"
        raise BadInput(f"no {RECORD} in {folder}", place=str(folder), hint=hint)
    try:
        record = read_json(folder / RECORD)
        rows = [(key, plain_line(str(record[key]))) for key in DESCRIBED]
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{RECORD} is not what it was written as", place=str(folder), hint="set it again") from None
    changed = "" if files_sha256(folder) == record["sha256"] else "  (its files were CHANGED since)"
    return "\n".join(f"{key:<11}{value}" for key, value in rows) + changed
