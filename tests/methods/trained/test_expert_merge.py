"""Merged experts: one expert alone, routers against their definitions, and training that moves nothing else."""

from dataclasses import replace

import pytest
import torch
from mergekit.moe.router import get_hidden_states
from transformers import BatchEncoding

from harness.checks.pools import CNN, CNN_BN, MLP, build_method, ingredients, on_test, plain_predict, split
from harness.checks.pools import fine_tunes as classifiers
from harness.cost.counters import flops_per_example, parameters_active
from harness.merging.arithmetic import average
from harness.merging.forms import form_of
from harness.merging.own_data import own_data, spread
from harness.models.weights import load_module, module_with
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination, SingleModel, load_combination, member_parts
from harness.types import NotApplicable, Pool, Tokenizer
from tests.merging.decoders import GROUPS, LENGTH, built, dense, fine_tunes, logits, text

GATES = ("prototype", "hidden", "random", "trained")


def mean_of(pool):
    return average([each.weights for each in pool.members])


def soup(pool):
    return module_with(pool.members[0].architecture, mean_of(pool))


def forced(module, form, expert):
    """Every router picks this expert alone, with weight 1."""
    for router in form.routers(module):
        if form.active == "top_k":
            router.register_forward_hook(
                lambda _, given, out: (out[0], torch.ones_like(out[1]), torch.full_like(out[2], expert))
            )
        else:
            router.register_forward_hook(
                lambda _, given, out: replace(
                    out, chosen=torch.full_like(out.chosen, expert), weights=torch.ones_like(out.weights)
                )
            )


class Words:
    """A tokenizer of letters."""

    bos_token = "a"

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [ord(letter) - ord("a") for letter in text]}


PROMPTS = [["bcd", "efg"], ["hij", "klm"], ["nop", "qrs"]]


@pytest.fixture
def worded(monkeypatch):
    """Members with a tokenizer that users' texts are read by."""
    monkeypatch.setattr("harness.merging.own_data.read_tokenizer", lambda folder: Words())
    pool, letters = fine_tunes(), Tokenizer("letters", "nowhere", 26)
    return replace(pool, members=tuple(replace(each, tokenizer=letters) for each in pool.members))


# One expert


@pytest.mark.parametrize("expert", range(3))
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_a_router_frozen_on_one_expert_gives_it_with_the_average_of_all_else(kind, expert):
    pool = fine_tunes(kind)
    found = built("expert_merge", pool, gate="random", k=1)
    forced(found.module, form_of(pool.members[0].architecture), expert)
    own = {name: tensor for name, tensor in pool.members[expert].weights.items() if ".mlp." in name}
    expected = logits(dense({**mean_of(pool), **own}, pool.members[0]), text().inputs)
    torch.testing.assert_close(logits(found.module, text().inputs), expected, rtol=1e-4, atol=1e-4)
    assert (expected - logits(load_module(pool.members[expert]), text().inputs)).abs().max() > 0.01


@pytest.mark.parametrize("expert", range(3))
def test_so_of_a_classifier(expert):
    pool = classifiers()
    found = build_method("expert_merge", pool, gate="random", k=1)
    forced(found.module, form_of(CNN), expert)
    own = {name: tensor for name, tensor in pool.members[expert].weights.items() if name.startswith("hidden.")}
    module = module_with(CNN, {**mean_of(pool), **own})
    torch.testing.assert_close(on_test(found), on_test(SingleModel(CNN, module)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gate", GATES)
def test_copies_of_one_model_are_that_model(gate):
    pool = fine_tunes()
    copies = [replace(pool.members[0], name=each.name, provenance=each.provenance) for each in pool.members]
    found = built("expert_merge", Pool("text", "fine_tunes", tuple(copies)), gate=gate, steps=2)
    expected = logits(load_module(pool.members[0]), text().inputs)
    torch.testing.assert_close(logits(found.module, text().inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("given", [{"gate": "random"}, {"prompts": PROMPTS}])
def test_neither_drawn_routers_nor_texts_need_a_training_split(worded, given):
    none = replace(text(), inputs=text().inputs[:0], labels=text().labels[:0], ids=[], groups=[])
    found, expected = (built("expert_merge", worded, train=train, **given) for train in (none, text()))
    assert torch.equal(found.log_probs(text().inputs), expected.log_probs(text().inputs))
    with pytest.raises(NotApplicable, match="no training split"):
        built("expert_merge", worded, train=none)


# Routers


def routers_of(found, pool):
    return [router.weight.detach() for router in form_of(pool.members[0].architecture).routers(found.module)]


def unit(vectors):
    return vectors / vectors.norm(dim=-1, keepdim=True)


def states(module, tokens):
    """What each layer's normalisation before the feed-forward part gives, and what enters the layer, by hooks."""
    seen, entering = [], []
    for layer in module.model.layers:
        layer.post_attention_layernorm.register_forward_hook(lambda _, given, found: seen.append(found))
        layer.register_forward_pre_hook(lambda _, given: entering.append(given[0]))
    logits(module, tokens)
    return torch.stack(seen), torch.stack(entering)


def test_prototypes_are_mean_states_before_the_experts_on_the_data_of_each():
    pool, train = fine_tunes(), text()
    found = built("expert_merge", pool)
    for expert, group in enumerate(GROUPS):
        own = train.inputs[[row for row, name in enumerate(train.groups) if name == group]]
        expected = unit(states(soup(pool), own[:, :-1])[0].mean(dim=(1, 2)))
        torch.testing.assert_close(torch.stack(routers_of(found, pool))[:, expert], expected, rtol=1e-5, atol=1e-6)
    assert found.details["own_data"] == [f"8 training inputs of {group}" for group in GROUPS]


def test_hidden_routers_are_those_of_mergekit_moe(worded):
    pool = worded
    found = built("expert_merge", pool, gate="hidden", prompts=PROMPTS)
    module = soup(pool)
    for expert, texts in enumerate(PROMPTS):
        tokens = torch.tensor([Words()("a" + each, False)["input_ids"] for each in texts])
        expected = unit(get_hidden_states(module, BatchEncoding({"input_ids": tokens}), average=False))
        torch.testing.assert_close(torch.stack(routers_of(found, pool))[:, expert], expected, rtol=1e-5, atol=1e-6)


def test_prototypes_of_texts_are_means_over_all_their_tokens(worded):
    pool = worded
    found = built("expert_merge", pool, prompts=[["bcde", "f"], ["hij"], ["nop"]])
    module = soup(pool)
    seen = [states(module, torch.tensor([tokens]))[0] for tokens in ([0, 1, 2, 3, 4], [0, 5])]
    expected = unit(torch.cat([each[: len(module.model.layers)] for each in seen], dim=2).mean(dim=(1, 2)))
    torch.testing.assert_close(torch.stack(routers_of(found, pool))[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_random_routers_are_drawn_as_mergekit_moe_draws_them():
    pool = fine_tunes()
    torch.manual_seed(7)
    expected = torch.randn(2, 3, 16)  # layers, experts, hidden
    found = torch.stack(routers_of(built("expert_merge", pool, seed=7, gate="random"), pool))
    assert torch.equal(found, expected)


def test_training_moves_the_routers_alone_and_lowers_the_loss():
    pool, train = fine_tunes(), text()
    before, after = (built("expert_merge", pool, gate=gate, k=1, steps=15, lr=0.05)
                     for gate in ("prototype", "trained"))  # fmt: skip
    changed = [name for name, tensor in after.module.state_dict().items()
               if not torch.equal(tensor, before.module.state_dict()[name])]  # fmt: skip
    assert changed == [f"model.layers.{layer}.mlp.gate.weight" for layer in range(2)]
    assert all(parameter.requires_grad for parameter in after.module.parameters())
    assert not any(hasattr(part, "aux_loss") for part in after.module.modules())

    def loss(found):
        return -found.log_probs(train.inputs).gather(1, train.labels.unsqueeze(1)).mean()

    assert loss(after) < loss(before) - 1e-3


@pytest.mark.parametrize("architecture", [CNN, CNN_BN], ids=str)
def test_so_of_a_classifier_with_or_without_batchnorm(architecture):
    pool = classifiers(architecture=architecture)
    before, after = (build_method("expert_merge", pool, gate=gate, steps=20) for gate in ("prototype", "trained"))
    changed = {name for name, tensor in after.module.state_dict().items()
               if not torch.equal(tensor, before.module.state_dict()[name])}  # fmt: skip
    assert changed == {"hidden.gate.weight", "hidden.gate.noise"}


# The data of each


def test_where_nothing_says_what_each_was_trained_on_it_is_what_each_says_best():
    pool, examples = classifiers(), split("train")
    found = own_data_of(pool, examples)
    scores = torch.stack([plain_predict(MemberPart(each), examples).gather(1, examples.labels.unsqueeze(1)).squeeze()
                          for each in pool.members])  # fmt: skip
    for expert, batches in enumerate(found.batches):
        expected = examples.inputs[scores.argmax(dim=0) == expert]
        assert torch.equal(torch.cat(list(batches)) if batches else expected[:0], expected)


def own_data_of(pool, examples, **given):
    return own_data(ingredients(pool, ("members", "train"), train_=examples), **given)


def test_members_of_one_group_are_told_apart_by_what_they_say_best():
    pool = fine_tunes()
    alike = replace(pool, members=tuple(replace(each, provenance={"groups": ["low"]}) for each in pool.members))
    assert all("highest probability" in words for words in own_data_of(alike, text()).words)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"groups": ["low"]}, "'data' has 1 items, and there are 3 members"),
        ({"groups": ["low", "odd", "high"]}, "no training examples are of 'odd': its groups are even, high, low"),
        ({"prompts": [["a"]]}, "'prompts' has 1 items"),
        ({"prompts": [["a"], ["b"], ["c"]]}, "'prompts' are for language models"),
        ({"groups": ["low"] * 3, "prompts": [["a"]] * 3}, "both say what each expert is for"),
    ],
)
def test_data_that_is_not_of_the_members_is_refused(given, why):
    with pytest.raises(NotApplicable, match=why):
        own_data_of(fine_tunes(), text(), **given)


@pytest.mark.parametrize(("labels", "expected"), [(10**6, 24), (16 * 8, 16), (9, 1), (1, 1)])
def test_of_many_examples_as_many_are_looked_at_as_have_so_many_labels(labels, expected):
    rows = spread(text(), range(24), labels)
    assert len(set(rows)) == expected
    assert rows == sorted(rows)
    assert spread(text(), [], labels) == []


def test_an_expert_without_a_text_is_refused(worded):
    with pytest.raises(NotApplicable, match="an expert without a text"):
        own_data_of(worded, text(), prompts=[["a"], [], ["c"]])


# What it is


def test_it_is_saved_and_loaded_like_any_model(tmp_path):
    pool = fine_tunes(tie_word_embeddings=True)
    found = built("expert_merge", pool)
    found.save(tmp_path)
    again = load_combination(tmp_path, pool)
    assert torch.equal(again.log_probs(text().inputs), found.log_probs(text().inputs))


def test_it_costs_what_its_active_experts_cost():
    pool = fine_tunes(vocab_size=50)
    one = sum(tensor.numel() for tensor in pool.members[0].weights.values())
    expert, gate = 3 * 16 * 24, 3 * 16
    for k in (1, 2, 3):
        found = built("expert_merge", pool, k=k)
        assert parameters_active(found) == one + 2 * ((k - 1) * expert + gate)
        single = OutputCombination(member_parts(ingredients(pool))[:1], Linear(uniform(1)))
        more = flops_per_example(found, text().inputs) - flops_per_example(single, text().inputs)
        assert more == 2 * (LENGTH - 1) * 2 * ((k - 1) * expert + gate)


@pytest.mark.parametrize(("method", "experts"), [("expert_merge", 3), ("upcycle", 3), ("moe", 4)])
@pytest.mark.parametrize("k", [1, 3])
def test_so_of_a_classifier_whose_experts_are_its_hidden_layer_and_nothing_more(method, experts, k):
    pool, inputs = classifiers(), split("test").inputs
    given = {"expert_merge": {}, "upcycle": {"experts": experts, "steps": 0}, "moe": {"epochs": 1}}[method]
    found = build_method(method, pool, k=k, **given)
    dense = OutputCombination(member_parts(ingredients(pool))[:1], Linear(uniform(1)))
    width, features = pool.members[0].weights["hidden.weight"].shape
    more = parameters_active(found) - parameters_active(dense)
    assert more == (k - 1) * (width * features + width) + experts * features
    more = flops_per_example(found, inputs) - flops_per_example(dense, inputs)
    assert more == 2 * ((k - 1) * width * features + experts * features)


@pytest.mark.parametrize(
    ("pool", "given", "why"),
    [
        (lambda: fine_tunes(), {"k": 4}, "k=4 experts cannot run: there are only 3"),
        (lambda: fine_tunes("gpt2", n_embd=16, n_head=2, n_layer=1), {}, "'gpt2' has no counterpart"),
        (lambda: fine_tunes("llama", attention_bias=True), {}, "'mixtral' has no 'attention_bias: True'"),
        (lambda: classifiers(architecture=MLP), {}, "mlp has no hidden layer that can be split"),
        (lambda: classifiers(), {"gate": "hidden"}, "gate 'hidden' is for language models"),
    ],
)
def test_what_it_cannot_do_it_says(pool, given, why):
    pool = pool()
    with pytest.raises(NotApplicable, match=why):
        built("expert_merge", pool, **given) if pool.name == "text" else build_method("expert_merge", pool, **given)
