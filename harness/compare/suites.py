"""Whether a change of the suite between two runs touches a variant: adding another variant does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.errors import BadInput
from harness.strict import yaml


def change_of_suite(first: Mapping[str, Any], second: Mapping[str, Any], *, pool: str) -> str | None:
    """What was changed of all that a variant depends on; None where nothing was, or something else.

    Args:
        first: run.json of one run.
        second: run.json of the other.
        pool: the suite's pool that the variant is built from.
    """
    if suite_digest(first) is not None and suite_digest(first) == suite_digest(second):
        return None
    ours, theirs = _file(first), _file(second)
    if ours is None or theirs is None:
        return "the suite was changed"
    if ours.get("task") != theirs.get("task"):
        return "the suite was changed: its task"
    if ours.get("split", "shared") != theirs.get("split", "shared"):
        return "the suite was changed: its split"
    return None if _pool(ours, pool) == _pool(theirs, pool) else f"the suite was changed: its pool '{pool}'"


def suite_digest(record: Mapping[str, Any]) -> Any:
    """Of the suite file's content; None in a record that does not say it."""
    return record.get("suite", {}).get("digest")


def _file(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The suite file that a run keeps; None where it cannot be read."""
    try:
        content = yaml.load(record["suite"]["yaml"], "suite").value
    except (KeyError, BadInput):
        return None
    return content if isinstance(content, dict) else None


def _pool(suite: Mapping[str, Any], name: str) -> Any:
    return suite.get("pool") if name == "main" else (suite.get("pools") or {}).get(name)
