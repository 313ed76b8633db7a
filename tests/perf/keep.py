"""The benchmarks of ``make perf`` as they are committed: ``python -m tests.perf.keep LATEST REFERENCE``."""

import json
import sys
from pathlib import Path

MACHINE = ("system", "machine", "python_version")


def kept(latest: dict) -> dict:
    """Names, statistics without the single times, and the machine without what tells whose it is."""
    benchmarks = [
        {**{k: one[k] for k in ("name", "extra_info")}, "stats": {k: v for k, v in one["stats"].items() if k != "data"}}
        for one in latest["benchmarks"]
        if "ratio" in one["extra_info"]
    ]
    machine = {name: latest["machine_info"][name] for name in MACHINE}
    return {"benchmarks": benchmarks, "machine_info": machine, "datetime": latest["datetime"]}


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(json.dumps(kept(json.loads(source.read_text())), indent=1) + "\n")
