"""What details.json keeps of what building variants found out: of many variants less, so that it can be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ALL = 64 * 2**20
"""Bytes of details.json, about, whatever the variants and seeds."""
LEFT_OUT = "left_out"
"""The key that names what is left out of a variant's details; it is in the store, with what building left."""


def bounded(details: Mapping[str, Any], records: int) -> dict[str, Any]:
    """The details of one variant and seed without those that are longer than its share of the file, longest first.

    Args:
        details: JSON values by name.
        records: how many such there are in the file.
    """
    sizes = {name: len(json.dumps(value, indent=4)) + len(name) for name, value in details.items()}
    share = ALL // max(1, records)
    left_out: list[str] = []
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if sum(sizes.values()) <= share:
            break
        del sizes[name]
        left_out.append(name)
    kept = {name: value for name, value in details.items() if name in sizes}
    return kept | ({LEFT_OUT: sorted(left_out)} if left_out else {})
