"""Merges of folders, whole processes: ours and mergekit's in turn on the same files, with seconds and peak memory.

``python -m tests.perf.merging_folders [--big] [--rounds 3] [--rules linear ties] [--where FOLDER]``, to
results/perf/merging.json. Each round removes what the last one wrote before its clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path("results/perf/merging.json")
FLAGS = ([], ["--lazy-unpickle"], ["--async-write"], ["--lazy-unpickle", "--async-write"])
"""Of mergekit: the quickest is taken. Its others are for GPUs."""

FINE_TUNES = 3
WAYS = ("ours", "hashed", "float32", "bfloat16")
"""Ours, ours with hashes of what went in, and mergekit by its ``dtype``; the quicker of those counts against ours."""

PARAMETERS = {
    "linear": "weight: 0.4",
    "task_arithmetic": "weight: 0.4",
    "slerp": "",
    "dare_ties": "weight: 0.4, density: 0.2",
    "ties": "weight: 0.4, density: 0.2",
}
"""Of each model, by rule; ``merge_by_engine`` has the same."""


@dataclass(frozen=True)
class Process:
    """What a process took."""

    seconds: float
    peak_mb: float
    processor_seconds: float


def run(command: Sequence[str], out: Path) -> Process:
    """Run a command that writes a folder, which is removed before."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors.decode()[-2000:]}")
    return Process(seconds, used.ru_maxrss / 1024, used.ru_utime + used.ru_stime)


def models_of(rule: str, models: Sequence[Path]) -> list[Path]:
    """The base and what is merged into it."""
    return list(models[:2] if rule == "slerp" else models)


def recipe(rule: str, models: Sequence[Path], dtype: str) -> str:
    """mergekit's recipe."""
    lines = [f"merge_method: {rule}", f"dtype: {dtype}", "out_dtype: bfloat16", "models:"]
    own = f"\n    parameters: {{{PARAMETERS[rule]}}}" if PARAMETERS[rule] else ""
    first = [f"  - model: {models[0]}" + (own if rule == "linear" else "")]
    lines += first + [f"  - model: {model}{own}" for model in models[1:]]
    if rule != "linear":
        lines.append(f"base_model: {models[0]}")
    if rule == "slerp":
        lines.append("parameters: {t: 0.4}")
    return "\n".join(lines) + "\n"


def our_command(file: Path, out: Path, *flags: str) -> list[str]:
    """Ours; by default the model card has the sha256 of every file that went in, which mergekit's has not."""
    return [
        sys.executable,
        "-m",
        "harness.cli",
        "merge",
        str(file),
        str(out),
        "--shard-size",
        "200MB",
        "--quiet",
        *flags,
    ]


def mergekit_command(file: Path, out: Path, flags: Sequence[str]) -> list[str]:
    """mergekit's own."""
    program = Path(sys.executable).with_name("mergekit-yaml")
    shards = ["--out-shard-size", "200M"]
    return [str(program), str(file), str(out), *shards, "--no-copy-tokenizer", "--quiet", *flags]


STABLE = """
import functools, sys, torch
torch.argsort = functools.partial(torch.argsort, stable=True)
from mergekit.scripts.run_yaml import main
main()
"""
"""mergekit with a sort that keeps the order of equals, which is chance otherwise: to compare with, not to time.

What differs even so are elections of entries that cancel but for the rounding of their sum, which is in float64 here
and in float32 there.
"""


def stable_command(file: Path, out: Path) -> list[str]:
    """mergekit for a rule that sorts."""
    return [sys.executable, "-c", STABLE, *mergekit_command(file, out, [])[1:]]


def compare(first: Path, second: Path) -> dict[str, float]:
    """How many weights differ, and how many by more than one step of bfloat16."""
    code = (
        "import json, sys, torch\n"
        "from pathlib import Path\n"
        "from safetensors import safe_open\n"
        "def of(folder):\n"
        "    files = [safe_open(file, framework='pt') for file in sorted(Path(folder).glob('*.safetensors'))]\n"
        "    return {name: file for file in files for name in file.keys()}\n"
        "a, b = (of(folder) for folder in sys.argv[1:])\n"
        "assert a.keys() == b.keys(), a.keys() ^ b.keys()\n"
        "total = differ = far = 0\n"
        "for name in a:\n"
        "    x, y = (of[name].get_tensor(name) for of in (a, b))\n"
        "    x, y = (v.view(torch.int16).int() for v in (x, y))\n"
        "    x, y = (torch.where(v < 0, -(v & 0x7fff), v) for v in (x, y))\n"
        "    apart = (x - y).abs()\n"
        "    total, differ, far = total + x.numel(), differ + int((apart > 0).sum()), far + int((apart > 1).sum())\n"
        "print(json.dumps({'weights': total, 'differ': differ / total, 'differ_more': far / total}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(first), str(second)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout)
    return found


def floor(models: Sequence[Path], out: Path) -> tuple[float, float]:
    """Bytes a second of reading as the engine reads, on all cores, and of copying with it (read and written)."""
    code = (
        "import os, sys, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from pathlib import Path\n"
        "def read(path):\n"
        "    buffer, fd = bytearray(1 << 17), os.open(path, os.O_RDONLY)\n"
        "    while os.readv(fd, [buffer]): pass\n"
        "    os.close(fd)\n"
        "paths = [p for folder in sys.argv[1:] for p in Path(folder).glob('*.safetensors')]\n"
        "times = []\n"
        "for _ in range(5):\n"
        "    begin = time.perf_counter()\n"
        "    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool: list(pool.map(read, paths))\n"
        "    times.append(time.perf_counter() - begin)\n"
        "print(sum(p.stat().st_size for p in paths) / sorted(times)[2])"
    )
    reading = subprocess.run(
        [sys.executable, "-c", code, *map(str, models)], capture_output=True, text=True, check=True
    )
    command = [sys.executable, "-m", "tests.perf.merge_by_engine", "copy", str(out), str(models[0])]
    rates = []
    for _ in range(5):
        shutil.rmtree(out, ignore_errors=True)
        os.sync()
        copied = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        rates.append((copied["read"] + copied["written"]) / copied["all"])
    return float(reading.stdout), statistics.median(rates)


def nbytes(folder: Path) -> int:
    """Of a model's weights."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def quickest_flags(models: Sequence[Path], work: Path) -> list[str]:
    """With which mergekit's weighted sum takes least."""
    file, out = work / "flags.yml", work / "theirs"
    file.write_text(recipe("task_arithmetic", models, "bfloat16"))
    return min(FLAGS, key=lambda flags: run(mergekit_command(file, out, flags), out).seconds)


def contest(
    rule: str, models: Sequence[Path], work: Path, rounds: int, rates: tuple[float, float], flags: Sequence[str]
) -> dict[str, object]:
    """One rule, all ways in turn."""
    models = models_of(rule, models)
    files = {dtype: work / f"{rule}-{dtype}.yml" for dtype in ("float32", "bfloat16")}
    for dtype, file in files.items():
        file.write_text(recipe(rule, models, dtype))
    ours, theirs = work / "ours", work / "theirs"
    taken: dict[str, list[Process]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        taken["hashed"].append(run(our_command(files["float32"], ours), ours))
        taken["ours"].append(run(our_command(files["float32"], ours, "--no-hashes"), ours))
        for dtype in ("bfloat16", "float32"):
            taken[dtype].append(run(mergekit_command(files[dtype], theirs, flags), theirs))
    if rule == "ties":
        run(stable_command(files["float32"], theirs), theirs)
    equal = compare(ours, theirs) if rule != "dare_ties" else None
    medians = {way: statistics.median(each.seconds for each in runs) for way, runs in taken.items()}
    peaks = {way: max(each.peak_mb for each in runs) for way, runs in taken.items()}
    best = min(("float32", "bfloat16"), key=lambda dtype: medians[dtype])
    size = nbytes(models[0])
    least = (len(models) - 1) * size / rates[0] + 2 * size / rates[1]
    for folder in (ours, theirs):
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "rule": rule,
        "models": len(models),
        "seconds": medians,
        "rounds": {way: [round(each.seconds, 3) for each in runs] for way, runs in taken.items()},
        "processor_seconds": {way: statistics.median(p.processor_seconds for p in runs) for way, runs in taken.items()},
        "peak_mb": peaks,
        "mergekit_flags": list(flags),
        "mergekit_dtype": best,
        "ratio": medians[best] / medians["ours"],
        "memory_ratio": peaks[best] / peaks["ours"],
        "floor_seconds": least,
        "differences": equal,
    }


def table(rows: Sequence[dict]) -> list[str]:
    """The figures as Markdown."""
    lines = [
        "| rule | ours, s · MB | with hashes | mergekit, float32 | bfloat16 | ratio · memory | floor, s | different |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        ways = [f"{row['seconds'][way]:.2f} · {row['peak_mb'][way]:,.0f}" for way in WAYS]
        equal = row["differences"]
        apart = f"{equal['differ']:.1e}" if equal else "drawn"
        ratio = f"{row['ratio']:.1f} · {row['memory_ratio']:.0f}"
        lines.append(f"| {' | '.join([row['rule'], *ways, ratio, format(row['floor_seconds'], '.2f'), apart])} |")
    return lines


def main() -> None:
    """Make the models, run all rules, print the table and keep the figures."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--big", action="store_true", help="1.1 billion parameters, not 271 million")
    options.add_argument("--rounds", type=int, default=3, help="of each way")
    options.add_argument("--rules", nargs="+", choices=PARAMETERS, default=list(PARAMETERS))
    options.add_argument("--where", type=Path, help="a folder with room for six models (default: the temporary one)")
    options.add_argument("--models", type=Path, help="a folder of models that tests.perf.make_models made")
    options.add_argument("--flags", help="mergekit's, in one text (default: the quickest of a trial of each)")
    options.add_argument("--results", type=Path, default=RESULTS)
    given = options.parse_args()
    size = "big" if given.big else "small"
    with tempfile.TemporaryDirectory(dir=given.where, prefix="stockpot-merging-") as name:
        work = Path(name)
        folder = given.models or work
        if not given.models:
            command = [sys.executable, "-m", "tests.perf.make_models", str(folder), size, str(FINE_TUNES)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        models = sorted(folder.glob("model-?"))
        model_bytes = nbytes(models[0])
        rates = floor(models, work / "floor")
        shutil.rmtree(work / "floor")
        print(f"reading {rates[0] / 1e9:.1f} GB/s, copying {rates[1] / 1e9:.1f} GB/s", file=sys.stderr)
        flags = quickest_flags(models, work) if given.flags is None else given.flags.split()
        facts = {"bytes_of_a_model": model_bytes, "reading_rate": rates[0], "copying_rate": rates[1]}
        for rule in given.rules:
            rows = keep(given.results, size, facts, contest(rule, models, work, given.rounds, rates, flags))
            print(next(line for line in table(rows) if line.startswith(f"| {rule} ")), file=sys.stderr, flush=True)
    print("\n".join(table(rows)))


def keep(file: Path, size: str, facts: dict[str, float], row: dict) -> list[dict]:
    """Put a rule's figures into the file, in the place of earlier ones; all rules of that size."""
    kept = json.loads(file.read_text()) if file.is_file() else {}
    known = {each["rule"]: each for each in [*kept.get(size, {}).get("rules", []), row]}
    rows = [known[rule] for rule in PARAMETERS if rule in known]
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    kept[size] = {"machine": machine, **facts, "rules": rows}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
