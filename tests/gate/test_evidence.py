"""Laws of evidence: no change of any file, table or field of a finished run makes a gate pass that would not, or makes
it say what the examples do not.

A change that leaves the manifest as it was is found by its hashes. One that is hashed again, or was made before there
were manifests, is found by what the examples say; there the laws are of runs in memory, which have no hashes at all.
"""

import copy
import gc
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.gate.banner import banner
from harness.gate.baseline import set_baseline
from harness.gate.decide import decide
from harness.gate.release import gate_run
from harness.report import write_report
from harness.results.history import left_out_of, newest_runs
from harness.results.manifest import ALWAYS, FILES, MANIFEST, write_manifest
from harness.results.recorded import NEEDED
from harness.results.run import read_run
from tests.examples import examples
from tests.gate.planted import TODAY, changed, coins, decided, planted, policy, saved, worse

N = 60
GOOD = coins(0.85, n=N, seeds=2)
CORRECT = {"best_single": worse(GOOD, 12), "better": GOOD, "poor": worse(GOOD, 14)}
REFERENCES = {"better": "best_single", "poor": "best_single"}
VIEWS = {name: {"accuracy/blurred": worse(GOOD, 3)[:, :40]} for name in CORRECT}
COSTS = {name: {"latency_ratio_p50": 1.0} for name in CORRECT}
RUN = decided(planted(CORRECT, COSTS, measures=VIEWS), CORRECT, REFERENCES)
RULES = [
    "{id: floor, match: {metric: accuracy}, min: 0.4, apply_to: ci_low}",
    "{id: loss, match: {metric: nll}, max: 1.2}",
    "{id: one-seed, match: {variant: poor, metric: accuracy, seed: 1}, min: 0.4}",
    "{id: view, match: {metric: accuracy/blurred}, min: 0.5}",
    "{id: drop, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.3}, test: paired}",
    "{id: verdict, match: {variant: better, metric: accuracy}, verdict: [better]}",
    "{id: best, match: {variant: better, metric: accuracy}, best: true}",
]
SCORES = ("accuracy", "nll")


@pytest.fixture(scope="module", autouse=True)
def _little_garbage():
    """statsmodels collects garbage at every correction: all that is imported takes half a second each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    return policy(tmp_path_factory.mktemp("rules"), RULES)


@pytest.fixture(scope="module")
def truth(rules):
    """The gate on the run as it is."""
    found = decide(rules, RUN, RUN, today=TODAY)
    assert (found.outcome, found.problems) == ("pass", [])
    return found


def numbers(gate):
    """What a gate judged by."""
    ends = ("value", "low", "high", "other", "difference", "difference_low", "difference_high", "limit", "n")
    return {(c.rule, c.variant, c.seed): [getattr(c, end) for end in ends] for c in gate.checks}


def holds(gate, truth):
    """The law: no pass, or the pass that the examples give."""
    if gate.exit_code != 0:
        return True
    said, wanted = numbers(gate), numbers(truth)
    assert said.keys() == wanted.keys()
    for key, values in said.items():
        pairs = [(a, b) for a, b in zip(values, wanted[key], strict=True) if a is not None or b is not None]
        np.testing.assert_allclose(*zip(*pairs, strict=True), rtol=1e-5, atol=1e-6, err_msg=str(key))
    return True


# what is hashed


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A run and a baseline that it passes against."""
    root = tmp_path_factory.mktemp("folders")
    saved(planted({"x": GOOD}), root / "other")
    run, old = saved(RUN, root / "run"), saved(RUN, root / "old")
    return run, set_baseline(old, root, "main", "reviewed", TODAY)


def gated(run, baseline, tmp_path):
    path = tmp_path / "hashed.yaml"
    path.write_text(f"version: 1\nbaseline: {{path: {baseline}}}\nrules:\n" + "\n".join(f"- {rule}" for rule in RULES))
    return gate_run(run, path, None, TODAY)


def test_a_run_that_is_as_it_was_written_passes(folders, tmp_path):
    found = gated(*folders, tmp_path)
    assert (found.exit_code, found.problems) == (0, [])
    assert {check.computed for check in found.checks} == {True}


@st.composite
def damages(draw):
    """A function of a file's bytes; None: the file is deleted."""
    place, bit = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 7))

    def flip(content):
        at = int(place * len(content))
        return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]

    return draw(st.sampled_from([flip, lambda content: content[: int(place * len(content))], lambda content: b"",
                                 lambda content: content + b"\n", lambda content: None]))  # fmt: skip


@given(name=st.sampled_from([*ALWAYS, "measures.parquet", MANIFEST]), damage=damages(), which=st.integers(0, 1))
@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_of_a_run_or_of_its_baseline_can_change(folders, tmp_path, name, damage, which):
    path = folders[which] / name
    content = path.read_bytes()
    try:
        path.unlink()
        if (after := damage(content)) is not None:
            path.write_bytes(after)
        if name == MANIFEST and (after == content or _means_the_same(content, after) or (which and after is None)):
            return  # a baseline without a manifest has the hash that it was set with
        assert gated(*folders, tmp_path).exit_code == 5
        if name != MANIFEST or after is not None:
            with pytest.raises(BadInput, match=r"run\.json|" + name.replace(".", r"\.")):
                read_run(folders[which])
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(content)


def _means_the_same(content, after):
    try:
        return after is not None and json.loads(after) == json.loads(content)
    except ValueError:
        return False


@pytest.mark.parametrize("name", [name for name in FILES if name not in (*ALWAYS, "measures.parquet")])
def test_no_file_can_be_added(folders, tmp_path, name):
    run = shutil.copytree(folders[0], tmp_path / "copy")
    (run / name).write_bytes(b"{}")
    assert gated(run, folders[1], tmp_path).exit_code == 5
    with pytest.raises(BadInput, match="was added since the run was written"):
        read_run(run)


def test_a_manifest_that_lists_nothing_or_other_files_is_none(folders, tmp_path):
    run = shutil.copytree(folders[0], tmp_path / "copy")
    whole = json.loads((run / MANIFEST).read_text())
    fewer = {name: each for name, each in whole["files"].items() if name != "examples.parquet"}
    for record in ({}, [], None, whole | {"version": True}, whole | {"version": 2}, whole | {"files": {}},
                   whole | {"files": fewer}, whole | {"files": whole["files"] | {"../x": {}}}):  # fmt: skip
        (run / MANIFEST).write_text(json.dumps(record))
        with pytest.raises(BadInput, match=r"manifest\.json"):
            read_run(run)


def test_a_report_that_is_rendered_again_leaves_the_manifest_true(tmp_path, earlier):
    run = shutil.copytree(earlier, tmp_path / "run")
    write_manifest_of_what_is_there(run)
    write_report(run)
    write_report(run)
    read_run(run)


@pytest.fixture(scope="module")
def earlier():
    """A run that is kept in the repository, which an earlier version made."""
    return Path(__file__).parents[2] / "results" / "reference" / "repair"


def write_manifest_of_what_is_there(run):
    """Also of a summary, which has no examples."""
    for name in ALWAYS:
        if not (run / name).is_file():
            pd.DataFrame({"variant": []}).to_parquet(run / name)
    write_manifest(run)


def test_a_run_without_a_manifest_is_read_and_no_evidence_for_a_gate(folders, tmp_path):
    run = shutil.copytree(folders[0], tmp_path / "copy")
    (run / MANIFEST).unlink()
    assert len(read_run(run).variants)
    found = gated(run, folders[1], tmp_path)
    assert found.exit_code == 5
    assert "no manifest.json" in found.problems[0]
    found = gated(folders[0], run, tmp_path)  # nor as a baseline that no one set and no policy names the hash of
    assert found.exit_code == 5
    assert any("the baseline: " in problem and "no manifest.json" in problem for problem in found.problems)


def test_a_run_that_cannot_be_read_is_left_out_of_the_history_and_named(tmp_path):
    for day in ("20261124-000000", "20261125-000000", "20261126-000000"):
        saved(RUN, tmp_path / "planted" / day)
    (tmp_path / "planted" / "20261124-000000" / "variants.csv").write_text("")
    (tmp_path / "planted" / "20261125-000000" / "variants.csv").write_text("")
    (tmp_path / "planted" / "20261125-000000" / MANIFEST).unlink()
    assert [run.folder.name for run in newest_runs(tmp_path)] == []  # the planted runs have no families
    lines = left_out_of(tmp_path)
    assert "20261124-000000: variants.csv was changed" in lines[0]
    assert "20261125-000000: the run cannot be read" in lines[1]


# baselines


def test_a_copy_of_the_run_is_no_baseline(folders, tmp_path):
    copies = [shutil.copytree(folders[0], tmp_path / "copy"), set_baseline(folders[0], tmp_path, "own", "why", TODAY)]
    for at, copied in enumerate(copies):
        found = gated(folders[0], copied, tmp_path)
        assert found.exit_code == 5, at
        assert any("copy of the run itself" in problem for problem in found.problems)


def test_a_copy_under_another_name_is_no_baseline(folders, tmp_path):
    run = saved(changed(RUN, wall_seconds=12.25), tmp_path / "run")
    copied = saved(changed(RUN, wall_seconds=12.25, run_id="other"), tmp_path / "copy")
    assert any("copy of the run itself" in problem for problem in gated(run, copied, tmp_path).problems)
    longer = saved(changed(RUN, wall_seconds=12.26), tmp_path / "longer")
    assert gated(run, longer, tmp_path).exit_code == 0


def test_a_score_of_ours_has_documents_in_every_run(tmp_path):
    rule = "{id: view, match: {metric: accuracy/blurred}, min: 0.5}"
    found = decide(policy(tmp_path, rule), changed(RUN, document_measures=None), None, today=TODAY)
    assert found.exit_code == 5


def test_a_pass_says_that_the_policy_takes_any_baseline(folders, tmp_path):
    loose = gated(*folders, tmp_path)
    assert "names no sha256 of the baseline" in banner(loose)
    path = tmp_path / "strict.yaml"
    named = f"baseline: {{path: {folders[1]}, sha256: {loose.baseline['sha256']}}}"
    path.write_text(f"version: 1\n{named}\nrules:\n- {RULES[4]}\n")
    strict = gate_run(folders[0], path, None, TODAY)
    assert (strict.exit_code, strict.remarks) == (0, [])
    assert "names no sha256" not in banner(strict)


# what the examples say

VALUES = st.sampled_from([np.nan, np.inf, 0.0, 1.0, 0.5, 0.99, -1.0, 1e9])
NAMES = st.sampled_from([*CORRECT])
SEEDS = st.sampled_from(["all", "0", "1"])
TABLES = ("variants", "scores", "comparisons", "examples", "document_measures")
UNPROVEN = ("latency_ratio_p50",)


@st.composite
def edits(draw):
    """A table of the run with a cell, row or column changed: (name, table)."""
    name = draw(st.sampled_from(TABLES))
    table = getattr(RUN, name).reset_index(drop=True)
    row = draw(st.integers(0, len(table) - 1))
    column = draw(st.sampled_from([each for each in table if each not in UNPROVEN]))
    what = draw(st.sampled_from(["cell", "row gone", "row twice", "column gone", "column all"]))
    if what == "row gone":
        return name, table.drop(index=row)
    if what == "column gone":
        return name, table.drop(columns=column)
    if what == "row twice":
        return name, pd.concat([table, table.iloc[[row]]], ignore_index=True)
    column_of = table[column]
    words = not pd.api.types.is_numeric_dtype(column_of)
    value = draw(st.sampled_from([*column_of.unique(), "ok", "failed", "other"]) if words else VALUES)
    where = table.index == row if what == "cell" else table.index >= 0
    return name, table.assign(**{column: column_of.astype(object).where(~where, value).infer_objects()})


def judged(rules, run, baseline, truth):
    try:
        return holds(decide(rules, run, baseline, today=TODAY), truth)
    except (KeyError, ValueError, TypeError):
        # Tables without columns, or with other types, are refused when a folder is read.
        return False


@given(edit=edits(), which=st.booleans())
@examples(40)
def test_no_table_can_say_what_the_examples_do_not(rules, truth, tmp_path_factory, edit, which):
    edited = changed(RUN, **{edit[0]: edit[1]})
    pair = (edited, RUN) if which else (RUN, edited)
    if not judged(rules, *pair, truth):
        folder = tmp_path_factory.mktemp("edit")
        runs = [saved(each, folder / name) for each, name in zip(pair, ("run", "old"), strict=True)]
        assert gated(*runs, folder).exit_code == 5


@given(variant=NAMES, seed=SEEDS, metric=st.sampled_from(SCORES), by=st.sampled_from([-0.2, -1e-4, 1e-4, 0.05]),
       ends=st.sampled_from([("low",), ("high",), ("value",), ("value", "low", "high")]))  # fmt: skip
@examples(15)
def test_two_tables_that_are_changed_alike_do_not_outweigh_the_examples(rules, truth, variant, seed, metric, by, ends):
    scores, variants = RUN.scores.copy(), RUN.variants.copy()
    at = (scores["variant"] == variant) & (scores["seed"] == seed) & (scores["metric"] == metric)
    scores.loc[at, list(ends)] += by
    if "value" in ends:
        variants.loc[(variants["variant"] == variant) & (variants["seed"] == seed), metric] += by
    edited = changed(RUN, scores=scores, variants=variants)
    for pair in ((edited, RUN), (RUN, edited)):
        assert holds(decide(rules, *pair, today=TODAY), truth)


@given(variant=NAMES, state=st.sampled_from(["gone", "not_applicable", "failed"]), seed=SEEDS | st.just("every"),
       thorough=st.integers(0, 2))  # fmt: skip
@examples(15)
def test_no_row_can_be_taken_out_of_a_rule_about_all(rules, variant, state, seed, thorough):
    """However many of the tables it is taken out of, as long as its examples or its name are left."""
    if thorough and seed != "every":
        seed = "every"
    of = RUN.variants["variant"] == variant
    rows = of & ((RUN.variants["seed"] == seed) | (seed == "every"))
    variants = RUN.variants[~rows] if state == "gone" else RUN.variants.assign(
        status=RUN.variants["status"].where(~rows, state))  # fmt: skip
    tables = {"variants": variants}
    if thorough:
        for name in ("scores", "comparisons", "document_measures"):
            tables[name] = (table := getattr(RUN, name))[table["variant"] != variant]
        tables["summary"] = {"variants": variants.query("seed == 'all'")["variant"].nunique()}
    if thorough > 1:
        tables["planned"] = [name for name in RUN.record["planned"] if name in set(variants["variant"])]
    edited = changed(RUN, **tables)
    assert decide(rules, edited, RUN, today=TODAY).exit_code == 5
    floor = [rule for rule in rules.file.rules if rule.id == "floor"]
    assert decide(_only(rules, floor), edited, None, today=TODAY).exit_code == 5


def _only(rules, chosen):
    return replace(rules, file=rules.file.model_copy(update={"rules": chosen}))


@pytest.mark.parametrize("path", NEEDED)
def test_a_run_lacks_no_field_that_says_what_it_is_comparable_with(rules, path):
    floor = _only(rules, rules.file.rules[:1])
    for change in (_without, lambda record, of: _with(record, of, True), lambda record, of: _with(record, of, 0.5)):
        record = change(copy.deepcopy(RUN.record), path.split("."))
        found = decide(floor, _recorded(record), None, today=TODAY)
        assert found.exit_code == 5
        assert any(path in problem for problem in found.problems), path


def _recorded(record):
    other = changed(RUN)
    other.record.clear()
    other.record.update(record)
    return other


def _without(record, path):
    part = record
    for name in path[:-1]:
        part = part[name]
    del part[path[-1]]
    return record


def _with(record, path, value):
    part = record
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    return record


@pytest.mark.parametrize("version", [1.0, 2.0, True, "2", None, 3])
def test_the_schema_version_is_a_whole_number_that_is_known(folders, tmp_path, version):
    run = shutil.copytree(folders[0], tmp_path / "copy")
    record = json.loads((run / "run.json").read_text()) | {"schema_version": version}
    (run / "run.json").write_text(json.dumps(record))
    write_manifest(run)
    with pytest.raises(BadInput, match="schema version"):
        read_run(run)
    assert gated(run, folders[1], tmp_path).exit_code == 5


def test_what_is_called_the_reference_is_one(tmp_path):
    """A verdict is asked of every variant but these."""
    variants = RUN.variants.copy()
    variants.loc[variants["variant"] == "poor", "verdict"] = "reference"
    rule = "{id: verdict, match: {metric: accuracy}, verdict: [better]}"
    assert decide(policy(tmp_path, rule), RUN, None, today=TODAY).exit_code in (3, 4)
    found = decide(policy(tmp_path, rule), changed(RUN, variants=variants), None, today=TODAY)
    assert found.exit_code == 5
