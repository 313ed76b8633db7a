"""A model from outside, judged as a release: scored with a suite's task, gated against a stored run.

It is a folder of weights, or what the suite's source of members takes as one (``PoolSource.candidate``).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

from harness.errors import BadInput
from harness.gate.baseline import no_hash, open_baseline
from harness.gate.decide import decide
from harness.gate.policy import Policy, read_policy
from harness.gate.record import GATE_FILE, Gate, read_gate, write_gate
from harness.pools.folders import pool_of
from harness.pools.source import AskedPool
from harness.registry import COSTS
from harness.results.evidence import read_tables
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.suite.file import MAIN
from harness.suite.suite import Suite, Variant

CANDIDATE = "candidate"
"""The one variant of the run that scoring leaves."""


def gate_candidate(
    suite: Suite,
    folder: Path,
    options: Options,
    progress: runner.Progress,
    *,
    policy_path: Path,
    baseline: Path | None = None,
    stands_for: str | None = None,
    today: date,
) -> tuple[Path, Gate]:
    """Score the model in a folder, judge it against one variant of a baseline, and write gate.json to its run.

    Policy and baseline are read first: a mistake in them does not cost the scoring.

    Args:
        suite: whose task scores it.
        folder: of the model.
        options: as of a run.
        progress: follows the scoring.
        policy_path: of the policy file; its rules are about the variant ``candidate``.
        baseline: a folder to take in place of the policy's.
        stands_for: the baseline's variant that the candidate is to replace; the baseline's reference by default.
        today: the day on which waivers expire.

    Returns:
        The folder of the candidate's run, and what gate.json says.

    Raises:
        BadInput: a bad policy file, no baseline, one without this variant, or as ``score_candidate``.
    """
    policy = read_policy(policy_path)
    old, sha256, problems = open_baseline(_baseline(policy, baseline), _sha256(policy))
    if old is not None:
        old = old.alone(stands_for or old.record["reference"]["variant"], CANDIDATE)
    run_folder = score_candidate(suite, folder, options, progress)
    remarks = [] if _sha256(policy) else [no_hash(policy)]
    gate = decide(policy, read_tables(run_folder), old, today=today, baseline_sha256=sha256, problems=problems,
                  remarks=remarks)  # fmt: skip
    write_gate(run_folder / GATE_FILE, gate)
    return run_folder, read_gate(run_folder / GATE_FILE)


def _baseline(policy: Policy, given: Path | None) -> Path:
    if given is None and policy.file.baseline is None:
        raise BadInput("a candidate needs a baseline", place=policy.path, hint="add --baseline RUN")
    return given or Path(policy.file.baseline.path)  # type: ignore[union-attr]


def _sha256(policy: Policy) -> str | None:
    return policy.file.baseline.sha256 if policy.file.baseline else None


def score_candidate(suite: Suite, folder: Path, options: Options, progress: runner.Progress) -> Path:
    """Score the model in a folder on everything that the suite scores its variants on; returns the run's folder.

    The run lies in ``OUT/<suite>-candidate``. It has the suite's digest, data and seeds, so that it compares with the
    suite's runs example by example; its one variant is ``candidate``, the same model for every seed. Costs that are
    measured beside the reference, which is not run, are left out.

    Raises:
        BadInput: a folder that is no model of the task's kind, or an adapter where the suite names no base.
    """
    main = suite.pools[MAIN]
    file = suite.file.model_copy(
        update={
            "suite": f"{suite.file.suite}-{CANDIDATE}",
            "reference": CANDIDATE,
            "correlate": None,
            "cost": suite.file.cost.without(cost.name for cost in COSTS if cost.beside_reference),
        }
    )
    own = main.source.candidate(main.spec, folder)
    pools = {MAIN: pool_of(folder, main.source.base(main.spec)) if own is None else AskedPool(main.source, own)}
    variants = (Variant(CANDIDATE, "member", MAIN, None, {"index": 0}),)
    plan = make_plan(replace(suite, file=file, pools=pools, variants=variants), options, compares=False)
    return runner.run(plan, progress)
