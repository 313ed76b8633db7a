"""Whether a combination can be run on the inputs that costs are measured on, and why not."""

from __future__ import annotations

from harness.systems.deciding import why_undecided
from harness.systems.written import ONLY_WRITES, WrittenAnswers
from harness.types import Combination, NotApplicable, Split, check_tokens


def why_not_run(combination: Combination, test: Split) -> str | None:
    """Why its models cannot be run on these inputs: they are tokens, and not all its models'. None if they can."""
    try:
        check_tokens(combination.parts(), test)
    except NotApplicable as reason:
        return str(reason)
    return None


def why_not_timed(combination: Combination, test: Split) -> str | None:
    """Why it cannot be run as a whole on these inputs, to be timed; None if it can."""
    if reason := why_not_run(combination, test):
        return reason
    if isinstance(combination, WrittenAnswers):
        return ONLY_WRITES
    return why_undecided(combination, test)
