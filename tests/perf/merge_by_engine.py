"""One merge by the streaming engine alone: ``python -m tests.perf.merge_by_engine RULE OUT BASE MODEL...``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from harness.streaming.engine import write
from harness.streaming.output import whole
from harness.streaming.plan import Plan, Step
from harness.streaming.rules import RULES
from harness.streaming.shards import read_folder

VALUES = {"weight": 0.4, "density": 0.2, "t": 0.4}
"""Of parameters whose default says little."""


def make_plan(rule: str, folders: list[Path]) -> Plan:
    """All tensors by one rule, with the parameters of ``merging_folders``; the first folder is the base."""
    read = [read_folder(folder).tensors for folder in folders]
    base = None if rule == "copy" or RULES[rule].base == "ignored" else 0
    shared, each = {}, {}
    for parameter in RULES[rule].parameters if rule != "copy" else ():
        value = VALUES.get(parameter.name, parameter.default)
        if parameter.scope == "shared":
            shared[parameter.name] = value
        else:
            each[parameter.name] = (value,) * len(read)
    steps = [
        Step(
            name,
            tensor.dtype,
            tensor.shape,
            tuple(tensors[name] for tensors in read),
            rule,
            base,
            shared,
            each,
            draws=tuple(map(str, range(len(read)))),
        )
        for name, tensor in read[0].items()
    ]
    return Plan(tuple(steps))


def main(rule: str, out: str, *folders: str) -> None:
    """Merge, and print the seconds and bytes of the engine."""
    begin = time.perf_counter()
    with whole(Path(out)) as folder:
        written = write(make_plan(rule, [Path(each) for each in folders]), folder, shard_bytes=200_000_000)
        computed = time.perf_counter()
    seconds = {"engine": computed - begin, "all": time.perf_counter() - begin}
    print(json.dumps({**seconds, "read": written.bytes_read, "written": written.bytes_written}))


if __name__ == "__main__":
    main(*sys.argv[1:])
