"""Upcycled models: the dense model before the first step, and copies that training tells apart."""

from dataclasses import replace
from itertools import pairwise
from unittest.mock import ANY

import pytest
import torch

from harness.checks.pools import CNN_BN, MLP, build_method, on_test, plain_predict, split
from harness.checks.pools import fine_tunes as classifiers
from harness.cost.counters import parameters_active, parameters_stored
from harness.merging.forms import form_of
from harness.models.weights import load_module
from harness.registry import METHODS
from harness.systems.parts import MemberPart
from harness.systems.systems import load_combination
from harness.types import NotApplicable
from tests.merging.decoders import built, fine_tunes, logits, text


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_before_the_first_step_it_is_the_dense_model(kind, k):
    pool = fine_tunes(kind)
    for start, expected in (("member", pool.members[1]), ("base", pool.base)):
        found = built("upcycle", pool, start=start, index=1, k=k, steps=0)
        torch.testing.assert_close(logits(found.module, text().inputs), logits(load_module(expected), text().inputs),
                                   rtol=1e-4, atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("architecture", [classifiers().members[0].architecture, CNN_BN], ids=str)
@pytest.mark.parametrize("k", [1, 3])
def test_so_of_a_classifier(architecture, k):
    pool = classifiers(architecture=architecture)
    found = build_method("upcycle", pool, index=2, experts=3, k=k, steps=0)
    expected = plain_predict(MemberPart(pool.members[2]), split("test"))
    torch.testing.assert_close(on_test(found), expected, rtol=1e-5, atol=1e-5)


def experts_of(found):
    return found.module.state_dict()["model.layers.1.mlp.experts.down_proj"]


def test_copies_are_equal_without_noise_and_differ_by_as_much_as_is_said():
    pool = fine_tunes()
    dense = pool.members[0].weights["model.layers.1.mlp.down_proj.weight"]
    assert all(torch.equal(each, dense) for each in experts_of(built("upcycle", pool, steps=0)))
    noise = experts_of(built("upcycle", pool, steps=0, noise=0.2)) - dense
    assert float(noise.std() / dense.std()) == pytest.approx(0.2, rel=0.1)
    assert all((one - other).abs().max() > 0 for one, other in pairwise(noise))


def test_training_tells_copies_apart_and_lowers_the_loss():
    pool, train = fine_tunes(), text()
    before, after = (built("upcycle", pool, steps=steps, lr=0.01) for steps in (0, 12))
    copies = experts_of(after)
    assert all((one - other).abs().max() > 1e-3 for one, other in pairwise(copies))

    def loss(found):
        return -found.log_probs(train.inputs).gather(1, train.labels.unsqueeze(1)).mean()

    assert loss(after) < loss(before) - 0.1
    assert after.details["examples_seen"] == 12 * 8
    assert len(after.details["load_in_training"]) == 10
    assert all(sum(load) == pytest.approx(2) for load in after.details["load_in_training"])


@pytest.mark.parametrize("start", ["member", "base"])
def test_one_expert_is_the_dense_model_trained_on_and_costs_no_more(start):
    pool, train = fine_tunes(), text()
    found, before = (built("upcycle", pool, start=start, experts=1, k=1, steps=steps, lr=0.01) for steps in (12, 0))
    dense = pool.base if start == "base" else pool.members[0]
    assert found.architecture == dense.architecture
    assert parameters_active(found) == parameters_stored(found) == sum(p.numel() for p in dense.weights.values())
    assert all(torch.equal(tensor, dense.weights[name]) for name, tensor in before.module.state_dict().items())
    assert found.details == {"dense": dense.name, "examples_seen": 12 * 8, "train_seconds": ANY}

    def loss(found):
        return -found.log_probs(train.inputs).gather(1, train.labels.unsqueeze(1)).mean()

    assert loss(found) < loss(before) - 0.1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "upcycled mixture"),
        ({"start": "base", "experts": 8}, "upcycled mixture from the base (experts 8)"),
        ({"start": "base", "experts": 1, "k": 1}, "dense model trained further from the base (k 1)"),
        ({"experts": 1, "k": 1}, "dense model trained further (k 1)"),
    ],
)
def test_one_expert_is_not_called_a_mixture(given, words):
    method = METHODS.get("upcycle")
    assert method.phrase(method.validate(given), "two") == words


def test_the_expert_of_qwen2_that_all_tokens_share_stays_all_zeros():
    state = built("upcycle", fine_tunes("qwen2"), steps=3).module.state_dict()
    for name in ("gate_proj", "up_proj", "down_proj"):
        assert not state[f"model.layers.0.mlp.shared_expert.{name}.weight"].any()


def test_it_is_saved_and_loaded_like_any_model(tmp_path):
    pool = fine_tunes(tie_word_embeddings=True)
    found = built("upcycle", pool, steps=1)
    found.save(tmp_path)
    assert torch.equal(load_combination(tmp_path, pool).log_probs(text().inputs), found.log_probs(text().inputs))
    form = form_of(pool.members[0].architecture)
    idle = 2 * 2 * 3 * 16 * 24  # two layers, two of four experts
    assert parameters_stored(found) - parameters_active(found) == idle
    assert len(form.routers(found.module)) == 2


@pytest.mark.parametrize(
    ("pool", "given", "why"),
    [
        (lambda: fine_tunes(), {"index": 3}, "there is no member 3: the pool has 3"),
        (lambda: fine_tunes(), {"experts": 1, "k": 1, "noise": 0.1}, "one expert is the dense model itself"),
        (lambda: fine_tunes(), {"k": 5}, "k=5 experts cannot run: there are only 4"),
        (lambda: replace(fine_tunes(), base=None), {"start": "base"}, "no base model"),
        (lambda: fine_tunes("gpt2", n_embd=16, n_head=2, n_layer=1), {}, "'gpt2' has no counterpart"),
        (lambda: classifiers(architecture=MLP), {}, "mlp has no hidden layer that can be split"),
    ],
)
def test_what_it_cannot_do_it_says(pool, given, why):
    pool = pool()
    with pytest.raises(NotApplicable, match=why):
        built("upcycle", pool, **given) if pool.name == "text" else build_method("upcycle", pool, **given)
