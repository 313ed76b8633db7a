"""A model written as an adapter: PEFT runs what is claimed, the factors are numpy's, and so is the error stated."""

import json

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from harness.errors import BadInput
from harness.merging.lowrank import total_error
from harness.models import architectures, forward
from harness.models.weights import load_module, module_with, save_network
from harness.pools.folders import HfPool, plan_folders
from harness.pools.pool import load_pool
from harness.publish import adapter
from harness.publish.adapter import write_adapter
from harness.store import Store
from harness.types import Architecture
from tests.methods.weights import test_adapters as language
from tests.models import test_adapter_base as classifiers
from tests.models.families import build
from tests.models.test_adapters import BIASED, lora, put
from tests.models.tiny_classifiers import SETTINGS, classifier, examples, save_reader

TOKENS = torch.stack([torch.arange(3, 40), torch.arange(60, 23, -1)])


def log_probs(module, batch):
    with torch.inference_mode():
        return forward.log_probs(module, batch)


def write(module, pool, rank, batch, folder):
    folder.mkdir()
    return write_adapter(module, pool.base, rank, batch, folder)


def as_peft_runs(folder, base, auto=AutoModelForCausalLM, **loading):
    model = auto.from_pretrained(base, dtype=torch.float32, **loading)
    return peft.PeftModel.from_pretrained(model, folder).eval()


def config_of(folder):
    return json.loads((folder / "adapter_config.json").read_text())


# Language models.

SOUPS = {
    "other ranks and layers": ("llama", False, [lora(r=2), lora(r=3, target_modules=["q_proj", "v_proj"])]),
    "on a tied base": ("llama", True, [lora(r=2), lora(r=3, target_modules=["down_proj"])]),
    "both ends": ("llama", False, [lora(r=2), lora(r=3, target_modules=["embed_tokens", "lm_head"])]),
    "one end, tied": ("llama", True, [lora(r=2), lora(r=3, target_modules=["lm_head"])]),
    "saved norms": ("llama", False, [lora(r=2, modules_to_save=["norm"]), lora(r=3)]),
    "saved head, tied": ("llama", True, [lora(r=2), lora(r=2, modules_to_save=["lm_head"])]),
    "biases": ("qwen2", False, [lora(r=2, bias="all"), lora(r=3, bias="lora_only")]),
    "transposed weights": ("gpt2", False, [lora(**{**BIASED["all linear"], "r": 2}),
                                           lora(r=3, target_modules=["c_attn"], modules_to_save=["ln_f"])]),
}  # fmt: skip


def soup(name, folder):
    kind, tied, configs = SOUPS[name]
    base = language.base_of(kind, folder / "base", tied=tied)
    pool = language.pool_of(base, *(put(folder / f"{k}", base, config, seed=k) for k, config in enumerate(configs)))
    return pool, language.merged("uniform_soup", pool).module


@pytest.mark.parametrize("name", SOUPS)
def test_a_soup_at_the_sum_of_its_members_ranks_is_exact(name, tmp_path):
    pool, module = soup(name, tmp_path)
    rank = 32 if "head" in name else 5  # a head that is saved whole has no smaller rank
    written = write(module, pool, rank, TOKENS, tmp_path / "out")
    expected = log_probs(module, TOKENS)
    tolerance = 1e-5 * float(expected.abs().max())
    theirs = as_peft_runs(tmp_path / "out", tmp_path / "base")
    with torch.inference_mode():
        found = torch.log_softmax(theirs(input_ids=TOKENS[:, :-1]).logits, dim=-1).flatten(0, 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    assert written.gap == pytest.approx(float((found - expected).abs().max()), abs=1e-6)
    again = language.pool_of(tmp_path / "base", tmp_path / "out").members[0]
    torch.testing.assert_close(log_probs(load_module(again), TOKENS), expected, rtol=0, atol=tolerance)
    assert max(each.error for each in written.split.factors.values()) < 1e-6
    assert config_of(tmp_path / "out")["task_type"] == "CAUSAL_LM"


def test_ranks_that_suffice_are_written_as_patterns_that_name_one_layer_each(tmp_path):
    pool, module = soup("other ranks and layers", tmp_path)
    write(module, pool, 8, TOKENS, tmp_path / "out")
    config = config_of(tmp_path / "out")
    attention = [f"model.layers.{layer}.self_attn" for layer in range(2)]
    expected = {f"^{each}.{name}_proj": rank for each in attention for name, rank in (("q", 5), ("v", 3))}
    assert config["rank_pattern"] == expected
    assert config["alpha_pattern"] == config["rank_pattern"]
    assert (config["r"], config["lora_alpha"], config["modules_to_save"]) == (8, 8, None)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A model all of whose weights were changed."""
    folder = tmp_path_factory.mktemp("tuned")
    base = language.base_of("llama", folder / "base")
    pool = language.pool_of(base, base)
    module = load_module(pool.members[0])
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return pool, module, base


def test_factors_are_those_of_numpy_and_the_errors_stated_are_theirs(tuned, tmp_path):
    pool, module, base = tuned
    written = write(module, pool, 3, TOKENS, tmp_path / "out")
    merged = as_peft_runs(tmp_path / "out", base).merge_and_unload().state_dict()
    start, ours = AutoModelForCausalLM.from_pretrained(base).state_dict(), module.state_dict()
    missed = {}
    for name, tensor in merged.items():
        change = (ours[name].double() - start[name].double()).numpy()
        if change.ndim == 2:
            left, values, right = np.linalg.svd(change, full_matrices=False)
            change = (left[:, :3] * values[:3]) @ right[:3]
            missed[name] = np.linalg.norm(values[3:]), np.linalg.norm(values)
        np.testing.assert_allclose(tensor.double().numpy(), start[name].double().numpy() + change, atol=1e-6)
    worst = max(missed, key=lambda name: missed[name][0] / missed[name][1])
    lost, whole = (np.linalg.norm([each[k] for each in missed.values()]) for k in range(2))
    said = (f"relative error of the differences (Frobenius) {lost / whole:.2g} in all, "
            f"{missed[worst][0] / missed[worst][1]:.2g} at most, in {worst.removesuffix('.weight')}")  # fmt: skip
    assert said in str(written)
    assert set(written.split.whole) == {name.removesuffix(".weight") for name in ours if "norm" in name}
    assert f"log-probabilities within {written.gap:.2g} of the model's on 2 test inputs" in str(written)
    assert written.gap > 0.01


def test_a_sum_of_adapters_is_the_one_that_peft_makes_by_svd(tmp_path):
    base = language.base_of("llama", tmp_path / "base")
    folders = [put(tmp_path / f"{k}", base, lora(r=rank), seed=k) for k, rank in enumerate((3, 4))]
    pool = language.pool_of(base, *folders)
    summed = language.merged("task_arithmetic", pool, scale=1.0).module
    write(summed, pool, 2, TOKENS, tmp_path / "out")
    theirs = as_peft_runs(folders[0], base)
    theirs.load_adapter(str(folders[1]), "other")
    theirs.add_weighted_adapter(["default", "other"], [1.0, 1.0], "sum", combination_type="svd", svd_rank=2)
    theirs.set_adapter("sum")
    expected, found = (each.merge_and_unload().state_dict() for each in (theirs, as_peft_runs(tmp_path / "out", base)))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=2e-5)


def test_a_larger_rank_is_never_further_away(tuned, tmp_path):
    pool, module, _ = tuned
    errors = [total_error(write(module, pool, rank, TOKENS, tmp_path / f"{rank}").split.factors.values())
              for rank in (1, 4, 8)]  # fmt: skip
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == 3


def test_an_embedding_that_is_tied_to_the_output_layer_stays_so(tmp_path):
    base = language.base_of("llama", tmp_path / "base", tied=True)
    pool = language.pool_of(base, base)
    module = load_module(pool.members[0])
    with torch.no_grad():
        module.model.embed_tokens.weight.add_(torch.randn(64, 2) @ torch.randn(2, 32) / 9)
    written = write(module, pool, 4, TOKENS, tmp_path / "out")
    assert list(written.split.factors) == ["model.embed_tokens"]
    assert config_of(tmp_path / "out")["ensure_weight_tying"]
    again = load_module(language.pool_of(base, tmp_path / "out").members[0])
    torch.testing.assert_close(log_probs(again, TOKENS), log_probs(module, TOKENS), rtol=0, atol=1e-4)


def test_writing_it_again_gives_the_same_bytes(tuned, tmp_path):
    pool, module, _ = tuned
    for seed in (1, 2):
        torch.manual_seed(seed)
        write(module, pool, 3, TOKENS, tmp_path / str(seed))
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    targets = config_of(tmp_path / "1")["target_modules"]
    assert targets == sorted(targets)  # as a set they would stand in another order in another process


def refused(module, pool, words, folder, rank=2):
    with pytest.raises(BadInput, match=words) as caught:
        write(module, pool, rank, TOKENS, folder)
    assert "\n" not in str(caught.value)


def test_what_factors_cannot_hold_is_refused_by_name(tuned, tmp_path):
    pool, module, _ = tuned
    refused(load_module(pool.base), pool, "the model is its base", tmp_path / "same")
    changed = load_module(pool.base)
    with torch.no_grad():
        changed.model.norm.weight.add_(1)
    refused(changed, pool, r"only model\.norm differ", tmp_path / "norm")
    wider = module_with(pool.base.architecture, module.state_dict())
    wider.resize_token_embeddings(70)
    refused(wider, pool, r"'lm_head\.weight' has another shape in its base", tmp_path / "wider")
    words = r"'model\.layers\.0\.mlp\.down_proj\.weight' is in one of the two only"
    refused(build("mixtral"), pool, words, tmp_path / "other")


def test_an_adapter_that_peft_runs_otherwise_is_refused(tuned, tmp_path, monkeypatch):
    def careless(layer, factors):
        layer.lora_A["default"].weight.copy_(factors.down)

    monkeypatch.setattr(adapter, "_fill", careless)
    pool, _, _ = tuned
    only = load_module(pool.base)
    with torch.no_grad():
        only.model.layers[0].self_attn.q_proj.weight.add_(0.1 * torch.randn(32, 32))
    refused(only, pool, "the adapter is another model when peft runs it", tmp_path / "out")


# Classifiers.


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_soup_of_classifiers_is_exact_and_its_labels_are_the_bases(kind, tmp_path):
    base = classifier(kind, tmp_path / "base", classifiers.OWN)
    configs = [classifiers.lora(kind, r=rank) for rank in (2, 3)]
    folders = [classifiers.put(tmp_path / f"{k}", base, kind, config, seed=k) for k, config in enumerate(configs)]
    pool = classifiers.pool_of(kind, base, *folders)
    batch = examples(kind, tmp_path)
    first = load_module(pool.members[0])
    state = {name: (one + pool.members[1].weights[name]) / 2 if one.is_floating_point() else one
             for name, one in pool.members[0].weights.items()}  # fmt: skip
    module = module_with(pool.members[0].architecture, state)
    written = write(module, pool, 5, batch, tmp_path / "out")
    expected = log_probs(module, batch)
    theirs = as_peft_runs(tmp_path / "out", base, classifiers.auto(kind)).get_base_model()
    found = torch.log_softmax(classifiers.logits(theirs, first, batch), dim=-1)[:, classifiers.ORDER]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
    assert written.split.whole[0].startswith("classifier")
    again = classifiers.pool_of(kind, base, tmp_path / "out").members[0]
    torch.testing.assert_close(log_probs(load_module(again), batch), expected, rtol=0, atol=1e-4)


def test_convolutions_become_factors_and_batch_norm_is_saved_with_its_statistics(tmp_path):
    base = classifier("resnet", tmp_path / "base", classifiers.OWN)
    pool = classifiers.pool_of("resnet", base, base)
    batch, module = examples("resnet", tmp_path), load_module(pool.members[0])
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                change = 0.05 * torch.randn(tensor.shape, generator=generator)
                tensor.add_(change.abs() if "var" in name else change)
            else:
                tensor.add_(3)
    written = write(module, pool, 6, batch, tmp_path / "out")
    merged = as_peft_runs(tmp_path / "out", base, classifiers.auto("resnet")).merge_and_unload().state_dict()
    start, ours = pool.base.weights, module.state_dict()
    convolutions = 0
    for name, tensor in merged.items():
        if "classifier" in name:
            continue
        change = (ours[name].double() - start[name].double()).numpy()
        if change.ndim == 4 and min(change.shape[0], change[0].size) > 6:
            left, values, right = np.linalg.svd(change.reshape(len(change), -1), full_matrices=False)
            change = ((left[:, :6] * values[:6]) @ right[:6]).reshape(change.shape)
            convolutions += 1
        np.testing.assert_allclose(tensor.double().numpy(), start[name].double().numpy() + change, atol=1e-5)
    assert convolutions == len(written.split.factors) > 3
    assert any(path.endswith("normalization") for path in written.split.whole)


def test_on_a_base_without_a_head_the_adapter_brings_it(tmp_path):
    """The head, and the pooler that only classifiers have: factors of what is drawn would be lost."""
    classifier("bert", tmp_path / "whole", classifiers.OWN)
    AutoModel.from_pretrained(tmp_path / "whole", add_pooling_layer=False).save_pretrained(tmp_path / "base")
    save_reader("bert", tmp_path / "base")
    member = classifier("bert", tmp_path / "member", classifiers.OWN, seed=1)
    pool = classifiers.pool_of("bert", tmp_path / "base", member)
    batch, module = examples("bert", tmp_path), load_module(pool.members[0])
    written = write(module, pool, 15, batch, tmp_path / "out")
    assert {"bert.pooler.dense", "classifier"} <= set(written.split.whole)
    assert str(written).endswith("which the base does not name, are in this order: eggs, ham, spam")
    theirs = as_peft_runs(tmp_path / "out", tmp_path / "base", classifiers.auto("bert"), num_labels=3)
    logits = classifiers.logits(theirs.get_base_model(), module, batch)  # whose rows have the task's order
    found = torch.log_softmax(logits, dim=-1)
    assert float((found - log_probs(module, batch)).abs().max()) == pytest.approx(written.gap, abs=1e-5)
    again = classifiers.pool_of("bert", tmp_path / "base", tmp_path / "out", names=classifiers.TASK).members[0]
    torch.testing.assert_close(log_probs(load_module(again), batch), found, rtol=0, atol=1e-4)


def test_a_network_of_ours_is_no_base(tmp_path):
    architecture = Architecture("mlp", (("classes", 3), ("hidden", 4), ("side", 4)))
    save_network(architecture, architectures.build(architecture).eval(), tmp_path)
    pool = load_pool(plan_folders("main", HfPool(base=str(tmp_path), members=[str(tmp_path)])), Store(tmp_path))
    with pytest.raises(BadInput, match="only models of transformers"):
        write_adapter(load_module(pool.base), pool.base, 2, torch.zeros(1, 1, 4, 4), tmp_path)
