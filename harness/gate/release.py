"""The gate on a run's folder: reads run, policy and baseline, decides, and leaves gate.json in the folder."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from harness.errors import BadInput
from harness.gate.baseline import copy_fault, no_hash, open_baseline
from harness.gate.decide import decide
from harness.gate.policy import Policy, read_policy
from harness.gate.record import GATE_FILE, SCHEMA_VERSION, Gate, forget_gate, outcome_of, read_gate, write_gate
from harness.results.evidence import read_tables
from harness.results.run import Run, unchecked


def gate_run(folder: Path, policy_path: Path, baseline: Path | None, today: date) -> Gate:
    """Judge the run in a folder and write gate.json there; returns what the file says.

    Args:
        folder: of a finished run; one that cannot be read as such is an outcome, not an error.
        policy_path: of the policy file.
        baseline: a folder to take in place of the policy's; it has to have the hash that the policy names all the same.
        today: the day on which waivers expire.

    Raises:
        BadInput: a bad policy file, or no such folder.
    """
    if not Path(folder).is_dir():
        raise BadInput("there is no such folder", place=str(folder), hint="name the folder of a finished run")
    forget_gate(Path(folder))
    policy = read_policy(policy_path)
    try:
        run = read_tables(Path(folder))
    except BadInput as problem:
        gate = _no_verdict(folder, policy, today, str(problem))
    else:
        gate = _judged(run, policy, baseline, today)
    write_gate(Path(folder) / GATE_FILE, gate)
    return read_gate(Path(folder) / GATE_FILE)


def _judged(run: Run, policy: Policy, baseline: Path | None, today: date) -> Gate:
    named = policy.file.baseline
    path = baseline or (Path(named.path) if named else None)
    doubts = run_doubts(run)
    if path is None:
        return decide(policy, run, None, today=today, problems=doubts)
    expected = named.sha256 if named else None
    found, sha256, problems = open_baseline(path, expected)
    problems = [*doubts, *problems]
    if path.resolve() == run.folder.resolve():
        problems.append("the baseline is the run itself")
    elif found is not None and (fault := copy_fault(run, found)):
        problems.append(fault)
    remarks = [] if expected else [no_hash(policy)]
    return decide(policy, run, found, today=today, baseline_sha256=sha256, problems=problems, remarks=remarks)


def run_doubts(run: Run) -> list[str]:
    """Why nothing shows that a run's files are as they were written, or that it has all that was planned."""
    if remark := unchecked(run):
        return [f"{remark}; run the suite again with this version"]
    return [] if "planned" in run.record else ["planned is not recorded in run.json"]


def _no_verdict(folder: Path, policy: Policy, today: date, problem: str) -> Gate:
    described = {"path": policy.path, "sha256": policy.sha256}
    outcome = outcome_of([problem], [])
    return Gate(SCHEMA_VERSION, outcome, today.isoformat(), {"folder": str(folder)}, described, None, [problem], [])
