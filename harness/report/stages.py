"""Pipelines stage by stage: errors and words that are right, what rounds of revision change, and a few examples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness import stats
from harness.display.formats import DASH, percent, percent_interval, points, points_interval
from harness.report.claim import of_these
from harness.report.evidence import Evidence
from harness.report.words import stage_title
from harness.results.columns import ALL_SEEDS
from harness.results.other_columns import BY_STAGE
from harness.stats.proportions import FEWEST
from harness.stats.simultaneous import by_cluster

ERROR, WORDS = (f"{column.name}/" for column in BY_STAGE)
SHOWN, FAILED = 12, 3
"""Examples that are shown, and more of those that a stage could not take."""


def stages_of(evidence: Evidence) -> dict[str, Any] | None:
    """What the report says of pipelines; None for a run without any."""
    by_variant = measures_of(evidence)
    if not by_variant:
        return None
    return {
        "rows": [_row(evidence, name, measures) for name, measures in by_variant.items()],
        "rounds": list(_rounds(evidence, by_variant)),
        **_examples(evidence, list(by_variant)),
    }


Measures = dict[str, dict[str, dict[str, Any]]]
"""By variant and metric, a row of scores.parquet."""


def measures_of(evidence: Evidence) -> Measures:
    """The measures by stage of the variants that are ok, in the order of the table."""
    table = evidence.run.scores
    rows = table[(table["seed"] == ALL_SEEDS) & table["metric"].str.startswith((ERROR, WORDS))]
    found: Measures = {}
    for row in rows.to_dict("records"):
        found.setdefault(row["variant"], {})[row["metric"]] = row
    names = [str(name) for name in evidence.ordered(evidence.ok)["variant"]]
    return {name: found[name] for name in names if name in found}


def _row(evidence: Evidence, name: str, measures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    errors = {metric.removeprefix(ERROR): _points(of) for metric, of in measures.items() if metric.startswith(ERROR)}
    words = {metric.removeprefix(WORDS): _share(of) for metric, of in measures.items() if metric.startswith(WORDS)}
    failures = [seed.get("failures", {}) for seed in evidence.run.details.get(name, {}).values()]
    told = {stage: count for of_seed in failures for stage, count in of_seed.items()}
    pool = evidence.by_name[name]["pool"]
    known = "calls" in evidence.outcomes and evidence.has(name)

    def titled(values: dict[str, Any]) -> str:
        return "; ".join(f"{stage_title(evidence, pool, stage)}: {value}" for stage, value in values.items())

    return {
        "variant": name,
        "given": words.pop("0 given", ""),
        "words": "; ".join(words.values()),
        "errors": titled(errors),
        "calls": f"{float(evidence.values(name, 'calls').mean()):.2f}" if known else "",
        "failed": titled(told),
    }


def _share(of: dict[str, Any]) -> str:
    interval = percent_interval(of["low"], of["high"])
    return percent(of["value"]) + (f" [{interval}]" if interval else "")


def _points(of: dict[str, Any]) -> str:
    interval = points_interval(of["low"], of["high"])
    return points(of["value"]) + (f" [{interval}]" if interval else "")


def by_rounds(evidence: Evidence, variants: Iterable[str]) -> list[dict[int, str]]:
    """Variants that differ in nothing but their rounds of revision, by these, in order."""
    groups: dict[str, dict[int, str]] = {}
    for name in variants:
        row = evidence.by_name[name]
        parameters = json.loads(row["params"])
        rounds = parameters.pop("rounds", None)
        if isinstance(rounds, int):
            members = row["variant"].partition("members=")[2]
            group = json.dumps([row["pool"], row["method"], parameters, members], sort_keys=True)
            groups.setdefault(group, {})[rounds] = name
    return [dict(sorted(group.items())) for _, group in sorted(groups.items())]


def _rounds(evidence: Evidence, variants: Measures) -> Iterator[dict[str, Any]]:
    """What rounds change against one shot, paired by example."""
    for of_group in by_rounds(evidence, variants):
        for rounds in sorted(set(of_group) - {0}) if 0 in of_group else ():
            one, other = of_group[rounds], of_group[0]
            changes = {"words": _words_change(evidence, one, other, variants[one]), "accuracy": None}
            if evidence.has(one, other):
                changes["accuracy"] = _change(evidence, evidence.correct(one) - evidence.correct(other), one)
            told = {key: _told(change) for key, change in changes.items()}
            yield {"variant": one, "against": other, **told}


def _words_change(evidence: Evidence, one: str, other: str, measures: dict[str, Any]) -> stats.Interval | None:
    last = next((metric for metric in reversed(measures) if metric.startswith(WORDS) and "given" not in metric), None)
    tables = [evidence.run.measured.get((name, last)) for name in (one, other)] if last else [None]
    if any(table is None for table in tables) or evidence.run.splits_differ:
        return None
    seeds = len(evidence.run.record["seeds"])
    ours, theirs = (table["value"].to_numpy(np.float64).reshape(seeds, -1) for table in tables if table is not None)
    return _change(evidence, ours - theirs, one) if ours.shape == theirs.shape else None


def _change(evidence: Evidence, differences: np.ndarray, name: str) -> stats.Interval:
    """The mean of differences [seeds, examples] with its interval, over clusters where examples have these.

    Of outcomes that hardly any example changes the interval is that of a score test on the examples.
    """
    if np.isin(differences, (-1.0, 0.0, 1.0)).all() and int(differences.any(axis=0).sum()) < FEWEST:
        return of_these(differences)
    if "cluster" in evidence.outcomes and not evidence.run.splits_differ:
        clusters = evidence.values(name, "cluster")[0]
        if len(clusters) == differences.shape[1]:
            differences = by_cluster(differences, [str(cluster) for cluster in clusters])
    return of_these(differences)


def _told(change: stats.Interval | None) -> str:
    """A change with its interval, in points, and what that is: a gain, harm, or neither for sure."""
    if change is None:
        return DASH
    word = "gain" if change.low > 0 else "harm" if change.high < 0 else "unclear"
    interval = points_interval(change.low, change.high)
    return f"{points(change.value)} {f'[{interval}] ' if interval else ''}{word}"


def _examples(evidence: Evidence, variants: Sequence[str]) -> dict[str, Any]:
    """A dozen examples of the best variant, spread over the test split, and some that a stage could not take."""
    table = evidence.run.intermediate
    if table is None or not len(table):
        return {"shown": "", "titles": [], "examples": []}
    known = set(table["variant"].unique())
    shown = next((name for name in variants if name in known), None)
    if shown is None:
        return {"shown": "", "titles": [], "examples": []}
    of = table[table["variant"] == shown]
    of = of[of["seed"] == of["seed"].iloc[0]]
    ids = of[of["stage"] == 0]["example_id"].astype(str).tolist()
    chosen = [ids[place] for place in np.unique(np.linspace(0, len(ids) - 1, min(SHOWN, len(ids))).astype(int))]
    failed = of[of["failed"] != ""]["example_id"].astype(str).tolist()
    by_example = {str(each): rows for each, rows in of.groupby("example_id", observed=True, sort=False)}
    examples = [_example(by_example[each]) for each in dict.fromkeys([*chosen, *failed[:FAILED]])]
    stages = by_example[ids[0]].sort_values("stage")
    pool = evidence.by_name[shown]["pool"]
    titles = [stage_title(evidence, pool, f"{stage} {name}")
              for stage, name in zip(stages["stage"], stages["name"], strict=True)]  # fmt: skip
    return {"shown": shown, "titles": titles, "examples": examples}


def _example(rows: pd.DataFrame) -> dict[str, Any]:
    rows = rows.sort_values("stage")
    last = rows.iloc[-1]
    failed = next((f"stage {row.stage} ({row.name}): {row.failed}" for row in rows.itertuples(index=False)
                   if row.failed), "")  # fmt: skip
    truth = next((row.truth for row in rows.itertuples(index=False) if row.kind == "text" and row.truth), "")
    return {
        "values": [str(value) for value in rows["value"]],
        "clean": truth or "",
        "label": str(last["truth"]),
        "right": "right" if last["value"] == last["truth"] else "wrong",
        "failed": failed,
    }
