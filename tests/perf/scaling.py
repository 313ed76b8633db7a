"""Seconds that plans, runs and reports of thousands of variants take, and simulated schedules beside real ones.

``python -m tests.perf.scaling [plans] [runs] [schedule]`` times all of it, or these parts, in processes as a user
starts them, and writes results/perf/scaling.json; what it does not time stays as it is there. Nothing else should run
meanwhile. The parts take about one, fifteen and two minutes on two cores.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import environment
from harness.engines.local import LocalEngine
from harness.engines.simulation import simulate
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.store import read_json, write_json
from harness.suite.suite import read_suite
from tests.perf.scaling_suites import of_checkpoints, of_predictions

TARGET = Path("results/perf/scaling.json")
SMOKE = Path("suites/smoke.yaml")
WORKERS = 2


def stockpot(*words: object) -> dict[str, float]:
    """Seconds that a command takes from start to end, and those of processors, with the processes that it starts."""
    begin, used = time.perf_counter(), _processor_seconds()
    command = [sys.executable, "-m", "harness.cli", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    seconds = {"seconds": time.perf_counter() - begin, "processor_seconds": _processor_seconds() - used}
    return {name: round(value, 2) for name, value in seconds.items()}


def _processor_seconds() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def time_plans(folder: Path) -> list[dict[str, Any]]:
    """Plans of which nothing has been made yet; the first of a suite of networks also weighs a process."""
    suites = [
        (of_predictions(folder / "thousand", 8, 1_000, 500), 8, 1_000),
        (of_predictions(folder / "thirty", 30, 1_000, 500), 30, 1_000),
        (of_predictions(folder / "ten_thousand", 8, 10_000, 500), 8, 10_000),
        (of_checkpoints(folder / "checkpoints", 1_000, 10_000), 1_000, 10_000),
    ]
    return [
        {"what": "plan", "members": members, "variants": variants,
         **stockpot("plan", suite, "--out", suite.parent / "out", "--workers", WORKERS)}
        for suite, members, variants in suites
    ]  # fmt: skip


def time_runs(folder: Path) -> list[dict[str, Any]]:
    """A run, the same again with nothing to do, and its report, of 1,000 variants and of 2,000."""
    found = []
    for variants, examples in ((1_000, 1_000), (2_000, 100)):
        suite = of_predictions(folder / f"run_{variants}", 8, variants, examples)
        out = suite.parent / "out"
        run = ("run", suite, "--out", out, "--workers", WORKERS)
        size = {"members": 8, "variants": variants, "examples": variants * examples}
        found.append({"what": "run", **size, **stockpot(*run)})
        files = sum(path.is_file() for path in (out / ".store").rglob("*"))
        found.append({"what": "run, all reused", **size, "files": files, **stockpot(*run)})
        latest = out / "predictions/latest"
        seconds = stockpot("report", latest)
        pages = {name: (latest / name).stat().st_size for name in ("report.html", "details.json")}
        found.append({"what": "report", **size, **seconds, "bytes": pages["report.html"],
                      "details_bytes": pages["details.json"]})  # fmt: skip
    return found


def compare_schedules(folder: Path) -> dict[str, Any]:
    """The smoke suite's run beside its schedule, simulated from expected seconds and from those that jobs took."""
    plan = make_plan(read_suite(SMOKE), Options(out=folder, workers=WORKERS))
    jobs = [planned.job for planned in plan.missing()]
    stockpot("run", SMOKE, "--out", folder, "--workers", WORKERS)
    events = [json.loads(line) for line in (folder / "smoke/latest/log.jsonl").read_text().splitlines()]
    at = {what: {each["job"]: each["at"] for each in events if each["event"] == what} for what in ("start", "done")}
    took = {name: at["done"][name] - at["start"][name] for name in at["done"]}
    slots = LocalEngine(WORKERS).slots
    planned = {"expected": simulate(jobs, slots), "as they took": simulate(jobs, slots, took)}
    begin, end = min(at["start"].values()), max(at["done"].values())
    started = sorted(at["start"], key=at["start"].__getitem__)
    same = [name for _, name in planned["as they took"].starts]
    return {
        "suite": str(SMOKE), "workers": WORKERS, "jobs": len(jobs), "real_seconds": round(end - begin, 2),
        "real_idle_share": round(1 - sum(took.values()) / (WORKERS * (end - begin)), 3),
        "same_place_in_order": sum(one == other for one, other in zip(started, same, strict=True)),
        **{name: {"makespan": round(each.makespan, 2), "critical_path": round(each.critical_path, 2),
                  "idle_share": round(each.idle_share, 3)} for name, each in planned.items()},
    }  # fmt: skip


PARTS: dict[str, Callable[[Path], Any]] = {"plans": time_plans, "runs": time_runs, "schedule": compare_schedules}


def main(parts: list[str]) -> None:
    """Time these parts, and put them into the file."""
    record = read_json(TARGET) if TARGET.is_file() else {}
    for part in parts or list(PARTS):
        load = round(os.getloadavg()[0], 1)  # of others, before it begins
        with tempfile.TemporaryDirectory() as folder:
            found = PARTS[part](Path(folder))
        record[part] = {"measured": datetime.now(UTC).isoformat(timespec="minutes"), "load": load, "found": found}
        print(json.dumps(found, indent=1), flush=True)
    machine = environment.machine()
    write_json(TARGET, record | {"machine": {key: machine[key] for key in ("cpu", "cores", "memory_bytes")}})


if __name__ == "__main__":
    main(sys.argv[1:])
