"""Recipes of mergekit-moe as read: models by their paths, mergekit's own reading, and each refusal with its line."""

import re

import pytest
import yaml as plain_yaml
from mergekit.moe.config import MoEMergeConfig, is_bad_config

from harness.errors import BadInput
from harness.merging.moe_recipe import read_moe
from harness.strict import yaml

RECIPE = """\
base_model: ../models/base
gate_mode: hidden
experts_per_token: 2
dtype: bfloat16
experts:
  - source_model: ../models/a
    positive_prompts: [add two numbers]
    negative_prompts:
      - write a poem
  - source_model: ../models/b
    positive_prompts:
      - write a poem
    residual_scale: 0.5
    noise_scale: 0.0
shared_experts: null
"""


@pytest.fixture
def read(tmp_path):
    """Reads a recipe beside the folders of a pool, one of which is reached by a link."""
    for name in ("base", "b"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "models/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "recipes").mkdir()
    folders = {"base": "models/base", "m0": "elsewhere", "m1": "models/b"}
    models = {name: str(tmp_path / folder) for name, folder in folders.items()}

    def of(text, models=models):
        path = tmp_path / "recipes/merge.yml"
        path.write_text(text)
        return read_moe(yaml.read(path), path.parent, models)

    return of


def test_models_are_named_as_the_pool_names_them(read):
    recipe = read(RECIPE)
    assert recipe.base_model == "base"
    assert [expert.source_model for expert in recipe.experts] == ["m0", "m1"]
    assert read(RECIPE.replace("../models/a", "m0")) == recipe


def test_all_else_is_as_mergekit_reads_it(read):
    theirs = MoEMergeConfig.model_validate(plain_yaml.safe_load(RECIPE))
    assert not is_bad_config(theirs)
    ours = read(RECIPE)
    for key in ("gate_mode", "experts_per_token", "dtype"):
        assert getattr(ours, key) == getattr(theirs, key)
    for one, other in zip(ours.experts, theirs.experts, strict=True):
        for key in ("positive_prompts", "negative_prompts", "residual_scale"):
            assert getattr(one, key) == getattr(other, key)
    least = plain_yaml.safe_dump({
        "base_model": "base",
        "experts": [{"source_model": f"m{k}", "positive_prompts": [f"w{k}"]} for k in range(2)],
    })
    ours, theirs = read(least), MoEMergeConfig.model_validate(plain_yaml.safe_load(least))
    assert (ours.gate_mode, ours.experts_per_token, ours.dtype) == (theirs.gate_mode, theirs.experts_per_token, None)


def test_where_the_pool_has_no_folders_names_are_taken_as_they_are(read):
    assert read(RECIPE, {}).base_model == "../models/base"


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("shared_experts: null", "shared_experts: [{source_model: m0}]", 15, "'shared_experts' is not supported"),
        ("noise_scale: 0.0", "noise_scale: 0.1", 14, "'noise_scale' is not supported"),
        ("dtype: bfloat16", "architecture: qwen", 4, "'architecture' is not supported"),
        ("gate_mode: hidden", "gate_mode: hidden_avg", 2, "bad value 'hidden_avg' for 'gate_mode'"),
        ("dtype: bfloat16", "dtype: int64", 4, "bad value 'int64' for 'dtype'"),
        ("residual_scale", "residual_scal", 13, "unknown key 'residual_scal'; did you mean 'residual_scale'?"),
        ("base_model: ../models/base\n", "", 1, "the key 'base_model' is missing"),
        ("../models/b\n", "../models/c\n", 10,
         "'../models/c' is no model of the pool; did you mean '../models/b'? (known: ../elsewhere, ../models/b, "
         "../models/base)"),
        ("models/base\n", "models/bas\n", 1, "'../models/bas' is no model of the pool; did you mean '../models/base'?"),
        ("../models/a", "{model: ../models/a}", 6, "bad value {'model': '../models/a'} for 'source_model'"),
        ("experts_per_token: 2", "experts_per_token: 3", 3, "3 experts cannot run for a token: there are only 2"),
        ("experts_per_token: 2", "experts_per_token: 0", 3, "bad value 0 for 'experts_per_token'"),
        ("    positive_prompts: [add two numbers]\n", "", 6, "gate_mode 'hidden' needs 'positive_prompts'"),
        ("[add two numbers]", "['']", 7, "bad value '' for 'positive_prompts'"),
        ("../models/b\n", "../models/a\n", 5, "all experts are one model"),
    ],
)  # fmt: skip
def test_what_is_not_supported_or_makes_no_sense_is_one_line_with_its_place(read, old, new, line, problem):
    assert old in RECIPE
    with pytest.raises(BadInput) as caught:
        read(RECIPE.replace(old, new))
    found = re.fullmatch(r".*/merge\.yml:(\d+): (.*)", str(caught.value))
    assert found
    assert int(found[1]) == line
    assert found[2].startswith(problem)


def test_experts_with_the_same_prompts_are_refused_as_by_mergekit(read):
    text = "base_model: base\nexperts:\n" + "".join(
        f"  - source_model: m{k}\n    positive_prompts: [x]\n    negative_prompts: [y]\n" for k in range(2)
    )
    assert is_bad_config(MoEMergeConfig.model_validate(plain_yaml.safe_load(text)))
    with pytest.raises(BadInput, match=r"merge.yml:2: all experts have the same prompts"):
        read(text)
    drawn = read(text + "gate_mode: random\n")
    assert drawn.gate_mode == "random"
