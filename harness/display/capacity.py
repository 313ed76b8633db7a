"""What fits in memory, as words and a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.display.formats import amount

COLUMNS = ("pool", "models", "model", "input", "one needs", "all need", "batch of one", "batch of all", "ensemble")
"""Columns of the table for people; ``Capacity`` says what they hold."""


def unpredicted_words(record: Mapping[str, Any]) -> str:
    """A sentence on the pools without a prediction; empty where every pool has one."""
    names = ", ".join(record.get("untold", ()))
    return f"What {names} will need is only known once the models have run." if names else ""


def as_rows(pools: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The pools of a record, as rows of ``COLUMNS``."""
    sizes = ("model_bytes", "input_bytes", "bytes_of_one", "bytes_of_all")
    counts = ("largest_batch_of_one", "largest_batch_of_all", "largest_ensemble")
    return [
        [name, str(one["models"]), *(f"{amount(one[key])}B" for key in sizes), *(f"{one[key]:,}" for key in counts)]
        for name, one in pools.items()
    ]
