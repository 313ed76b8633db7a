"""The benchmarks of ``make perf`` as they are committed: ``python -m tests.perf.keep LATEST REFERENCE``.

Those that were not measured this time stay as they are; each says when it was.
"""

import json
import sys
from pathlib import Path

MACHINE = ("system", "machine", "python_version")


def kept(latest: dict, before: dict) -> dict:
    """Names, statistics without the single times, and the machine without what tells whose it is."""
    found = {
        one["name"]: {
            **{key: one[key] for key in ("name", "extra_info")},
            "stats": {key: value for key, value in one["stats"].items() if key != "data"},
            "datetime": latest["datetime"],
        }
        for one in latest["benchmarks"]
        if "ratio" in one["extra_info"]
    }
    older = {one["name"]: {"datetime": before["datetime"], **one} for one in before["benchmarks"]}
    machine = {name: latest["machine_info"][name] for name in MACHINE}
    return {"benchmarks": [*(older | found).values()], "machine_info": machine, "datetime": latest["datetime"]}


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    latest, before = (json.loads(path.read_text()) for path in (source, target))
    target.write_text(json.dumps(kept(latest, before), indent=1) + "\n")
