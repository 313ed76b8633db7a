"""Laws of a run's jobs: a row depends on its own members only, and no change of code leaves a stale artefact."""

import json
import sys

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.cli.main import main
from harness.engines import local
from harness.keys import _module_facts, code_version
from harness.methods.method import Method
from harness.models.architectures import build
from harness.models.weights import save_network
from harness.pools import pool
from harness.report import write_report
from harness.results.run import has_answer, read_run
from harness.run import runner
from harness.run.deciding import own_columns
from harness.run.graph import planned_jobs
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages import setting, variant
from harness.run.stages.build import Build
from harness.run.stages.prepare import Prepare
from harness.store import Store
from harness.suite.suite import read_suite
from harness.tasks import text
from harness.types import Architecture
from tests.inline import Inline

pytestmark = pytest.mark.usefixtures("undrawn")

MLP = Architecture("mlp", (("classes", 10), ("hidden", 8), ("side", 8)))
CNN = Architecture("small_cnn", (("classes", 10), ("hidden", 8), ("side", 8), ("width", 2)))
OTHERWISE = ["variant", "pool", "params", "members", "reference", "build_seconds", "pareto", "best_set",
             "score_corrected", "score_corrected_low", "score_corrected_high", *own_columns()]  # fmt: skip
"""Columns that say which members a row has, what it is compared with, or how long something took."""


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setattr(local, "_Pools", Inline)
    monkeypatch.setattr(text, "WINDOWS", {"train": 12, "heldout": 3, "test": 2})
    yield
    for cached in (setting.task_of, setting.documents_of, variant.pool_of):
        cached.cache_clear()


def image_model(folder, architecture, seed, broken=False):
    torch.manual_seed(seed)
    module = build(architecture)
    if broken:
        next(module.parameters()).data.view(-1)[0] = torch.nan
    folder.mkdir()
    save_network(architecture, module.eval(), folder)


def text_model(folder, seed, broken=False, context=256, words=()):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"vocab_size": 257 + len(words), "bos_token_id": 0, "eos_token_id": 0}
    module = LlamaForCausalLM(
        LlamaConfig(max_position_embeddings=context, initializer_range=0.3, **sizes, **special)
    )
    if broken:
        module.model.norm.weight.data[:] = torch.nan
    module.save_pretrained(folder)
    alphabet = ["<e>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *words]
    tokens = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<e>").save_pretrained(folder)


def questions(folder):
    folder.mkdir()
    asked = [{"q": f"{i} and {i % 5}:", "c": [f" yes {i}", " no", " may be"], "a": i % 3} for i in range(12)]
    (folder / "q.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    (folder / "q.yaml").write_text(
        f"task: q\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/q.jsonl}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_choice: '{{c}}'\n"
        "doc_to_target: '{{a}}'\nmetric_list: [{metric: acc}]\n"
    )


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """By kind of task: a folder with a healthy model, a broken one, one of another kind and a second healthy one."""
    images, texts = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("text")
    for seed, (name, architecture) in enumerate({"broken": MLP, "a": MLP, "other": CNN, "b": MLP}.items()):
        image_model(images / name, architecture, seed, name == "broken")
    text_model(texts / "broken", 0, broken=True)
    text_model(texts / "a", 1)
    text_model(texts / "other", 2, words=("zz",))
    text_model(texts / "b", 3)
    text_model(texts / "short", 4, context=8)
    text_model(texts / "c", 5)
    questions(texts / "tasks")
    return {"images": (images, "digits"), "text": (texts, "{lm_eval: [q], include_path: tasks}")}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A results folder whose store the tests share: reading the texts takes seconds."""
    return tmp_path_factory.mktemp("results")


def suite_of(folder, task, pools, methods, name, reference, cost="latency: false, memory: false"):
    lines = [f"suite: {name}", f"task: {task}", f"pool: {{hf: {{members: [{', '.join(pools['main'])}]}}}}"]
    others = [f"  {pool}: {{hf: {{members: [{', '.join(of)}]}}}}" for pool, of in pools.items() if pool != "main"]
    lines += ["pools:", *others] if others else []
    lines += [f"reference: {reference}", "methods:", *(f"  - {method}" for method in methods), f"cost: {{{cost}}}"]
    path = folder / f"{name}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(path, out):
    plan = make_plan(read_suite(path), Options(out=out, limit=80, device="cpu"))
    return read_run(runner.run(plan, Tracker()))


def rows(found):
    table = found.variants
    return table[table["seed"] == "all"].set_index("variant", drop=False)


POOL = ["broken", "a", "other", "b"]
ROWS = {
    "member/index=0": (["broken"], "member: {index: 0"),
    "member/index=1": (["a"], "member: {index: 0"),
    "member/index=2": (["other"], "member: {index: 0"),
    "linear/members=1+3": (["a", "b"], "linear: {weights: uniform"),
    "linear/members=1+3,weights=learned": (["a", "b"], "linear: {weights: learned"),
    "linear/members=1+2": (["a", "other"], "linear: {weights: uniform"),
    "linear/members=0+1": (["broken", "a"], "linear: {weights: uniform"),
    "log_linear/members=3+1": (["b", "a"], "log_linear: {weights: uniform"),
    "uniform_soup/members=1+3": (["a", "b"], "uniform_soup: {"),
    "uniform_soup/members=1+2": (["a", "other"], "uniform_soup: {"),
    "uniform_soup/members=0+3": (["broken", "b"], "uniform_soup: {"),
    "slerp/first=1,second=3": (["a", "b"], "slerp: {first: 0, second: 1"),
    "expert_anti_expert/a=0.5,anti=3,expert=1,on=1": (
        ["a", "b"], "expert_anti_expert: {a: 0.5, on: 0, expert: 0, anti: 1",
    ),
}
"""Variants of the whole pool, each with a pool of its own members and the same method there."""
WHOLE = [
    "member: {index: [0, 1, 2]}",
    "linear: {members: [[1, 3], [1, 2], [0, 1]]}",
    "linear: {members: [1, 3], weights: learned}",
    "log_linear: {members: [3, 1]}",
    "uniform_soup: {members: [[1, 3], [1, 2], [0, 3]]}",
    "slerp: {first: 1, second: 3}",
    "expert_anti_expert: {on: 1, expert: 1, anti: 3, a: 0.5}",
    "linear",
]


def fails_to_be_read(stage, prepare=Prepare.run):
    if "broken" in stage.member.model.folder:
        raise ValueError("it is broken")
    prepare(stage)


@pytest.mark.parametrize(("kind", "read"), [("images", True), ("images", False), ("text", True)])
def test_a_row_is_that_of_a_pool_of_its_own_members_whatever_else_the_pool_holds(
    kinds, out, tmp_path, monkeypatch, kind, read
):
    folder, task = kinds[kind]
    if not read:
        monkeypatch.setattr(Prepare, "run", fails_to_be_read)
        out = tmp_path
    whole = suite_of(folder, task, {"main": POOL}, WHOLE, "whole", "member/index=1")
    pools, methods = {}, []
    for members, method in ROWS.values():
        pools["_".join(members)] = members
        methods.append(f"{method}{'' if method.endswith('{') else ', '}pool: {'_'.join(members)}}}")
    apart = suite_of(folder, task, {"main": ["a"], **pools}, ["best_single", *methods], "apart", "best_single")
    together, alone = rows(run(whole, out)), rows(run(apart, out))
    expected = alone[alone["method"] != "best_single"]
    for (name, (members, _)), mine in zip(ROWS.items(), expected.to_dict("records"), strict=True):
        found = together.loc[name]
        assert found["status"] == mine["status"], (name, found["reason"], mine["reason"])
        if "broken" in members:
            assert found["status"] != "ok"
            assert pd.notna(found["reason"])
        for column in expected.columns.difference(OTHERWISE):
            assert found[column] == pytest.approx(mine[column], abs=1e-6, nan_ok=True), (name, column)
    assert together.loc["linear", "status"] != "ok"
    assert (together["status"] == "ok").sum() >= 7


def test_what_is_too_long_for_a_model_or_breaks_a_method_fails_their_own_rows_only(kinds, out, monkeypatch):
    def breaks(method, *arguments, apply=Method.apply):
        return apply(method, *arguments) if method.name != "log_linear" else 1 / 0

    monkeypatch.setattr(Method, "apply", breaks)
    folder, task = kinds["text"]
    methods = ["member: {index: [0, 1, 2]}", "linear: {members: [[0, 2], [0, 1]]}", "log_linear: {members: [0, 2]}"]
    path = suite_of(folder, task, {"main": ["a", "short", "b"]}, methods, "short", "member/index=0")
    found = rows(run(path, out))
    longer = found["reason"].str.contains("longer than the 8 tokens", na=False)
    assert set(found.index[longer]) == {"member/index=1", "linear/members=0+1"}
    broken = found["reason"].str.contains("ZeroDivisionError", na=False)
    assert set(found.index[broken]) == {"log_linear/members=0+2"}
    assert set(found.loc[~longer & ~broken, "status"]) == {"ok"}


@pytest.mark.parametrize("kind", ["images", "text"])
def test_without_a_reference_rows_keep_their_scores_and_say_why_they_are_not_compared(
    kinds, out, tmp_path, capsys, kind
):
    folder, task = kinds[kind]
    methods = ["member: {index: [0, 1]}", "linear: {members: [1, 3]}"]
    path = suite_of(folder, task, {"main": POOL}, methods, f"lost_{kind}", "member/index=0", "energy: false")
    with pytest.raises(SystemExit) as stopped:
        main(["run", str(path), "--out", str(out), "--limit", "80"])
    assert stopped.value.code == 5
    said = capsys.readouterr().err
    assert "1 of 3 variants failed; the first is member/index=0: " in said
    assert "no answer: the reference member/index=0 failed; 2 of 3 variants have scores" in said
    found = read_run(out / f"lost_{kind}/latest")
    table = rows(found)
    other = table.drop("member/index=0")
    assert set(other["status"]) == {"ok"}
    assert other[["accuracy", "nll", "accuracy_low"]].notna().all(axis=None)
    assert other["working_memory_bytes"].notna().all()
    assert set(other["verdict"]) == {"no_reference"}
    why = table.loc["member/index=0", "reason"]
    assert set(other["reason"]) == {f"not compared: the reference member/index=0 failed: {why}"}
    assert other[["diff_vs_reference", "diff_low", "mcnemar_p"]].isna().all(axis=None)
    assert found.record["status"] == "incomplete"
    report = write_report(found.folder).with_name("report.md").read_text()
    assert "There is no answer: the reference member/index=0 has no result in this run (" in report
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nrules:\n- {id: r, match: {variant: linear*, metric: diff_vs_reference}, min: -1}\n")
    with pytest.raises(SystemExit) as stopped:
        main(["gate", str(found.folder), "--policy", str(policy)])
    assert stopped.value.code == 5


def test_a_reference_that_does_not_apply_is_asked_once_and_the_run_has_no_answer(kinds, tmp_path):
    folder, task = kinds["images"]
    methods = ["linear: {weights: [[0.5, 0.4], uniform], members: [1, 3]}"]
    path = suite_of(folder, task, {"main": POOL}, methods, "none", "linear/members=1+3,weights=0.5:0.4",
                    "latency: true, memory: false, energy: false")  # fmt: skip
    first, again = run(path, tmp_path), run(path, tmp_path)
    assert again.record["summary"]["jobs_run"] == 0  # nor are the members that no variant touches asked for
    found = rows(first).loc["linear/members=1+3"]
    assert (found["status"], found["verdict"]) == ("ok", "no_reference")
    assert "does not apply: the weights sum to 0.9" in found["reason"]
    assert not has_answer(first)
    assert first.record["status"] == "incomplete"


def test_a_reference_that_fails_on_one_seed_is_missed_there_and_over_all_seeds(tmp_path, monkeypatch):
    def breaks(stage, build=Build.run):
        if (stage.variant.method, stage.variant.seed) == ("best_single", 1):
            raise ValueError("it broke")
        build(stage)

    monkeypatch.setattr(Build, "run", breaks)
    path = tmp_path / "seeds.yaml"
    costs = "cost: {latency: false, memory: false, energy: false}\nseeds: [0, 1]"
    path.write_text(TRAINED.replace("cost: {energy: false}", costs))
    found = run(path, tmp_path)
    table = found.variants.set_index(["variant", "seed"])
    reasons = table.loc["uniform_soup", "reason"]
    assert set(table.loc["uniform_soup", "status"]) == {"ok"}
    assert pd.isna(reasons["0"])
    why = "not compared: the reference best_single failed on seed 1: ValueError: it broke"
    assert reasons["1"] == reasons["all"] == why
    assert table.loc[("uniform_soup", "0"), "verdict"] in ("better", "worse", "unclear")
    assert table.loc[("uniform_soup", "all"), "verdict"] == "no_reference"
    assert table.loc["uniform_soup", "diff_vs_reference"].notna().tolist() == [False, True, False]
    assert table.loc["uniform_soup", "accuracy"].notna().all()
    assert not has_answer(found)
    write_report(found.folder)


def test_runs_go_on_after_one_without_an_answer_and_some_failures_are_counted(kinds, tmp_path, capsys):
    folder, task = kinds["images"]
    lost = suite_of(folder, task, {"main": ["broken"]}, ["member: {index: 0}"], "lost", "member/index=0")
    fine = suite_of(folder, task, {"main": POOL}, ["member: {index: [1, 0]}"], "fine", "member/index=1")
    for paths, code in (([lost, fine], 5), ([fine], 0)):
        with pytest.raises(SystemExit) as stopped:
            main(["run", *map(str, paths), "--out", str(tmp_path), "--limit", "80"])
        assert stopped.value.code == code
        output = capsys.readouterr()
        assert len(output.out.splitlines()) == len(paths)
        assert "1 of 2 variants failed; the first is member/index=0" in output.err


# keys

TRAINED = """suite: keys
task: digits
pool: {train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 8}}}
methods: [best_single, linear: {weights: learned}, uniform_soup]
correlate: {subsets: {sizes: [2], at_most: 3}}
cost: {energy: false}
"""
WIRING = ("harness.engines", "harness.keys", "harness.run.stages", "harness.store", "harness.tasks")
"""Code that hands digested inputs to what makes artefacts, or reads these: it makes nothing that no digest covers."""
DECLARED = "harness.kinds."
"""Hands on functions that keys name one by one, and documents that have a digest; it makes evaluations only."""


def kinds_that_change_with(plan, module, monkeypatch):
    """The kinds of artefacts whose keys are others once a module does something else."""

    def keys():
        for cached in (code_version, pool.member_digests, pool.base_digest):
            cached.cache_clear()
        for each in plan.variants[0].values():
            for name in ("build_key", "evaluation_key"):
                each.__dict__.pop(name, None)
        for member in (member for planned in plan.pools[0].values() for member in planned.everyone):
            for name in ("digests", "_key"):
                member.__dict__.pop(name, None)
        return [key for planned in planned_jobs(plan) for key in planned.stage.artefacts()]

    facts = _module_facts

    def changed(name):
        return ("changed", *facts(name)[1:]) if name == module else facts(name)

    before = keys()
    with monkeypatch.context() as patched:
        patched.setattr("harness.keys._module_facts", changed)
        after = keys()
    keys()
    return {old.kind for old, new in zip(before, after, strict=True) if old.digest != new.digest}


def modules_behind(plan, monkeypatch):
    """Every kind of artefact that a plan's jobs write, with the modules of ours that ran since the write before."""
    behind, ran = {}, set()

    def note(frame, event, _):
        if event == "call" and (name := frame.f_globals.get("__name__", "")).startswith("harness."):
            ran.add(name)

    write = Store.write

    def noted(self, key):
        behind.setdefault(key.kind, set()).update(ran)
        ran.clear()
        return write(self, key)

    def traced(job):
        ran.clear()
        sys.setprofile(note)
        try:
            return submit(job)
        finally:
            sys.setprofile(None)

    begin = Store.kept_if

    def begun(self, check):
        ran.clear()  # of the names of what it will leave, by which others wait for it
        return begin(self, check)

    pools = Inline(1, ())
    submit = pools.submit
    monkeypatch.setattr(Store, "write", noted)
    monkeypatch.setattr(Store, "kept_if", begun)
    monkeypatch.setattr(pools, "submit", traced)
    monkeypatch.setattr(local, "_Pools", lambda *_: pools)
    runner.run(plan, Tracker())
    return behind


@pytest.mark.parametrize("kind", ["images", "text"])
def test_what_ran_to_make_an_artefact_is_in_its_key(kinds, out, tmp_path, monkeypatch, kind):
    if kind == "images":
        out, path = tmp_path, tmp_path / "keys.yaml"
        path.write_text(TRAINED)
    else:
        methods = ["member: {index: 0}", "linear", "uniform_soup"]
        path = suite_of(*kinds["text"], {"main": ["c", "b"]}, methods, "keys", "member/index=0", "memory: false")
    plan = make_plan(read_suite(path), Options(out=out, limit=80, device="cpu"))
    behind = modules_behind(plan, monkeypatch)
    planned = {key.kind for planned in planned_jobs(plan) for key in planned.stage.artefacts()}
    assert planned <= set(behind)
    modules = sorted(set().union(*(behind[kind] for kind in planned)))
    changes = {module: kinds_that_change_with(plan, module, monkeypatch) for module in modules}
    evaluates = {f"{DECLARED}{name}" for name in ("kind", "evaluating", kind)}
    stale = {(made, module) for made in planned for module in behind[made]
             if made not in changes[module] and not module.startswith(WIRING)
             and (not module.startswith(DECLARED) or (made == "evaluation" and module in evaluates))}  # fmt: skip
    assert stale == set()
    if kind == "images":
        assert changes["harness.cost.latency"] == {"latency"}  # and no training is made anew for it


def test_how_text_is_run_is_behind_text_only(kinds, out, tmp_path, monkeypatch):
    made = {"training", "predictions", "member", "build", "evaluation"}
    path = tmp_path / "keys.yaml"
    path.write_text(TRAINED)
    images = make_plan(read_suite(path), Options(out=tmp_path, limit=80, device="cpu"))
    path = suite_of(*kinds["text"], {"main": ["c", "b"]}, ["linear"], "narrow", "linear", "memory: false")
    text = make_plan(read_suite(path), Options(out=out, limit=80, device="cpu"))
    for module, (of, other) in {"windows": (text, images), "image_networks": (images, text)}.items():
        name = f"harness.models.{module}"
        assert kinds_that_change_with(of, name, monkeypatch) >= made - ({"training"} if of is text else set())
        assert not kinds_that_change_with(other, name, monkeypatch) & made
