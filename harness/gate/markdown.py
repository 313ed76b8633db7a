"""A gate as Markdown tables, for the summary of a GitHub step."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.display.formats import DASH, inline_code, plain_text
from harness.display.lines import escaped
from harness.folders import append_whole, write_whole
from harness.gate.banner import WORDS
from harness.gate.record import STATES, Check, Gate

LIMIT = 1024 * 1024
"""Bytes that GitHub takes for the summary of one step."""


def write_summary(gate: Gate, path: Path | None, step_summary: str | None) -> None:
    """Write the summary to ``path``, or else append it to GitHub's file for the step, where there is one.

    The file for the step is never written over, also where it is the one that ``path`` names.
    """
    if path is not None and str(path) != step_summary:
        write_whole(path, summary(gate))
    elif step_summary:
        target = Path(step_summary)
        used = target.stat().st_size if target.is_file() else 0
        append_whole(target, summary(gate, LIMIT - used - 1) + "\n")


def summary(gate: Gate, limit: int = LIMIT) -> str:
    """Tables of the outcome, the problems and the checks, worst first; rows beyond ``limit`` bytes are left out."""
    facts = [
        ("outcome", f"**{WORDS[gate.outcome]}** (exit code {gate.exit_code})"),
        ("run", inline_code(gate.run["folder"])),
        ("policy", inline_code(gate.policy["path"])),
        ("baseline", inline_code(gate.baseline["folder"]) if gate.baseline else DASH),
        ("checks", ", ".join(f"{count} {state}" for state, count in gate.counts.items()) or "none"),
    ]
    facts += [("note", plain_text(remark)) for remark in gate.remarks]
    text = _table(("gate", ""), facts)
    checks = sorted(gate.checks, key=lambda check: STATES.index(check.state))  # stable: the policy's order within
    rows = [("error", DASH, DASH, plain_text(problem)) for problem in gate.problems] + [_row(check) for check in checks]
    if not rows:
        return text
    return text + "\n" + _fitting(rows, limit - len(text.encode()) - 1)


def _row(check: Check) -> tuple[str, ...]:
    return check.state, inline_code(check.rule), inline_code(check.variant), plain_text(check.reason)


def _fitting(rows: list[tuple[str, ...]], limit: int) -> str:
    """As many rows as fit, the last saying how many do not."""
    head = _table(("state", "rule", "variant", "outcome"), [])
    left = limit - len(head.encode()) - 200  # for the last row
    lines: list[str] = []
    for index, row in enumerate(rows):
        line = _line(row)
        left -= len(line.encode())
        if left < 0:
            lines.append(_line((DASH, DASH, DASH, f"{len(rows) - index} more rows are in gate.json")))
            break
        lines.append(line)
    return head + "".join(lines)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    return _line(head) + _line("---" for _ in head) + "".join(_line(row) for row in rows)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(escaped, cells)) + " |\n"
