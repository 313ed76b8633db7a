"""Merges of adapters: one alone is itself, several are merged as the products that they add, whatever their ranks."""

from dataclasses import replace

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from harness.checks.pools import ingredients, split
from harness.models import forward
from harness.models.precision import with_same_precision
from harness.models.pretrained import load_pretrained
from harness.models.ties import with_same_ties
from harness.models.weights import load_module
from harness.pools.folders import HfPool, plan_folders
from harness.pools.pool import load_pool
from harness.registry import METHODS
from harness.store import Store
from harness.systems.systems import load_combination
from tests.models import test_adapter_base as classifiers
from tests.models.families import build
from tests.models.test_adapters import BIASED, LORAS, lora, put
from tests.models.tiny_classifiers import SETTINGS as CLASSIFIERS
from tests.models.tiny_classifiers import classifier, examples

TOKENS = torch.arange(3, 40)[None]


def base_of(kind, folder, *, tied=False, dtype=torch.float32):
    module = build(kind)
    if tied:
        module.config.tie_word_embeddings = True
        module.tie_weights()
    module.to(dtype).save_pretrained(folder)
    return folder


def pool_of(base, *adapters):
    planned = plan_folders("main", HfPool(base=str(base), members=[str(adapter) for adapter in adapters]))
    return load_pool(planned, Store(base.parent))


def merged(name, pool, **parameters):
    method = METHODS.get(name)
    every = range(len(pool.members))
    given = ingredients(with_same_precision(with_same_ties(pool, every), every), tuple(method.needs))
    return method.apply(given, method.validate(parameters))


def log_probs(module):
    with torch.inference_mode():
        return forward.log_probs(module, TOKENS)


ONE = {
    "uniform_soup": {},
    "task_arithmetic": {"scale": 1.0},
    "ties": {"density": 1.0, "scale": 1.0},
    "dare": {"density": 1.0, "scale": 1.0},
}
SETTINGS = {
    **{f"llama, {name}": ("llama", False, config) for name, config in LORAS.items()
       if name in ("plain", "patterns", "rank-stabilised", "dora", "both saved", "on both", "some tokens",
                   "all at once")},
    **{f"tied llama, {name}": ("llama", True, LORAS[name]) for name in ("head saved", "on embedding", "on both, tied")},
    **{f"gpt2, {name}": ("gpt2", False, lora(**{"target_modules": ["c_attn"], **BIASED[name]}))
       for name in ("all biases", "beside saved modules", "all linear")},
}  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
def test_an_adapter_merged_alone_at_weight_one_is_that_adapter_and_is_so_when_saved_and_loaded_again(setting, tmp_path):
    kind, tied, config = SETTINGS[setting]
    base = base_of(kind, tmp_path / "base", tied=tied)
    pool = pool_of(base, put(tmp_path / "adapter", base, config))
    expected = log_probs(load_module(pool.members[0]))
    assert (expected - log_probs(load_module(pool.base))).abs().max() > 1e-2
    for name, parameters in ONE.items():
        found = merged(name, pool, **parameters)
        torch.testing.assert_close(log_probs(found.module), expected, rtol=0, atol=1e-5)
        (tmp_path / name).mkdir()
        found.save(tmp_path / name)
        again = load_combination(tmp_path / name, pool)
        torch.testing.assert_close(log_probs(again.module), log_probs(found.module), rtol=0, atol=1e-6)
    found.module.save_pretrained(tmp_path / "whole")
    whole = forward.as_read_by("text", load_pretrained(tmp_path / "whole"))
    torch.testing.assert_close(log_probs(whole), log_probs(found.module), rtol=0, atol=1e-6)


def test_so_it_is_on_a_base_in_half_precision(tmp_path):
    """Rounded to the base's precision, it would lose what is small beside the base's weights."""
    base = base_of("llama", tmp_path / "base", dtype=torch.bfloat16)
    pool = pool_of(base, put(tmp_path / "adapter", base, lora(), noise=0.02))
    expected = log_probs(load_module(pool.members[0]))
    for name, parameters in ONE.items():
        torch.testing.assert_close(log_probs(merged(name, pool, **parameters).module), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_so_it_is_on_classifiers(kind, tmp_path):
    """The running statistics of BatchNorm, which a merge computes anew, are the one thing that may differ."""
    base = classifier(kind, tmp_path / "base", classifiers.OWN)
    pool = classifiers.pool_of(kind, base, classifiers.put(tmp_path / "adapter", base, kind, classifiers.lora(kind)))
    batch = examples(kind, tmp_path)
    seen = replace(split("train"), inputs=batch, labels=torch.zeros(len(batch), dtype=torch.int64))
    module = load_module(pool.members[0])
    with torch.inference_mode():
        expected = forward.log_probs(module, batch)
    for name, parameters in ONE.items():
        method = METHODS.get(name)
        given = ingredients(with_same_ties(pool, [0]), tuple(method.needs), train_=seen, heldout_=seen)
        found = method.apply(given, method.validate(parameters)).module
        for tensor_name, tensor in found.named_parameters():
            torch.testing.assert_close(tensor, module.get_parameter(tensor_name), rtol=0, atol=1e-6)
        if kind != "resnet" or name == "uniform_soup":
            with torch.inference_mode():
                torch.testing.assert_close(forward.log_probs(found, batch), expected, rtol=0, atol=1e-5)


def product(folder, layer):
    """What an adapter adds to the weight of a layer, in float64: scaling * B A, by PEFT's rule for the scaling."""
    config = peft.PeftConfig.from_pretrained(folder)
    stored = {name: tensor.double() for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    up, down = (stored.get(f"base_model.model.{layer}.lora_{part}.weight") for part in "BA")
    if up is None:
        return 0.0
    rank = down.shape[0]
    return up @ down * config.lora_alpha / (rank**0.5 if config.use_rslora else rank)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A base and adapters of other ranks, scalings and layers."""
    folder = tmp_path_factory.mktemp("several")
    base = base_of("llama", folder / "base")
    configs = (lora(r=2), lora(r=3, use_rslora=True, target_modules=["q_proj", "v_proj"]),
               lora(r=4, lora_alpha=2, target_modules=["down_proj"]))  # fmt: skip
    return base, [put(folder / f"{k}", base, config) for k, config in enumerate(configs)]


@pytest.mark.parametrize(
    ("name", "parameters", "factors"),
    [
        ("uniform_soup", {}, (1 / 3, 1 / 3, 1 / 3)),
        ("task_arithmetic", {"scale": 1.0}, (1.0, 1.0, 1.0)),
        ("task_arithmetic", {"scale": 0.5, "coefficients": [1.0, -1.0, 2.0]}, (0.5, -0.5, 1.0)),
    ],
    ids=["soup", "sum", "weighted sum"],
)
def test_adapters_of_other_ranks_are_merged_as_their_products(name, parameters, factors, several):
    base, adapters = several
    found = merged(name, pool_of(base, *adapters), **parameters).module.state_dict()
    start = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).state_dict()
    changed = 0
    for weight, tensor in start.items():
        layer = weight.removesuffix(".weight")
        added = sum(factor * product(folder, layer) for factor, folder in zip(factors, adapters, strict=True))
        torch.testing.assert_close(found[weight].double(), tensor + added, rtol=0, atol=1e-6)
        changed += bool(torch.is_tensor(added))
    assert changed == 6


def test_the_soup_is_the_mean_of_pefts_merged_models(several):
    base, adapters = several
    found = merged("uniform_soup", pool_of(base, *adapters)).module.state_dict()
    models = [peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64), folder)
              .merge_and_unload().state_dict() for folder in adapters]  # fmt: skip
    for name, tensor in found.items():
        mean = sum(model[name].double() for model in models) / len(models)
        torch.testing.assert_close(tensor.double(), mean, rtol=0, atol=1e-6)


def test_two_of_one_adapter_add_its_product_twice_and_not_four_times(several):
    """Merged as factors, (A + A)(B + B) would be four times the product; the mean of the two is the adapter."""
    base, (first, *_) = several
    pool = pool_of(base, first, first)
    layer = "model.layers.0.self_attn.q_proj"
    start = load_module(pool.base).state_dict()[f"{layer}.weight"].double()
    for name, parameters, times in (("uniform_soup", {}, 1), ("task_arithmetic", {"scale": 1.0}, 2)):
        found = merged(name, pool, **parameters).module.state_dict()[f"{layer}.weight"].double()
        torch.testing.assert_close(found - start, times * product(first, layer), rtol=0, atol=1e-6)
