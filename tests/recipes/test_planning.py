"""Plans of recipes against mergekit's own planner, and what cannot be merged."""

import contextlib
import json

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.recipes.document import read
from harness.recipes.planning import plan
from harness.streaming.rules import RULES
from tests.examples import examples
from tests.recipes.mergekit_plans import mergekit_plan
from tests.recipes.small_folders import SmallFolder, read_folder, rewrite, without, write_model, write_models


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders of models, written when first asked for."""
    root = tmp_path_factory.mktemp("models")

    def place(kind):
        folder = root / kind
        if not folder.exists():
            write_models(folder, kind)
        return folder

    return place


def planned(folder, text, seed=0):
    (folder / "merge.yml").write_text(text)
    (recipe,) = read(folder / "merge.yml")
    return plan(recipe, {model.text: read_folder(model.folder) for model in recipe.models}, seed)


def as_made(steps):
    """Steps in the shape of ``mergekit_plan``; each tensor is made once."""
    found = {}
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        each = [{name: values[j] for name, values in step.each.items()} for j in range(len(step.sources))]
        if step.rule == "copy":  # of passthrough without a scale
            each = [{"scale": None}]
        elif step.base is not None:
            of_others = {parameter.name for parameter in RULES[step.rule].parameters if parameter.scope == "fine_tune"}
            assert all(each[step.base][name] is None for name in of_others)
            each[step.base] = {name: value for name, value in each[step.base].items() if name not in of_others}
        found[step.name] = {
            "sources": [(source.path.parent.name, source.name) for source in step.sources],
            "base": step.sources[step.base].path.parent.name if step.base is not None else None,
            "shared": dict(step.shared),
            "each": each,
        }
    return found


LINEAR = """
merge_method: linear
models:
  - model: m0
    parameters: {weight: [0, 0.2, 1]}
  - model: m1
    parameters:
      weight:
        - {filter: MIDDLE, value: "1e-1"}
        - filter: NORM
          value: [0.5, 0.7, 0.6, 2]
        - {value: 1}
"""
GLOBAL = """
merge_method: linear
base_model: base
models: [{model: m0}, {model: m1}]
parameters: {weight: 1, normalize: false}
"""
TIES = """
merge_method: ties
base_model: base
models:
  - model: m0
    parameters: {density: [0.1, 0.9], weight: 1}
  - model: m1
    parameters:
      density: 0.5
      weight: [{filter: MIDDLE, value: 0.3}, {filter: LAYER1, value: [0, 8]}, {value: 0}]
parameters: {normalize: true, int8_mask: true, lambda: [{filter: NORM, value: 0.7}]}
"""
AMONG = """
merge_method: dare_ties
base_model: m1
models:
  - {model: base, parameters: {weight: 0.4, density: 0.5}}
  - model: m1
  - {model: m0, parameters: {weight: 0.6}}
parameters: {density: 0.25, rescale: [true, false]}
"""
SLERP = """
slices:
  - sources:
      - {model: base, layer_range: [0, 3]}
      - {model: m0, layer_range: [0, 3]}
merge_method: slerp
base_model: base
parameters:
  t:
    - {filter: ATTENTION, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: MIDDLE, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
"""
FRANKEN = """
merge_method: passthrough
slices:
  - sources: [{model: m0, layer_range: [0, 2]}]
  - sources:
      - model: m1
        layer_range: [1, 3]
        parameters: {scale: [{filter: ATTENTION, value: 0.5}, {filter: LAYER1, value: [0.25, 2]}]}
  - sources: [{model: m0, layer_range: [2, 3]}]
"""
SLICES = """
merge_method: task_arithmetic
base_model: base
parameters: {weight: 0.5, normalize: false}
slices:
  - sources:
      - {model: base, layer_range: [0, 1]}
      - {model: m0, layer_range: [2, 3], parameters: {weight: [0.1, 0.2]}}
  - base_model: m1
    parameters: {weight: [0.3, 0.4]}
    sources:
      - {model: m0, layer_range: [0, 2], parameters: {weight: [{filter: LAYER1, value: 7}]}}
      - {model: m1, layer_range: [1, 3]}
"""
RECIPES = {
    "linear": LINEAR,
    "parameters of all": GLOBAL,
    "ties": TIES,
    "a base among the models": AMONG,
    "slerp": SLERP,
    "passthrough": FRANKEN,
    "slices": SLICES,
    "karcher": "merge_method: karcher\nmodels: [{model: m1}, {model: m0}]\nparameters: {max_iter: 3, tol: '1e-6'}\n",
    "nuslerp": "merge_method: nuslerp\nmodels:\n- {model: m1, parameters: {weight: 1}}\n"
    "- {model: m0, parameters: {weight: [0, 1]}}\nparameters: {nuslerp_flatten: [false, true]}\n",
}
WORDS = {
    "llama": {"ATTENTION": "self_attn", "MIDDLE": "mlp", "NORM": "norm", "LAYER1": "layers.1."},
    "gpt2": {"ATTENTION": "attn", "MIDDLE": "mlp", "NORM": "ln_", "LAYER1": "h.1."},
    "bert": {"ATTENTION": "attention", "MIDDLE": "intermediate", "NORM": "LayerNorm", "LAYER1": "layer.1."},
}
OTHERS = ("llama-tied", "llama-classifier", "mistral", "qwen2", "phi", "gemma", "bert-masked", "roberta", "distilbert")
CASES = [(kind, recipe) for kind in WORDS for recipe in RECIPES] + [
    *((kind, recipe) for kind in OTHERS for recipe in ("ties", "slices")),
    *(("t5-gated", recipe) for recipe in ("linear", "ties")),
]


def written(recipe, kind):
    for word, filter_ in WORDS.get(kind, WORDS["bert" if "bert" in kind else "llama"]).items():
        recipe = recipe.replace(word, filter_)
    return recipe


@pytest.mark.parametrize(("kind", "recipe"), CASES)
def test_a_plan_is_that_of_mergekit(places, monkeypatch, kind, recipe):
    folder = places(kind)
    monkeypatch.chdir(folder)
    text = written(RECIPES[recipe], kind)
    expected = mergekit_plan(text)
    method = next(line.split()[1] for line in text.splitlines() if line.startswith("merge_method"))
    if RULES[method].base == "ignored":
        expected = {name: {**made, "base": None} for name, made in expected.items()}
    steps = planned(folder, text).plan.steps
    found = as_made(steps)
    if kind == "bert-masked":  # mergekit's definition lacks the head's layers, and has a pooler that there is not
        found = {name: made for name, made in found.items() if "cls.predictions.transform" not in name}
        expected = {name: made for name, made in expected.items() if "pooler" not in name}
    assert found == expected
    assert {step.rule for step in steps} <= {method, "copy"}


FILTERS = st.sampled_from([None, "*", "mlp", "self_attn.q", "layers.1.", "layers.2", "norm", "lm_head", "embed"])
VALUES = st.sampled_from([0, 1, 0.25, "5e-1"])
SETTINGS = VALUES | st.lists(VALUES, min_size=1, max_size=4)
CONDITIONS = st.lists(st.fixed_dictionaries({"filter": FILTERS, "value": SETTINGS}), min_size=1, max_size=3)
OWN = {"linear": "weight", "task_arithmetic": "weight", "slerp": "t", "passthrough": "scale"}


@st.composite
def sliced_recipes(draw):
    """Slices of three models with three layers each; whoever may set the method's parameter may do so."""
    method = draw(st.sampled_from(list(OWN)))
    parameter = st.dictionaries(st.just(OWN[method]), SETTINGS | CONDITIONS)
    others = {"linear": ["m0", "m1"], "task_arithmetic": ["m0", "m1"], "slerp": ["m0"], "passthrough": []}[method]
    slices = []
    for _ in range(draw(st.integers(1, 3))):
        length = draw(st.integers(1, 3))
        sources = []
        for model in draw(st.permutations(["base", *others])):
            start = draw(st.integers(0, 3 - length))
            sources.append({"model": model, "layer_range": [start, start + length], "parameters": draw(parameter)})
        slices.append({"sources": sources, "parameters": draw(parameter)})
    base = {} if method == "passthrough" else {"base_model": "base"}
    last = {OWN[method]: [*draw(CONDITIONS), {"value": draw(SETTINGS)}]}
    if method == "linear":  # all weights may be 0
        last["normalize"] = False
    return {"merge_method": method, **base, "slices": slices, "parameters": last}


@given(sliced_recipes())
@examples(20)
def test_slices_of_any_length_with_parameters_at_any_level_are_planned_as_by_mergekit(places, recipe):
    folder = places("llama")
    text = yaml.safe_dump(recipe)
    with contextlib.chdir(folder):
        expected = mergekit_plan(text)
    if recipe["merge_method"] == "linear":  # takes no notice of a base
        expected = {name: {**made, "base": None} for name, made in expected.items()}
    found = as_made(planned(folder, text).plan.steps)
    if recipe["merge_method"] == "passthrough":
        assert all(type(made["each"][0]["scale"]) is float for made in found.values())
    assert found == expected


def test_tensors_come_in_the_order_of_the_first_models_file(places):
    folder = places("llama")
    names = list(read_folder(folder / "m0").tensors)
    assert [step.name for step in planned(folder, LINEAR).plan.steps] == names
    assert names != sorted(names, key=len)


def test_layers_are_counted_and_those_that_were_taken_are_named(places):
    result = planned(places("gpt2"), FRANKEN)
    assert (result.layers, result.taken) == (5, (0, 1, 1, 2, 2))
    assert (result.donor, result.models) == ("m0", ("m0", "m1"))
    assert planned(places("gpt2"), written(TIES, "gpt2")).taken == (0, 1, 2)
    assert planned(places("gpt2"), TIES).donor == "base"
    t5 = planned(places("t5"), GLOBAL)
    assert (t5.layers, t5.taken) == (None, ())


def test_every_layer_of_both_stacks_of_t5_has_its_own_place(places):
    steps = planned(places("t5"), LINEAR.replace("NORM", "layer_norm")).plan.steps
    weights = {step.name: step.each["weight"][0] for step in steps}
    kept = [f"coder.block.{k}.layer.0.SelfAttention.q.weight" for k in range(3)]
    assert [weights["en" + name] for name in kept] == [0, 0.2, 1]
    assert [weights["de" + name] for name in kept[:2]] == [0, 1]
    assert weights["shared.weight"] == 0
    assert set(weights) == set(read_folder(places("t5") / "m0").tensors)


def test_types_are_those_that_the_recipe_says_else_the_bases_else_the_firsts(tmp_path):
    for seed, (name, dtype) in enumerate([("base", torch.bfloat16), ("m0", torch.float16), ("m1", torch.float32)]):
        write_model(tmp_path / name, "llama", seed, dtype)

    def types(text):
        return {step.dtype for step in planned(tmp_path, text).plan.steps}

    assert types(LINEAR) == {"F16"}
    assert types(TIES) == {"BF16"}
    assert types(TIES + "dtype: torch.float64\n") == {"F64"}
    assert types(TIES + "dtype: float32\nout_dtype: bfloat16\n") == {"BF16"}
    assert types(FRANKEN + "out_dtype: float32\n") == {"F32"}


def test_a_tied_model_gives_its_embeddings_where_another_one_has_a_head(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, (name, kind) in enumerate([("m0", "llama"), ("m1", "llama-tied")]):
        write_model(tmp_path / name, kind, seed)
    result = planned(tmp_path, LINEAR)
    assert not result.tied
    assert as_made(result.plan.steps) == mergekit_plan(LINEAR)
    step = next(step for step in result.plan.steps if step.name == "lm_head.weight")
    assert [source.name for source in step.sources] == ["lm_head.weight", "model.embed_tokens.weight"]
    config = json.loads((tmp_path / "m1/config.json").read_text())
    del config["tie_word_embeddings"]  # what a model of its type does by default is then what its file shows
    (tmp_path / "m1/config.json").write_text(json.dumps(config))
    assert planned(tmp_path, LINEAR).plan == result.plan
    write_model(tmp_path / "m0", "llama-tied", 2)
    result = planned(tmp_path, LINEAR)
    assert result.tied
    assert "lm_head.weight" not in {step.name for step in result.plan.steps}


def test_a_model_that_says_that_it_is_not_tied_and_lacks_its_head_is_refused(places, tmp_path):
    write_models(tmp_path, "llama")
    rewrite(tmp_path / "m1", without("lm_head.weight"))
    with pytest.raises(BadInput, match=r"'m1' has no tensor 'lm_head\.weight', and its config says"):
        planned(tmp_path, LINEAR)


def test_old_files_are_read_as_mergekit_reads_them(tmp_path, monkeypatch):
    """GPT-2's own file has no prefix, and masks; BERT's own one has norms with gamma and beta."""
    monkeypatch.chdir(tmp_path)
    text = written(TIES, "gpt2")
    write_model(tmp_path / "base", "gpt2-base", 0)
    for seed, name in enumerate(["m0", "m1"], 1):
        write_model(tmp_path / name, "gpt2", seed)
    config = json.loads((tmp_path / "base/config.json").read_text())
    (tmp_path / "base/config.json").write_text(json.dumps({**config, "architectures": ["GPT2LMHeadModel"]}))
    masks = {f"h.{k}.attn.bias": torch.ones(1, 1, 8, 8) for k in range(3)}
    rewrite(tmp_path / "base", lambda tensors: tensors | masks)
    result = planned(tmp_path, text)
    assert as_made(result.plan.steps) == mergekit_plan(text)
    assert any(source.name == "h.0.ln_1.weight" for step in result.plan.steps for source in step.sources)

    def old(tensors):
        names = {name: name.replace("LayerNorm.weight", "LayerNorm.gamma") for name in tensors}
        return {new.replace("LayerNorm.bias", "LayerNorm.beta"): tensors[name] for name, new in names.items()}

    write_models(tmp_path, "bert")
    rewrite(tmp_path / "base", old)
    text = written(TIES, "bert")
    assert as_made(planned(tmp_path, text).plan.steps) == mergekit_plan(text)


def test_buffers_that_are_equal_are_copied_and_those_that_some_lack_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_models(tmp_path, "bert")
    ids = {"bert.embeddings.position_ids": torch.arange(8)[None]}
    for name in ("m0", "m1"):
        rewrite(tmp_path / name, lambda tensors: tensors | ids)
    result = planned(tmp_path, LINEAR + "dtype: bfloat16\n")
    (step,) = [step for step in result.plan.steps if step.name.endswith("position_ids")]
    assert (step.rule, step.dtype, step.shape, len(step.sources)) == ("copy", "I64", (1, 8), 1)
    assert not [step for step in planned(tmp_path, TIES).plan.steps if step.name.endswith("position_ids")]
    rewrite(tmp_path / "m1", lambda tensors: tensors | {name: value + 1 for name, value in ids.items()})
    with pytest.raises(BadInput, match=r"position_ids' \(I64\) cannot be merged, and 'm1' and 'm0' differ in it"):
        planned(tmp_path, LINEAR)


ONE = {
    "slerp": ("copy", "copy"),
    "arcee_fusion": ("copy", "copy"),
    "nearswap": ("copy", None),
    "model_stock": ("copy", "skip"),
    "task_arithmetic": (None, None),
}
"""What becomes of a tensor that the base alone has, and of one that another model alone has; None where refused."""


@pytest.mark.parametrize(("method", "policy"), ONE.items(), ids=list(ONE))
def test_a_tensor_that_one_model_alone_has_is_copied_or_refused_as_the_rule_says(places, method, policy):
    folder = places("llama")
    models = "[{model: m0}, {model: m1}]" if method == "model_stock" else "[{model: m0}]"
    parameters = {"slerp": "{t: 0.5}", "nearswap": "{t: 0.5}", "task_arithmetic": "{weight: 1}"}.get(method, "{}")
    text = f"merge_method: {method}\nbase_model: base\nmodels: {models}\nparameters: {parameters}\n"
    (folder / "merge.yml").write_text(text)
    (recipe,) = read(folder / "merge.yml")
    for holder, expected in zip(("base", "m0"), policy, strict=True):
        folders = {model.text: read_folder(model.folder) for model in recipe.models}
        more = folders[holder].tensors["model.norm.weight"]
        folders[holder] = SmallFolder({**folders[holder].tensors, "model.extra.weight": more}, folders[holder].config)
        if expected is None:
            with pytest.raises(BadInput, match=f"has no tensor 'model\\.extra\\.weight', which '{holder}' has"):
                plan(recipe, folders)
            continue
        steps = {step.name: step for step in plan(recipe, folders).plan.steps}
        assert ("model.extra.weight" in steps) == (expected == "copy")
        if expected == "copy":
            assert (steps["model.extra.weight"].rule, steps["model.extra.weight"].sources) == ("copy", (more,))


def test_model_stock_merges_those_that_have_a_tensor_where_they_are_enough(tmp_path):
    write_models(tmp_path, "llama", ("base", "m0", "m1", "m2"))
    rewrite(tmp_path / "m1", without("model.norm.weight"))
    text = "merge_method: model_stock\nbase_model: base\nmodels: [{model: m0}, {model: m1}, {model: m2}]\n"
    steps = planned(tmp_path, text).plan.steps
    (step,) = [step for step in steps if step.name == "model.norm.weight"]
    assert [source.path.parent.name for source in step.sources] == ["m0", "m2", "base"]
    assert step.base == 2
    rewrite(tmp_path / "m2", without("model.norm.weight"))
    steps = planned(tmp_path, text).plan.steps
    assert steps
    assert "model.norm.weight" not in {step.name for step in steps}  # the base and one other one are too few


def test_draws_are_named_by_model_and_only_where_there_are_any(places):
    folder = places("llama")
    for step in planned(folder, AMONG, seed=5).plan.steps:
        assert (step.draws, step.seed) == (("base", "m1", "m0"), 5)
    moved = AMONG.replace("model: base", "model: ./base/").replace("  - model: m1\n", "") + "  # m1 comes last\n"
    assert planned(folder, moved).plan.steps[0].draws == ("base", "m0", "m1")
    assert {step.draws for step in planned(folder, TIES).plan.steps} == {()}


def _reshape(name, *shape):
    return lambda tensors: tensors | {name: torch.ones(shape)}


EMBED = "model.embed_tokens.weight"
UNMERGED = """merge_method: linear
base_model: base
slices:
- sources: [{model: m0, layer_range: [0, 1]}, {model: m1, layer_range: [2, 3]}]
parameters: {weight: 1}
"""


def test_a_base_that_no_slice_merges_gives_the_config_and_must_be_of_the_same_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_models(tmp_path, "llama")
    result = planned(tmp_path, UNMERGED)
    assert (result.donor, result.models, result.layers) == ("base", ("m0", "m1", "base"), 1)
    assert as_made(result.plan.steps).keys() == mergekit_plan(UNMERGED.replace("base_model: base", "")).keys()
    write_model(tmp_path / "base", "qwen2", 0)
    with pytest.raises(BadInput, match=r"merge\.yml:4: 'm0' is a model of type 'llama', 'base' of type 'qwen2'"):
        planned(tmp_path, UNMERGED)


FAULTS = {
    "a model of another depth": (
        TIES,
        lambda folder: write_model(folder / "m1", "llama", 2, num_hidden_layers=2),
        6,
        "'m1' has 2 layers 'model.layers', 'm0' has 3; models of other depths are merged with 'slices'",
    ),
    "a model of another type": (
        TIES,
        lambda folder: write_model(folder / "m1", "qwen2", 2),
        6,
        "'m1' is a model of type 'qwen2', 'base' of type 'llama'; only models of one type",
    ),
    "a model of another width": (
        TIES,
        lambda folder: rewrite(folder / "m1", _reshape("model.norm.weight", 9)),
        6,
        "the tensor 'model.norm.weight' has the shape [9] in 'm1' and [8] in 'm0'; the networks must be the same",
    ),
    "another vocabulary": (
        TIES,
        lambda folder: [rewrite(folder / "base", _reshape(name, 13, 8)) for name in (EMBED, "lm_head.weight")],
        2,
        "[13, 8] in 'base' and [12, 8] in 'm0'; the vocabularies differ: give a 'tokenizer_source'",
    ),
    "a tensor that one lacks": (
        TIES,
        lambda folder: rewrite(folder / "m1", without("model.norm.weight")),
        6,
        "'m1' has no tensor 'model.norm.weight', which 'm0' has; the networks must be the same",
    ),
    "a tensor of a layer that one lacks": (
        SLICES.lstrip(),
        lambda folder: rewrite(folder / "m0", without("model.layers.2.mlp.up_proj.weight")),
        7,
        "'m0' has no tensor 'model.layers.2.mlp.up_proj.weight', which 'base' has",
    ),
    "a tensor that the first lacks": (
        TIES,
        lambda folder: rewrite(folder / "m1", lambda tensors: tensors | {"model.more.weight": torch.ones(2)}),
        4,
        "'m0' has no tensor 'model.more.weight', which 'm1' has",
    ),
    "whole numbers that differ": (
        TIES,
        lambda folder: [
            rewrite(folder / name, lambda tensors, k=k: tensors | {"model.q.weight": torch.full((2,), k)})
            for k, name in enumerate(["base", "m0", "m1"])
        ],
        6,
        "the tensor 'model.q.weight' (I64) cannot be merged, and 'm1' and 'm0' differ in it; of quantised models",
    ),
    "whole numbers and fractions": (
        TIES,
        lambda folder: rewrite(folder / "m1", lambda tensors: tensors | {"model.norm.weight": torch.ones(8).long()}),
        6,
        "the tensor 'model.norm.weight' (I64 and F32) cannot be merged",
    ),
    "a layer that is missing": (
        TIES,
        lambda folder: rewrite(folder / "m1", without("layers.1.")),
        6,
        "'m1' has layer 2 of 'model.layers' and no layer 1",
    ),
    "layers that a model has not": (
        SLICES.lstrip().replace("[1, 3]", "[2, 4]"),
        None,
        12,
        "'m1' has 3 layers, not 4; its layers are 0 to 2: the range ends with 3",
    ),
    "a parameter that one model lacks": (
        TIES.replace(", weight: 1}", "}"),
        None,
        4,
        "the method 'ties' needs 'weight' for 'm0' for the tensor",
    ),
    "a parameter that a filter leaves out": (
        TIES.replace(", {value: 0}", ""),
        None,
        6,
        "the method 'ties' needs 'weight' for 'm1' for the tensor 'lm_head.weight'; no 'filter' fits it: add a 'value'",
    ),
    "a parameter without a meaning": (
        TIES.replace("ties", "dare_ties").replace("density: 0.5", "density: -1"),
        None,
        3,
        "for the tensor 'lm_head.weight' density -1 is no probability",
    ),
    "a parameter of all that is missing": (
        SLERP.lstrip()[: SLERP.lstrip().index("parameters")],
        None,
        2,
        "the method 'slerp' needs 't' for the tensor",
    ),
    "half a number of turns": (
        "merge_method: karcher\nmodels: [{model: m0}, {model: m1}]\nparameters: {max_iter: [1, 2]}\n",
        None,
        2,
        "bad value 1.5 for 'max_iter'; it should be a whole number",
    ),
}


@pytest.mark.parametrize(("text", "change", "line", "words"), FAULTS.values(), ids=list(FAULTS))
def test_what_cannot_be_merged_is_refused_with_the_line_of_the_model(tmp_path, places, text, change, line, words):
    folder = places("llama")
    if change:
        write_models(tmp_path, "llama")
        change(tmp_path)
        folder = tmp_path
    with pytest.raises(BadInput) as caught:
        planned(folder, written(text, "llama").lstrip())
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder / 'merge.yml'}:{line}: ")
    assert words in message


def test_slices_of_a_network_with_two_stacks_are_refused(places):
    with pytest.raises(
        BadInput, match="'base' has 2 stacks of layers: slices are of models with one; merge it with 'mo"
    ):
        planned(places("t5"), SLICES)
