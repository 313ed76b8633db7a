"""Members that tie their ends merge with members that do not, as the two tensors that they hold."""

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.checks.pools import ingredients
from harness.models.ties import with_same_ties
from harness.models.weights import load_module
from harness.pools.folders import HfPool, plan_folders
from harness.pools.pool import load_pool
from harness.registry import METHODS
from harness.store import Store
from tests.models.families import build
from tests.models.test_adapter_base import pool_of as classifiers
from tests.models.tiny_classifiers import SETTINGS, classifier

TOKENS = torch.arange(3, 15)[None]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A tied base, an adapter that trains its output layer, and one that does not."""
    folder = tmp_path_factory.mktemp("ties")
    module = build("llama")
    module.config.tie_word_embeddings = True
    module.tie_weights()
    module.save_pretrained(folder / "base")
    for name, saved in (("head", ["lm_head"]), ("plain", None)):
        torch.manual_seed(1)
        config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=saved, init_lora_weights=False)
        adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "base"), config)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1)
        adapted.save_pretrained(folder / name)
    recipe = HfPool(base=str(folder / "base"), members=[str(folder / name) for name in ("head", "plain")])
    return load_pool(plan_folders("main", recipe), Store(folder))


def logits(member):
    with torch.inference_mode():
        return load_module(member)(input_ids=TOKENS).logits


def test_untied_members_say_what_they_said(pool):
    untied = with_same_ties(pool, [0, 1])
    for before, after in zip((pool.base, *pool.members), (untied.base, *untied.members), strict=True):
        torch.testing.assert_close(logits(after), logits(before), rtol=1e-6, atol=1e-6)
        assert list(after.weights) == list(untied.members[0].weights)
    assert untied.members[0] is pool.members[0]


def test_a_pool_whose_members_all_tie_is_left_alone(pool):
    alike = pool.subset([1])
    assert with_same_ties(alike, [0]) is alike
    assert with_same_ties(pool, [1]) is pool  # a row depends on the members that it uses


def test_task_vectors_of_both_add_up(pool):
    method = METHODS.get("task_arithmetic")
    untied = with_same_ties(pool, [0, 1])
    given = ingredients(untied, tuple(method.needs))
    found = method.apply(given, method.validate({"scale": 1.0})).module.state_dict()
    for name, start in untied.base.weights.items():
        expected = start + sum(member.weights[name] - start for member in untied.members)
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])


@pytest.mark.parametrize("kind", SETTINGS)
def test_classifiers_have_nothing_to_tie(kind, tmp_path):
    base = classifier(kind, tmp_path / "base", ("eggs", "ham", "spam"))
    alike = classifiers(kind, base, base)
    assert with_same_ties(alike, [0]) is alike
