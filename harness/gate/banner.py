"""A gate for people at a terminal: the outcome, and a line for all that did not simply pass."""

from __future__ import annotations

from harness.display.lines import plain_line
from harness.gate.record import GATE_FILE, Gate

SHOWN = 30
"""Lines of checks at most: a baseline that is not comparable is an error of every rule on every variant."""

WORDS = {"pass": "PASSED", "fail": "FAILED", "inconclusive": "INCONCLUSIVE", "error": "NO VERDICT"}


def banner(gate: Gate) -> str:
    """Plain lines, readable without colour."""
    lines = [f"gate {WORDS[gate.outcome]} (exit code {gate.exit_code}): {gate.run['folder']}"]
    lines += [f"  {'error':<13}{problem}" for problem in gate.problems]
    lines += [f"  {'note':<13}{remark}" for remark in gate.remarks]
    shown = [check for check in gate.checks if check.state not in ("pass", "skipped")]
    lines += [f"  {check.state:<13}{check.rule}: {check.variant}: {check.reason}" for check in shown[:SHOWN]]
    if len(shown) > SHOWN:
        lines.append(f"  {len(shown) - SHOWN} more are in {GATE_FILE}")
    counts = ", ".join(f"{count} {state}" for state, count in gate.counts.items())
    lines.append(f"  {len(gate.checks)} checks: {counts or 'none'}; policy {gate.policy['path']}")
    return "\n".join(map(plain_line, lines))
