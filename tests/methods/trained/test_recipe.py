"""Recipes: tensors against mergekit-moe's own output for the same file, keys that follow the file, and refusals."""

from dataclasses import replace

import mergekit.moe.router
import pytest
import torch
import yaml
from mergekit.merge import MergeOptions
from mergekit.moe.config import MoEMergeConfig
from mergekit.moe.qwen import QwenMoE
from mergekit.moe.router import get_gate_params
from mergekit.scripts.moe import build as mergekit_moe
from transformers import AutoModelForCausalLM

from harness.checks.pools import build_method, ingredients
from harness.checks.pools import fine_tunes as classifiers
from harness.errors import BadInput
from harness.lm.combination_file import read_combination
from harness.models.tokens import reading, tokenizer_of
from harness.pools.folders import FOLDERS, HfPool, plan_folders
from harness.pools.pool import load_pool
from harness.registry import METHODS
from harness.run.stages.setting import Data
from harness.run.stages.variant import VariantPlan
from harness.store import Store
from harness.strict.beside import Beside
from harness.suite.suite import read_suite
from harness.types import NotApplicable
from tests.merging.decoders import logits, text
from tests.merging.recipe_folders import recipe, write_folders, write_recipe

RECIPE, NAMES = METHODS.get("recipe"), ("m0", "m1", "m2")
SEED = 5


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def folder(request, tmp_path_factory):
    """Tiny Llama folders in a precision."""
    path = tmp_path_factory.mktemp(request.param)
    write_folders(path, dtype=getattr(torch, request.param))
    return path


def pool_of(folder, names=NAMES):
    spec = FOLDERS.beside(HfPool(base="base", members=list(names)), folder)
    planned = plan_folders("text", spec)
    return spec, reading(load_pool(planned, Store(folder)), tokenizer_of(folder / "base"))


def ours(folder, document, seed=SEED):
    """The network of the method for a recipe in a folder beside the models."""
    (folder / "recipes").mkdir(exist_ok=True)
    write_recipe(folder / "recipes/merge.yml", document)
    spec, pool = pool_of(folder)
    given = RECIPE.validate({"file": "recipes/merge.yml"}, "suite:1", Beside(folder, FOLDERS.folders(spec)))
    return RECIPE.apply(ingredients(pool, tuple(RECIPE.needs), train_=text(), seed=seed), given)


def absolute(folder, document):
    return yaml.safe_load(yaml.safe_dump(document).replace("../", f"{folder}/"))


def theirs(folder, document, out, seed=SEED):
    """The model that mergekit-moe writes, loaded; it takes paths relative to where it runs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        mergekit_moe(MoEMergeConfig.model_validate(absolute(folder, document)), str(out), MergeOptions(), device="cpu")
    return AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)


def precision(folder):
    return "bfloat16" if "bfloat16" in folder.name else "float32"


def beside(names):
    return [f"../{name}" for name in names]


def assert_equal(found, expected, routers=None):
    """All tensors to the bit; those of routers within these tolerances, where there are any."""
    one, other = found.module.state_dict(), expected.state_dict()
    assert one.keys() == other.keys()
    for name, tensor in other.items():
        if routers and name.endswith("gate.weight"):
            torch.testing.assert_close(one[name], tensor, **routers)
        else:
            assert torch.equal(one[name], tensor), name


@pytest.fixture
def in_float32(monkeypatch):
    """mergekit-moe, which runs its base in bfloat16, runs it in float32."""

    class Exact:
        @staticmethod
        def from_pretrained(path, **settings):
            return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    monkeypatch.setattr(mergekit.moe.router, "AutoModelForCausalLM", Exact)


CLOSE = {"float32": {"rtol": 1e-5, "atol": 1e-6}, "bfloat16": {"rtol": 2**-7, "atol": 1e-6}}
"""Of a router: float32's sums in another order; of one stored in bfloat16, its last place."""


@pytest.mark.parametrize("mode", ["hidden", "cheap_embed"])
@pytest.mark.parametrize("names", [NAMES[:2], NAMES, ("m2", "base")], ids="+".join)
def test_tensors_of_prompted_recipes_are_those_of_mergekit_moe(folder, in_float32, mode, names, tmp_path):
    document = recipe(beside(names), mode, "../base")
    found, expected = ours(folder, document), theirs(folder, document, tmp_path)
    assert_equal(found, expected, CLOSE[precision(folder)])


def test_hidden_routers_are_within_the_bfloat16_that_mergekit_moe_runs_its_base_in(folder, tmp_path):
    document = recipe(beside(NAMES), "hidden", "../base")
    assert_equal(ours(folder, document), theirs(folder, document, tmp_path), {"rtol": 0, "atol": 0.02})


@pytest.mark.parametrize("mode", ["random", "uniform_random"])
@pytest.mark.parametrize("names", [NAMES[:2], NAMES], ids="+".join)
def test_of_drawn_recipes_all_tensors_are_mergekits_to_the_bit(folder, mode, names, tmp_path):
    document = recipe(beside(names), mode, "../m1", experts_per_token=1)
    found, expected = ours(folder, document), theirs(folder, document, tmp_path)
    assert_equal(found, expected)
    assert torch.equal(logits(found.module, text().inputs), logits(expected, text().inputs))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_so_with_scaled_experts_in_another_precision(folder, dtype, tmp_path):
    document = recipe(beside(NAMES), "random", "../base", dtype=dtype)
    document["experts"][0]["residual_scale"] = 0.3
    document["experts"][2]["residual_scale"] = -2
    assert_equal(ours(folder, document), theirs(folder, document, tmp_path))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("llama", {"tie_word_embeddings": True}), ("mistral", {"sliding_window": None}), ("qwen3", {"head_dim": 4})],
)
def test_so_of_other_kinds_and_tied_ends(kind, settings, in_float32, tmp_path):
    write_folders(tmp_path, kind, **settings)
    document = recipe(beside(NAMES), "hidden", "../base")
    found, expected = ours(tmp_path, document), theirs(tmp_path, document, tmp_path / "out")
    assert_equal(found, expected, CLOSE["float32"])
    torch.testing.assert_close(logits(found.module, text().inputs), logits(expected, text().inputs))


def test_of_qwen2_it_is_mergekits_without_the_expert_that_all_tokens_share_which_is_refused(tmp_path):
    """mergekit-moe writes no Qwen2-MoE without just one of these; ours is as narrow as can be, and all zeros."""
    write_folders(tmp_path, "qwen2")
    document = recipe(beside(NAMES), "random", "../base")
    shared = document | {"shared_experts": [{"source_model": "../m1"}]}
    with pytest.raises(BadInput, match=r"'shared_experts' is not supported; every expert is one that a router picks"):
        ours(tmp_path, shared)
    plain, config = (MoEMergeConfig.model_validate(absolute(tmp_path, each)) for each in (document, shared))
    assert [QwenMoE().supports_config(each) for each in (plain, config)] == [False, True]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        gates = get_gate_params(config.base_model, None, config.experts, mode="random")  # [layers, experts, hidden]
    QwenMoE().write_model(str(tmp_path / "out"), config, MergeOptions(), list(gates), list(gates[:, :1]))
    found, expected = ours(tmp_path, document), AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert found.module.config.model_type == expected.config.model_type == "qwen2_moe"
    assert not torch.allclose(logits(found.module, text().inputs), logits(expected, text().inputs), atol=1e-3)
    with torch.no_grad():
        for layer in expected.model.layers:
            layer.mlp.shared_expert.down_proj.weight.zero_()
    torch.testing.assert_close(logits(found.module, text().inputs), logits(expected, text().inputs))
    for module in (found.module, expected):
        for layer in module.model.layers:
            del layer.mlp.shared_expert, layer.mlp.shared_expert_gate
    assert_equal(found, expected)


def test_all_but_experts_and_routers_is_the_base_models_own(folder):
    found = ours(folder, recipe(beside(NAMES[:2]), "random", "../m2")).module.state_dict()
    _, pool = pool_of(folder)
    own = {name: tensor for name, tensor in pool.members[2].weights.items() if ".mlp." not in name}
    assert own.keys() == {name for name in found if ".mlp." not in name}
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in own.items())


# In a file


def test_a_combination_file_has_recipes_too(folder):
    document = recipe(beside(NAMES[:2]), "cheap_embed", "../base")
    found = ours(folder, document).module.state_dict()
    path = folder / "combination.yaml"
    path.write_text("pool: {hf: {base: base, members: [m0, m1, m2]}}\nmethod: {recipe: {file: recipes/merge.yml}}\n")
    combination, _ = read_combination(path, torch.device("cpu"))
    assert all(torch.equal(tensor, found[name]) for name, tensor in combination.module.state_dict().items())


def test_no_stage_is_a_recipe_since_it_has_no_default():
    with pytest.raises(BadInput, match="method 'recipe' needs the parameter 'file'"):
        METHODS.get("cascade").validate({"stages": ["recipe", "linear"]})


SUITE = """suite: t
task: digits
pool: {hf: {base: models/base, members: [models/m0, models/m1]}}
methods:
  - best_single
  - recipe: {file: [merge.yml, other.yml]}
"""


@pytest.fixture
def variants(tmp_path):
    """The variants of a suite with two recipes, by name; ``changes`` are of the first."""

    def read(inside="suite", **changes):
        folder = tmp_path / inside
        folder.mkdir(exist_ok=True)
        write_recipe(folder / "merge.yml", recipe(["models/m0", "models/m1"], base="models/base") | changes)
        write_recipe(folder / "other.yml", recipe(["models/m1", "models/m0"], base="models/m0"))
        (folder / "suite.yaml").write_text(SUITE)
        return {variant.name: variant for variant in read_suite(folder / "suite.yaml").variants}

    return read


def key(variant, pool):
    data = Data("train", "heldout", "test", "scored", 5, "text")
    plan = VariantPlan(variant.name, variant.method, variant.parameters, variant.members, pool, 0, data, "cpu")
    return plan.build_key.digest


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    write_folders(folder)
    return plan_folders("main", FOLDERS.beside(HfPool(base="base", members=["m0", "m1"]), folder))


def test_a_variant_is_named_by_its_file_and_keyed_by_what_is_in_it(variants, planned):
    first = variants()
    assert list(first) == ["best_single", "recipe/file=merge.yml", "recipe/file=other.yml"]
    changed, moved = variants(experts_per_token=1), variants(inside="elsewhere")
    one, two = (key(each["recipe/file=merge.yml"], planned) for each in (first, changed))
    assert one != two
    assert one == key(moved["recipe/file=merge.yml"], planned)
    same = "recipe/file=other.yml"
    assert key(first[same], planned) == key(changed[same], planned)


def test_a_fault_of_the_file_has_its_place_when_the_suite_is_read(variants):
    with pytest.raises(BadInput, match=r"suite/merge\.yml:\d+: 'shared_experts' is not supported"):
        variants(shared_experts=[{"source_model": "models/m0"}])
    with pytest.raises(BadInput, match=r"merge\.yml:1: 'models/m2' is no model of the pool"):
        variants(base_model="models/m2")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("none.yml", r"none\.yml: the file cannot be read: No such file"),
        ({"merge": "ties", "models": []}, r"suite:7: this is no recipe that is read here; mergekit's have a"),
        ({"merge_method": "ties", "models": []}, r"suite:7: there are no models"),
        ({"base_model": "base", "experts": []}, r"suite:7: 'experts' is empty"),
        (3, r"suite:7: method 'recipe': bad value 3 for 'file'; it takes str \| dict"),
    ],
)
def test_what_is_no_recipe_is_refused(given, problem, tmp_path):
    with pytest.raises(BadInput, match=problem):
        RECIPE.validate({"file": given}, "suite:7", Beside(tmp_path, {}))


def drawn(*sources, **more):
    return {"file": {"base_model": "base", "gate_mode": "random",
                     "experts": [{"source_model": name} for name in sources], **more}}  # fmt: skip


def test_what_it_was_validated_to_can_be_validated_again():
    once = RECIPE.validate(drawn("m0", "m1"))
    assert RECIPE.validate(once) == once


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (drawn("m0", "m7"), "the recipe names 'm7', and the members are m0, m1, m2"),
        ({"file": recipe(["m0", "m1"])}, "gate_mode 'hidden' is for language models"),
        ({"file": {**drawn("m0", "m1")["file"], "experts": [{"source_model": "m0", "residual_scale": 2.0},
                                                           {"source_model": "m1"}]}},
         "'residual_scale' is for language models"),
    ],
)  # fmt: skip
def test_what_does_not_apply_to_classifiers_says_why(given, why):
    with pytest.raises(NotApplicable, match=why):
        build_method("recipe", classifiers(), **given)


def test_a_pool_without_a_base_is_enough_where_the_recipe_names_none():
    pool = replace(classifiers(), base=None)
    build_method("recipe", pool, **drawn("m0", "m1", base_model="m2"))
    with pytest.raises(NotApplicable, match="no base model"):
        build_method("recipe", pool, **drawn("m0", "m1"))
