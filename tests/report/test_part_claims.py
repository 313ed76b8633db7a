"""Claims about experts for parts of a task, on planted scores: domains in bits, where less is better, and views."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness import stats
from harness.report.claims import claims
from harness.report.evidence import Evidence
from harness.report.parts import DOMAINS, VIEWS, Parts, parts_of
from harness.report.plots.by_part import domains, views
from harness.results.run import Run

COUNT, SEEDS = 400, (0, 1)
PARTS = ("a", "b", "c")
BASE = "task_arithmetic/members=0,scale=0"
PARAMS = {
    BASE: {"coefficients": "add", "scale": 0.0},
    "task_arithmetic": {"coefficients": "add", "scale": "heldout"},
    "task_arithmetic/coefficients=negate,members=1,scale=0.5": {"coefficients": "negate", "scale": 0.5},
    "ties": {"scale": 1.0},
    "ties/scale=heldout": {"scale": "heldout"},
    "ties/density=heldout,scale=heldout": {"scale": "heldout", "density": "heldout"},
    "dare": {"scale": "heldout"},
    **{f"member/index={i}": {"index": i} for i in range(3)},
}
EVEN = dict.fromkeys(PARTS, 0.0)
HELD = {
    **{f"member/index={i}": {p: 0.2 if k == i else -0.1 for k, p in enumerate(PARTS)} for i in range(3)},
    BASE: EVEN,
    "task_arithmetic": dict.fromkeys(PARTS, 0.1),
    "task_arithmetic/coefficients=negate,members=1,scale=0.5": {**EVEN, "b": -0.2},
    "ties": dict.fromkeys(PARTS, 0.15),
    "ties/scale=heldout": dict.fromkeys(PARTS, 0.2),
    "dare": dict.fromkeys(PARTS, 0.1),
}
"""How much better than the base each variant is in each part."""


def evidence(kind, gains, pool, noise=0.01):
    """A run in which these variants are better than the base by so much, but for noise; view a has half the images."""
    rng = np.random.default_rng(0)
    prefix = "" if pool == "main" else f"{pool}:"
    rows, measures = [], []
    for name, by_part in gains.items():
        method = name.split("/")[0]
        row = {"variant": prefix + name, "method": method, "pool": pool, "seed": "all", "status": "ok"}
        rows.append({**row, "params": json.dumps(PARAMS[name])})
        for seed in SEEDS:
            for part, gain in by_part.items():
                documents = np.arange(0, COUNT, 2 if part == "a" and kind is VIEWS else 1)
                values = 0.5 + kind.better * gain + noise * rng.normal(size=len(documents))
                row = {"variant": prefix + name, "seed": seed, "metric": kind.prefix + part}
                measures.append(pd.DataFrame({**row, "document": documents, "value": values}))
    members = [{"name": f"m{i}", "groups": [part]} for i, part in enumerate(PARTS)]
    pools = {"main": {"members": 0, "seeds": {"0": {"members": []}}}}
    pools[pool] = {"members": len(PARTS), "seeds": {"0": {"members": members}}}
    record = {"seeds": list(SEEDS), "reference": {"variant": f"{prefix}{BASE}"}, "pools": pools}
    record["task"] = {"splits": {"test": COUNT}}
    run = Run(Path("nowhere"), record)
    table = pd.concat(measures, ignore_index=True)
    scores = table.groupby(["variant", "metric"])["value"].mean().unstack()
    vars(run).update(variants=pd.DataFrame(rows), document_measures=table, measures=scores)
    chosen = {f"{prefix}ties/density=heldout,scale=heldout": {"0": {"density": 1.0}, "1": {"density": 0.5}}}
    vars(run).update(examples=None, correlations=[], details=chosen)
    return Evidence(run)


BOTH = pytest.mark.parametrize(("kind", "pool"), [(DOMAINS, "main"), (VIEWS, "conflict"), (VIEWS, "main")])


def of(kind, pool, gains, words, noise=0.01):
    """The one claim whose name has these words."""
    (found,) = (claim for claim in claims(evidence(kind, gains, pool, noise)) if words in claim.claim)
    return found


@BOTH
@pytest.mark.parametrize("sign", [1, -1])
def test_experts_are_judged_by_home_minus_abroad(kind, pool, sign):
    gains = {name: {p: sign * g for p, g in by_part.items()} for name, by_part in HELD.items()}
    found = of(kind, pool, gains, "gains at home")
    assert found.verdict == ("held" if sign > 0 else "not held")
    assert found.estimate == pytest.approx(sign * kind.better * 0.3, abs=0.005)
    assert found.unit == kind.unit
    assert found.scope == "these models"
    assert found.note.startswith(
        f"the experts' mean score is {0.5 + sign * kind.better * 0.2:.3f} at home and 0.500 over all {kind.part}s"
    )


@BOTH
def test_a_sum_is_judged_where_it_gains_least(kind, pool):
    gains = {**HELD, "task_arithmetic": {"a": 0.3, "b": -0.05, "c": 0.2}}
    found = of(kind, pool, gains, "compose")
    assert (found.verdict, "(b)" in found.statistic) == ("not held", True)
    assert found.estimate == pytest.approx(-0.05 * kind.better, abs=0.005)
    assert of(kind, pool, HELD, "compose").verdict == "held"


@BOTH
def test_a_negation_is_judged_against_its_controls(kind, pool):
    name = "task_arithmetic/coefficients=negate,members=1,scale=0.5"
    found = of(kind, pool, HELD, "negated task vector")
    assert found.verdict == "held"
    assert found.estimate == pytest.approx(-0.2 * kind.better, abs=0.005)
    lost_everything = {**HELD, name: {"a": -0.3, "b": -0.2, "c": -0.3}}
    assert of(kind, pool, lost_everything, "negated task vector").verdict == "not held"


@BOTH
@pytest.mark.parametrize(("gain", "verdict"), [(0.2, "held"), (0.05, "not held")])
def test_ties_and_dare_are_judged_against_the_sum_each_at_its_best_scale(kind, pool, gain, verdict):
    for name, words in (("ties/scale=heldout", "TIES beats"), ("dare", "DARE beats")):
        found = of(kind, pool, {**HELD, name: dict.fromkeys(PARTS, gain)}, words)
        assert found.verdict == verdict
        assert found.estimate == pytest.approx(kind.better * (gain - 0.1), abs=0.005)
        assert found.note.startswith("both scales were chosen on held-out")
    equal = of(kind, pool, HELD, "DARE")
    assert (equal.verdict, "any difference is below" in equal.note) == ("not held", True)


@BOTH
@pytest.mark.parametrize("words", ["gains at home", "compose", "negated task vector", "TIES beats", "DARE beats"])
def test_what_is_lost_in_noise_is_undecided(kind, pool, words):
    near = {name: dict.fromkeys(PARTS, 0.0) for name in HELD}
    assert of(kind, pool, near, words, noise=0.5).verdict == "undecided"


@BOTH
def test_ties_is_taken_at_the_density_that_was_chosen_where_there_is_one(kind, pool):
    gains = {**HELD, "ties/density=heldout,scale=heldout": dict.fromkeys(PARTS, 0.05)}
    found = of(kind, pool, gains, "TIES beats")
    assert (found.verdict, "the share of each task vector that is kept: 0.5 to 1;" in found.note) == ("not held", True)


def test_ties_as_in_its_paper_is_judged_too_where_there_are_views():
    found = of(VIEWS, "conflict", HELD, "paper's scale")
    assert found.verdict == "held"
    assert found.statistic.startswith("conflict:ties minus conflict:task_arithmetic,")


@BOTH
def test_what_is_missing_is_named_and_not_judged(kind, pool):
    gains = {name: by_part for name, by_part in HELD.items() if name != BASE}
    found = of(kind, pool, gains, "gains at home")
    assert found.verdict == "not tested"
    assert BASE in found.note
    gains = {name: by_part for name, by_part in HELD.items() if not name.startswith("ties")}
    assert of(kind, pool, gains, "TIES beats").note == "needs results of a fitting variant"


def test_a_run_without_parts_has_the_claims_of_one_task():
    found = evidence(VIEWS, HELD, "main")
    vars(found.run)["document_measures"] = None
    assert parts_of(found.run) == []
    names = {claim.claim for claim in claims(found)}
    assert {"Negated task vectors lose the skill", "Added task vectors compose"} <= names


def test_a_view_of_some_images_has_its_own_mean_and_interval():
    """Spread over all images, whose others say nothing, it has the interval of those that it has."""
    found = evidence(VIEWS, HELD, "conflict")
    (parts,) = parts_of(found.run)
    assert parts.names == list(PARTS)
    name = "conflict:member/index=0"
    table = found.run.document_measures
    plain = table[(table["variant"] == name) & (table["metric"] == "accuracy/a")]["value"].to_numpy()
    plain = plain.reshape(len(SEEDS), -1)
    spread = parts.values(name, "a")
    assert spread.shape == (len(SEEDS), COUNT)
    assert spread.mean(axis=1) == pytest.approx(plain.mean(axis=1))
    expected, got = stats.over_seeds(plain), stats.over_seeds(spread)
    assert got.value == pytest.approx(expected.value)
    assert got.high - got.low == pytest.approx(expected.high - expected.low, rel=0.1)
    assert parts.values(name, "b").shape == spread.shape


def test_pools_keep_to_their_own_variants():
    found = evidence(VIEWS, HELD, "conflict")
    assert Parts(found.run, VIEWS, "main").names == []
    assert [parts.pool for parts in parts_of(found.run)] == ["conflict"]


def test_figures_show_the_parts_that_there_are_best_first():
    of_views, of_domains = evidence(VIEWS, HELD, "conflict"), evidence(DOMAINS, HELD, "main")
    assert domains(of_views) is None
    assert views(of_domains) is None
    for figure, prefix in ((views(of_views), "conflict:"), (domains(of_domains), "")):
        axes = figure.axes[0]
        columns = [*PARTS, "mean"] if prefix else list(PARTS)
        assert [tick.get_text() for tick in axes.get_xticklabels()] == columns
        rows = [tick.get_text() for tick in axes.get_yticklabels()]
        assert rows[0] == f"{prefix}ties/scale=heldout"
        assert rows[-1].endswith("coefficients=negate,members=1,scale=0.5")
