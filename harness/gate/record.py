"""gate.json: the outcome of a gate, from which banner, Markdown, JUnit and exit code are all rendered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.errors import BadInput
from harness.exhausted import full_disk, said_of_room
from harness.folders import write_whole
from harness.store import as_text, read_json

SCHEMA_VERSION = 1
GATE_FILE = "gate.json"

State = Literal["error", "fail", "inconclusive", "warning", "waived", "skipped", "pass"]
STATES: tuple[State, ...] = ("error", "fail", "inconclusive", "warning", "waived", "skipped", "pass")
"""Of a check, worst first. error: there is nothing to judge. warning: inconclusive, and the policy lets it be."""

Outcome = Literal["pass", "fail", "inconclusive", "error"]
EXIT_CODES: dict[Outcome, int] = {"pass": 0, "fail": 3, "inconclusive": 4, "error": 5}
"""error: incomplete, missing, stale or not comparable; 1 is a crash and 2 is bad usage, neither a verdict."""


@dataclass(frozen=True)
class Check:
    """One rule on one variant."""

    rule: str
    variant: str
    """A name, or the rule's pattern where nothing fits it."""
    metric: str
    seed: str
    state: State
    reason: str
    """The outcome in a sentence."""
    value: float | None = None
    low: float | None = None
    """95 % interval of the value."""
    high: float | None = None
    limit: float | None = None
    """The change that is accepted, in the metric's unit."""
    other: float | None = None
    """The value it is compared with."""
    difference: float | None = None
    """Value minus other."""
    difference_low: float | None = None
    """Of a paired test: bounds of the difference, each one-sided at level 1 - alpha."""
    difference_high: float | None = None
    p_inferior: float | None = None
    """Of a paired test, corrected: small if the change is shown to be within the limit."""
    p_not_inferior: float | None = None
    """Of a paired test, corrected: small if the change is shown to be beyond the limit."""
    n: int | None = None
    """Examples of a paired test."""
    missing: bool = False
    """Whether there was nothing to judge: the policy may call that a failure, but no waiver covers it."""
    computed: bool = False
    """Whether the value was computed again from the run's examples or documents; that of a cost cannot be."""
    needed: int | None = None
    """Examples that would decide an inconclusive test with power .8, if the difference stays what it is."""


@dataclass(frozen=True)
class Gate:
    """The fields of gate.json."""

    schema_version: int
    outcome: Outcome
    date: str
    """The day on which waivers were judged, ISO 8601."""
    run: dict[str, Any]
    """{folder, run_id, suite, suite_digest, git_commit, started, seeds}; the folder alone of what is no run."""
    policy: dict[str, str]
    """{path, sha256}"""
    baseline: dict[str, Any] | None
    """As ``run``, with the sha256 of its files; null without one."""
    problems: list[str]
    """Why the run as a whole cannot be judged."""
    checks: list[Check]
    """In the policy's order."""
    remarks: list[str] = field(default_factory=list)
    """What a reader of the outcome should know, a pass as well."""

    @property
    def counts(self) -> dict[State, int]:
        """Checks by state, worst first, zeros left out."""
        found = Counter(check.state for check in self.checks)
        return {state: found[state] for state in STATES if found[state]}

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]


def outcome_of(problems: Sequence[str], checks: Sequence[Check]) -> Outcome:
    """Evidence that is missing comes before a failure, and a failure before doubt."""
    states = {check.state for check in checks}
    if problems or "error" in states or not checks:
        return "error"
    if "fail" in states:
        return "fail"
    return "inconclusive" if "inconclusive" in states else "pass"


def forget_gate(folder: Path) -> None:
    """Remove gate.json from a run's folder: should this gate end without a verdict, no earlier one is taken for it."""
    try:
        (folder / GATE_FILE).unlink(missing_ok=True)
    except OSError as problem:
        raise BadInput(f"{GATE_FILE} cannot be written: {problem.strerror}", place=str(folder)) from None


def write_gate(path: Path, gate: Gate) -> None:
    """Write gate.json; ``BadInput`` where it cannot be written."""
    try:
        write_whole(path, as_text(asdict(gate)))
    except OSError as problem:
        why = said_of_room(problem) if full_disk(problem) else problem.strerror
        raise BadInput(f"{GATE_FILE} cannot be written: {why}", place=str(path)) from None


def read_gate(path: Path) -> Gate:
    """Read gate.json."""
    record = read_json(path)
    return Gate(**{**record, "checks": [Check(**check) for check in record["checks"]]})
