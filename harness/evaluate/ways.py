"""The ways in which a pool's models can be given more compute: what each variant of a run is one point of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

SINGLE, ENSEMBLES, PASSES = "single models", "ensembles", "passes of one model"
MERGED, STUDENTS, EXPERTS = "merged models", "students", "experts"
CASCADES, ROUTERS, STAGED = "cascades", "routers", "other staged systems"

WAYS: Mapping[str, str] = {
    SINGLE: "one model as it is",
    ENSEMBLES: "N models × 1 pass",
    PASSES: "1 model × N passes",
    MERGED: "one merged model",
    STUDENTS: "one student",
    EXPERTS: "experts of which few run",
    CASCADES: "a cascade",
    ROUTERS: "a router",
    STAGED: "another staged system",
}
"""Every way, in the order of tables and figures, with what it is to spend compute on it."""

_OF_METHODS = {"mc_dropout": PASSES, "self_consistency": PASSES, "distill": STUDENTS, "cascade": CASCADES,
               "cascade_routing": CASCADES, "routed_members": ROUTERS, "stacking": ENSEMBLES}  # fmt: skip
_OF_FAMILIES = {"single": SINGLE, "output": ENSEMBLES, "weights": MERGED, "trained": EXPERTS, "staged": STAGED}
_NO_WAY = ("temperature",)
"""Methods that give the models no other compute than they have; nor does an upcycled model of one expert."""
_GROWING = ("linear", "log_linear", "majority_vote")
"""Ensembles with equal weights, which grow by members alone: of the first that there is."""


def way_of(row: Mapping[str, Any]) -> str | None:
    """The way of a variant, a row of variants.csv; None where it is none."""
    if row["method"] in _NO_WAY or (row["method"] == "upcycle" and _given(row).get("experts") == 1):
        return None
    return _OF_METHODS.get(row["method"]) or _OF_FAMILIES.get(row["family"])


def on_curve(row: Mapping[str, Any], methods: set[str]) -> str | None:
    """The way of whose curve a variant is a point; None: of none.

    A curve has one dial. Of ensembles only those with equal weights are points, which grow by members: other rules
    would be curves of a point each.

    Args:
        row: of variants.csv.
        methods: that the run has.
    """
    way = way_of(row)
    if way == ENSEMBLES:
        growing = next((name for name in _GROWING if name in methods), None)
        return way if row["method"] == growing and _given(row).get("weights", "uniform") == "uniform" else None
    return None if row["method"] == "best_single" and "member" in methods else way  # then it is one of these


def _given(row: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a variant."""
    given: dict[str, Any] = json.loads(row["params"]) if isinstance(row.get("params"), str) else {}
    return given
