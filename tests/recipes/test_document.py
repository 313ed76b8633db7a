"""Recipes are read as mergekit reads them; what it takes no notice of, or cannot be done here, is one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration
from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.base import MISSING, BasePolicy, OptionalTensorPolicy
from mergekit.scripts.multimerge import load_config

from harness.errors import BadInput
from harness.recipes.contracts import ELSEWHERE
from harness.recipes.document import read
from harness.recipes.parameters import Case
from harness.recipes.references import Reference
from harness.recipes.token_sources import TokenRow
from harness.streaming.rules import REQUIRED, RULES
from tests.examples import examples

MODELS = ("base", "a", "b", "c", "adapter", "org/model")


@pytest.fixture
def folder(tmp_path):
    for name in MODELS:
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").write_text("")
    return tmp_path


def read_text(folder, text):
    (folder / "merge.yml").write_text(text)
    return read(folder / "merge.yml")


def names(recipe):
    return [[each.model.text for each in part.inputs] for part in recipe.slices]


PUBLISHED = {
    "linear": """
models:
  - model: a
    parameters:
      weight: 1.0
  - model: b
    parameters:
      weight: 0.3
merge_method: linear
dtype: float16
""",
    "slerp": """
slices:
  - sources:
      - model: a
        layer_range: [0, 32]
      - model: b
        layer_range: [0, 32]
# or, the equivalent models: syntax
merge_method: slerp
base_model: a
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5 # fallback for rest of tensors
dtype: bfloat16
""",
    "ties": """
models:
  - model: a
    parameters:
      density: [1, 0.7, 0.1] # density gradient
      weight: 1.0
  - model: b
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1] # weight gradient
  - model: c
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: base
parameters:
  normalize: true
  int8_mask: true
dtype: float16
""",
    "dare_ties": """
merge_method: dare_ties
base_model: base
models:
  - model: base
    # no parameters necessary for base model
  - model: org/model
    parameters:
      density: 0.53
      weight: "4e-1"
parameters:
  int8_mask: true
tokenizer_source: union
chat_template: chatml
dtype: bfloat16
out_dtype: torch.float16
""",
    "passthrough": """
slices:
- sources:
  - layer_range: [0, 20]
    model: a
- sources:
  - layer_range: [10, 30]
    model: b
    parameters:
      scale:
        - filter: o_proj
          value: 0.0
        - filter: down_proj
          value: 0.0
        - value: 1.0
merge_method: passthrough
dtype: bfloat16
""",
    "tokens": """
merge_method: linear
models: [{model: a}, {model: b}]
parameters: {weight: 1}
tokenizer:
  source: base
  pad_to_multiple_of: 8
  tokens:
    <|im_start|>: {source: a}
    <|im_end|>: {source: {kind: model_token, model: b, token: </s>}, force: true}
    <|pad|>: {source: {kind: zero}}
    <|more|>: {source: {kind: model_token, model: b, token_id: 3}}
""",
    "adapter": "merge_method: linear\nmodels: [{model: a+adapter}, {model: a}]\nparameters: {weight: 0.5}\n",
}


@pytest.mark.parametrize("text", PUBLISHED.values(), ids=list(PUBLISHED))
def test_what_users_publish_is_read_with_the_models_that_mergekit_reads(folder, text):
    (recipe,) = read_text(folder, text)
    theirs = MergeConfiguration.model_validate(yaml.safe_load(text))
    assert {model.text for model in recipe.models} == {str(model) for model in theirs.referenced_models()}
    assert recipe.rule.name == theirs.merge_method
    assert (recipe.base and recipe.base.text) == (str(theirs.base_model) if theirs.base_model else None)
    assert recipe.chat_template == theirs.chat_template
    if theirs.slices:
        ranges = [[each.layers for each in part.inputs] for part in recipe.slices]
        assert ranges == [[each.layer_range for each in part.sources] for part in theirs.slices]


def test_parameters_stand_at_three_levels(folder):
    (recipe,) = read_text(folder, PUBLISHED["passthrough"])
    assert recipe.slices[0].inputs[0].parameters == {}
    scale = recipe.slices[1].inputs[0].parameters["scale"]
    assert scale == (Case((0.0,), "o_proj"), Case((0.0,), "down_proj"), Case((1.0,), None))
    (recipe,) = read_text(folder, PUBLISHED["dare_ties"])
    assert recipe.parameters == {"int8_mask": (Case((True,)),)}
    assert recipe.slices[0].inputs[1].parameters == {"density": (Case((0.53,)),), "weight": (Case((0.4,)),)}
    part = "{sources: [{model: a, layer_range: [0, 2]}], parameters: {scale: [1, 2]}}"
    (recipe,) = read_text(folder, f"slices: [{part}]\nmerge_method: passthrough\n")
    assert recipe.slices[0].parameters == {"scale": (Case((1.0, 2.0)),)}


def test_the_results_type_is_out_dtype_else_dtype(folder):
    assert read_text(folder, PUBLISHED["dare_ties"])[0].dtype == "F16"
    assert read_text(folder, PUBLISHED["slerp"])[0].dtype == "BF16"
    assert read_text(folder, PUBLISHED["adapter"])[0].dtype is None


def test_the_base_comes_last_where_it_is_none_of_the_models(folder):
    (recipe,) = read_text(folder, PUBLISHED["ties"])
    assert names(recipe) == [["a", "b", "c", "base"]]
    assert (recipe.donor.text, recipe.base.text) == ("base", "base")
    (recipe,) = read_text(folder, PUBLISHED["dare_ties"].replace("base_model: base", "base_model: ./base/"))
    assert names(recipe) == [["base", "org/model"]]
    (recipe,) = read_text(folder, PUBLISHED["linear"])
    assert recipe.donor.text == "a"


def test_where_tokens_come_from_is_read(folder):
    (recipe,) = read_text(folder, PUBLISHED["tokens"])
    tokenizer = recipe.tokenizer
    a, b = Reference("a", folder / "a"), Reference("b", folder / "b")
    assert (tokenizer.source, tokenizer.pad_to_multiple_of) == ("base", 8)
    assert tokenizer.tokens == {
        "<|im_start|>": TokenRow(a),
        "<|im_end|>": TokenRow(b, "</s>", force=True),
        "<|pad|>": TokenRow(zero=True),
        "<|more|>": TokenRow(b, token_id=3),
    }
    assert read_text(folder, PUBLISHED["dare_ties"])[0].tokenizer.source == "union"
    assert read_text(folder, PUBLISHED["linear"] + "tokenizer_source: b\n")[0].tokenizer.source == b
    assert read_text(folder, PUBLISHED["linear"] + "vocabulary: intersect\n")[0].vocabulary == "intersect"


def test_models_are_folders_beside_the_file_absolute_or_of_the_user(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder / "org"))
    text = f"merge_method: karcher\nmodels: [{{model: {folder}/a}}, {{model: ~/model}}, {{model: a/../b/+./adapter}}]\n"
    (recipe,) = read_text(folder, text)
    one, two, three = recipe.models
    assert (one.text, one.folder) == (str(folder / "a"), folder / "a")
    assert (two.text, two.folder) == ("~/model", folder / "org/model")
    assert (three.text, three.folder.resolve()) == ("b+adapter", folder / "b")
    assert three.adapter.resolve() == folder / "adapter"


STAGES = """name: last
merge_method: ties
base_model: base
models:
  - {model: left, parameters: {weight: 1}}
  - {model: right+adapter, parameters: {weight: 1}}
---
name: left
merge_method: linear
models: [{model: a}, {model: b}]
parameters: {weight: 1}
---
name: right
merge_method: linear
models: [{model: left}, {model: c}]
parameters: {weight: 1}
"""


def test_stages_come_before_those_that_need_them_and_need_those_that_mergekit_says(folder):
    text = STAGES.replace("name: last\n", "")
    recipes = read_text(folder, text)
    assert [recipe.name for recipe in recipes] == ["left", "right", None]
    _, needed = load_config(text, str(folder))
    assert {recipe.name: set(recipe.stages) for recipe in recipes} == needed
    assert recipes[2].models[:2] == (
        Reference("left", None, "left"),
        Reference("right+adapter", None, "right", folder / "adapter"),
    )
    assert [recipe.document.text for recipe in recipes] == [
        "---\nname: left" + text.split("---\nname: left")[1].split("---")[0],
        "---\nname: right" + text.split("---\nname: right")[1],
        text.split("---")[0],
    ]
    assert recipes[1].place(("models", 1)).endswith("merge.yml:14")


def test_the_result_is_the_merge_without_a_name_else_the_last_one(folder):
    moved = "---\n".join([*STAGES.split("---\n")[1:], STAGES.split("---\n")[0]])
    assert [recipe.name for recipe in read_text(folder, moved)] == ["left", "right", "last"]
    first = "---\n".join([STAGES.split("---\n")[0].replace("name: last\n", ""), *STAGES.split("---\n")[1:]])
    assert read_text(folder, first)[-1].name is None


def test_the_name_of_the_only_merge_hides_no_folder(folder):
    (recipe,) = read_text(folder, "name: a\n" + PUBLISHED["linear"])
    assert recipe.models[0] == Reference("a", folder / "a")


def test_rules_are_mergekits_methods_with_their_parameters_and_contracts():
    """What is known here of each method is what mergekit's own specification says."""
    theirs = {method.spec.name: method.spec for method in registered_methods()}
    assert set(theirs) == set(RULES) | set(ELSEWHERE)
    lone = {
        OptionalTensorPolicy.ERROR: "refuse",
        OptionalTensorPolicy.PASSTHROUGH_SINGLETON: "copy",
        OptionalTensorPolicy.PASSTHROUGH_BASE_SINGLETON: "copy_base",
        OptionalTensorPolicy.BASE_OR_SKIP: "base_or_skip",
    }
    scopes = {"shared": "shared", "source": "input", "fine_tune": "non_base"}
    for name, rule in RULES.items():
        spec = theirs[name]
        contract = spec.contract
        assert rule.base == contract.base.value
        assert contract.base != BasePolicy.FORBIDDEN
        assert (rule.fewest, rule.most) == (contract.min_inputs, contract.max_inputs)
        assert (rule.fewest_fine_tunes, rule.most_fine_tunes) == (contract.min_non_base or 0, contract.max_non_base)
        assert rule.lone == lone[spec.optional_tensor_policy]
        found = {p.name: (scopes[p.scope], None if p.default is REQUIRED else p.default) for p in rule.parameters}
        said = {p.name: (p.scope.value, None if p.default is MISSING else p.default) for p in spec.parameters}
        assert found == said
        assert all(theirs[name].parameters[k].required == (p.default is REQUIRED) for k, p in _in_order(rule, spec))


def _in_order(rule, spec):
    places = {parameter.name: k for k, parameter in enumerate(spec.parameters)}
    return [(places[parameter.name], parameter) for parameter in rule.parameters]


TIES = "merge_method: ties\nbase_model: base\nmodels:\n- model: a\n- model: b\nparameters: {weight: 1}\n"
SLICED = """merge_method: passthrough
slices:
- sources:
  - model: a
    layer_range: [0, 2]
- sources:
  - model: b
    layer_range: [1, 2]
"""
TWO = "merge_method: karcher\nname: one\nmodels: [{model: a}]\n---\n"
FAULTS = {
    "no method": ("models: [{model: a}]\n", 1, "the key 'merge_method' is missing"),
    "an unknown method": (TIES.replace("ties", "tise"), 1, "unknown method 'tise'; did you mean 'ties'? (known: "),
    "a method of mergekit alone": (
        TIES.replace("ties", "multislerp"),
        1,
        "mergekit's method 'multislerp' is not supported",
    ),
    "another method of mergekit": (TIES.replace("ties", "ramplus_tl"), 1, "(known: arcee_fusion, breadcrumbs"),
    "an unknown key": (TIES + "dytpe: float32\n", 7, "unknown key 'dytpe'; did you mean 'dtype'?"),
    "an unknown key of a model": (
        TIES.replace("- model: b", "- model: b\n  wieght: 1"),
        6,
        "unknown key 'wieght' (known:",
    ),
    "a parameter outside of parameters": (TIES + "normalize: true\n", 7, "'normalize' is a parameter; write it below"),
    "a parameter beside a model": (TIES.replace("- model: b", "- model: b\n  weight: 1"), 6, "'weight' is a parameter"),
    "a parameter of another method": (
        TIES.replace("{weight", "{t: 1, weight"),
        6,
        "the method 'ties' has no parameter 't'",
    ),
    "a parameter of a method without any": (
        "merge_method: arcee_fusion\nbase_model: base\nmodels: [{model: a}]\nparameters: {weight: 1}\n",
        4,
        "the method 'arcee_fusion' has no parameter 'weight'; mergekit takes no notice of it: remove it",
    ),
    "modules": (
        "merge_method: linear\nmodules: {text: {models: []}}\n",
        2,
        "'modules' is not supported; merge such a network",
    ),
    "residual_weight": (
        SLICED + "  residual_weight: 0.5\n",
        9,
        "'residual_weight' is not supported; mergekit does nothing",
    ),
    "a recipe of mergekit-moe": (
        "base_model: base\nexperts:\n- source_model: a\n",
        2,
        "'experts' is not supported; this is a recipe of",
    ),
    "a recipe of mergekit-moe without experts": (
        "base_model: base\ngate_mode: random\n",
        2,
        "'gate_mode' is not supported; this is a recipe of mergekit-moe",
    ),
    "a suite": ("suite: s\ntask: t\n", 1, "'suite' is not supported; this is a suite: `stockpot run` runs it"),
    "a method in capitals": (TIES.replace("ties", "TIES"), 1, "unknown method 'TIES'; did you mean 'ties'?"),
    "a slip in a folder's name": (
        TIES.replace("- model: b", "- model: bsae"),
        5,
        "there is no folder 'bsae'; did you mean 'base'? (known: base); paths",
    ),
    "a slip in the kind of tokenizer": (TIES + "tokenizer_source: unoin\n", 7, "there is no folder 'unoin'; did you"),
    "one number for a range of layers": (
        SLICED.replace("layer_range: [0, 2]", "layer_range: [0]"),
        5,
        "bad value [0] for 'layer_range'; it should have 2 items or more",
    ),
    "neither models nor slices": (
        "merge_method: linear\n",
        1,
        "neither 'models' nor 'slices'; a recipe has one of them",
    ),
    "models and slices": (SLICED + "models: [{model: a}]\n", 2, "both 'models' and 'slices'; a recipe has one of them"),
    "no models": ("merge_method: linear\nmodels: []\n", 2, "there are no models"),
    "models by their names alone": (
        "merge_method: linear\nmodels:\n- a\n",
        3,
        "bad value 'a' for 'models'; write '- model: a'",
    ),
    "a model that is no text": (
        "merge_method: linear\nmodels:\n- model: 3\n",
        3,
        "bad value 3 for 'model'; it should be a valid string",
    ),
    "a list": ("- merge_method: linear\n", 1, "a recipe holds keys and values"),
    "a folder that is not there": (
        TIES.replace("- model: b", "- model: d/e"),
        5,
        "there is no folder 'd/e'; paths are relative",
    ),
    "a file for a folder": (
        TIES.replace("- model: b", "- model: file"),
        5,
        "'file' is no folder; name the folder that its config",
    ),
    "a base that is not there": (TIES.replace("base_model: base", "base_model: x"), 2, "there is no folder 'x'"),
    "a revision": (
        TIES.replace("- model: b", "- model: b@main"),
        5,
        "'b@main' names a revision; models are read from folders",
    ),
    "two adapters": (
        TIES.replace("- model: b", "- model: b+adapter+c"),
        5,
        "'b+adapter+c' names no model; write FOLDER or",
    ),
    "an adapter that is not there": (TIES.replace("- model: b", "- model: b+lora"), 5, "there is no folder 'lora'"),
    "an unknown type": (
        TIES + "dtype: bf16\n",
        7,
        "unknown type 'bf16'; did you mean 'bfloat16'? (known: bfloat16, float16",
    ),
    "a type of whole numbers": (TIES + "out_dtype: int64\n", 7, "unknown type 'int64'"),
    "no base": (TIES.replace("base_model: base\n", ""), 2, "the method 'ties' needs a 'base_model'"),
    "a base that is not in the slice": (
        SLICED.replace("passthrough", "ties") + "base_model: base\n",
        3,
        "the base 'base' is not among the models of this slice; name it as a source",
    ),
    "too many models": (
        TIES.replace("ties", "slerp").replace("weight", "t"),
        3,
        "'slerp' merges 2 models, not 3: 'a', 'b', 'base'",
    ),
    "too few models": (
        "merge_method: model_stock\nbase_model: base\nmodels:\n- model: a\n",
        3,
        "the method 'model_stock' merges 3 or more models, not 2: 'a', 'base'",
    ),
    "two models passed through": (
        "merge_method: passthrough\nmodels:\n- model: a\n- model: b\n",
        2,
        "the method 'passthrough' merges 1 model, not 2: 'a', 'b'",
    ),
    "one fine-tune for nuslerp": (
        "merge_method: nuslerp\nbase_model: base\nmodels:\n- model: a\nparameters: {weight: 1}\n",
        3,
        "the method 'nuslerp' merges 2 models beside the base, not 1: 'a', 'base'",
    ),
    "a model twice": (
        TIES.replace("- model: b", "- model: ./a/"),
        5,
        "the model 'a' is named twice; add up its weights",
    ),
    "an empty range": (SLICED.replace("[1, 2]", "[2, 2]"), 8, "the layer_range [2, 2] holds no layer; it goes from"),
    "a range of three": (SLICED.replace("[1, 2]", "[0, 1, 2]"), 8, "bad value [0, 1, 2] for 'layer_range'"),
    "a negative layer": (SLICED.replace("[1, 2]", "[-1, 2]"), 8, "bad value -1 for 'layer_range'"),
    "no range": (SLICED.replace("    layer_range: [1, 2]\n", ""), 7, "the key 'layer_range' is missing"),
    "a range of a model": (
        TIES.replace("- model: b", "- model: b\n  layer_range: [0, 2]"),
        6,
        "unknown key 'layer_range'",
    ),
    "ranges of different lengths": (
        SLICED.replace("passthrough", "linear").replace("- sources:\n  - model: b", "  - model: b"),
        7,
        "the layer_range of 'b' has the length 1, that of 'a' 2",
    ),
    "two ways to name a tokenizer": (
        TIES + "tokenizer: {source: a}\ntokenizer_source: a\n",
        8,
        "both 'tokenizer_source' and",
    ),
    "a tokenizer that is not there": (TIES + "tokenizer_source: biggest\n", 7, "there is no folder 'biggest'"),
    "an unknown key of the tokenizer": (
        TIES + "tokenizer:\n  sources: a\n",
        8,
        "unknown key 'sources'; did you mean 'source'?",
    ),
    "a token's unknown kind": (
        TIES + "tokenizer:\n  tokens:\n    x:\n      source:\n        kind: ones\n",
        11,
        "bad value 'ones' for 'kind'; it should be 'zero' or 'model_token'",
    ),
    "a token without model": (
        TIES + "tokenizer:\n  tokens:\n    x:\n      source: {kind: model_token, token: y}\n",
        10,
        "the key 'model' is missing",
    ),
    "a token twice said": (
        TIES + "tokenizer:\n  tokens:\n    x:\n      source: {kind: model_token, model: a, token: y, token_id: 1}\n",
        10,
        "a model_token has either 'token' or 'token_id'",
    ),
    "an unknown policy": (
        TIES + "vocabulary: both\n",
        7,
        "bad value 'both' for 'vocabulary'; it should be 'refuse', 'intersect'",
    ),
    "two merges without a name": (
        TIES + "---\n" + TIES,
        8,
        "two merges have no name; all but the last one need a 'name'",
    ),
    "two merges of a name": (TWO + TWO + TIES, 6, "two merges are named 'one'"),
    "a stage that nothing needs": (
        TWO + TIES,
        2,
        "nothing needs the stage 'one'; the result is the merge without a name",
    ),
    "a stage that needs itself": (
        TWO.replace("model: a", "model: one") + TIES.replace("model: a", "model: one"),
        2,
        "stages need one another: 'one' -> 'one'",
    ),
    "a fault in the second document": (TWO + TIES.replace("ties", "tise"), 5, "unknown method 'tise'"),
    "an empty document": (TIES + "---\n", 7, "document 2 of 2 is empty"),
    "an anchor": (TIES.replace("weight: 1", "weight: &w 1"), 6, "anchor '&w' is not allowed"),
    "a parameter that is not given": (TIES.replace("{weight: 1}", "{weight: }"), 6, "bad value None for 'weight'"),
    "a parameter that is no number": (TIES.replace("weight: 1", "weight: high"), 6, "bad value 'high' for 'weight'"),
}


@pytest.mark.parametrize(("text", "line", "words"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_is_one_line_with_its_place(folder, text, line, words):
    with pytest.raises(BadInput) as caught:
        read_text(folder, text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder / 'merge.yml'}:{line}: ")
    assert words in message


def test_stages_that_need_one_another_are_named(folder):
    circle = TWO.replace("model: a", "model: two") + TWO.replace("one", "two").replace("model: a", "model: one")
    with pytest.raises(BadInput, match="stages need one another: 'one' -> 'two' -> 'one'"):
        read_text(folder, circle + TIES.replace("model: a", "model: one"))


def test_reading_and_planning_need_neither_torch_nor_transformers():
    heavy = ("torch", "numpy", "pandas", "peft", "transformers")
    code = f"import sys, harness.recipes.planning; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout == "[]\n"


KEYS = st.sampled_from(
    ["model", "models", "slices", "sources", "source", "kind", "value", "filter", "name", "tokens", "y"]
)
BITS = st.sampled_from(
    ["a", "base", "", "x@y", "a+b", "mlp", "union", "ties", None, True, 0, -1, 2.5, [], [0, 1], {}, {"a": 1}]
)
PARTS = st.recursive(
    BITS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2), max_leaves=3
)


def places_in(value, at=()):
    yield at
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places_in(value[key], (*at, key))


@given(st.sampled_from(list(PUBLISHED.values())), st.data())
@examples(75)
def test_whatever_stands_in_a_recipe_it_is_read_or_refused_with_its_place(tmp_path_factory, text, data):
    folder = tmp_path_factory.getbasetemp() / "any"
    for name in MODELS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    document = yaml.safe_load(text)
    *above, last = data.draw(st.sampled_from([at for at in places_in(document) if at]))
    holder = document
    for key in above:
        holder = holder[key]
    changed = data.draw(PARTS)
    if isinstance(holder, dict) and data.draw(st.booleans()):
        last = data.draw(KEYS)
    holder[last] = changed
    try:
        read_text(folder, yaml.safe_dump(document))
    except BadInput as refused:
        assert re.match(rf"{re.escape(str(folder / 'merge.yml'))}:\d+: [^\n]+$", str(refused))
