"""`stockpot merge` against mergekit on the same recipes and folders, of every family and by every rule.

Both compute in float32. Of what is then rounded to 16 bits every bit is the same, or, by rules that go by the angles
between models, all but the last: their inner products are sums over a whole tensor, ours in float64. Before rounding
results differ by what float32 rounds.
"""

import json
import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from harness.streaming.rules import RULES
from tests.recipes.families import FAMILIES, FINE_TUNES, write_models
from tests.recipes.peers import ours, theirs, ulps, weights

PUBLISHED = sorted(Path(__file__).with_name("published").glob("*.yml"))
WEIGHTS = (0.5, 0.3, 0.4)


def recipe(rule, parameters=None, *, base="base", models=FINE_TUNES, **each):
    """A recipe of a rule, with parameters of all, and of each model by its position."""
    return {
        "merge_method": rule,
        "models": [{"model": name, "parameters": {key: value[k] for key, value in each.items()}}
                   for k, name in enumerate(models)],
        **({"base_model": base} if base else {}),
        **({"parameters": parameters} if parameters else {}),
    }  # fmt: skip


DENSITY = (0.4, 0.7, 0.55)
CASES = {
    "linear": recipe("linear", base=None, weight=WEIGHTS),
    "linear, a sum": recipe("linear", {"normalize": False}, base=None, weight=WEIGHTS),
    "slerp": recipe("slerp", {"t": 0.3}, models=("base", "chat")),
    "nuslerp": recipe("nuslerp", base=None, models=FINE_TUNES[:2], weight=WEIGHTS),
    "nuslerp of task vectors": recipe("nuslerp", models=FINE_TUNES[:2], weight=WEIGHTS),
    "nuslerp of rows": recipe("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": True}, base=None,
                              models=FINE_TUNES[:2], weight=WEIGHTS),
    "task_arithmetic": recipe("task_arithmetic", {"lambda": 0.8}, weight=(0.5, -0.3, 0.4)),
    "ties": recipe("ties", weight=WEIGHTS, density=DENSITY),
    "breadcrumbs": recipe("breadcrumbs", weight=WEIGHTS, density=DENSITY, gamma=(0.01, 0.02, 0.1)),
    "breadcrumbs_ties": recipe("breadcrumbs_ties", {"normalize": True}, weight=WEIGHTS, density=DENSITY),
    "model_stock": recipe("model_stock"),
    "model_stock of rows": recipe("model_stock", {"filter_wise": True}),
    "karcher": recipe("karcher", base=None),
    "sce": recipe("sce", {"select_topk": 0.3}),
    "arcee_fusion": recipe("arcee_fusion", models=("base", "code")),
    "nearswap": recipe("nearswap", {"t": 0.002}, models=("base", "math")),
    "passthrough": recipe("passthrough", {"scale": 0.7}, base=None, models=("chat",)),
}  # fmt: skip
RANDOM = ("dare_linear", "dare_ties", "della", "della_linear")
SLOW = {"arcee_fusion"}  # mergekit's takes most of a second

BY_ANGLES = {"slerp", "nuslerp", "model_stock", "karcher"}
BY_ROUNDING = 2e-6


def assert_equal(found, expected, rule=""):
    """Every bit of 16-bit numbers, or all but the last; in float32 what is left of the largest after rounding."""
    differing = ulps(found, expected)
    for name, tensor in found.items():
        if tensor.element_size() == 2:
            assert differing[name] <= (1 if rule in BY_ANGLES else 0), name
        elif tensor.is_floating_point():
            difference = (tensor.double() - expected[name].double()).abs().max()
            assert difference <= BY_ROUNDING * tensor.double().abs().max(), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folders of a family, made once."""
    made = {}

    def of(family, **how):
        key = json.dumps([family, {name: str(value) for name, value in how.items()}])
        if key not in made:
            made[key] = tmp_path_factory.mktemp(family)
            write_models(made[key], family, **how)
        return made[key]

    return of


def both(folder, tmp_path, document, **options):
    """The weights that ours and mergekit make of a document, which stands beside the models."""
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(document))
    ours(path, tmp_path / "ours", **options)
    theirs(path, tmp_path / "theirs")
    return weights(tmp_path / "ours"), weights(tmp_path / "theirs")


def test_every_rule_is_compared():
    assert {case["merge_method"] for case in CASES.values()} | set(RANDOM) == RULES.keys()


@pytest.mark.parametrize("case", CASES)
def test_all_types_of_results(case, folder, tmp_path):
    """mergekit merges in float32, and then casts by torch: that is done here."""
    document = {**CASES[case], "dtype": "float32"}
    found, expected = both(folder("llama"), tmp_path, document)
    assert_equal(found, expected, document["merge_method"])
    for out in ("bfloat16", "float16"):
        path = folder("llama") / "recipe.yml"
        path.write_text(yaml.safe_dump({**document, "out_dtype": out}))
        ours(path, tmp_path / out)
        rounded = {name: tensor.to(getattr(torch, out)) for name, tensor in expected.items()}
        assert_equal(weights(tmp_path / out), rounded, document["merge_method"])


@pytest.mark.parametrize("case", [case for case in CASES if case not in SLOW])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "llama"])
def test_all_families(family, case, folder, tmp_path):
    document = {**CASES[case], "dtype": "float32", "out_dtype": "bfloat16"}
    models = folder(family, num_hidden_layers=1)
    assert_equal(*both(models, tmp_path, document), CASES[case]["merge_method"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["linear", "slerp", "ties"])
def test_models_of_16_bits_in_several_files(case, dtype, folder, tmp_path):
    document = {**CASES[case], "dtype": "float32", "out_dtype": str(dtype).removeprefix("torch.")}
    models = folder("llama", dtype=dtype, shards=True)
    assert len(list((models / "base").glob("model-*.safetensors"))) > 1
    found, expected = both(models, tmp_path, document, shard_bytes=9000)
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 1
    assert_equal(found, expected, case)


ATTENTION = {"llama": "self_attn", "gpt2": "attn", "bert": "attention", "phi": "self_attn"}


@pytest.mark.parametrize("family", ATTENTION)
@pytest.mark.parametrize("case", ["slerp", "ties"])
def test_gradients_and_filters(case, family, folder, tmp_path):
    document = {**CASES[case], "dtype": "float32", "out_dtype": "bfloat16"}
    by_layer = [{"filter": ATTENTION[family], "value": [0.1, 0.9]}, {"filter": "mlp", "value": [1, 0.5, 0.2]}]
    if case == "slerp":
        document["parameters"] = {"t": [*by_layer, {"value": 0.5}]}
    else:
        document["models"][0]["parameters"]["density"] = [*by_layer, {"value": 0.3}]
        document["models"][1]["parameters"]["weight"] = [0.0, 0.5, 1.0]
    assert_equal(*both(folder(family), tmp_path, document), case)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_recipes_as_people_publish_them(path, folder, tmp_path, monkeypatch):
    """Computed in float32 by both: mergekit rounds between its steps to a recipe's ``dtype``, and we do not."""
    models = folder("llama", dtype=torch.bfloat16, num_hidden_layers=6)
    text = path.read_text().replace("models/", "")
    text = re.sub(r"^dtype: (\w+)$(?!\nout_dtype)", r"dtype: float32\nout_dtype: \1", text, flags=re.MULTILINE)
    (models / path.name).write_text(text)
    ours(models / path.name, tmp_path / "ours")
    monkeypatch.setattr(torch, "topk", _first_of_equals)
    theirs(models / path.name, tmp_path / "theirs")
    found, expected = weights(tmp_path / "ours"), weights(tmp_path / "theirs")
    if "dare" in path.stem:
        assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in expected.items()}
    else:
        assert_equal(found, expected, yaml.safe_load(text.split("---")[-1])["merge_method"])
    configs = [{**AutoConfig.from_pretrained(tmp_path / name).to_dict(), "_name_or_path": ""}
               for name in ("ours", "theirs")]  # fmt: skip
    assert configs[0] == configs[1]
    assert AutoTokenizer.from_pretrained(tmp_path / "ours").get_vocab()
    logits = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")(torch.tensor([[3, 5, 8]])).logits
    assert bool(logits.isfinite().all())


def _first_of_equals(values, k, largest=True):
    assert largest
    ordered = values.sort(descending=True, stable=True)
    return ordered.values[:k], ordered.indices[:k]


def kept(found, base, tuned):
    """Of entries that the fine-tune changed, which share is not the base's, and by what the change was multiplied."""
    share, count, factors = 0, 0, []
    for name, tensor in found.items():
        change = tuned[name].double() - base[name].double()
        left = tensor.double() - base[name].double()
        changed = change.abs() > 1e-3
        here = changed & (left.abs() > 1e-6)
        share, count = share + int(here.sum()), count + int(changed.sum())
        if here.any() and tensor.numel() > 200:
            factors.append(float((left[here] / change[here]).median()))
    return share / count, count, sorted(factors)


@pytest.mark.parametrize("rule", RANDOM)
def test_random_rules_keep_as_much_as_mergekits(rule, folder, tmp_path):
    """The share that is kept is that of the density, and what is kept makes up for the rest, in both."""
    models = folder("llama", num_hidden_layers=6)
    document = recipe(rule, models=("chat",), weight=(1.0,), density=(0.4,)) | {"dtype": "float32"}
    found = both(models, tmp_path, document)
    base, tuned = weights(models / "base"), weights(models / "chat")
    for each in found:
        share, count, factors = kept(each, base, tuned)
        expected = 0.4 if rule.startswith("dare") else 0.5  # della keeps more of what is not zero: here a third is
        assert abs(share - expected) <= 4 * math.sqrt(0.25 / count) + (0 if rule.startswith("dare") else 0.06)
        assert 1.6 <= factors[len(factors) // 2] <= 2.9
    shares = [kept(each, base, tuned)[0] for each in found]
    assert abs(shares[0] - shares[1]) <= 6 * math.sqrt(0.25 / count)


def test_another_seed_draws_anew_and_the_same_one_the_same(folder, tmp_path):
    models = folder("llama")
    path = models / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe("dare_ties", weight=WEIGHTS, density=DENSITY)))
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        ours(path, tmp_path / name, seed=seed)
    one, again, other = (weights(tmp_path / name) for name in ("one", "again", "other"))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
