"""A source of members that another package declares is like our own, from the schema to the exported model."""

import json
import pickle
import re
from typing import ClassVar

import pydantic
import pytest
import torch
import yaml
from safetensors.torch import load_file

from harness.cli.main import main
from harness.engines import local
from harness.errors import BadInput
from harness.evaluate.predictions import predictions_key
from harness.keys import _module_facts, code_version
from harness.models.architectures import trainable
from harness.models.forward import log_probs
from harness.models.weights import module_with
from harness.pools import pool
from harness.pools.folder_model import FolderModel
from harness.pools.source import source
from harness.publish.export import export
from harness.registry import SOURCES
from harness.report import write_report
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages import setting, variant
from harness.strict.model import STRICT
from harness.suite.schema import json_schema
from harness.suite.suite import read_suite
from tests.inline import Inline
from tests.pools.function_source import Function, FunctionPool

OURS = frozenset(SOURCES.all())
"""The sources that come with it."""
KNOWN = ", ".join(sorted({*OURS, "function"}))

pytestmark = pytest.mark.usefixtures("undrawn")

SUITE = """suite: made
task: digits
pool:
  function: {members: 3, spread: 0.05}
pools:
  ours:
    train: {architecture: mlp, start: independent, members: 2, epochs: 1, options: {hidden: 8}}
methods:
  - best_single
  - member: {index: [0, 1, 2]}
  - linear: {weights: [uniform, learned]}
  - uniform_soup
  - linear: {pool: ours}
correlate: {subsets: {sizes: [2], at_most: 3}}
cost: {energy: false}
"""
PLAIN = SUITE.replace("function: {members: 3, spread: 0.05}", "train: {start: independent, members: 3}")


@pytest.fixture(scope="module")
def declared():
    """The source, registered for the length of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SOURCES, "_known", SOURCES.all())
        patch.setattr(local, "_Pools", Inline)
        yield source(Function())
    for cached in (setting.task_of, setting.documents_of, variant.pool_of):
        cached.cache_clear()


@pytest.fixture
def suite_at(declared, tmp_path):
    """Reads a suite from its text."""

    def read(text):
        path = tmp_path / "suite.yaml"
        path.write_text(text)
        return read_suite(path)

    return read


def plan_of(folder, text=SUITE):
    (folder / "suite.yaml").write_text(text)
    suite = read_suite(folder / "suite.yaml")
    return make_plan(suite, Options(folder / "results", limit=80, device="cpu"))


@pytest.fixture(scope="module")
def finished(declared, tmp_path_factory):
    """A run of the suite: its plan and its results."""
    folder = tmp_path_factory.mktemp("made")
    plan = plan_of(folder)
    return plan, read_run(runner.run(plan, Tracker()))


# A suite


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("function:", "functoin:", 4, ["unknown key 'functoin'; did you mean 'function'?", KNOWN]),
        ("spread:", "spraed:", 4, ["unknown key 'spraed'; did you mean 'spread'?", "known: architecture, members"]),
        ("spread: 0.05", "spread: 0", 4, ["bad value 0 for 'spread'"]),
        ("members: 3, ", "", 4, ["the key 'members' is missing"]),
        ("members: 3, ", "members: 0, ", 4, ["the pool is empty"]),
        ("spread: 0.05", "architecture: mpl", 4, ["unknown architecture 'mpl'; did you mean 'mlp'?"]),
        ("0.05}", "0.05}\n  hf: {members: [a]}", 3, ["one source of members", f"one of: {KNOWN}"]),
        ("function: {members: 3, spread: 0.05}", "hf:", 3, ["one source of members"]),
        ("  - uniform_soup", "  - uniform_soup: {members: [3]}", 12, ["pool 'main' has 3 members, counted from 0"]),
    ],
)  # fmt: skip
def test_a_faulty_pool_of_another_packages_source_is_refused_in_its_line(suite_at, old, new, line, words):
    assert old in SUITE
    with pytest.raises(BadInput) as caught:
        suite_at(SUITE.replace(old, new, 1))
    message = str(caught.value)
    found = re.fullmatch(r".*/suite\.yaml:(\d+): (.*)", message)
    assert found, message
    assert int(found[1]) == line
    for word in words:
        assert word in message


def test_the_schema_has_its_keys(declared):
    schema = json_schema()
    sources = schema["$defs"]["PoolSpec"]["properties"]
    assert set(sources) == set(SOURCES.all()) == {*OURS, "function"}
    keys = schema["$defs"]["FunctionPool"]["properties"]
    assert set(keys) == set(FunctionPool.model_fields)
    assert keys["architecture"]["examples"] == trainable()


def test_a_suite_without_it_has_the_digest_that_it_has_where_the_source_is_unknown(suite_at, monkeypatch):
    known = suite_at(PLAIN).digest
    assert suite_at(SUITE).digest != known
    monkeypatch.setattr(SOURCES, "_known", {name: SOURCES.get(name) for name in OURS})
    assert suite_at(PLAIN).digest == known
    with pytest.raises(BadInput, match="unknown key 'function'"):
        suite_at(SUITE)


def test_the_command_line_validates_it(declared, tmp_path, capsys):
    (tmp_path / "suite.yaml").write_text(SUITE)
    with pytest.raises(SystemExit) as stopped:
        main(["validate", str(tmp_path / "suite.yaml")])
    assert stopped.value.code == 0
    assert "uniform_soup" in capsys.readouterr().out.splitlines()


# A run


def test_every_variant_has_a_result_on_members_made_elsewhere(finished):
    _, run = finished
    table = run.variants[run.variants["seed"] == "all"].set_index("variant")
    assert dict(table["status"]) == dict.fromkeys(table.index, "ok")
    assert table[["accuracy", "latency_ratio_p50", "working_memory_bytes"]].notna().all(axis=None)
    one, soup, three = (table.loc[name] for name in ("member/index=0", "uniform_soup", "linear"))
    assert one["params_stored"] == soup["params_stored"] == three["params_stored"] / 3
    assert (table["members_train_seconds"] > 0).to_dict() == {name: name.startswith("ours:") for name in table.index}
    assert not json.loads((run.folder / "details.json").read_text())["uniform_soup"]["0"].get("warnings")
    assert set(run.subsets["subset"]) == {"0+1", "0+2", "1+2"}


def test_a_row_is_about_the_weights_that_the_function_makes(finished):
    plan, run = finished
    planned = plan.pools[0]["main"].members[1]
    module = module_with(planned.architecture, planned.weights(plan.store, 0))
    with torch.inference_mode():
        expected = log_probs(module, plan.task.test.inputs).argmax(dim=1)
    rows = run.examples[run.examples["variant"] == "member/index=1"]
    assert rows["prediction"].tolist() == expected.tolist()


def test_the_report_says_where_the_members_come_from(finished):
    _, run = finished
    recorded = run.record["pools"]["main"]
    assert (recorded["kind"], recorded["members"]) == ("fine_tunes", 3)
    assert {member["how"] for member in recorded["seeds"]["0"]["members"]} == {"random, spread 0.05"}
    assert "random, spread 0.05" in write_report(run.folder).with_suffix(".html").read_text()


@pytest.mark.parametrize("name", ["uniform_soup", "member/index=2"])
def test_one_model_is_exported(finished, tmp_path, name):
    plan, run = finished
    folder = export(run, name, tmp_path / "out")
    FolderModel(str(folder)).check()
    network = module_with(FolderModel(str(folder)).architecture, load_file(folder / "model.safetensors"))
    rows = run.examples[run.examples["variant"] == name]
    with torch.inference_mode():
        assert network(plan.task.test.inputs).argmax(dim=1).tolist() == rows["prediction"].tolist()


def test_jobs_are_named_and_reused(finished):
    plan, _ = finished
    names = [planned.job.name for planned in plan.jobs if planned.stage.group == "train"]
    assert names[:3] == [f"seed 0: make main/m{index}" for index in range(3)]
    again = make_plan(plan.suite, plan.options)
    assert again.missing() == []


# Keys


def test_plans_are_told_apart_by_what_makes_them_and_survive_the_way_to_a_worker(declared, tmp_path):
    def digests(text):
        (pools,) = plan_of(tmp_path, text).pools.values()
        return pool.member_digests(pools["main"])

    first = digests(SUITE)
    assert len(set(first)) == 3
    assert digests(SUITE.replace("members: 3", "members: 4"))[:3] == first
    others = [("0.05", "0.06"), ("task:", "seeds: [1]\ntask:"), ("function: {", "function: {architecture: mlp, ")]
    for old, new in others:
        assert not set(digests(SUITE.replace(old, new))) & set(first)
    planned = plan_of(tmp_path).pools[0]["main"]
    assert pickle.loads(pickle.dumps(planned)) == planned
    assert hash(pickle.loads(pickle.dumps(planned))) == hash(planned)


def test_a_change_of_a_sources_code_makes_its_members_anew_and_no_others(finished, monkeypatch):
    plan, _ = finished

    def keys():
        for cached in (code_version, pool.member_digests, pool.base_digest):
            cached.cache_clear()
        found = {}
        for name, planned in plan.pools[0].items():
            for member in planned.everyone:
                for made_once in ("digests", "_key"):
                    member.__dict__.pop(made_once, None)
            of = [predictions_key(digest, plan.task.test, "cpu") for digest in pool.member_digests(planned)]
            left = [key for member in planned.members for key in member.keys()]  # noqa: SIM118 (no mapping)
            found[name] = {key.digest for key in (*of, *left)}
        return found

    facts, before = _module_facts, keys()
    for module, changed in (("tests.pools.function_source", "main"), ("harness.pools.training", "ours")):
        with monkeypatch.context() as patched:
            other = {module: ("changed", *facts(module)[1:])}
            patched.setattr("harness.keys._module_facts", lambda name, other=other: other.get(name) or facts(name))
            after = keys()
        assert {name for name in before if not before[name] & after[name]} == {changed}
        assert {name for name in before if before[name] == after[name]} == set(before) - {changed}
    assert keys() == before


# Declarations


def test_a_source_whose_spec_would_take_anything_or_whose_name_is_no_key_is_not_taken(declared):
    class Loose(pydantic.BaseModel):
        members: int

    class Tight(Loose):
        model_config = STRICT

    def declare(called, says):
        class Other(Function):
            name: ClassVar[str] = called
            spec: ClassVar[type] = says

        return source(Other())

    for called, says, words in (("loose", Loose, "whatever a suite says"), ("no-key", Tight, "cannot be the name"),
                                ("model_dump", Tight, "cannot be the name")):  # fmt: skip
        with pytest.raises(TypeError, match=words):
            declare(called, says)
    with pytest.raises(ValueError, match="'function' is declared by"):
        declare("function", Tight)
    assert set(SOURCES.all()) == {*OURS, "function"}


def test_what_a_suite_says_is_yaml_like_any_other(suite_at):
    asked = suite_at(SUITE).pools["main"]
    assert (asked.source.name, asked.size) == ("function", 3)
    assert asked.spec == FunctionPool(**yaml.safe_load(SUITE)["pool"]["function"])
