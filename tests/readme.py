"""The numbers of the README from the files under results: ``python -m tests.readme`` writes them, a test compares."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from harness.display.formats import number, percent, percent_interval, points, points_interval, ratio
from harness.report.claim import Claim
from harness.results.columns import ALL_SEEDS
from harness.results.run import Run, read_run

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
REFERENCES = ROOT / "results" / "reference"
SPEEDS = ROOT / "results" / "perf" / "reference.json"

Row = Callable[[list[str]], list[str]]
"""The cells of a row of a table from those that it has, of which the first says what it is about."""


def updated(text: str) -> str:
    """The README with every number as the results have it; rows are kept, and speeds are those that were measured."""
    lines, row, suites = [], None, iter(("domains", "smollm2"))
    for line in text.split("\n"):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|---"):
            pass
        elif not line.startswith("|"):
            row = None
        elif row is None:
            row = _table(cells, suites)
        elif row:
            line = f"| {' | '.join(row(cells))} |"
        lines.append(line)
    return _sentences(_speeds("\n".join(lines)))


def _table(head: list[str], suites: Iterable[str]) -> Row | bool:
    """What fills the rows under this head; False where they hold no numbers of ours."""
    if head[:2] == ["variant", "accuracy"]:
        return _of_images
    if head[:2] == ["variant", "scripture"]:
        suite = next(iter(suites))
        return lambda cells: _of_text(suite, cells)
    if head[0] == "pool":
        return _of_pools
    return _of_claims if head[0] == "claim" else False


@cache
def _run(suite: str) -> Run:
    return read_run(REFERENCES / suite)


@cache
def _variants(suite: str) -> pd.DataFrame:
    table = _run(suite).variants
    return table[table["seed"] == ALL_SEEDS].set_index("variant")


def _name(cell: str) -> str:
    return cell.strip("`")


def _of_images(cells: list[str]) -> list[str]:
    table = _variants("mnist")
    row = table.loc[_name(cells[0])]
    reference = table.loc["best_single"]
    difference = ""
    if row["verdict"] != "reference":
        difference = f"{points(row['diff_vs_reference'])} [{points_interval(row['diff_low'], row['diff_high'])}]"
    accuracy = [percent(row["accuracy"]), percent_interval(row["accuracy_low"], row["accuracy_high"])]
    flops = ratio(row["flops_per_example"] / reference["flops_per_example"])
    return [cells[0], *accuracy, difference, row["verdict"], flops, ratio(row["latency_ratio_p50"])]


def _of_text(suite: str, cells: list[str]) -> list[str]:
    row = _variants(suite).loc[_name(cells[0])]
    reference = _variants(suite).loc[_run(suite).record["reference"]["variant"]]
    measures = _run(suite).measures.loc[_name(cells[0])]
    bits = [measures[f"bits_per_byte/bytes_{domain}"] for domain in ("scripture", "speeches", "python")]
    interval = f"({percent_interval(row['accuracy_low'], row['accuracy_high'])})"
    flops = ratio(row["flops_per_example"] / reference["flops_per_example"])
    return [cells[0], *map(number, (*bits, row["bits_per_byte"])), f"{percent(row['accuracy'])} {interval}", flops]


def _of_pools(cells: list[str]) -> list[str]:
    pool = _name(cells[0])
    found = {item["metric"]: item for item in _run("mnist").correlations
             if (item["pool"], item["seed"]) == (pool, ALL_SEEDS)}  # fmt: skip
    shown = []
    for metric in ("nll", "accuracy"):
        pearson = found[metric]["pearson"]
        low, high = number(pearson["low"], 2), number(pearson["high"], 2)
        shown.append(f"{number(pearson['value'], 2)} ({low} to {high})")
    return [cells[0], *shown, str(found["nll"]["n"]), percent(_worse(pool), 0)]


def _worse(pool: str) -> float:
    """The share of subsets whose average has a higher NLL than its mean member."""
    table = _run("mnist").subsets
    assert table is not None
    rows = table[(table["pool"] == pool) & (table["metric"] == "nll")]
    return float((rows["average"] > rows["members"]).mean())


def _of_claims(cells: list[str]) -> list[str]:
    found = {item["claim"]: Claim(**item) for item in json.loads((REFERENCES / "domains/claims.json").read_text())}
    claim = found[cells[0]]
    return [claim.claim, claim.verdict, claim.shown + ("" if claim.unit == "points" else f" {claim.unit}")]


def _speeds(text: str) -> str:
    """The whole table: benchmarks come and go."""
    head = "| what | ours, s | other, s | ratio (single rounds) | target |\n|---|--:|--:|---|---|\n"
    before, after = text.split(head)
    rest = after[after.index("\n\n") :]
    return before + head + "\n".join(map(_speed, json.loads(SPEEDS.read_text())["benchmarks"])) + rest


def _speed(benchmark: dict[str, Any]) -> str:
    info = benchmark["extra_info"]
    spread = f"{info['ratio']:.2f} ({info['ratio_low']:.2f} to {info['ratio_high']:.2f})"
    times = f"{benchmark['stats']['median']:.2f} | {info['other_seconds']:.2f}"
    return f"| {info['what']} | {times} | {spread} | {info['target']} |"


def _sentences(text: str) -> str:
    """Numbers within sentences, each with words around it that have to be there."""
    mnist, domains = _run("mnist").record, _run("domains").record
    summary = mnist["summary"]
    gpu = pd.read_csv(REFERENCES / "h100/variants.csv")
    off = (gpu["working_memory_bytes"] / gpu["predicted_memory_bytes"]).median() - 1
    patterns = {
        r"\*\d+ combinations": f"*{summary['variants']} combinations",
        r"\d+ min \d+ s on two cores \(\[the whole": f"{_minutes(mnist)} on two cores ([the whole",
        r"and scores \d+ combinations": f"and scores {domains['summary']['variants']} combinations",
        r"\(\d+ min \d+ s on two cores\)": f"({_minutes(domains)} on two cores)",
        r"mean member in \d+ % of subsets": f"mean member in {percent(1 - _worse('main'), 0)} of subsets",
        r"that is so in \d+ %": f"that is so in {percent(1 - _worse('far'), 0)}",
        r"\d+ output-space variants share": f"{summary['output_variants']} output-space variants share",
        r"predicting took [0-9.]+ s": f"predicting took {summary['predict_seconds']:.2f} s",
        r"them [0-9.]+ s, for \d+ seeds": f"them {summary['combine_seconds']:.2f} s, for {len(mnist['seeds'])} seeds",
        r"was [0-9.]+ % too (low|high)": f"was {abs(100 * off):.1f} % too {'low' if off > 0 else 'high'}",
    }
    for pattern, found in patterns.items():
        text, count = re.subn(pattern, found.replace("\\", r"\\"), text, count=1)
        if not count:
            raise ValueError(f"README.md has no words '{pattern}'")
    return text


def _minutes(record: dict[str, Any]) -> str:
    minutes, seconds = divmod(round(record["wall_seconds"]), 60)
    return f"{minutes} min {seconds:02d} s"


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
