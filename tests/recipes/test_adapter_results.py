"""A merge of adapters as an adapter: PEFT runs it as the whole merge, and where its rank is too small it is nearest."""

import json
import re
import shutil
import stat
import warnings

import numpy as np
import peft
import pytest
import torch
import yaml
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from harness.errors import BadInput
from harness.recipes.adapters import SETTINGS, WEIGHTS, adapt, weights_file
from harness.recipes.merge import Options, merge_recipe
from tests.cli.command import call
from tests.recipes.small_adapters import KINDS, put, write_bases
from tests.recipes.tiny_folders import tensors_in, values

TOKENS = torch.arange(3, 43).view(2, 20)
ADAPTERS = {
    "llama": {"a": {"target_modules": ["q_proj", "v_proj", "embed_tokens"], "r": 3},
              "b": {"target_modules": ["q_proj", "down_proj"], "r": 2, "use_rslora": True,
                    "rank_pattern": {"layers.1.self_attn.q_proj": 4}}},
    "gpt2": {"a": {"target_modules": ["c_attn", "c_fc"], "r": 3},
             "b": {"target_modules": ["c_proj", "c_attn"], "r": 2, "fan_in_fan_out": True}},
    "bert": {"a": {"target_modules": ["query", "dense"], "r": 3, "task_type": "SEQ_CLS"},
             "b": {"target_modules": ["query", "word_embeddings"], "r": 2, "task_type": "SEQ_CLS"}},
    "roberta": {"a": {"target_modules": ["query"], "r": 3, "modules_to_save": ["classifier"]},
                "b": {"target_modules": ["query", "classifier.dense"], "r": 2}},
    "tied": {"a": {"target_modules": ["q_proj", "lm_head"], "r": 3},
             "b": {"target_modules": ["q_proj"], "r": 2, "modules_to_save": ["norm"]}},
}  # fmt: skip
ENOUGH = 7
"""The largest sum of two ranks."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """For each kind a base and, named after it, two adapters."""
    root = tmp_path_factory.mktemp("root")
    write_bases(root)
    for kind, each in ADAPTERS.items():
        for seed, (name, settings) in enumerate(each.items()):
            put(root / f"{kind}-{name}", root / kind, KINDS[kind], seed, **settings)
    return root


def recipe_of(method, kind, weights=(0.3, 0.7), parameters=None, each=None, base=None):
    """A recipe of both adapters of a kind."""
    models = [{"model": f"{kind}+{kind}-{name}", "parameters": {"weight": weight, **(each or {})}}
              for name, weight in zip("ab", weights, strict=False)]  # fmt: skip
    recipe = {"merge_method": method, "models": models}
    if base is not None:
        models.append({"model": kind, "parameters": {"weight": base}})
    elif method != "linear":
        recipe["base_model"] = kind
    return recipe | ({"parameters": parameters} if parameters else {})


def merged(root, out, recipe, rank=None):
    """What a recipe makes: a whole model, or an adapter."""
    file = out.with_suffix(".yml") if out.parent == root else root / f"{out.parent.name}-{out.name}.yml"
    file.write_text(yaml.safe_dump(recipe))
    return merge_recipe(file, out, Options(hashes=False, adapter_rank=rank))


def as_peft_runs(base, adapter, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # such as for names that match nothing
        warnings.filterwarnings("ignore", message="(?s).*tie_word_embeddings")
        return peft.PeftModel.from_pretrained(KINDS[kind].from_pretrained(base), adapter).eval()


def logits(module):
    with torch.inference_mode():
        return module(input_ids=TOKENS).logits


def changes(base, adapter):
    """What an adapter adds to each tensor of its base, in float64."""
    stored = tensors_in(base / "model.safetensors")
    config = json.loads((base / "config.json").read_text())
    adapted = adapt(stored, config, adapter, tensors_in(weights_file(adapter)).values()).tensors
    embedding = next(name for name in stored if re.search(r"embed_tokens|wte|word_embeddings", name))
    return {name: values(source) - values(stored.get(name, stored[embedding])) for name, source in adapted.items()}


def ranks(adapter):
    """The rank of each module's factors."""
    found = {}
    for name, tensor in load_file(adapter / WEIGHTS).items():
        if "lora_" in name and "_A" in name:
            found[re.sub(r"base_model\.model\.|\.lora_.*", "", name)] = tensor.shape[0]
    return found


SUMS = {
    "a mean": ("linear", {}),
    "a sum with the base": ("linear", {"weights": (0.4, 0.5), "base": -0.3, "parameters": {"normalize": True}}),
    "a sum with weights of one": ("linear", {"weights": (0.8, 0.5), "base": -0.3, "parameters": {"normalize": False}}),
    "task vectors": ("task_arithmetic", {"weights": (0.9, -0.4), "parameters": {"lambda": 0.7}}),
    "task vectors that stay whole": ("dare_linear", {"each": {"density": 1.0}, "parameters": {"normalize": True}}),
}


@pytest.mark.parametrize(("kind", "name"), [*((kind, "a mean") for kind in ADAPTERS if kind != "gpt2"),
                                            *(("gpt2", name) for name in SUMS)])  # fmt: skip
def test_of_enough_rank_peft_runs_it_as_the_whole_merge(kind, name, root, tmp_path):
    method, settings = SUMS[name]
    recipe = recipe_of(method, kind, **settings)
    merged(root, tmp_path / "whole", recipe)
    merged(root, tmp_path / "adapter", recipe, ENOUGH)
    whole = KINDS[kind].from_pretrained(tmp_path / "whole").eval()
    run = as_peft_runs(root / kind, tmp_path / "adapter", kind)
    torch.testing.assert_close(logits(run), logits(whole), rtol=1e-5, atol=1e-5)
    assert (logits(whole) - logits(KINDS[kind].from_pretrained(root / kind).eval())).abs().max() > 0.01
    assert all(each.scaling["default"] == 1 for each in run.modules() if isinstance(each, LoraLayer))
    one, other = (ranks(root / f"{kind}-{each}") for each in "ab")
    assert ranks(tmp_path / "adapter") == {name: one.get(name, 0) + other.get(name, 0) for name in one | other
                                           if "classifier" not in name}  # fmt: skip


def check_nearest(found, wanted, rank):
    """That changes are the best of a rank; the squares of what is left out and of all."""
    left = whole = 0.0
    worst = 0.0
    for name, change in wanted.items():
        if change.abs().max() < 1e-6:  # as of nuslerp, which rounds what no adapter changes
            np.testing.assert_allclose(found[name], change, atol=1e-6)
            continue
        u, s, v = np.linalg.svd(change.numpy())
        kept = min(rank, len(s))
        np.testing.assert_allclose(found[name], (u[:, :kept] * s[:kept]) @ v[:kept], atol=1e-5 * s[0])
        missed = float((found[name] - change).norm())
        left, whole = left + missed**2, whole + float(change.norm()) ** 2
        worst = max(worst, missed / float(change.norm()))
    return (left / whole) ** 0.5, worst


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_of_a_smaller_rank_it_is_the_nearest_and_says_how_near(kind, rank, root, tmp_path):
    done = merged(root, tmp_path / "adapter", recipe_of("linear", kind), rank)
    one, other = (changes(root / kind, root / f"{kind}-{name}") for name in "ab")
    wanted = {name: 0.3 * one[name] + 0.7 * other[name] for name in one}
    found = changes(root / kind, tmp_path / "adapter")
    in_all, worst = check_nearest(found, wanted, rank)
    said = f"relative error of the differences (Frobenius) {in_all:.2g} in all, {worst:.2g} at most, in "
    assert said in done.adapter[1]
    assert said in (tmp_path / "adapter" / "README.md").read_text()
    assert set(ranks(tmp_path / "adapter").values()) <= {*range(1, rank + 1)}


OTHERS = {
    "ties": {"each": {"density": 0.5}},
    "dare_ties": {"each": {"density": 0.6}},
    "sce": {},
    "nuslerp": {},
}


@pytest.mark.parametrize("method", OTHERS)
def test_of_other_rules_it_is_the_nearest_to_what_the_whole_merge_changes(method, root, tmp_path):
    recipe = recipe_of(method, "llama", **OTHERS[method])
    if method == "sce":
        recipe["models"] = [{"model": each["model"]} for each in recipe["models"]]
    merged(root, tmp_path / "whole", recipe)
    start, whole = (tensors_in(folder / "model.safetensors") for folder in (root / "llama", tmp_path / "whole"))
    wanted = {name: values(whole[name]) - values(start[name]) for name in start}
    done = merged(root, tmp_path / "adapter", recipe, 5)
    in_all, _ = check_nearest(changes(root / "llama", tmp_path / "adapter"), wanted, 5)
    assert f"(Frobenius) {in_all:.2g} in all" in done.adapter[1]
    merged(root, tmp_path / "exact", recipe, 64)
    run = as_peft_runs(root / "llama", tmp_path / "exact", "llama")
    expected = KINDS["llama"].from_pretrained(tmp_path / "whole").eval()
    torch.testing.assert_close(logits(run), logits(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_one_adapter_alone_is_itself(kind, root, tmp_path):
    merged(root, tmp_path / "adapter", recipe_of("linear", kind, weights=(1.0,)), 16)
    theirs = changes(root / kind, root / f"{kind}-a")
    for name, change in changes(root / kind, tmp_path / "adapter").items():
        torch.testing.assert_close(change, theirs[name], rtol=0, atol=1e-6)
    assert ranks(tmp_path / "adapter") == ranks(root / f"{kind}-a")


def test_what_adapters_save_whole_is_merged_whole(root, tmp_path):
    done = merged(root, tmp_path / "adapter", recipe_of("linear", "bert"), 8)
    stored = load_file(tmp_path / "adapter" / WEIGHTS)
    for name in ("base_model.model.classifier.weight", "base_model.model.classifier.bias"):
        one, other = (load_file(root / f"bert-{each}" / WEIGHTS)[name] for each in "ab")
        torch.testing.assert_close(stored[name], 0.3 * one + 0.7 * other)
    assert "1 other saved whole (classifier)" in done.adapter[0]
    assert json.loads((tmp_path / "adapter" / SETTINGS).read_text())["modules_to_save"] == ["classifier"]


def test_an_embedding_that_peft_saves_beside_its_factors_is_still_factors(root, tmp_path):
    assert any("embed_tokens.base_layer" in name for name in load_file(root / "llama-a" / WEIGHTS))
    merged(root, tmp_path / "adapter", recipe_of("linear", "llama"), 8)
    assert all("lora_" in name for name in load_file(tmp_path / "adapter" / WEIGHTS))
    assert "model.embed_tokens" in ranks(tmp_path / "adapter")


def test_an_embedding_that_an_adapter_has_trained_whole_beside_its_factors_is_saved_whole(root, tmp_path):
    folder = shutil.copytree(root / "llama-a", tmp_path / "trained")
    tensors = load_file(folder / WEIGHTS)
    tensors["base_model.model.model.embed_tokens.base_layer.weight"] += 0.1
    save_file(tensors, folder / WEIGHTS)
    recipe = recipe_of("linear", "llama")
    recipe["models"][0]["model"] = f"llama+{folder}"
    merged(root, tmp_path / "whole", recipe)
    merged(root, tmp_path / "adapter", recipe, ENOUGH)
    run = as_peft_runs(root / "llama", tmp_path / "adapter", "llama")
    whole = KINDS["llama"].from_pretrained(tmp_path / "whole").eval()
    torch.testing.assert_close(logits(run), logits(whole), rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / "adapter" / SETTINGS).read_text())["modules_to_save"] == ["model.embed_tokens"]


def test_it_can_be_merged_again_and_the_same_command_writes_the_same_bytes(root, tmp_path):
    recipe = recipe_of("task_arithmetic", "gpt2")
    for name in ("one", "two"):
        merged(root, tmp_path / name, recipe, 3)
    for name in (SETTINGS, WEIGHTS):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    again = {"merge_method": "linear",
             "models": [{"model": f"{root / 'gpt2'}+{tmp_path / 'one'}", "parameters": {"weight": 1.0}}]}  # fmt: skip
    merged(root, tmp_path / "again", again, 3)
    first = changes(root / "gpt2", tmp_path / "one")
    for name, change in changes(root / "gpt2", tmp_path / "again").items():
        torch.testing.assert_close(change, first[name], rtol=0, atol=1e-6)


def test_an_adapter_that_cancels_out_is_left_out(root, tmp_path):
    recipe = recipe_of("task_arithmetic", "llama", weights=(1.0, -1.0))
    shutil.copytree(root / "llama-b", tmp_path / "copy")
    recipe["models"][0]["model"] = f"{root / 'llama'}+{tmp_path / 'copy'}"
    recipe["models"][1]["model"] = f"{root / 'llama'}+{root / 'llama-b'}"
    recipe["models"].append({"model": f"{root / 'llama'}+{root / 'llama-a'}", "parameters": {"weight": 0.5}})
    recipe["base_model"] = str(root / "llama")
    merged(root, tmp_path / "adapter", recipe, 8)
    assert ranks(tmp_path / "adapter") == ranks(root / "llama-a")
    recipe["models"].pop()
    with pytest.raises(BadInput, match="nothing for factors of a rank: the merge is its base"):
        merged(root, tmp_path / "none", recipe, 8)
    assert not (tmp_path / "none").exists()


def changed(recipe, **keys):
    return {key: value for key, value in (recipe | keys).items() if value is not None}


SLICED = [{"sources": [{"model": "llama+llama-a", "layer_range": [0, 2]}]}]
REFUSED = {
    "no model is an adapter": {"models": [{"model": "llama"}, {"model": "tied"}]},
    "'tied+tied-a' is on another base than 'llama+llama-a'": {"models": [{"model": "llama+llama-a"},
                                                                         {"model": "tied+tied-a"}]},
    "'tied' is neither an adapter nor the base of 'llama+llama-a'": {"models": [{"model": "llama+llama-a"},
                                                                                {"model": "tied"}]},
    "slices make no adapter": {"merge_method": "passthrough", "models": None, "slices": SLICED},
    "'tokenizer_source' is for whole models": {"tokenizer_source": "base"},
    "'chat_template' is for whole models": {"chat_template": "chatml"},
    "'vocabulary' is for whole models": {"vocabulary": "union"},
    "'lm_head.weight', which no adapter changes, would be multiplied by 1.5": {
        "models": [{"model": "llama+llama-a", "parameters": {"weight": 1.5}}], "parameters": {"normalize": False}},
    "'bert-a' is an adapter for the task SEQ_CLS, 'bert-other' for FEATURE_EXTRACTION": {
        "models": [{"model": f"bert+bert-{name}", "parameters": {"weight": 1.0}} for name in ("other", "a")]},
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_adapter_is_refused_in_a_line(words, root, tmp_path):
    if "bert-other" in words and not (root / "bert-other").exists():
        shutil.copytree(root / "bert-a", root / "bert-other")
        said = json.loads((root / "bert-a" / SETTINGS).read_text())
        (root / "bert-other" / SETTINGS).write_text(json.dumps(said | {"task_type": "FEATURE_EXTRACTION"}))
    models = [{"model": f"llama+llama-{name}", "parameters": {"weight": 0.5}} for name in "ab"]
    recipe = changed({"merge_method": "linear", "models": models}, **REFUSED[words])
    with pytest.raises(BadInput, match=re.escape(words)) as refused:
        merged(root, tmp_path / "out", recipe, 4)
    assert "\n" not in str(refused.value)
    assert re.search(r"\.yml:\d+: |bert-a: ", str(refused.value))
    assert not (tmp_path / "out").exists()


def test_stages_are_refused(root, tmp_path):
    stages = [{"name": "first", **recipe_of("linear", "llama")},
              {"merge_method": "linear", "models": [{"model": "first", "parameters": {"weight": 1.0}}]}]  # fmt: skip
    (root / "stages.yml").write_text(yaml.safe_dump_all(stages))
    with pytest.raises(BadInput, match=r"stages\.yml:\d+: an adapter is made in one stage"):
        merge_recipe(root / "stages.yml", tmp_path / "out", Options(adapter_rank=4))


def test_adapters_that_name_layers_otherwise_are_refused(root, tmp_path):
    folder = shutil.copytree(root / "llama-b", tmp_path / "short")
    tensors = load_file(folder / WEIGHTS)
    shorter = {name.replace("model.model.layers", "model.layers"): tensor for name, tensor in tensors.items()}
    save_file({name.replace("base_model.layers", "base_model.model.layers"): tensor
               for name, tensor in shorter.items()}, folder / WEIGHTS)  # fmt: skip
    recipe = recipe_of("linear", "llama")
    recipe["models"][1]["model"] = f"llama+{folder}"
    with pytest.raises(BadInput, match="save the adapters on one class of models"):
        merged(root, tmp_path / "out", recipe, 4)


def test_the_command_says_how_near_it_is_and_its_card_is_an_adapters(root, tmp_path, capsys):
    (root / "command.yml").write_text(yaml.safe_dump(recipe_of("linear", "llama")))
    code, out, err = call(capsys, "merge", root / "command.yml", tmp_path / "out", "--adapter-rank", 2)
    assert (code, out) == (0, f"{tmp_path / 'out'}\n")
    said = next(line for line in err.splitlines() if line.startswith("adapter: "))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "weights as factors of rank 2; nothing else differs from the base; relative error of the diff" in said
    assert said.split("(Frobenius) ")[1].split(",")[0] in card
    assert "library_name: peft" in card
    assert "`stockpot merge recipe.yml OUT --adapter-rank 2`" in card
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", SETTINGS, WEIGHTS}
    assert len({stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}) == 1
    assert json.loads((tmp_path / "out" / SETTINGS).read_text())["base_model_name_or_path"] == "llama"
