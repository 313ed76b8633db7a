"""The numbers of README, pages and changelog, from the files under results: ``python -m tests.readme`` writes them.

A table or quotation under a comment ``<!-- from RUN: WHAT -->`` is filled from a committed run, and so are the numbers
of some sentences (``_sentences``). Rows of variants, pools and claims are kept; their cells are filled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from harness.display.formats import number, percent, percent_interval, points, points_interval, ratio
from harness.report.claim import Claim
from harness.results.columns import ALL_SEEDS
from harness.results.run import Run, read_run

ROOT = Path(__file__).parents[1]
REFERENCES = ROOT / "results" / "reference"
SPEEDS = ROOT / "results" / "perf" / "reference.json"

PAGES = {
    "README.md": ROOT / "README.md",
    "runs": REFERENCES / "README.md",
    "smollm2": REFERENCES / "smollm2.md",
    "speed": REFERENCES / "speed.md",
    "changelog": ROOT / "CHANGELOG.md",
}

FILLED = re.compile(r"(?P<mark><!-- from (?P<run>\w+): (?P<what>\w+) -->\n)(?P<block>(?:[|>].*\n)+)")


def updated(page: str, text: str) -> str:
    """A page's text with every number as the results have it."""
    return _sentences(page, FILLED.sub(_filled, text))


def _filled(found: re.Match[str]) -> str:
    lines = found["block"].splitlines()
    return found["mark"] + "".join(f"{line}\n" for line in BLOCKS[found["what"]](found["run"], lines))


@cache
def _run(suite: str) -> Run:
    return read_run(REFERENCES / suite)


@cache
def _variants(suite: str) -> pd.DataFrame:
    table = _run(suite).variants
    return table[table["seed"] == ALL_SEEDS].set_index("variant")


def _answer(suite: str, lines: list[str]) -> list[str]:
    """The answer with which the run's report begins."""
    report = (REFERENCES / suite / "report.md").read_text(encoding="utf-8")
    return [f"> {next(line for line in report.splitlines() if line.startswith('**'))}"]


def _speeds(of: str, lines: list[str]) -> list[str]:
    """All rows anew: benchmarks come and go."""
    return [*lines[:2], *map(_speed, json.loads(SPEEDS.read_text())["benchmarks"])]


def _speed(benchmark: dict[str, Any]) -> str:
    info = benchmark["extra_info"]
    spread = f"{info['ratio']:.2f} ({info['ratio_low']:.2f} to {info['ratio_high']:.2f})"
    times = f"{benchmark['stats']['median']:.2f} | {info['other_seconds']:.2f}"
    return f"| {info['what']} | {times} | {spread} | {info['target']} |"


def _rows(cells_of: Callable[[str, str], list[str]]) -> Callable[[str, list[str]], list[str]]:
    """A table whose first cells are kept and say what the other cells of their rows are about."""

    def filled(suite: str, lines: list[str]) -> list[str]:
        firsts = [line.strip("|").split(" | ")[0].strip() for line in lines[2:]]
        return [*lines[:2], *(f"| {' | '.join([first, *cells_of(suite, first.strip('`'))])} |" for first in firsts)]

    return filled


def _of_variant(suite: str, variant: str) -> list[str]:
    row, reference = _variants(suite).loc[variant], _variants(suite).loc["best_single"]
    difference = ""
    if row["verdict"] != "reference":
        difference = f"{points(row['diff_vs_reference'])} [{points_interval(row['diff_low'], row['diff_high'])}]"
    accuracy = [percent(row["accuracy"]), percent_interval(row["accuracy_low"], row["accuracy_high"])]
    flops = ratio(row["flops_per_example"] / reference["flops_per_example"])
    return [*accuracy, difference, row["verdict"], flops, ratio(row["latency_ratio_p50"])]


def _of_domains(suite: str, variant: str) -> list[str]:
    row = _variants(suite).loc[variant]
    reference = _variants(suite).loc[_run(suite).record["reference"]["variant"]]
    measures = _run(suite).measures.loc[variant]
    bits = [measures[f"bits_per_byte/bytes_{domain}"] for domain in ("scripture", "speeches", "python")]
    interval = f"({percent_interval(row['accuracy_low'], row['accuracy_high'])})"
    flops = ratio(row["flops_per_example"] / reference["flops_per_example"])
    return [*map(number, (*bits, row["bits_per_byte"])), f"{percent(row['accuracy'])} {interval}", flops]


def _correlation(suite: str, pool: str, metric: str) -> dict[str, Any]:
    wanted = (pool, metric, ALL_SEEDS)
    return next(item for item in _run(suite).correlations if (item["pool"], item["metric"], item["seed"]) == wanted)


def _pearson(suite: str, pool: str, metric: str) -> str:
    return number(_correlation(suite, pool, metric)["pearson"]["value"], 2)


def _of_pool(suite: str, pool: str) -> list[str]:
    shown = []
    for metric in ("nll", "accuracy"):
        pearson = _correlation(suite, pool, metric)["pearson"]
        shown.append(f"{_pearson(suite, pool, metric)} ({number(pearson['low'], 2)} to {number(pearson['high'], 2)})")
    return [*shown, str(_correlation(suite, pool, "nll")["n"]), percent(_worse(suite, pool), 0)]


def _worse(suite: str, pool: str) -> float:
    """The share of subsets whose average has a higher NLL than its mean member."""
    table = _run(suite).subsets
    assert table is not None
    rows = table[(table["pool"] == pool) & (table["metric"] == "nll")]
    return float((rows["average"] > rows["members"]).mean())


def _of_claim(suite: str, sentence: str) -> list[str]:
    claims = {item["claim"]: Claim(**item) for item in json.loads((REFERENCES / suite / "claims.json").read_text())}
    claim = claims[sentence]
    return [claim.verdict, claim.shown + ("" if claim.unit == "points" else f" {claim.unit}")]


BLOCKS: dict[str, Callable[[str, list[str]], list[str]]] = {
    "answer": _answer,
    "speeds": _speeds,
    "variants": _rows(_of_variant),
    "domains": _rows(_of_domains),
    "pools": _rows(_of_pool),
    "claims": _rows(_of_claim),
}


def _sentences(page: str, text: str) -> str:
    """Numbers within sentences, each with words around it that have to be there, line breaks aside."""
    for sentence, values in SENTENCES[page]().items():
        words = [re.escape(part).replace(r"\ ", r"\s+") for part in sentence.split("#")]
        pattern = words[0] + "".join(rf"([\s\S]{{1,20}}?){part}" for part in words[1:]) + r"(?!\d)"
        found = re.search(pattern, text)
        if found is None:
            raise ValueError(f"{page} has no words '{sentence}'")
        for group, value in reversed(list(enumerate(values, start=1))):
            text = text[: found.start(group)] + value + text[found.end(group) :]
    return text


def _of_readme() -> dict[str, list[str]]:
    mnist, domains = _run("mnist").record, _run("domains").record
    pearsons = [_pearson("mnist", pool, "nll") for pool in ("main", "far", "independent")]
    subsets = str(_correlation("mnist", "main", "nll")["n"])
    worse = percent(_worse("mnist", "independent"), 0)
    return {
        "suites of `make bench` took # on two cores,": [_minutes(mnist, domains)],
        "*# combinations of real models": [str(mnist["summary"]["variants"])],
        "digits, # on two cores ([the whole": [_minutes(mnist)],
        "(Pearson # of the NLL over # subsets)": [pearsons[0], subsets],
        "where they leave it (#), and": [pearsons[1]],
        "independent starts (#), where": [pearsons[2]],
        "mean member in # of subsets": [worse],
    }


def _of_runs() -> dict[str, list[str]]:
    mnist, domains = _run("mnist").record, _run("domains").record
    summary = mnist["summary"]
    examples, seeds = str(sum(mnist["task"]["documents"].values())), str(len(mnist["seeds"]))
    gpu = pd.read_csv(REFERENCES / "h100/variants.csv")
    off = (gpu["working_memory_bytes"] / gpu["predicted_memory_bytes"]).median() - 1
    return {
        ": # fine-tunes of one small CNN": [str(summary["main_members"])],
        "on MNIST-5k (# test examples, # seeds; # on two cores)": [examples, seeds, _minutes(mnist)],
        "mean member in # of subsets": [percent(1 - _worse("mnist", "main"), 0)],
        "that is so in #, and": [percent(1 - _worse("mnist", "far"), 0)],
        "the # output-space variants share the passes of # members": [
            str(summary["output_variants"]),
            str(summary["main_members"]),
        ],
        "predicting took # s, fitting": [f"{summary['predict_seconds']:.2f}"],
        "all of them # s, for # seeds.": [f"{summary['combine_seconds']:.2f}", seeds],
        "and scores # combinations": [str(domains["summary"]["variants"])],
        "members (# on two cores)": [_minutes(domains)],
        "it was # % too #.": [f"{abs(100 * off):.1f}", "low" if off > 0 else "high"],
    }


def _of_smollm2() -> dict[str, list[str]]:
    whole = _run("smollm2").record
    first = json.loads((REFERENCES / "smollm2/run-first-part.json").read_text())
    variants = first["summary"]["ok"]
    others = str(whole["summary"]["variants"] - variants)
    return {
        "`make bench`: # on two cores for # of its": [_minutes(first), str(variants)],
        "and # more for the other #.": [_minutes(whole), others],
    }


def _of_changelog() -> dict[str, list[str]]:
    mnist, domains = _run("mnist").record, _run("domains").record
    speeds = {one["name"]: one["extra_info"]["ratio"] for one in json.loads(SPEEDS.read_text())["benchmarks"]}
    faster = [f"{speeds[f'test_merging[{name}]']:.1f}" for name in ("ties", "dare_linear", "linear")]
    slower = [f"{speeds[f'test_merging[{name}]']:.2f}" for name in ("slerp", "task_arithmetic")]
    pearsons = [_pearson("mnist", pool, "nll") for pool in ("main", "far")]
    pools = str(len(mnist["pools"]))
    return {
        "reports: # variants of # pools": [str(mnist["summary"]["variants"]), pools],
        "and # of tiny language models": [str(domains["summary"]["variants"])],
        "(Pearson of NLL #), less where they leave it (#).": pearsons,
        "models take # times as long": [f"{1 / speeds['test_twenty_rules_over_four_members']:.2f}"],
        "are scored # times as fast as by": [f"{speeds['test_long_contexts_with_four_choices']:.1f}"],
        "soups are # times as fast as a plain loop": [f"{speeds['test_subset_soups']:.1f}"],
        "TIES # times as fast, DARE #, linear #.": faster,
        "(# and # of its speed)": slower,
        "it was # % too #.": _of_runs()["it was # % too #."],
    }


SENTENCES: dict[str, Callable[[], dict[str, list[str]]]] = {
    "README.md": _of_readme,
    "runs": _of_runs,
    "smollm2": _of_smollm2,
    "speed": dict,
    "changelog": _of_changelog,
}
"""Sentences of each page with a # for every number, and the numbers."""


def _minutes(*records: dict[str, Any]) -> str:
    """The time of some runs, one after the other."""
    minutes, seconds = divmod(round(sum(record["wall_seconds"] for record in records)), 60)
    return f"{minutes} min {seconds:02d} s"


if __name__ == "__main__":
    for page, path in PAGES.items():
        path.write_text(updated(page, path.read_text(encoding="utf-8")), encoding="utf-8")
