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

from harness.display.formats import difference, difference_interval, number, percent, percent_interval, ratio, scored
from harness.evaluate.decisions import OWN, THESE
from harness.report.claim import Claim
from harness.results.columns import ALL_SEEDS
from harness.results.run import Run, read_run
from harness.results.scoring import score_of
from tests.perf import scaling_table
from tests.perf.merging_folders import table

ROOT = Path(__file__).parents[1]
REFERENCES = ROOT / "results" / "reference"
SPEEDS = ROOT / "results" / "perf" / "reference.json"
MERGES = ROOT / "results" / "perf" / "merging.json"
SCALING = ROOT / "results" / "perf" / "scaling.json"


def shown(language: str) -> dict[str, str]:
    """The files that the README shows in full: blocks of a language whose first line is a comment with the name."""
    found = re.findall(rf"```{language}\n# (\S+\.\w+)\b.*\n((?:.*\n)+?)```", (ROOT / "README.md").read_text("utf-8"))
    return dict(found)


PAGES = {
    "README.md": ROOT / "README.md",
    "runs": REFERENCES / "README.md",
    "smollm2": REFERENCES / "smollm2.md",
    "own": REFERENCES / "own.md",
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


def _folders(of: str, lines: list[str]) -> list[str]:
    """Merges of folders, as ``tests.perf.merging_folders`` left them."""
    return table(json.loads(MERGES.read_text())["small"]["rules"])


def _scaling(of: str, lines: list[str]) -> list[str]:
    """Plans, runs and reports of thousands of variants, as ``tests.perf.scaling`` left them."""
    return scaling_table.table(json.loads(SCALING.read_text()))


def _rows(cells_of: Callable[[str, str], list[str]]) -> Callable[[str, list[str]], list[str]]:
    """A table whose first cells are kept and say what the other cells of their rows are about."""

    def filled(suite: str, lines: list[str]) -> list[str]:
        firsts = [line.strip("|").split(" | ")[0].strip() for line in lines[2:]]
        return [*lines[:2], *(f"| {' | '.join([first, *cells_of(suite, first.strip('`'))])} |" for first in firsts)]

    return filled


def _decided(suite: str, lines: list[str]) -> list[str]:
    """Variants by their suite's first score: the score, its difference for the whole table, and both verdicts."""
    table = _variants(suite)
    score = score_of(_run(suite))
    comparisons = _run(suite).comparisons
    own = comparisons[(comparisons["seed"] == ALL_SEEDS) & (comparisons["metric"] == score.name)]
    own = own[(own["kind"] == OWN) & (own["scope"] == THESE)].set_index("variant")

    def cells(variant: str) -> list[str]:
        row, reference = table.loc[variant], table.loc[_run(suite).record["reference"]["variant"]]
        flops = ratio(row["flops_per_example"] / reference["flops_per_example"])
        shown = [scored(row[score.name], score.is_share)]
        if row["verdict"] == "reference":
            return [*shown, "", "reference", "", flops, ratio(row["latency_ratio_p50"])]
        found = own.loc[variant]
        interval = difference_interval(found["low_together"], found["high_together"], score.is_share)
        shown.append(f"{difference(found['difference'], score.is_share)} [{interval}]")
        like = row["recipe_verdict"] if isinstance(row["recipe_verdict"], str) else ""
        return [*shown, row["verdict"], like, flops, ratio(row["latency_ratio_p50"])]

    return _rows(lambda _, variant: cells(variant))(suite, lines)


def _simulated(of: str, lines: list[str]) -> list[str]:
    """All rates anew."""
    found = json.loads((REFERENCES / "simulation.json").read_text())
    return [*lines[:2], *(f"| {name} | {_rate(name, rate)} |" for name, rate in found["rates"].items())]


def _rate(name: str, rate: float) -> str:
    if "points" in name:
        return f"{rate:+.3f}".replace("-", "−")
    return number(rate, 1) if name.startswith("size") else percent(rate)


def _of_domains(suite: str, variant: str) -> list[str]:
    row = _variants(suite).loc[variant]
    reference = _variants(suite).loc[_run(suite).record["reference"]["variant"]]
    measures = _run(suite).measures.loc[variant]
    bits = [measures[f"bits_per_byte/bytes_{domain}"] for domain in ("scripture", "speeches", "python")]
    interval = f"({percent_interval(row['accuracy_low'], row['accuracy_high'])})"
    flops = ratio(row["flops_per_example"] / reference["flops_per_example"])
    accuracy = f"{percent(row['accuracy'])} {interval}"
    return [*map(number, (*bits, row["bits_per_byte"])), row["verdict"], accuracy, flops]


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


def _claims(suite: str, lines: list[str]) -> list[str]:
    """All claims that the run tested."""
    found = [Claim(**item) for item in json.loads((REFERENCES / suite / "claims.json").read_text())]
    return [*lines[:2], *(_claim(claim) for claim in found if claim.estimate is not None)]


def _claim(claim: Claim) -> str:
    unit = "" if claim.unit == "points" else f" {claim.unit}"
    return f"| {claim.claim} | {claim.verdict} | {claim.shown}{unit} |"


BLOCKS: dict[str, Callable[[str, list[str]], list[str]]] = {
    "answer": _answer,
    "speeds": _speeds,
    "folders": _folders,
    "scaling": _scaling,
    "decided": _decided,
    "simulated": _simulated,
    "domains": _rows(_of_domains),
    "pools": _rows(_of_pool),
    "claims": _claims,
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


SUITES = ("letters", "mnist", "domains")
"""Those of `make bench`."""


def _of_readme() -> dict[str, list[str]]:
    letters = _run("letters").record
    rates = json.loads((REFERENCES / "simulation.json").read_text())["rates"]
    pearsons = [_pearson("letters", pool, "nll") for pool in ("main", "independent")]
    subsets = str(_correlation("letters", "main", "nll")["n"])
    any_verdict, uncorrected = (rates[f"accuracy: {name}"] for name in (ANY, UNCORRECTED))
    return {
        "suites of `make bench` took # on two cores": [_together(*(_run(suite).record for suite in SUITES))],
        "*# combinations of real models": [str(letters["summary"]["variants"])],
        "variants, # say better or worse of any; uncorrected it would be #.": [
            percent(any_verdict, 1), percent(uncorrected, 0)
        ],
        "(Pearson # of the NLL over # subsets)": [pearsons[0], subsets],
        "independent starts (#), where": [pearsons[1]],
        "mean member in # of subsets": [percent(_worse("letters", "independent"), 0)],
    }  # fmt: skip


ANY, UNCORRECTED = "any verdict of equal variants", "the same, uncorrected"
"""Rates of ``tests.stats.simulate_table``."""


def _of_runs() -> dict[str, list[str]]:
    letters, mnist, domains = (_run(suite).record for suite in SUITES)
    summary = letters["summary"]
    gpu = pd.read_csv(REFERENCES / "h100/variants.csv")
    off = (gpu["working_memory_bytes"] / gpu["predicted_memory_bytes"]).median() - 1
    return {
        ": # fine-tunes of one well-trained MLP": [str(summary["main_members"])],
        "on LETTER (# test rows, # seeds)": _size(letters),
        "the # output-space variants share the passes of # members": [
            str(summary["output_variants"]),
            str(summary["main_members"]),
        ],
        "predicting took # s, fitting": [f"{summary['predict_seconds']:.2f}"],
        "all of them # s, for # seeds.": [f"{summary['combine_seconds']:.2f}", _size(letters)[1]],
        ": # fine-tunes of one small CNN": [str(mnist["summary"]["main_members"])],
        "of its own (# test examples, # seeds)": _size(mnist),
        "and scores # combinations": [str(domains["summary"]["variants"])],
        "it was # % too #.": [f"{abs(100 * off):.1f}", "low" if off > 0 else "high"],
    }


def _size(record: dict[str, Any]) -> list[str]:
    """Its test examples and seeds."""
    return [str(sum(record["task"]["documents"].values())), str(len(record["seeds"]))]


def _together(*records: dict[str, Any]) -> str:
    """The time of runs: of those that ran beside each other, that of the longest."""
    longest = max(records, key=lambda record: record["wall_seconds"])
    return _minutes(longest) if longest.get("beside") else _minutes(*records)


def _of_smollm2() -> dict[str, list[str]]:
    whole = _run("smollm2").record
    first = json.loads((REFERENCES / "smollm2/run-first-part.json").read_text())
    variants = first["summary"]["ok"]
    others = str(whole["summary"]["variants"] - variants)
    return {
        "`make bench`: # on two cores for # of its": [_minutes(first), str(variants)],
        "and # more for the other #.": [_minutes(whole), others],
    }


def _of_speed() -> dict[str, list[str]]:
    record = json.loads(SCALING.read_text())["schedule"]
    found, seconds = record["found"], "{:.0f}".format
    return {
        "On a machine with a load of # it was to take # s": [
            f"{record['load']:.1f}", seconds(found["expected"]["makespan"])
        ],
        "; # s, simulated from the seconds that jobs took; it took # s, and # of its # jobs started": [
            seconds(found["as they took"]["makespan"]), seconds(found["real_seconds"]),
            str(found["same_place_in_order"]), str(found["jobs"]),
        ],
    }  # fmt: skip


def _of_changelog() -> dict[str, list[str]]:
    letters, mnist, domains = (_run(suite).record for suite in SUITES)
    rates = json.loads((REFERENCES / "simulation.json").read_text())["rates"]
    speeds = {one["name"]: one["extra_info"]["ratio"] for one in json.loads(SPEEDS.read_text())["benchmarks"]}
    faster = [f"{speeds[f'test_merging[{name}]']:.1f}" for name in ("ties", "dare_linear", "linear")]
    slower = [f"{speeds[f'test_merging[{name}]']:.2f}" for name in ("slerp", "task_arithmetic")]
    pearsons = [_pearson("mnist_sweeps", pool, "nll") for pool in ("main", "far")]
    counts = [str(record["summary"]["variants"]) for record in (letters, mnist, domains)]
    return {
        "reports: # variants of MLPs on tables, # of image classifiers and # of tiny language models": counts,
        "says better or worse anywhere in # of simulated tables of 100 equal ones (uncorrected in #)": [
            percent(rates[f"accuracy: {ANY}"], 1), percent(rates[f"accuracy: {UNCORRECTED}"], 0)
        ],
        "(Pearson of NLL #), less where they leave it (#).": pearsons,
        "models take # times as long": [f"{1 / speeds['test_twenty_rules_over_four_members']:.2f}"],
        "are scored # times as fast as by": [f"{speeds['test_long_contexts_with_four_choices']:.1f}"],
        "soups are # times as fast as a plain loop": [f"{speeds['test_subset_soups']:.1f}"],
        "TIES # times as fast, DARE #, linear #.": faster,
        "(# and # of its speed)": slower,
        "it was # % too #.": _of_runs()["it was # % too #."],
    }  # fmt: skip


SENTENCES: dict[str, Callable[[], dict[str, list[str]]]] = {
    "README.md": _of_readme,
    "runs": _of_runs,
    "smollm2": _of_smollm2,
    "own": dict,
    "speed": _of_speed,
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
