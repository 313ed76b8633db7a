"""What ``tests.perf.scaling`` measured, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.display.formats import amount

HEAD = (
    "| what | members | variants | rows of examples | seconds | of processors | leaves |",
    "|---|--:|--:|--:|--:|--:|---|",
)


def table(record: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown: a row for each command."""
    return [*HEAD, *_rows(record)]


def _rows(record: Mapping[str, Any]) -> Iterator[str]:
    for part in ("plans", "runs"):
        for one in record.get(part, {}).get("found", ()):
            sizes = [f"{one[key]:,}" if key in one else "" for key in ("members", "variants", "examples")]
            times = [f"{one[key]:.1f}" for key in ("seconds", "processor_seconds")]
            left = [f"{one['files']:,} files"] if "files" in one else []
            left += [f"a page of {amount(one['bytes'])}B"] if "bytes" in one else []
            yield f"| {' | '.join([one['what'], *sizes, *times, ', '.join(left)])} |"
