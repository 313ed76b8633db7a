"""Recipes of merges as variants: the same tensors as the command writes, over folders, and over networks made here."""

import pytest
import torch
import yaml
from safetensors.torch import load_file

from harness.checks.pools import build_method, ingredients
from harness.checks.pools import fine_tunes as classifiers
from harness.errors import BadInput
from harness.merging.arithmetic import weighted_sum
from harness.models.tokens import reading, tokenizer_of
from harness.pools.folders import FOLDERS, HfPool, plan_folders
from harness.pools.pool import load_pool
from harness.recipes.merge import Options, merge_recipe
from harness.registry import METHODS
from harness.store import Store
from harness.strict.beside import Beside
from tests.merging.decoders import text
from tests.merging.recipe_folders import write_folders

RECIPE, NAMES = METHODS.get("recipe"), ("m0", "m1", "m2")
SEED = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tiny Llama folders, and one for recipes beside them."""
    path = tmp_path_factory.mktemp("models")
    write_folders(path, num_hidden_layers=3)
    (path / "recipes").mkdir()
    return path


def models(*names, **each):
    return [{"model": f"../{name}", "parameters": {key: value[k] for key, value in each.items()}}
            for k, name in enumerate(names)]  # fmt: skip


def franken(*slices, **more):
    made = [{"sources": [{"model": f"../{name}", "layer_range": layers}]} for name, *layers in slices]
    return {"merge_method": "passthrough", "slices": made, **more}


MERGES = {
    "ties": {"merge_method": "ties", "base_model": "../base",
             "models": models(*NAMES, weight=(0.5, 0.3, 0.2), density=(0.3, [0.2, 0.9], 0.7))},
    "dare": {"merge_method": "dare_ties", "base_model": "../base",
             "models": models("m0", "m1", weight=(0.5, 0.5), density=(0.4, 0.6))},
    "slerp, rounded": {"merge_method": "slerp", "base_model": "../m0", "models": models("m0", "m1"),
                       "parameters": {"t": [0.1, 0.8]}, "dtype": "bfloat16"},
    "layers of two": franken(("m0", 0, 2), ("m1", 1, 3)),
    "stages": [
        {"name": "half", "merge_method": "linear", "models": models("m0", "m1", weight=(1, 1))},
        {"merge_method": "task_arithmetic", "base_model": "../base", "dtype": "float32",
         "models": [{"model": "half", "parameters": {"weight": 0.7}}, *models("m2", weight=(0.3,))]},
    ],
}  # fmt: skip


def built(folder, documents, seed=SEED):
    """What the method makes of a recipe's file."""
    path = folder / "recipes/merge.yml"
    path.write_text(yaml.safe_dump_all(documents if isinstance(documents, list) else [documents]))
    spec = FOLDERS.beside(HfPool(base="base", members=list(NAMES)), folder)
    pool = reading(load_pool(plan_folders("text", spec), Store(folder)), tokenizer_of(folder / "base"))
    given = RECIPE.validate({"file": "recipes/merge.yml"}, "suite:1", Beside(folder, FOLDERS.folders(spec)))
    return RECIPE.apply(ingredients(pool, tuple(RECIPE.needs), train_=text(), seed=seed), given)


@pytest.mark.parametrize("case", MERGES)
def test_it_is_the_model_that_the_command_writes(case, folder, tmp_path):
    found = built(folder, MERGES[case])
    merge_recipe(folder / "recipes/merge.yml", tmp_path / "out", Options(seed=SEED))
    expected = load_file(tmp_path / "out/model.safetensors")
    state = found.module.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor.float(), rtol=1e-6, atol=1e-8)
    layers = len({name.split(".")[2] for name in expected if name.startswith("model.layers.")})
    assert found.module.config.num_hidden_layers == layers == (4 if case == "layers of two" else 3)


def test_networks_made_here_are_merged_by_the_names_of_their_pool():
    pool = classifiers()
    parts = [{"model": "m0", "parameters": {"weight": 0.25}}, {"model": "m2", "parameters": {"weight": 0.75}}]
    made = build_method("recipe", pool, file={"merge_method": "linear", "models": parts})
    state = made.module.state_dict()
    for name, tensor in weighted_sum([pool.members[0].weights, pool.members[2].weights], [0.25, 0.75]).items():
        torch.testing.assert_close(state[name], tensor)
    assert made.details["merged"] == ["m0", "m2"]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"tokenizer_source": "union"}, r"merge\.yml:\d+: 'tokenizer' is not supported in a suite; the models"),
        ({"chat_template": "auto"}, r"merge\.yml:\d+: 'chat_template' is not supported in a suite"),
        ({"vocabulary": "union"}, r"merge\.yml:\d+: 'vocabulary' is not supported in a suite"),
        ({"models": models("recipes", weight=(1,))}, r"merge\.yml:\d+: '\.\./recipes' is no model of the pool"),
        ({"models": models("none", weight=(1,))}, r"merge\.yml:\d+: there is no folder '\.\./none'"),
        ({"merge_method": "tis"}, r"merge\.yml:\d+: unknown .*'tis'; did you mean 'ties'"),
    ],
)
def test_what_a_suite_has_no_use_for_is_refused_with_its_line(more, problem, folder):
    with pytest.raises(BadInput, match=problem):
        built(folder, {**MERGES["ties"], **more})
