"""Where a claim finds its variants: by pool, method and parameters, whatever a suite calls them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from harness.report.claim import Claim, untested
from harness.report.evidence import Evidence


def in_pool(pool: str, name: str) -> str:
    """The full name of a variant of a pool."""
    return name if pool == "main" else f"{pool}:{name}"


def pools_of(evidence: Evidence, kind: str) -> list[str]:
    """The pools whose members differ in this way: ``types.Pool.kind``."""
    pools = evidence.run.record["pools"]
    return [name for name, pool in pools.items() if pool.get("kind") == kind]


def variants_of(evidence: Evidence, pool: str, method: str) -> Iterator[tuple[str, dict[str, Any], list[int] | None]]:
    """A pool's variants of a method that have results: name, parameters, and positions of the members if named."""
    for row in evidence.by_name.values():
        if row["method"] == method and row["pool"] == pool:
            named = [part for part in row["variant"].partition("/")[2].split(",") if part.startswith("members=")]
            positions = [int(i) for i in named[0].removeprefix("members=").split("+")] if named else None
            yield row["variant"], json.loads(row["params"]), positions


def of_all(evidence: Evidence, pool: str, method: str, **wanted: Any) -> str | None:
    """The first of a pool's variants of a method that has all members and these parameters."""
    for name, given, positions in variants_of(evidence, pool, method):
        if positions is None and all(given.get(key) == value for key, value in wanted.items()):
            return name
    return None


def members_of(evidence: Evidence, pool: str) -> list[str]:
    """The rows of a pool's single members, in order, if the suite has them all."""
    count = evidence.run.record["pools"].get(pool, {}).get("members", 0)
    names = [in_pool(pool, f"member/index={i}") for i in range(count)]
    return names if names and evidence.has(*names) else []


def missing(evidence: Evidence, claim: str, *names: str | None, what: str = "a fitting variant") -> Claim | None:
    """The claim as not tested where variants lack results; ``what``: to call one that has no name."""
    lacking = [name or what for name in names if name is None or not evidence.has(name)]
    return untested(claim, f"needs results of {', '.join(dict.fromkeys(lacking))}") if lacking else None
