"""The README says what the registry declares and what the reference run measured, and nothing else."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from harness import registry
from harness.formats import percent, percent_interval, points

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCES = ROOT / "results" / "reference"
REFERENCE = REFERENCES / "mnist"


def test_every_method_is_in_the_table_with_its_summary():
    for name, method in registry.methods().items():
        summary = method.summary.replace("|", "\\|")
        assert f"| `{name}` | {method.family} | {summary} |" in README


def test_the_numbers_are_those_of_the_reference_run():
    table = pd.read_csv(REFERENCE / "variants.csv", dtype={"seed": str})
    table = table[table["seed"] == "all"].set_index("variant")
    shown = re.findall(r"^\| `([^`]+)` \| ([0-9.]+ %) \| ([0-9. ]+) \| (\S*)", README, flags=re.MULTILINE)
    assert len(shown) >= 10
    for name, accuracy, interval, difference in shown:
        row = table.loc[name]
        assert accuracy == percent(row["accuracy"])
        assert interval == percent_interval(row["accuracy_low"], row["accuracy_high"])
        if name != "best_single":
            assert difference == points(row["diff_vs_reference"])


@pytest.mark.parametrize("suite", ["domains", "smollm2"])
def test_the_bits_per_byte_are_those_of_the_reference_run(suite):
    section = README.split(f"results/reference/{suite}/report.md")[0 if suite == "domains" else 1]
    row = r"^\| `([^`]+)` \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+ %)"
    shown = re.findall(row, section, flags=re.MULTILINE)
    assert len(shown) >= 10
    scores = pd.read_parquet(REFERENCES / suite / "scores.parquet")
    scores = scores[scores["seed"] == "all"].drop_duplicates(["variant", "metric"])
    table = scores.pivot(index="variant", columns="metric", values="value")
    for name, *bits, accuracy in shown:
        found = [table.loc[name, f"bits_per_byte/bytes_{domain}"] for domain in ("scripture", "speeches", "python")]
        assert bits == [f"{value:.3f}" for value in (*found, table.loc[name, "bits_per_byte"])]
        assert accuracy == percent(table.loc[name, "accuracy"])


def test_the_speeds_are_those_of_the_committed_benchmark():
    benchmarks = json.loads((ROOT / "results" / "perf" / "reference.json").read_text())["benchmarks"]
    assert benchmarks
    for benchmark in benchmarks:
        info = benchmark["extra_info"]
        assert f"| {info['what']} | {benchmark['stats']['median']:.2f} | {info['other_seconds']:.2f} |" in README


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!http)[^)#]+)\)", README))))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
